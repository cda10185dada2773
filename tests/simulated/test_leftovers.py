"""Two leftovers are one only when nothing but process ids and times tells them apart."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from simulated import crashes
from simulated.leftovers import Known, fingerprint
from simulated.test_hosts import deployed, end
from simulated.world import Picture, World

KILL = {"site": "state", "label": "after fsync folder", "index": 1, "action": "kill"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> tuple[Picture, int]:
    """A world with one machine that runs, and the id of its slice."""
    folder = tmp_path_factory.mktemp("running")
    with World() as world:
        api, slice_id = deployed(world, folder)
        end(api)
        return world.take_picture(), slice_id


@contextmanager
def killed(running: tuple[Picture, int]) -> Iterator[World]:
    """What is left when the orchestrator is killed in mid-stop; its journal is there and its machine runs on."""
    picture, slice_id = running
    with World(picture, shortcut=True) as world:
        crashes.Actor(world, crashes.call("stop_slice", slice_id), lambda pid: KILL | {"pid": pid}).result()
        world.wait_for_runners()
        assert world.control.ask("points")["sprung"]
        yield world


def test_it_is_the_same_when_all_processes_and_all_times_are_others(running: tuple[Picture, int]) -> None:
    with killed(running) as first, killed(running) as second:
        assert fingerprint(first) == fingerprint(second)


def a_file(world: World, pattern: str) -> Path:
    return min(path for path in world.directory.glob(pattern) if path.is_file())


def spoil(pattern: str, before: bytes) -> Callable[[World], None]:
    """Change the byte that comes after a text of a file."""

    def change(world: World) -> None:
        path = a_file(world, pattern)
        content = bytearray(path.read_bytes())
        place = content.index(before) + len(before)
        content[place] ^= 1
        path.write_bytes(content)

    return change


def add_a_name(world: World) -> None:
    a_file(world, "*/root/run/*/vm-*/mark").with_name("other").touch()


def change_a_mode(world: World) -> None:
    a_file(world, "*/root/home/ubuntu/vm_images/*/vm-*/mark.json").chmod(0o640)


def add_an_address(world: World) -> None:
    words = ["ip", "address", "add", "192.0.2.1/32", "dev", "lo"]
    assert world.control.ask("ask", host="w1", words=words)["status"] == 0


def end_a_machine(world: World) -> None:
    a_file(world, "*/root/run/*/vm-*/pid").write_text("")


def pause_the_machine(world: World) -> None:
    with socket.socket(socket.AF_UNIX) as line, line.makefile("rw") as lines:
        line.connect(str(next(world.directory.glob("*/root/run/*/vm-*/qmp.sock"))))
        lines.readline()
        lines.write('{"execute": "stop"}\n')
        lines.flush()
        assert "return" in lines.readline()


CHANGES: dict[str, Callable[[World], None]] = {
    "a word of a record": spoil("installation/database.yaml", b"vnc_port: 590"),
    "a sum of the journal": spoil("installation/*.journal", b'"sum":"'),
    "the file that a journal continues": spoil("installation/*.journal", b'"continues":"'),
    "a counter of a host": spoil("*/root/home/ubuntu/vm_images/.cloudrepo-*/fences", b'"changes": '),
    "a disk": spoil("*/root/home/ubuntu/vm_images/a_img.qcow2", b"QF"),
    "a pid file": end_a_machine,
    "a name": add_a_name,
    "a mode": change_a_mode,
    "a host's state": add_an_address,
    "a machine's state": pause_the_machine,
}


@pytest.mark.parametrize("what", CHANGES)
def test_it_is_another_when_anything_else_differs(running: tuple[Picture, int], what: str) -> None:
    with killed(running) as world:
        before = fingerprint(world)
        CHANGES[what](world)
        assert fingerprint(world) != before


def test_of_what_a_file_says_only_times_and_processes_that_ended_are_left_out(running: tuple[Picture, int]) -> None:
    with World(running[0]) as world:

        def says(text: str) -> str:
            (world.installation / "note").write_text(text)
            return fingerprint(world)

        gone = 2**22  # more than any kernel gives
        assert says('{"began":"2026-01-01T00:00:00+00:00"}') == says('{"began":"2026-12-31T23:59:59+00:00"}')
        assert says(f'{{"process":"host:{gone}:1:0"}}') == says(f'{{"process":"host:{gone + 1}:2:0"}}')
        assert says('{"process":"host:1:1:0"}') != says(f'{{"process":"host:{gone}:1:0"}}')
        assert says('{"vnc_password":"Drawn234"}') == says('{"vnc_password":"Another7"}')
        assert says('{"vnc_password":"Drawn234","a":{"vnc_password":"Drawn234"}}') != says(
            '{"vnc_password":"Drawn234","a":{"vnc_password":"Another7"}}'
        )
        assert says("vnc_password: Drawn234") == says("vnc_password: Another7") != says("vnc_password: ''")
        assert says("0" * 64) != says("1" * 64)
        assert says("1") != says("2")


def test_facts_are_part_of_it(running: tuple[Picture, int]) -> None:
    with World(running[0]) as world:
        assert len({fingerprint(world), fingerprint(world, True), fingerprint(world, False)}) == 3


def test_what_is_wrong_is_found_once_and_told_of_every_crash_that_left_the_same(
    running: tuple[Picture, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, slice_id = running
    scenario = crashes.rehearse("stop", picture, slice_id, crashes.call("stop_slice", slice_id))
    case = next(case for case in crashes.cases(scenario, "kill") if case.label == "after fsync journal")
    done: list[str] = []

    def mend(world: World, scenario: Any, case: Any, crash: Any, way: str) -> Iterator[str]:
        done.append(way)
        yield f"not mended by {way}"

    monkeypatch.setattr(crashes, "_mend", mend)
    known = Known(tmp_path)
    for _ in range(2):
        assert crashes.run(scenario, case, known) == (
            "then resume: not mended by resume; then rollback: not mended by rollback"
        )
    assert done == ["resume", "rollback"]
