"""Which installation a command is about, and what stands around its state file."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cli.documents import NotDone
    from cloudrepo.settings import Settings
    from control.authority import Session
    from database import Database
    from orchestrator_api import OrchestratorAPI

STATE_VARIABLE = "CLOUDREPO_STATE"
DEFAULT_STATE = "database.yaml"
DEFAULT_WORKERS = ("10.0.10.1", "10.0.10.2", "10.0.10.3")

BeforeWrite = Callable[["Database"], None]
"""Called with the state after it was read and before anything writes it."""


class Installation:
    """One state file, and the façade over it once somebody needs it.

    Args:
        path: the state file.
        db: its database.
        settings: those beside it.
        api: the façade; made at its first use when not given, since SSH takes its time to load.
    """

    def __init__(self, path: Path, db: Database, settings: Settings, api: OrchestratorAPI | None = None) -> None:
        self.path = path
        self.db = db
        self.settings = settings
        self._api = api
        self._making = threading.Lock()

    @classmethod
    def open(cls, before_write: BeforeWrite) -> Installation:
        """Read the state file and make the log ready; no host is contacted.

        Raises:
            CloudError: the state file or the settings cannot be used.
        """
        from cloudrepo import logs
        from cloudrepo.settings import Settings
        from database import Database

        path = state_path()
        settings = Settings.load(path)
        db = Database(path, copies=settings.history)
        before_write(db)
        logs.configure(path, settings.log.level)
        return cls(path, db, settings)

    @property
    def api(self) -> OrchestratorAPI:
        """The façade; several threads may ask."""
        with self._making:
            if self._api is None:
                from orchestrator_api import build

                self._api = build(self.path, db=self.db, settings=self.settings)
                self._api.session = operators_session()
            return self._api

    @property
    def untouched(self) -> bool:
        """Whether this is the cluster as shipped, which may name somebody else's hosts.

        Workers that do not answer for a moment are in no record; that they were contacted, their pinned keys tell.
        """
        is_pinned = (self.path.resolve().parent / "known_hosts").exists()
        return not in_lab() and is_untouched(self.db.data) and not is_pinned

    def one_slice(self, words: str, user: str = "") -> dict[str, Any]:
        """The slice that an operator means by an id or a name; an id is meant first.

        Args:
            words: the id or name.
            user: who acts; of several slices with one name his is meant.

        Raises:
            NotDone: there is none, or several have the name: all are listed.
        """
        from cli.documents import NotDone

        found = self.slices_named(words)
        if len(found) > 1 and user:
            found = [record for record in found if record["owner"] == user] or found
        if not found:
            near = _nearest(words, [str(record["name"]) for record in self.db.list_slices()])
            raise NotDone(f"There is no slice {words}.{near}", code="slice.unknown")
        if len(found) > 1:
            told = "; ".join(f"{one['slice_id']} is {one['owner']}'s ({one['status']})" for one in found)
            raise _many("slices", "slice_id", words, found, told)
        return found[0]

    def one_vm(self, words: str, user: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """The VM that an operator means by an id, a name, or SLICE/NAME, and its slice.

        Args:
            words: the id or name.
            user: who acts; of several VMs with one name his is meant.

        Raises:
            NotDone: there is none, or several have the name: all are listed.
        """
        from cli.documents import NotDone

        pairs = [(record, vm) for record in self.db.list_slices() for vm in record["vms"]]
        found = [pair for pair in pairs if str(pair[1]["vm_id"]) == words]
        found = found or [pair for pair in pairs if pair[1]["name"] == words]
        if not found and "/" in words:
            of, _, name = words.rpartition("/")
            ids = {record["slice_id"] for record in self.slices_named(of)}
            found = [pair for pair in pairs if pair[0]["slice_id"] in ids and pair[1]["name"] == name]
        if len(found) > 1 and user:
            found = [pair for pair in found if pair[1]["owner"] == user] or found
        if not found:
            near = _nearest(words.rpartition("/")[2], [str(vm["name"]) for _record, vm in pairs])
            raise NotDone(f"There is no VM {words}.{near}", code="vm.unknown")
        if len(found) > 1:
            told = "; ".join(f"{vm['vm_id']} is in slice {of['slice_id']} “{of['name']}”" for of, vm in found)
            raise _many("VMs", "vm_id", words, [{"slice_id": of["slice_id"], **vm} for of, vm in found], told)
        return found[0]

    def slice_id(self, words: str | None) -> int | None:
        """The id of the slice that an id or a name means; None, for all, where none is named.

        Raises:
            NotDone: there is none, or several have the name.
        """
        return int(self.one_slice(words)["slice_id"]) if words is not None else None

    def slices_named(self, words: str) -> list[dict[str, Any]]:
        """The slices that an operator means by an id or a name; an id is meant first."""
        slices = self.db.list_slices()
        exact = [record for record in slices if str(record["slice_id"]) == words]
        return exact or [record for record in slices if record["name"] == words]


def _nearest(words: str, names: Sequence[str]) -> str:
    """What may have been meant, as a further sentence; "" where nothing is near."""
    from difflib import get_close_matches

    found = get_close_matches(words, names, 1)
    return f" The nearest is {found[0]}." if found and found[0] != words else ""


def _many(what: str, key: str, words: str, found: Sequence[dict[str, Any]], told: str) -> NotDone:
    """Said when a name is not enough: all that have it, so that one can be chosen."""
    from cli.documents import NotDone
    from cloudrepo.errors import Message

    keys = ("slice_id", "vm_id", "name", "owner", "status")
    details = {"found": [{name: one[name] for name in keys if name in one} for one in found]}
    ids = ", ".join(str(one[key]) for one in found)
    text = f"Several {what} are called {words}: {ids}. Use the id. {told}."
    return NotDone(Message(text, code=f"{key.removesuffix('_id')}.many", details=details, hint="Use the id."))


def operators_session() -> Session:
    """Whoever is at this shell: an operator, until a person logs in. His system account is in the event log."""
    import getpass

    from control.authority import Session

    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        account = f"uid {os.getuid()}"
    return Session(operator=account)


def state_path() -> Path:
    """The state file: `CLOUDREPO_STATE`, else `database.yaml` in the working directory."""
    return Path(os.environ.get(STATE_VARIABLE) or DEFAULT_STATE)


def state_folder() -> Path:
    """The directory of the state file, log and events, which must be there.

    Raises:
        NotDone: it is not.
    """
    from cli.documents import NotDone

    folder = state_path().resolve().parent
    if not folder.is_dir():
        remedy = f"`./cloud init DIR` makes an installation, {STATE_VARIABLE} names its state file."
        raise NotDone(f"There is no directory {folder}. {remedy}", code="state.file")
    return folder


def is_untouched(data: dict[str, Any]) -> bool:
    """Whether a state is the shipped one: its workers, none ever found, no slice."""
    workers = tuple(data.get("workers_list") or ())
    return workers == DEFAULT_WORKERS and not data.get("workers") and not data.get("slices")


def in_lab() -> bool:
    """Whether this process runs where a lab's orchestrator runs."""
    return bool(os.environ.get("CLOUDREPO_LAB_DIR")) and bool(os.environ.get(STATE_VARIABLE))


