"""The menu: login, then the numbers, which keep their meaning for good."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cli.ask import Ask, Back, Leave, TerminalKeyboard
from cli.installation import DEFAULT_WORKERS, BeforeWrite, Installation
from cli.login import log_in
from cli.operation import LeftRunning
from cli.screen import FAINT, Screen, plain
from cli.text import count, listing

if TYPE_CHECKING:
    from cli.screens.context import Context
    from control.watch import Watcher
    from health_monitor import HealthMonitor
    from worker_discovery import WorkerDiscovery

ENTRIES: tuple[tuple[str, str, str], ...] = (
    # number, words, function as module:name; loaded when it is chosen
    ("1", "Cluster status", "cluster:cluster_status_menu"),
    ("2", "Create Slice", "slices:create_slice_menu"),
    ("3", "Add VM to Slice", "vms:add_vm_menu"),
    ("4", "Create Link between VMs", "vms:create_link_menu"),
    ("5", "View my Slices", "slices:view_slices_menu"),
    ("6", "Deploy Slice", "deploy:deploy_slice_menu"),
    ("7", "Delete Slice", "slices:delete_slice_menu"),
    ("8", "Console", "consoles:console_menu"),
    ("11", "Start Slice", "deploy:start_slice_menu"),
    ("12", "Stop Slice", "deploy:stop_slice_menu"),
    ("13", "Resume or roll back", "recovery:recovery_menu"),
    ("14", "Link switches", "links:link_switches_menu"),
    ("15", "Images", "images:images_menu"),
    ("0", "Exit", ""),
)


BEGIN_S = 5.0


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
        self._may_watch = threading.Event()

    def run(self) -> int:
        """Log a person in and serve them until they leave.

        Returns:
            The exit status: 0, or 1 when nobody logged in.
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
            self._serve(account)
            return 0
        except Leave:
            plain()
            return 0
        except LeftRunning:
            plain()
            plain("Left. Hosts end the step they are at; the next start shows what became of the slice.")
            return 130
        finally:
            monitor.stop()
            if self._watcher is not None:
                self._watcher.close()

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

    def _serve(self, account: dict[str, Any]) -> None:
        from cli.screens.context import Context
        from control.authority import Session

        username, role = str(account["username"]), str(account["role"])
        self.installation.api.session = Session(username)  # no screen can act in another name
        context = Context(
            self.installation.api, username, self.screen, self.ask, role=role, save_error=self._save_error
        )
        self.screen.line(f"Welcome, {account['username']}. VMs: {account['used_vms']} of {account['quota_vms']}.")
        self._attempt(_load("recovery:offer_recovery"), context)
        while True:
            self._show()
            try:
                number = self.ask.text("Choose")
            except Back:
                self.screen.line()
                self.screen.line("0 leaves. Nothing was changed.")
                continue
            except Leave:
                number = "0"
            if number == "0":
                self.screen.line("Goodbye.")
                return
            self._choose(context, number)

    def _show(self) -> None:
        self.screen.line()
        for number, words, _function in ENTRIES:
            self.screen.line(f"{number}. {words}")

    def _choose(self, context: Context, number: str) -> None:
        function = next((target for known, _words, target in ENTRIES if known == number), "")
        if not function:
            self.screen.line(f"There is no {number} in the menu.")
            return
        self._attempt(_load(function), context)

    def _attempt(self, screen: Callable[[Context], None], context: Context) -> None:
        try:
            screen(context)
        except Back:
            self.screen.line()
            self.screen.line(("Back to the menu. Nothing was changed.", FAINT))
        except KeyboardInterrupt:  # between two questions, while something is looked up
            self.screen.line()
            self.screen.line(("Back to the menu.", FAINT))


def _load(target: str) -> Callable[[Context], None]:
    import importlib

    module, _, name = target.partition(":")
    function: Callable[[Context], None] = getattr(importlib.import_module(f"cli.screens.{module}"), name)
    return function


def open_menu(before_write: BeforeWrite, *, may_decide: bool = True) -> int:
    """Open the installation and its menu; the exit status.

    Args:
        before_write: called before anything writes the state file.
        may_decide: whether an administrator is asked where state file and journal do not fit.

    Raises:
        CloudError: the state file or the settings cannot be used.
    """
    from cloudrepo.errors import StateFileError

    try:
        installation = Installation.open(before_write)
    except StateFileError as error:
        from cli.state import decide

        ask = Ask(TerminalKeyboard())
        try:
            if not may_decide or not sys.stdin.isatty() or not decide(error, Screen(), ask):
                raise
        except (Back, Leave):
            plain()
            raise error from None
        installation = Installation.open(before_write)
    return CLI(installation).run()
