"""`./cloud monitor`: the health monitor without a menu, in the foreground or as a systemd unit."""

from __future__ import annotations

import getpass
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from cli.installation import STATE_VARIABLE, Installation
from cli.screen import BAD, FAINT, GOOD, Piece, Screen
from cli.text import count

if TYPE_CHECKING:
    from cli.work import Work
    from cloudrepo.watched import Notice

CLOUD = Path(__file__).resolve().parent.parent / "cloud"
EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130
STYLES = {"warning": BAD, "error": BAD, "notice": GOOD}


def run_monitor(installation: Installation, screen: Screen, *, auto_resume: bool | None) -> int:
    """Watch until SIGTERM or Ctrl-C; a line for every change.

    Args:
        installation: whose hosts are watched.
        screen: where the lines go.
        auto_resume: also resume what dead processes left; None = as the setting says.

    Returns:
        0 after SIGTERM, 130 after Ctrl-C, 1 when there is nothing that may be contacted.
    """
    from control.watch import Watcher
    from health_monitor import HealthMonitor

    if installation.untouched:
        screen.complain("This cluster has never been contacted, and may be somebody else's: nothing is watched.")
        screen.line("  ./cloud worker add IP enrols a host of yours; the menu asks before it contacts these.")
        return EXIT_FAILED
    monitor = HealthMonitor(installation.db, interval=installation.settings.monitor.interval)
    voice = _Voice(screen)
    watcher = Watcher(
        installation.api.context,
        "monitor",
        on_change=lambda notice: _show(voice, notice),
        on_role=lambda leads: _say_role(installation, voice, leads),
        auto_resume=auto_resume,
        save_error=lambda: str(monitor.last_error or ""),
    )
    monitor.watch = watcher
    with _ending() as end:
        monitor.start(watch_at_once=True)
        try:
            end.wait()
        finally:
            monitor.stop()
            watcher.close()
            installation.api.executor.close()
            voice.close()
    if monitor.last_error is not None:
        screen.complain(f"The state could not be saved: {monitor.last_error}")
        return EXIT_FAILED
    screen.line(("Ended; the state is saved.", FAINT))
    return EXIT_INTERRUPTED if end.by == signal.SIGINT else EXIT_DONE


class _Voice:
    """What the threads of a watch say, until it ends. A thread in the middle of a line when Python ends aborts it."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._lock = threading.Lock()
        self._is_open = True

    def say(self, *pieces: Piece) -> None:
        """Write a line at once; nothing after the end."""
        with self._lock:
            if self._is_open:
                self._screen.line(*pieces)
                sys.stdout.flush()

    def close(self) -> None:
        """Wait for the line that is being written; no other follows."""
        with self._lock:
            self._is_open = False


class _End:
    """Which signal ended us. Waiting for it is by a pipe: a signal that comes to another thread wakes nobody else."""

    def __init__(self, pipe: int) -> None:
        self.by = 0
        self._pipe = pipe

    def come(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        self.by = self.by or number

    def wait(self) -> None:
        """Until one has come."""
        while not self.by:
            select.select([self._pipe], [], [])
            os.read(self._pipe, 64)


@contextmanager
def _ending() -> Iterator[_End]:
    """SIGTERM and Ctrl-C end in order while this lasts."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    end = _End(reading)
    woken = signal.set_wakeup_fd(writing)
    before = {number: signal.signal(number, end.come) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        os.close(reading)
        os.close(writing)


def _say_role(installation: Installation, voice: _Voice, leads: bool) -> None:
    """Say who watches, when that changes."""
    from cloudrepo import leadership

    if leads:
        hosts = count(len(installation.db.data["workers_list"]), "host")
        voice.say(f"Watching {hosts} every {installation.settings.monitor.interval:g} s. Ctrl-C ends it.")
    else:
        other = leadership.holder(installation.path.resolve().parent / ".cloudrepo")
        voice.say(f"Waiting: {other or 'another process'} watches the hosts.")


def _show(voice: _Voice, notice: Notice) -> None:
    stamp = datetime.now().astimezone().strftime("%H:%M:%S")
    voice.say((f"{stamp} ", FAINT), (notice.text, STYLES.get(notice.level, "")))


def change_restart_policy(work: Work, words: str, user: str, policy: str, *, dry_run: bool = False) -> int:
    """Change what the monitor does when a VM dies; the exit status.

    Raises:
        NotDone: there is no such VM, several are called that, or it was refused.
    """
    record, vm = work.installation.one_vm(words, user)
    acting, chosen = user or str(record["owner"]), "" if policy == "default" else policy
    if dry_run:
        from cli.plans import show_rehearsal

        wish = {"slice_id": int(record["slice_id"]), "vm_id": int(vm["vm_id"]), "policy": chosen}
        return show_rehearsal(work, "set_restart_policy", wish, acting=acting)
    answer = work.done(work.api.set_restart_policy(acting, int(record["slice_id"]), int(vm["vm_id"]), chosen))
    said = answer or f"the setting's ({work.installation.settings.monitor.restart})"
    work.ids(vm["vm_id"])
    work.screen.line((f"Restart policy of VM {vm['vm_id']} ({vm['name']}): {said}.", GOOD))
    return work.end({"slice_id": record["slice_id"], "vm_id": vm["vm_id"], "name": vm["name"], "policy": str(answer)})


# ---------------------------------------------------------------------------------------- the unit


def unit(state: Path, *, cloud: Path = CLOUD, user: str = "", venv: str = "") -> str:
    """A systemd unit that watches one installation.

    Args:
        state: its state file.
        cloud: the program.
        user: the account that owns the state, the SSH key and the pins; by default this one.
        venv: the Python environment, if it is not the checkout's own.
    """
    state = Path(os.path.realpath(state))
    names = {STATE_VARIABLE: str(state), **({"CLOUDREPO_VENV": venv} if venv else {})}
    environment = "\n".join(f"Environment={_quoted(f'{name}={value}')}" for name, value in names.items())
    return f"""\
# Made by `./cloud monitor --print-unit`. As root:
#   ./cloud monitor --print-unit > /etc/systemd/system/cloud-monitor.service
#   systemctl daemon-reload && systemctl enable --now cloud-monitor
[Unit]
Description={_escaped(f"Cloud Repositorio: watches the hosts of {state}")}
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
User={_escaped(user or getpass.getuser())}
WorkingDirectory={_escaped(str(state.parent))}
{environment}
ExecStart={_quoted(str(cloud))} monitor
Restart=on-failure
RestartSec=5
# SIGTERM ends it in order: what is under way stops before its next step and stays listed as unfinished, and the state
# is saved. A step that takes longer than 10 s is not waited for: the host ends it.
KillMode=mixed
TimeoutStopSec=30
UMask=0077
NoNewPrivileges=yes
ProtectSystem=full
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


def print_unit(state: Path, screen: Screen) -> int:
    """Print the unit for a state file, which must be there."""
    if not state.exists():
        screen.complain(f"There is no state file {state}; ./cloud init DIR makes one, {STATE_VARIABLE} names it.")
        return EXIT_FAILED
    sys.stdout.write(unit(state, venv=os.environ.get("CLOUDREPO_VENV", "")))
    return EXIT_DONE


def _escaped(text: str) -> str:
    """A value in a unit: `%` is a specifier there (systemd.unit(5)), and a line is one value."""
    return "".join(character for character in text if character.isprintable()).replace("%", "%%")


def _quoted(text: str) -> str:
    """One word of a command line in a unit (systemd.service(5), quoting)."""
    escaped = _escaped(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'
