"""A cluster for one test: an installation of its own on the shared lab, and guests to talk to."""

from __future__ import annotations

import copy
import ctypes
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cloudrepo.guest_agent import GuestAgent, GuestResult, GuestSilent
from cloudrepo.naming import machine_dir
from lab.cluster import Lab
from lab.layout import DEAF_IMAGE_NAME, WORKER_USER
from on_lab import hardened
from orchestrator_api import OrchestratorAPI, build

CLONE_NEWNET = 0x40000000
SNAPSHOT = Path(__file__).with_name("snapshot_host.py")
HOSTS = ("10.0.10.1", "10.0.10.2", "10.0.10.3")
NETWORK_NODE = HOSTS[2]
Record = dict[str, Any]

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def network_of(pid: int) -> Iterator[None]:
    """Put this thread, and all threads and processes it starts, into another network namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(there)
        os.close(home)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer of `condition`; AssertionError after so many seconds.

    Hosts, guests and who asks share the processors: the longer an answer takes, the seldomer it is asked for.
    """
    until = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        answer = condition()
        if answer:
            return answer
        now = time.monotonic()
        assert now < until, f"{what}: not within {seconds} s"
        time.sleep(min(max(0.1, 2 * (now - asked)), 3.0))


class Cluster:
    """An installation on a lab.

    Attributes:
        lab: the hosts.
        folder: where its state file is.
        api: the façade; every worker is discovered.
        home: what `~` is on a host in the place of images.
    """

    def __init__(self, lab: Lab, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.lab = lab
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        environment = lab.environment()
        self.image = str(lab.folder.images / "cirros-0.6.2-x86_64-disk.img")
        flavor = {"cores": 1, "ram_gb": 0.125, "disk_gb": 1, "image": self.image}
        wanted: Record = {
            "ssh": {"key": environment["CLOUDREPO_SSH_KEY"]},
            "flavors": {
                "cirros": flavor,
                "ubuntu": {**flavor, "ram_gb": 0.25, "disk_gb": 2.2},
                "deaf": {**flavor, "image": str(lab.folder.images / DEAF_IMAGE_NAME)},  # to the power button
                "blank": {**flavor, "image": str(_blank_image(folder))},  # QEMU as ever; nothing to boot, so no work
            },
        }
        for group, values in (settings or {}).items():
            wanted[group] = {**wanted.get(group, {}), **values} if isinstance(values, Mapping) else values
        # In this order: the first flavor is the default.
        (folder / "settings.yaml").write_text(yaml.safe_dump(wanted, sort_keys=False))
        self.state = folder / "database.yaml"
        self.api: OrchestratorAPI = build(self.state)
        self._apis = [self.api]  # shared with those reborn of it
        self.home = f"/home/{WORKER_USER}"
        if self.api.settings.host.privilege == "helper":
            self.home = hardened.HOME
            hardened.prepare(lab, self.api)
        self.api.discovery.discover_all()

    # -- using it --------------------------------------------------------------------------------------

    @property
    def base_images(self) -> set[str]:
        """The files that the flavors' disks begin from."""
        return {str(flavor["image"]) for flavor in self.api.settings.flavors.values()}

    def ok(self, call: str, *args: Any, **kwargs: Any) -> Any:
        """Call the façade and insist on success."""
        done, payload = getattr(self.api, call)(*args, **kwargs)
        assert done, f"{call}: {payload}"
        return payload

    def refused(self, call: str, *args: Any, **kwargs: Any) -> str:
        """Call the façade and insist on a refusal; its message."""
        done, payload = getattr(self.api, call)(*args, **kwargs)
        assert not done, f"{call} succeeded: {payload}"
        return str(payload)

    def slice(
        self,
        *names: str,
        interfaces: int = 1,
        internet: tuple[str, ...] = (),
        user: str = "admin",
        flavor: str = "cirros",
    ) -> Record:
        """A designed slice with these VMs; `{"id": slice_id, name: vm_id, …}`. `blank` is for who asks no guest."""
        made: Record = {"id": self.ok("create_slice", user, "test")["slice_id"]}
        for name in names:
            vm = self.ok("add_vm_to_slice", user, made["id"], name, flavor, interfaces, name in internet)
            made[name] = vm["vm_id"]
        return made

    def link(self, made: Record, a: str, a_interface: str, b: str, b_interface: str, user: str = "admin") -> Record:
        """Link two VMs of a slice made by `slice`."""
        link: Record = self.ok("create_link", user, made["id"], made[a], a_interface, made[b], b_interface)
        return link

    def vm(self, vm_id: int) -> Record:
        """A VM's record."""
        for record in self.api.db.list_slices():
            for vm in record["vms"]:
                if vm["vm_id"] == vm_id:
                    return dict(vm)
        raise AssertionError(f"no VM {vm_id}")

    # -- guests ----------------------------------------------------------------------------------------

    def guest(self, vm_id: int, *words: str, timeout_s: float = 30) -> GuestResult:
        """Run words in a guest through its agent, waiting for it to boot."""
        vm = self.vm(vm_id)
        socket = f"{machine_dir(self.api.site.installation, vm_id)}/agent.sock"
        with self.api.executor.open_serial(vm["worker_ip"], socket) as channel:
            agent = GuestAgent(channel)
            agent.wait(240)
            return agent.run(words, timeout_s=timeout_s)

    def wait_for_address(self, vm_id: int, interface: str, seconds: float = 180) -> str:
        """The IPv4 address a guest's interface got; fails when it gets none."""
        words = self.guest_waits(vm_id, f"ip -4 -o addr show dev {interface} | grep inet", seconds).split()
        return words[words.index("inet") + 1].split("/")[0]

    def guest_waits(self, vm_id: int, line: str, seconds: float = 180) -> str:
        """Have a guest wait until a line of shell succeeds; what that one said. To ask it costs more than the guest."""
        # `sleep` would be a process; /run/never is lab-net's, too, whoever comes first
        wait = f"mkfifo /run/never 2>/dev/null; exec 9<>/run/never; until {line}; do read -r -t 1 _ <&9; done; true"
        try:
            done = self.guest(vm_id, "ash", "-c", wait, timeout_s=seconds)
        except GuestSilent as error:
            raise AssertionError(f"{line} in VM {vm_id}: not within {seconds:g} s ({error})") from error
        assert done.status == 0, (line, done)
        return done.out

    def pings(self, vm_id: int, address: str, *, count: int = 3) -> bool:
        """Whether a guest gets an answer from an address."""
        return self.guest(vm_id, "ping", "-c", str(count), "-W", "2", address).status == 0

    # -- hosts -----------------------------------------------------------------------------------------

    def host(self, ip: str, *words: str, **options: Any) -> str:
        """Run words as root inside a host; its output."""
        done = self.lab.host(ip, list(words), timeout=options.pop("timeout", 30), **options)
        assert done.returncode == 0, f"{words} on {ip}: {done.stderr}"
        return done.stdout

    @property
    def images(self) -> str:
        """The image folder, as it is on each host."""
        return f"{self.home}/vm_images"

    def place(self, path: str) -> str:
        """Where a file of the records is on its host."""
        return path.replace("~", self.home, 1)

    def snapshot(self) -> dict[str, Record]:
        """Everything on each host that a slice could leave behind."""
        return snapshot(self.lab)

    def reborn(self) -> Cluster:
        """The same installation as the next process finds it."""
        twin = copy.copy(self)
        twin.api = build(self.state)
        self._apis.append(twin.api)
        twin.api.discovery.discover_all()
        return twin

    def close(self) -> None:
        """Remove all that carries this installation's mark, and hang up."""
        self.api.cleanup()
        hardened.forget(self.lab, self.api)
        for api in self._apis:
            api.executor.close()
            api.db.close()


def _blank_image(folder: Path) -> Path:
    """A disk without anything on it: its machine comes to the end of the BIOS and halts."""
    image = folder / "blank.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M"], check=True)
    return image


def snapshot(lab: Lab) -> dict[str, Record]:
    """What is on each host of a lab that runs."""
    text = SNAPSHOT.read_text()
    found = {}
    for host in lab.status().hosts:
        if host.state == "up":
            done = lab.host(host.address, ["/usr/bin/python3", "-I", "-"], input=text, timeout=30)
            assert done.returncode == 0, done.stderr
            found[host.address] = json.loads(done.stdout)
    return found


def differences(before: Mapping[str, Record], after: Mapping[str, Record]) -> list[str]:
    """What is on a host now and was not before, and the other way round, a line each."""
    found = []
    for ip, kinds in before.items():
        for kind, old in kinds.items():
            new = after.get(ip, {}).get(kind, [])
            old_items = [str(item) for item in (old.items() if isinstance(old, dict) else old)]
            new_items = [str(item) for item in (new.items() if isinstance(new, dict) else new)]
            found += [f"{ip}: {kind}: + {item}" for item in new_items if item not in old_items]
            found += [f"{ip}: {kind}: - {item}" for item in old_items if item not in new_items]
    return found
