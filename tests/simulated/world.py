"""A world: three simulated hosts, and an installation that uses them."""

from __future__ import annotations

import getpass
import json
import os
import pickle
import select
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cloudrepo.settings import Settings
from database import Database
from deployment_api import DeploymentAPI
from orchestrator_api import OrchestratorAPI
from remote_executor import RemoteExecutor
from simulated.kept_files import Kept, read_files, write_files
from simulated.nursery import Nursery
from simulated.state import HostState, Program
from simulated.tools.qemu_img import Header, write_header
from simulated.transport import Control, SimulatedTransport

#: Addresses by name; nothing of them is on a network. The third is the network node.
HOSTS = {"w1": "10.0.10.1", "w2": "10.0.10.2", "w3": "10.0.10.3"}
#: The account that the tests run as is the one QEMU runs as: nobody needs rights.
ME = getpass.getuser()
MIB = 1024**2
LONGEST_STEP_S = 30
FOR_GOOD = frozenset(("fences", "lock", "netns", "base", "upload"))
TEXTS = ("mark", "hosts", "dnsmasq.conf")
OF_THE_SIMULATOR = ("order", "states")  # files that it leaves in a world's directory


@dataclass(frozen=True)
class Picture:
    """A world as it was at one time, to begin others from, also in another process."""

    files: tuple[Kept, ...]
    states: dict[str, HostState]

    def programs(self) -> dict[str, list[Program]]:
        """What ran on each host."""
        return {name: list(state.programs.values()) for name, state in self.states.items()}


class World:
    """Hosts and one simulator; in its directory is room for an installation.

    Args:
        picture: what it begins from; three hosts that were just booted by default.
        shortcut: runners ask tools that leave no process behind without a process for each call, which takes a tenth
            of the time. What the runner does with processes is then not part of the test.
    """

    def __init__(self, picture: Picture | None = None, *, shortcut: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cr", dir=short_folder()))
        if picture is None:
            picture = Picture((), {name: HostState(ip, Path()) for name, ip in HOSTS.items()})
        write_files(self.directory, picture.files)
        self.names = {state.ip: name for name, state in picture.states.items()}
        hosts = {name: state.elsewhere(self.directory / name / "root") for name, state in picture.states.items()}
        self.pid = Nursery.mine().start(self.directory, hosts, picture.programs(), shortcut=shortcut)
        self.control = Control(self.directory / "control")

    @property
    def installation(self) -> Path:
        """Where an installation's files are."""
        return self.directory / "installation"

    def transport(self) -> SimulatedTransport:
        """A transport of this world."""
        return SimulatedTransport(self.directory, self.names)

    def take_picture(self) -> Picture:
        """All files and states, for other worlds."""
        files = tuple(one for one in read_files(self.directory) if one.path not in OF_THE_SIMULATOR)
        return Picture(files, self.states())

    def states(self) -> dict[str, HostState]:
        """All that hosts hold but files, by their names."""
        found: dict[str, HostState] = pickle.loads(Path(self.control.ask("states")).read_bytes())  # noqa: S301  our own
        return found

    def wait_for_runners(self) -> None:
        """Until none runs: those whose orchestrator is gone end with the step they are at."""
        until = time.monotonic() + LONGEST_STEP_S
        while running := self.control.ask("runners"):
            if time.monotonic() > until:
                raise RuntimeError(f"runners that do not end: {running}")
            time.sleep(0.0005)

    def look(self) -> dict[str, Any]:
        """All that can be left behind on its hosts, in plain values that compare."""
        found: dict[str, Any] = self.control.ask("picture")
        for name, host in found.items():
            host["files"] = _files(self.directory / name / "root")
        return found

    def close(self) -> None:
        """End all that it started, and remove its files."""
        try:
            self.control.ask("end")
        except (ConnectionError, OSError):
            pass  # it ends without an answer
        self.control.close()
        _wait_or_kill(self.pid)
        failure = self.directory / "simulator.log"
        text = failure.read_text() if failure.exists() else ""
        shutil.rmtree(self.directory, ignore_errors=True)
        if text:
            raise RuntimeError(f"the simulator failed: {text}")

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _files(root: Path) -> dict[str, str]:
    """The files below /run and the home directory: the text of those that say something for a later look.

    What an installation leaves for good on a host is left out: the counts of its operations, folders, and base
    images with what has arrived of one.
    """
    found = {}
    for path in sorted((*root.glob("run/**/*"), *root.glob("home/**/*"))):
        is_for_good = (
            path.name == "vm_images" or path.name.startswith(".cloudrepo-") or not FOR_GOOD.isdisjoint(path.parts[-2:])
        )
        if not is_for_good:
            found[str(path.relative_to(root))] = "dir" if path.is_dir() else _content(path)
    return found


def _content(path: Path) -> str:
    """What a file says; of a disk's mark whose it is, not what it remembers of records, which each deploy renews."""
    if path.name == "mark.json":
        fields = json.loads(path.read_text())
        return json.dumps([fields.get(key) for key in ("mark", "uuid", "disk", "candidate")])
    return path.read_text() if path.name in TEXTS else ""


def _wait_or_kill(pid: int) -> None:
    """Until a process that is nobody's child here has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([pidfd], [], [], 5)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], 5)
    finally:
        os.close(pidfd)


def short_folder() -> str:
    """A path to a Unix socket has at most 107 bytes; memory is preferred, where an fsync costs nothing."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"


def install(world: World, image: Path, **settings: Any) -> OrchestratorAPI:
    """A fresh installation in a world, with a small flavor.

    Args:
        world: where; its files are copied with it.
        image: a file outside of it that becomes the base image of all disks.
        settings: groups of settings.
    """
    world.installation.mkdir()
    write_header(image, Header(size=64 * MIB))
    flavor = {"cores": 1, "ram_gb": 0.125, "disk_gb": 1, "image": str(image)}
    wanted = {"flavors": {"cirros": flavor}, "network": {"node": HOSTS["w3"]}, **settings}
    (world.installation / "settings.yaml").write_text(yaml.safe_dump(wanted))
    return open_installation(world)


def open_installation(world: World) -> OrchestratorAPI:
    """The façade of the world's installation, as a process that starts has it."""
    state = world.installation / "database.yaml"
    settings = Settings.load(state)
    known_hosts = world.installation / "known_hosts"
    executor = RemoteExecutor(ME, settings=settings, known_hosts=known_hosts, transport=world.transport())
    return OrchestratorAPI(Database(state), DeploymentAPI(executor), settings=settings)
