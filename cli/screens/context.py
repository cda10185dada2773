"""What every screen is given, and the questions that many of them ask."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from cli.ask import Ask, Back
from cli.screen import FAINT, Screen
from cli.text import count
from cloudrepo.late_dataclass import dataclass
from cloudrepo.permissions import Role

if TYPE_CHECKING:
    from cli.background import Work
    from orchestrator_api import OrchestratorAPI

Record = dict[str, Any]

MOST_LISTED = 12  # more are left to completion
DEPLOYABLE = ("design", "error")
RUNNING = ("running",)
STOPPED = ("stopped",)


@dataclass
class Context:
    """Who is logged in, what they talk to, and what they touched last.

    Attributes:
        api: the façade.
        username: who is logged in.
        screen: where lines go.
        ask: where answers come from.
        role: what that person is.
        last_slice: the slice of the previous step, offered as the answer to `Slice ID`.
        save_error: why this session could not save the state, or an empty text.
        can_leave: whether long work may be left running: there is a menu to go back to, and a terminal.
        work: what was left running, and has not been told of.
    """

    api: OrchestratorAPI
    username: str
    screen: Screen
    ask: Ask
    role: Role = "student"
    last_slice: int | None = field(default=None)
    save_error: Callable[[], str] = str
    can_leave: bool = False
    work: list[Work] = field(default_factory=list)

    def slices(self) -> list[Record]:
        """The slices of the person, or none after saying why."""
        ok, answer = self.api.list_slices(self.username)
        if not ok:
            self.screen.complain(answer)
            return []
        slices: list[Record] = answer
        return slices

    def ask_slice(self, fits: Collection[str] = ()) -> int:
        """Ask for a slice by its id or name, after listing what there is.

        Args:
            fits: states that make sense; the slices in them are offered first. Any other is left to the façade.

        Raises:
            Back: there is none, and the person may not name another's.
        """
        slices = self.slices()
        if not slices and self.role == "student":
            self.screen.line("You have no slices yet. 2 makes one, 9 a whole lab.")
            raise Back
        fitting = [record for record in slices if not fits or record["status"] in fits] or slices
        for record in fitting[:MOST_LISTED]:
            self.screen.line((f"  {summary(record)}", FAINT))
        if len(fitting) > MOST_LISTED:
            self.screen.line((f"  and {len(fitting) - MOST_LISTED} more: Tab offers them", FAINT))
        known = [int(record["slice_id"]) for record in fitting]
        default = self.last_slice if self.last_slice in known else None
        if default is None and len(known) == 1:
            default = known[0]
        answer = self.ask.text(
            "Slice ID",
            default="" if default is None else str(default),
            options=[(str(record["slice_id"]), summary(record).partition(" ")[2]) for record in fitting],
            check=lambda typed: self._why_no_slice(slices, typed),
        )
        self.last_slice = _slice_id(slices, answer)
        return self.last_slice

    def _why_no_slice(self, slices: Sequence[Record], typed: str) -> str:
        named = [record for record in slices if record["name"] == typed]
        if len(named) > 1:
            return f"Several of your slices are called {typed}: {', '.join(str(one['slice_id']) for one in named)}."
        if named or (typed.isdecimal() and len(typed) < 16):
            return ""  # what is not one's own, the façade answers
        return f"None of your slices is {typed}; an ID is a number."

    def ask_slice_record(self, fits: Collection[str] = ()) -> Record:
        """Ask for a slice, and fetch it.

        Raises:
            Back: it cannot be used; that was said.
        """
        record = self.slice(self.ask_slice(fits))
        if record is None:
            raise Back
        return record

    def slice(self, slice_id: int) -> Record | None:
        """A slice, or None after saying why not."""
        ok, answer = self.api.get_slice(self.username, slice_id)
        if not ok:
            self.screen.complain(answer)
            return None
        record: Record = answer
        return record

    def ask_vm(self, vms: Sequence[Record], label: str = "VM (ID or name)", *, listed: bool = True) -> Record:
        """Ask for one of these VMs, by id or name.

        Raises:
            Back: there is none.
        """
        if not vms:
            self.screen.line("There is no VM for this.")
            raise Back
        for vm in vms[:MOST_LISTED] if listed else ():
            self.screen.line(f"  {vm['vm_id']} {vm['name']} ", (f"[{vm['status']}] on {vm['worker_ip']}", FAINT))
        answer = self.ask.text(
            label,
            default=str(vms[0]["vm_id"]) if len(vms) == 1 else "",
            options=[(str(vm["vm_id"]), str(vm["name"])) for vm in vms],
            check=lambda typed: "" if find_vm(vms, typed) else why_no_vm(vms, typed),
        )
        return next(vm for vm in (find_vm(vms, answer),) if vm is not None)


def _slice_id(slices: Sequence[Record], answer: str) -> int:
    """The id behind an answer that was found usable; an id is meant first."""
    if answer.isdecimal() and any(record["slice_id"] == int(answer) for record in slices):
        return int(answer)
    named = [int(record["slice_id"]) for record in slices if record["name"] == answer]
    return named[0] if named else int(answer)


def summary(record: Record) -> str:
    """A slice in a few words: `1000 “lab 3” [design]: 2 VMs, 1 link`."""
    name = f" “{record['name']}”" if record.get("name") else ""
    vms, links = count(len(record["vms"]), "VM"), count(len(record["links"]), "link")
    return f"{record['slice_id']}{name} [{record['status']}]: {vms}, {links}"


def find_vm(vms: Sequence[Record], words: str) -> Record | None:
    """The VM a person names by its id or its name; an id comes first."""
    by_id = [vm for vm in vms if str(vm["vm_id"]) == words]
    by_name = [vm for vm in vms if vm["name"] == words]
    found = by_id or by_name
    return found[0] if len(found) == 1 else None


def why_no_vm(vms: Sequence[Record], words: str) -> str:
    """Why `words` mean none of these VMs."""
    ids = [str(vm["vm_id"]) for vm in vms if vm["name"] == words]
    if ids:
        return f"Several VMs are called {words}: {', '.join(ids)}. Use the ID."
    return f"There is no VM {words} here; there is {', '.join(str(vm['name']) for vm in vms[:MOST_LISTED])}."
