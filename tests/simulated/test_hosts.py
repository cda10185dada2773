"""Simulated hosts do the documented system's work with the real runner."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulated.tools import TOOLS
from simulated.transport import BIN
from simulated.world import World, install, open_installation


def ok(api: Any, call: str, *args: Any) -> Any:
    done, payload = getattr(api, call)(*args)
    assert done, f"{call}: {payload} {getattr(payload, 'details', '')}"
    return payload


def test_a_slice_is_deployed_and_deleted_and_nothing_remains(tmp_path: Path) -> None:
    with World() as world:
        api = install(world, tmp_path / "image")
        made = ok(api, "create_slice", "admin", "test")["slice_id"]
        first = ok(api, "add_vm_to_slice", "admin", made, "a", "cirros", 1, True)["vm_id"]
        second = ok(api, "add_vm_to_slice", "admin", made, "b", "cirros", 1)["vm_id"]
        ok(api, "create_link", "admin", made, first, "eth1", second, "eth1")
        before = world.look()
        ok(api, "deploy_slice", "admin", made)
        during = world.look()
        assert sum(len(host["programs"]) for host in during.values()) == 4
        ok(api, "delete_slice", "admin", made)
        after = world.look()
        for host in after.values():
            assert not any("vm-" in path or "dhcp" in path for path in host["files"])
            del host["files"]
        for host in before.values():
            del host["files"]
        assert after == before
        assert world.control.ask("violations") == []
        api.executor.close()
        api.db.close()


def deployed(world: World, folder: Path) -> tuple[Any, int]:
    """A slice with one machine that runs, and its id."""
    api = install(world, folder / "image")
    made = ok(api, "create_slice", "admin", "test")["slice_id"]
    ok(api, "add_vm_to_slice", "admin", made, "a", "cirros", 1)
    ok(api, "deploy_slice", "admin", made)
    return api, made


def machine_of(world: World) -> tuple[str, int]:
    """The one machine of a world: its host's name and its process id, as the host's own files say it."""
    (path,) = world.directory.glob("*/root/run/cloudrepo-*/vm-*/pid")
    return path.relative_to(world.directory).parts[0], int(path.read_text().split()[0])


def end(api: Any) -> None:
    api.executor.close()
    api.db.close()


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_each_tool_has_its_name_in_path_and_nothing_else_has() -> None:
    assert {path.name for path in BIN.iterdir()} == set(TOOLS)


def test_a_second_qemu_on_a_disk_is_refused_and_noted(tmp_path: Path) -> None:
    with World() as world:
        api, _ = deployed(world, tmp_path)
        name, pid = machine_of(world)
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[1:-1]
        words = [os.path.basename(words[0]), *words[1:]]
        while "-netdev" in words:  # the disk alone
            del words[words.index("-netdev") : words.index("-netdev") + 4]
        answer = world.control.ask("ask", host=name, words=words)
        assert answer["status"] == 1 and 'Failed to get "write" lock' in answer["err"]
        assert len(world.control.ask("violations")) == 1
        end(api)


def test_a_killed_machine_is_gone_and_a_stopped_one_answers_nobody(tmp_path: Path) -> None:
    with World() as world:
        api, made = deployed(world, tmp_path)
        name, pid = machine_of(world)
        os.kill(pid, signal.SIGSTOP)
        (host,) = [api.site.host(ip) for ip, known in world.names.items() if known == name]
        (frozen,) = [one for one in api.site.reconciler.observe([host])[host.ip].values() if one.KIND == "VM"]
        assert frozen.status == "frozen"
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(one["programs"] for one in world.look().values()))
        ok(api, "delete_slice", "admin", made)
        end(api)


def test_what_a_world_started_ends_with_it(tmp_path: Path) -> None:
    with World() as world:
        api, _ = deployed(world, tmp_path)
        _, pid = machine_of(world)
        end(api)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert not world.directory.exists()


def test_what_a_killed_test_started_ends_with_it(tmp_path: Path) -> None:
    """A process makes a world with a machine in it, and is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            world = World()
            deployed(world, tmp_path)
            os.write(writing, f"{machine_of(world)[1]} {world.directory}".encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as pipe:
        pid, directory = pipe.read1(1000).decode().split()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() and not Path(directory).exists())


def test_a_copied_world_goes_on_where_the_first_one_was(tmp_path: Path) -> None:
    with World() as world:
        api, made = deployed(world, tmp_path)
        end(api)
        before, picture = world.look(), world.take_picture()
    with World(picture) as copy:
        assert copy.look() == before
        api = open_installation(copy)
        ok(api, "stop_slice", "admin", made)
        assert not any(host["programs"] for host in copy.look().values())
        end(api)


def test_a_host_without_power_is_unreachable_and_has_only_its_disks_after_a_boot(tmp_path: Path) -> None:
    with World() as world:
        api, made = deployed(world, tmp_path)
        name, _ = machine_of(world)
        world.control.ask("power", host=name, on=False)
        done, message = api.delete_slice("admin", made)
        assert not done and "not deleted yet" in str(message)
        world.control.ask("power", host=name, on=True)
        there = world.look()[name]
        assert not there["programs"] and set(there["spaces"]) == {""}
        assert any(path.endswith("_img.qcow2") for path in there["files"])
        ok(api, "delete_slice", "admin", made)
        end(api)


def test_an_older_state_file_is_put_back_and_hosts_say_which_numbers_they_saw(tmp_path: Path) -> None:
    with World() as world:
        api, made = deployed(world, tmp_path)
        seen = api.db.data["operation"]
        api.executor.close()
        api.db.close()
        state = world.installation / "database.yaml"
        state.write_text(state.read_text().replace(f"operation: {seen}\n", "operation: 1\n"))
        shutil.rmtree(world.installation / ".cloudrepo")
        api = open_installation(world)
        assert api.db.data["operation"] == 1
        ok(api, "stop_slice", "admin", made)
        assert seen < api.db.data["operation"] < seen + 10
        ok(api, "delete_slice", "admin", made)
        assert not any(host["programs"] for host in world.look().values())
        assert world.control.ask("violations") == []
        api.executor.close()
        api.db.close()
