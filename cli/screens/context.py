"""What every screen is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cli.ask import Ask
from cli.screen import FAINT, Screen
from cli.text import count

if TYPE_CHECKING:
    from orchestrator_api import OrchestratorAPI

Record = dict[str, Any]


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
    """

    api: OrchestratorAPI
    username: str
    screen: Screen
    ask: Ask
    role: str = "student"
    last_slice: int | None = field(default=None)
    save_error: Callable[[], str] = str

    def slices(self) -> list[Record]:
        """The slices of the person, or none after saying why."""
        ok, answer = self.api.list_slices(self.username)
        if not ok:
            self.screen.complain(answer)
            return []
        slices: list[Record] = answer
        return slices

    def ask_slice(self) -> int:
        """Ask for a slice by its id, after listing what there is."""
        slices = self.slices()
        for record in slices:
            self.screen.line((f"  {summary(record)}", FAINT))
        known = [int(record["slice_id"]) for record in slices]
        default = self.last_slice if self.last_slice in known else None
        if default is None and len(known) == 1:
            default = known[0]
        self.last_slice = self.ask.number("Slice ID", default=default)
        return self.last_slice

    def slice(self, slice_id: int) -> Record | None:
        """A slice, or None after saying why not."""
        ok, answer = self.api.get_slice(self.username, slice_id)
        if not ok:
            self.screen.complain(answer)
            return None
        record: Record = answer
        return record


def summary(record: Record) -> str:
    """A slice in a few words: `1000 “lab 3” [design]: 2 VMs, 1 link`."""
    name = f" “{record['name']}”" if record.get("name") else ""
    vms, links = count(len(record["vms"]), "VM"), count(len(record["links"]), "link")
    return f"{record['slice_id']}{name} [{record['status']}]: {vms}, {links}"
