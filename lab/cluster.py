"""The lab as one object: up, down, its hosts, and what may befall them."""

import fcntl
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lab import guest_image, host_files, image_cache, mount_point, router_image, state, switch
from lab.environment import host_environment, orchestrator_environment
from lab.errors import LabError
from lab.host import SCRIPTS, boot_host
from lab.layout import IMAGE_FOLDER, ROUTER_IMAGE_NAME, Folder, Node, Options, address_of
from lab.machine import require_root
from lab.namespaces import HOLDER_MODULE, Opening, Room, holders_of, in_parallel, open_room
from lab.record import INTERNET, LAB, ORCHESTRATOR, Record
from lab.status import Status, host_status
from lab.switch import Switch

_NOT_UP = ("The lab is not up.", "Bring it up with: sudo ./cloud lab up")


def _silent(_text: str) -> None:
    """Take a line for people, when there are none."""


class Lab:
    """A lab in a folder.

    Several labs may run on one machine; each is one tree of processes in
    namespaces of its own, so nothing of one is visible to another.  A method may be
    called where the orchestrator runs as well as on the machine.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        """Take the lab in ``folder``, by default that of the environment or checkout."""
        self.folder = Folder.default() if folder is None else Folder(Path(folder).absolute())

    # -- up and down -----------------------------------------------------------

    def up(
        self,
        options: Options | None = None,
        *,
        with_parent: int | None = None,
        say: Callable[[str], None] = _silent,
    ) -> bool:
        """Bring the lab up, after removing what an interrupted ``up`` left.

        Args:
            options: Size and kind of the lab.
            with_parent: Process whose end ends the lab, for tests.
            say: Takes a line for people when something takes long.

        Returns:
            False if it was up already; then nothing was changed.

        Raises:
            LabError: If it cannot be brought up; then nothing of it is left running.
        """
        options = options or Options()
        require_root("lab up")
        if self._record_if_up() is not None:
            return False
        images = guest_image.ensure(self.folder.cache(), say=say)
        if options.router:
            images[ROUTER_IMAGE_NAME] = router_image.ensure(self.folder.cache(), say=say)
        with self._locked():
            if self._record_if_up() is not None:
                return False
            self._tear_down()
            parent = None if with_parent is None else os.pidfd_open(with_parent)
            try:
                self._prepare_folder(options, images, say)
                self._bring_up(options, parent)
            except BaseException:
                self._tear_down()
                raise
            finally:
                if parent is not None:
                    os.close(parent)
        return True

    def down(self, *, purge: bool = False) -> bool:
        """Take the lab down, in whatever state it is.

        State, keys and the hosts' disks stay, as after a power failure of the whole
        class room; ``purge`` removes them too.

        Returns:
            Whether anything was running.
        """
        require_root("lab down")
        if not self.folder.path.exists():
            return self._kill_processes(None)
        with self._locked():
            was_up = self._tear_down()
            if purge:
                shutil.rmtree(self.folder.path)
        return was_up

    def _prepare_folder(self, options: Options, images: Mapping[str, Path], say: Callable[[str], None]) -> None:
        host_files.make_keys(self.folder, options.nodes())
        state.write_missing(self.folder, options, say)
        self.folder.images.mkdir(parents=True, exist_ok=True)
        for name, source in images.items():
            image_cache.place_copy(source, self.folder.images / name)
        self.folder.run.mkdir()

    def _bring_up(self, options: Options, parent: int | None) -> None:
        """Make all rooms; each vanishes with this process until the last is ready."""
        record = Record(mark=f"cloudrepo-lab {secrets.token_hex(4)}", options=options)
        log = self.folder.holders_log
        with ExitStack() as openings:
            opened = openings.enter_context(
                open_room(
                    LAB,
                    inside=None,
                    own_pids=True,
                    parent_pidfd=parent,
                    word=str(self.folder.path),
                    log=log,
                )
            )
            lab = opened.room
            record = record.with_room(lab)
            record.save(self.folder.record)
            lab.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
            Switch(lab).build(record.mark)
            outside = [
                openings.enter_context(open_room(name, inside=lab, own_pids=False, module=module, log=log))
                for name, module in ((ORCHESTRATOR, HOLDER_MODULE), (INTERNET, "lab.web"))
            ]
            orchestrator, internet = (opening.room for opening in outside)
            self._wire_outside(record, lab, orchestrator, internet)
            made = self._mount_images(record, orchestrator)
            hosts = self._boot_all(record, lab, internet, openings)
            for opening in [*outside, *hosts, opened]:
                record = record.with_room(opening.room)
                opening.keep()
        replace(record, made_mount_point=made, ready=True).save(self.folder.record)

    @staticmethod
    def _wire_outside(record: Record, lab: Room, orchestrator: Room, internet: Room) -> None:
        cables = Switch(lab)
        cables.plug_orchestrator(orchestrator)
        switch.configure_orchestrator(orchestrator, record.mark)
        if record.options.uplink == "mgmt":
            cables.plug_internet(internet)
            switch.configure_internet(internet, record.options, record.mark)

    def _mount_images(self, record: Record, orchestrator: Room) -> bool:
        """Show the lab's images at the documented place; say whether a lab made that."""
        script = ["sh", str(SCRIPTS / "orchestrator.sh"), str(self.folder.images)]
        with mount_point.provided() as made:
            # Recorded first: whoever cleans up after us must know.
            replace(record, made_mount_point=made).save(self.folder.record)
            done = orchestrator.run([*script, str(IMAGE_FOLDER)])
        if done.returncode:
            raise LabError("The image folder could not be mounted.", evidence=done.stderr)
        return made

    def _boot_all(self, record: Record, lab: Room, internet: Room, openings: ExitStack) -> list[Opening]:
        hosts: list[Opening] = []

        def boot(node: Node) -> None:
            opening = boot_host(self.folder, node, record, lab, internet)
            hosts.append(openings.enter_context(opening))

        in_parallel(*(partial(boot, node) for node in record.options.nodes()))
        return hosts

    def _tear_down(self) -> bool:
        """End the lab's process tree and remove its run-time files."""
        record = Record.load(self.folder.record)
        was_up = self._kill_processes(record)
        if record.made_mount_point if record is not None else was_up:
            mount_point.take_away()
        shutil.rmtree(self.folder.run, ignore_errors=True)
        return was_up

    def _kill_processes(self, record: Record | None) -> bool:
        """Kill the lab's first process, also when the record of it was lost."""
        found = holders_of(str(self.folder.path))
        if record is not None and LAB in record.rooms:
            found.append(record.rooms[LAB])
        return any([holder.kill() for holder in found])

    # -- hosts -----------------------------------------------------------------

    def kill(self, ip: str) -> bool:
        """Let a host's power fail: every process, TAP and namespace of it is gone.

        Returns:
            False if it was down already.
        """
        with self._changing("lab kill") as record:
            node = address_of(ip, record.options.nodes())
            room = record.room(node.ip)
            if room is None:
                return False
            room.holder.kill()
            Switch(_need(record, LAB)).unplug_host(node)
        return True

    def boot(self, ip: str) -> bool:
        """Boot a host that is down, with the disks it had.

        Returns:
            False if it was up already.
        """
        with self._changing("lab boot") as record:
            node = address_of(ip, record.options.nodes())
            if record.room(node.ip) is not None:
                return False
            lab, internet = _need(record, LAB), _need(record, INTERNET)
            with boot_host(self.folder, node, record, lab, internet) as opening:
                record.with_room(opening.room).save(self.folder.record)
                opening.keep()
        return True

    def cut(self, ip: str) -> None:
        """Pull a host's management cable."""
        self._set_cable("lab cut", ip, up=False)

    def heal(self, ip: str) -> None:
        """Put a host's management cable back."""
        self._set_cable("lab heal", ip, up=True)

    def _set_cable(self, what: str, ip: str, *, up: bool) -> None:
        with self._changing(what) as record:
            node = address_of(ip, record.options.nodes())
            _need_host(record, node)
            Switch(_need(record, LAB)).set_cable(node, up=up)

    # -- commands --------------------------------------------------------------

    def exec(self, argv: Sequence[str], **kw: Any) -> subprocess.CompletedProcess[str]:
        """Run a command where the orchestrator runs, and collect what it says.

        Args:
            argv: The command.
            **kw: ``input``, ``timeout``, ``check``, ``cwd``, and ``env``, which is
                added to the environment of the lab.
        """
        env = self.environment() | dict(kw.pop("env", {}))
        cwd = str(kw.pop("cwd", Path.cwd()))
        return self.orchestrator_room().run(argv, env=env, cwd=cwd, **kw)

    def host(self, ip: str, argv: Sequence[str], **kw: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as root inside a host, and collect what it says.

        Args:
            ip: Address of the host.
            argv: The command.
            **kw: ``input``, ``timeout``, ``check``, ``cwd``, and ``env``, which is
                added to root's environment there.
        """
        env = host_environment() | dict(kw.pop("env", {}))
        return self.host_room(ip).run(argv, env=env, cwd=str(kw.pop("cwd", "/root")), **kw)

    def exec_foreground(self, argv: Sequence[str]) -> int:
        """Run a command where the orchestrator runs, on the caller's terminal."""
        room = self.orchestrator_room()
        return room.foreground(argv, cwd=str(Path.cwd()), env=self.environment())

    def host_foreground(self, ip: str, argv: Sequence[str]) -> int:
        """Run a command as root inside a host, on the caller's terminal."""
        return self.host_room(ip).foreground(argv, cwd="/root", env=host_environment())

    def environment(self) -> dict[str, str]:
        """Return the environment of commands where the orchestrator runs."""
        return orchestrator_environment(self.folder)

    def orchestrator_room(self) -> Room:
        """Return the orchestrator's room, for ``popen`` and the like."""
        return _need(self._need_up("lab exec"), ORCHESTRATOR)

    def host_room(self, ip: str) -> Room:
        """Return a host's room, for ``popen`` and the like."""
        record = self._need_up("lab host")
        return _need_host(record, address_of(ip, record.options.nodes()))

    # -- looking ---------------------------------------------------------------

    def status(self) -> Status:
        """Return what the lab is and how its hosts are."""
        require_root("lab status")
        record = self._record_if_up()
        if record is None:
            return Status(up=False, folder=str(self.folder.path))
        ports = Switch(_need(record, LAB)).ports()
        return Status(
            up=True,
            folder=str(self.folder.path),
            mark=record.mark,
            uplink=record.options.uplink,
            hosts=[host_status(record, node, ports) for node in record.options.nodes()],
        )

    def _record_if_up(self) -> Record | None:
        record = Record.load(self.folder.record)
        if record is None or not record.ready or record.room(LAB) is None:
            return None
        return record

    def _need_up(self, what: str) -> Record:
        require_root(what)
        record = self._record_if_up()
        if record is None:
            raise LabError(_NOT_UP[0], remedy=_NOT_UP[1])
        return record

    @contextmanager
    def _changing(self, what: str) -> Iterator[Record]:
        """Hold the lab's lock around a change of a running lab."""
        self._need_up(what)
        with self._locked():
            yield self._need_up(what)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        with self.folder.lock.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _need(record: Record, name: str) -> Room:
    room = record.room(name)
    if room is None:
        raise LabError(f"{name} has died.", remedy="Start again with: lab down, then lab up")
    return room


def _need_host(record: Record, node: Node) -> Room:
    room = record.room(node.ip)
    if room is None:
        raise LabError(f"{node.ip} is down.", remedy=f"Boot it with: lab boot {node.ip}")
    return room