def enter_lab_if_up(words: Sequence[str]) -> int | None:
    """Run `words` on the lab when one is up and no installation was named.

    Returns:
        The exit status of the command on the lab, or None when it is to run here.

    Raises:
        CloudError: the lab is another account's.
    """
    if os.environ.get(STATE_VARIABLE) or not _here_is_nothing_else():
        return None
    record = Path(os.environ.get("CLOUDREPO_LAB_DIR") or Path(__file__).resolve().parent.parent / ".lab") / "run"
    if not (record / "lab.json").exists():  # spares the import of the lab where there is none
        return None

    if os.geteuid() != 0:
        from cloudrepo.errors import CloudError

        remedy = f"Run it with sudo; for another installation set {STATE_VARIABLE}"
        raise CloudError("a lab is up, and is root's", remedy=remedy, code="lab.root")
    from lab.cluster import Lab
    from lab.errors import LabError

    lab = Lab()
    try:
        lab.orchestrator_room()
    except LabError:  # it was up when the machine went down
        return None
    print("On the lab (for another installation set CLOUDREPO_STATE).", file=sys.stderr, flush=True)
    main = Path(__file__).resolve().parent.parent / "main.py"
    return lab.exec_foreground([sys.executable, str(main), *words])


def _here_is_nothing_else() -> bool:
    """Whether the working directory holds no installation that somebody uses."""
    path = Path(DEFAULT_STATE)
    if not path.exists():
        return True
    import yaml

    from cloudrepo import bounded_yaml, regular_file

    try:
        data = bounded_yaml.load(regular_file.read(path).decode())
    except (OSError, ValueError, yaml.YAMLError):
        return False  # whatever it is, it is to be looked at here
    return data is None or (isinstance(data, dict) and is_untouched(data))
