"""The menu: login, then the numbers, which keep their meaning for good."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from cli.ask import Ask, Back, Leave, LeftRunning
from cli.installation import DEFAULT_WORKERS, BeforeWrite, Installation
from cli.keyboard import TerminalKeyboard
from cli.login import log_in
from cli.screen import FAINT, Screen, plain
from cli.text import count, listing

if TYPE_CHECKING:
    from cli.screens.context import Context
    from cli.status_bar import StatusLine
    from control.watch import Watcher
    from health_monitor import HealthMonitor
    from worker_discovery import WorkerDiscovery


BEGIN_S = 5.0
EXIT_USAGE = 64
AROUND = 4  # lines around the entries: the choice before, an empty one, the prompt, the status
FIRST_STEPS = "9 makes a whole lab, 28 explains the keys."
NO_TERMINAL = (
    "The menu needs a terminal, and there is none. One-shot commands do not: ./cloud deploy SLICE, ./cloud status; "
    "./cloud --help lists them."
)


class CLI:
    """The interactive orchestrator.

    Args:
        installation: the state file and the façade over it.
        screen: where lines go.
        ask: where answers come from; by default the terminal, which starts discovery with its first prompt.
    """

    def __init__(self, installation: Installation, *, screen: Screen | None = None, ask: Ask | None = None) -> None:
        self.installation = installation
        self.screen = screen or Screen()
        self._begun = threading.Event()
        self.ask = ask or Ask(TerminalKeyboard(on_screen=self._begin_discovery))
        self._discovery: WorkerDiscovery | None = None
        self._monitor: HealthMonitor | None = None
        self._watcher: Watcher | None = None
        self._status: StatusLine | None = None
        self._may_watch = threading.Event()

    def run(self) -> int:
        """Log a person in and serve them until they leave.

        Returns:
            The exit status: 0, 1 when nobody logged in, 130 when work was left.
        """
        from cloudrepo import __version__

        self._monitor = monitor = self._start_monitor()
        try:
            plain(f"Cloud Repositorio {__version__}")
            account = log_in(self.ask, lambda: self.installation.api)
            if account is None:
                return 1
            self._open_workers()
            self._say_who_watches()
            return self._serve(account)
        except Leave:
            plain()
            return 0
        finally:
            monitor.stop()
            for one in (self._status, self._watcher):
                if one is not None:
                    one.close()

    # -- what runs beside the person -------------------------------------------------

    def _start_monitor(self) -> HealthMonitor:
        from health_monitor import HealthMonitor

        interval = self.installation.settings.monitor.interval
        monitor = HealthMonitor(self.installation.db, interval=interval, watch=self._watch)
        monitor.start()
        return monitor

    def _watch(self, stop: threading.Event) -> None:
        """Look at the hosts when nobody else does; not before somebody has logged in."""
        if not self._may_watch.is_set():
            return
        if self._watcher is None:
            from control.watch import Watcher

            self._watcher = Watcher(self.installation.api.context, "menu", save_error=self._save_error)
        self._watcher(stop)

    def _save_error(self) -> str:
        """Why this session could not save the state, or an empty text."""
        return str((self._monitor and self._monitor.last_error) or "")

    def _say_who_watches(self) -> None:
        """One line: a `./cloud monitor`, another menu, or this one."""
        from cloudrepo import leadership

        if self.installation.untouched:
            return
        self._may_watch.set()
        holder = leadership.holder(self.installation.path.resolve().parent / ".cloudrepo")
        if holder is not None:
            self.screen.line((f"The hosts are watched by {holder}.", FAINT))
        else:
            self.screen.line(("No ./cloud monitor runs: this menu watches the hosts while it is open.", FAINT))

    def _begin_discovery(self) -> None:
        """Ask the workers what they are, unless that needs a word from the person first."""
        if not self.installation.untouched:
            threading.Thread(target=self._discover, name="discovery", daemon=True).start()

    def _discover(self) -> None:
        discovery = self.installation.api.discovery
        discovery.start()
        self._discovery = discovery
        self._begun.set()

    def _open_workers(self) -> None:
        """After the login: wait for the workers a little, and name those still asked."""
        if self.installation.untouched and not self._may_contact():
            return
        wait_s = self.installation.settings.discovery.wait
        self._begun.wait(min(wait_s, BEGIN_S))  # the wait may be infinite, the beginning is soon
        discovery = self._discovery
        if discovery is None:
            return
        discovery.wait(wait_s)
        still = sorted(discovery.still_asked())
        if still:
            self.screen.line(f"No answer yet from {listing(still)}; no VM is placed there until they answer.")

    def _may_contact(self) -> bool:
        """The cluster as shipped may name somebody else's hosts: ask once before they are contacted."""
        self.screen.line(f"This cluster has never been contacted: {listing(DEFAULT_WORKERS)}.")
        self.screen.line("  ./cloud lab up           makes these hosts on this machine instead")
        self.screen.line("  ./cloud worker add IP    enrols a host of yours")
        try:
            agreed = self.ask.yes(f"Contact {count(len(DEFAULT_WORKERS), 'host')} over SSH now", default=False)
        except Back:
            agreed = False
        if not agreed:
            self.screen.line("Nothing was contacted. You can design slices; they cannot be deployed yet.")
            return False
        self._discover()
        return True

    # -- the loop --------------------------------------------------------------------

    def _serve(self, account: dict[str, Any]) -> int:
        from cli.screens.context import Context
        from control.authority import Session

        username = str(account["username"])
        self.installation.api.session = Session(username)  # no screen can act in another name
        keyboard = self.ask.keyboard
        context = Context(
            self.installation.api,
            username,
            self.screen,
            self.ask,
            role=account["role"],
            save_error=self._save_error,
            can_leave=isinstance(keyboard, TerminalKeyboard) and keyboard.is_terminal,
        )
        welcome = f"Welcome, {account['username']}. VMs: {account['used_vms']} of {account['quota_vms']}."
        self.screen.line(welcome, ("" if account["used_vms"] else f" {FIRST_STEPS}", FAINT))
        try:
            from cli.screens.recovery import offer_recovery

            self._attempt(offer_recovery, context)
            if isinstance(keyboard, TerminalKeyboard) and keyboard.is_terminal:
                self._begin_status(context, keyboard)
            self._loop(context)
        except LeftRunning:
            plain()
            plain("Left. Hosts end the step they are at; the next start shows what became of the slice.")
            return 130
        return 0

    def _begin_status(self, context: Context, keyboard: TerminalKeyboard) -> None:
        from cli.status_bar import StatusLine

        self._status = status = StatusLine(context)
        status.start()
        keyboard.status = lambda: status.text(self.screen.console.width)

    def _loop(self, context: Context) -> None:
        from cli.entries import entries_for, find, load, why_none
        from cli.screens.work import may_leave, tell_of_ended

        entries = entries_for(context.role)
        options = [(entry.number, entry.words) for entry in entries]
        before: int | None = None  # lines taken when an entry was chosen; None = all entries are to be shown
        while True:
            tell_of_ended(context)
            self._show(context, used=0 if before is None else self._lines - before)
            before = None
            try:
                typed = self.ask.text("Choose", options=options, hint=partial(why_none, entries), may_be_empty=True)
                if not typed:
                    continue
                entry = find(entries, typed)
                if entry is not None and not entry.target:
                    if not may_leave(context):
                        continue
                    self.screen.line("Goodbye.")
                    return
            except Back:
                self.screen.line()
                self.screen.line("0 leaves. Nothing was changed.")
                continue
            except Leave:
                if any(not work.is_over for work in context.work):
                    raise LeftRunning from None
                self.screen.line("Goodbye.")
                return
            if entry is None:
                self.screen.line(why_none(entries, typed))
                continue
            before = self._lines
            self._attempt(load(entry.target), context)
            if self._status is not None:
                self._status.refresh()

    @property
    def _lines(self) -> int:
        """How many lines of the terminal were taken so far, about."""
        return self.screen.lines + self.ask.lines

    def _show(self, context: Context, *, used: int) -> None:
        """The entries; in one line where all of them would push away the `used` lines that were asked for."""
        from cli.entries import brief, columns, entries_for

        self.screen.line()
        if self._status is not None and not self.screen.live:
            self.screen.line(
                (self._status.text(self.screen.console.width), FAINT)
            )  # where nothing stands under a prompt
        entries = entries_for(context.role)
        lines = columns(entries, self.screen.console.width if self.screen.on_terminal else 0)
        if self.screen.on_terminal and used and used + len(lines) + AROUND > self.screen.console.height:
            lines = [brief(entries)]
        for line in lines:
            self.screen.line(line)

    def _attempt(self, screen: Callable[[Context], None], context: Context) -> None:
        try:
            screen(context)
        except Back:
            self.screen.line()
            self.screen.line(("Back to the menu. Nothing was changed.", FAINT))
        except KeyboardInterrupt:  # between two questions, while something is looked up
            self.screen.line()
            self.screen.line(("Back to the menu.", FAINT))


def open_menu(before_write: BeforeWrite, *, may_decide: bool = True) -> int:
    """Open the installation and its menu; the exit status, 64 where there is no terminal.

    Args:
        before_write: called before anything writes the state file.
        may_decide: whether an administrator is asked where state file and journal do not fit.

    Raises:
        CloudError: the state file or the settings cannot be used.
    """
    from cloudrepo.errors import StateFileError

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(NO_TERMINAL, file=sys.stderr)
        return EXIT_USAGE
    try:
        installation = Installation.open(before_write)
    except StateFileError as error:
        from cli.state import decide

        ask = Ask(TerminalKeyboard())
        try:
            if not may_decide or not decide(error, Screen(), ask):
                raise
        except (Back, Leave):
            plain()
            raise error from None
        installation = Installation.open(before_write)
    return CLI(installation).run()
