"""The entries of the menu. A number keeps its meaning for good; new ones get new numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cli.text import listing
from cloudrepo.late_dataclass import dataclass
from cloudrepo.permissions import RULES, Reach, Role

if TYPE_CHECKING:
    from cli.screens.context import Context

GAP = 3
MOST_NAMED = 3  # entries that may be meant
SHORT = ("28", "0")  # what stands in the short menu


@dataclass(frozen=True)
class Entry:
    """One line of the menu.

    Attributes:
        number: what a person types; or the words, or their beginning.
        words: what it is called.
        target: its function as `module:name` within `cli.screens`, loaded when it is chosen; empty = leave.
        needs: the operation that must be allowed to the person's role; empty = anybody.
        about: one sentence for the help.
    """

    number: str
    words: str
    target: str
    needs: str
    about: str

    def is_for(self, role: Role) -> bool:
        """Whether a role may use it at all."""
        return not self.needs or RULES[self.needs].reach(role) > Reach.NONE


ENTRIES: tuple[Entry, ...] = (
    Entry("1", "Cluster status", "cluster:cluster_status_menu", "cluster_status", "Workers, what they have and use."),
    Entry("2", "Create Slice", "slices:create_slice_menu", "create_slice", "An empty slice with a name."),
    Entry("3", "Add VM to Slice", "vms:add_vm_menu", "add_vm_to_slice", "Name, flavor, data interfaces, internet."),
    Entry("4", "Create Link between VMs", "vms:create_link_menu", "create_link", "Joins two interfaces; also live."),
    Entry("5", "View my Slices", "slices:view_slices_menu", "list_slices", "All that is known of them, and a picture."),
    Entry("6", "Deploy Slice", "deploy:deploy_slice_menu", "deploy_slice", "Networks and machines on the hosts."),
    Entry("7", "Delete Slice", "slices:delete_slice_menu", "delete_slice", "Its machines and disks too, after a yes."),
    Entry("8", "Console", "consoles:console_menu", "console_target", "A guest's text console, or its screen."),
    Entry("9", "New lab", "labs:new_lab_menu", "create_slice", "A whole slice by its shape: line, ring, star …"),
    Entry("10", "Draw Slice", "drawing:draw_menu", "get_slice", "The picture alone, with its links."),
    Entry("11", "Start Slice", "deploy:start_slice_menu", "start_slice", "A stopped one, its disks as they were."),
    Entry("12", "Stop Slice", "deploy:stop_slice_menu", "stop_slice", "All its machines; disks stay."),
    Entry("13", "Resume or roll back", "recovery:recovery_menu", "resume", "What ended without a word."),
    Entry("14", "Link switches", "links:link_switches_menu", "set_link", "Spoofing, bridges, tags, DHCP on a link."),
    Entry("15", "Images", "images:images_menu", "list_images", "Those that people added; add and remove."),
    Entry("16", "Remove VM", "vms:remove_vm_menu", "remove_vm", "With its links and disk; one that runs ends."),
    Entry("17", "Remove Link", "vms:remove_link_menu", "remove_link", "Its interfaces are free again."),
    Entry("18", "Start VM", "vms:start_vm_menu", "start_vm", "One of a running slice: stopped, or new in it."),
    Entry("19", "Stop VM", "vms:stop_vm_menu", "stop_vm", "One machine; the others go on."),
    Entry("20", "Restart policy", "vms:restart_policy_menu", "set_restart_policy", "What happens when a machine dies."),
    Entry("21", "Path", "checks:path_menu", "path", "The way between two NICs, hop by hop."),
    Entry("22", "Verify", "checks:verify_menu", "verify", "Proof on the wire of who hears whom."),
    Entry("23", "Drift", "checks:drift_menu", "drift", "Hosts against the records, and set right."),
    Entry("24", "Users", "people:users_menu", "list_users", "Who there is, roles, quotas."),
    Entry("25", "Events", "events:events_menu", "list_events", "Who did what, and what happened."),
    Entry("26", "Work under way", "work:work_menu", "", "What was left running: look at it, or stop it."),
    Entry("27", "Change password", "people:password_menu", "set_password", "Your own."),
    Entry("28", "Help", "help:help_menu", "", "Keys, and what each entry does."),
    Entry("0", "Exit", "", "", "Leaves; slices that run go on."),
)


def entries_for(role: Role) -> list[Entry]:
    """The entries that a role may use."""
    return [entry for entry in ENTRIES if entry.is_for(role)]


def find(entries: Sequence[Entry], typed: str) -> Entry | None:
    """The entry that is meant by its number, its words, or a beginning of them or of a word that no other has."""
    found = _meant(entries, typed)
    return found[0] if len(found) == 1 else None


def why_none(entries: Sequence[Entry], typed: str) -> str:
    """Why no entry is meant; an empty text where one is."""
    found = _meant(entries, typed)
    if not found:
        return f"There is no {typed} in the menu."
    if len(found) == 1:
        return ""
    named = [f"{one.number}. {one.words}" for one in found[:MOST_NAMED]]
    if len(found) > MOST_NAMED:
        return f"{typed} may be {', '.join(named)} or {len(found) - MOST_NAMED} more."
    return f"{typed} may be {listing(named, 'or')}."


def _meant(entries: Sequence[Entry], typed: str) -> list[Entry]:
    """All that may be meant."""
    words = " ".join(typed.casefold().split())
    words = {"?": "help", "h": "help", "q": "exit", "quit": "exit"}.get(words, words)
    if not words:
        return []
    exact = [one for one in entries if words in (one.number, one.words.casefold())]
    begun = [one for one in entries if one.words.casefold().startswith(words)]
    within = [one for one in entries if any(word.startswith(words) for word in one.words.casefold().split())]
    return exact or begun or within


def columns(entries: Sequence[Entry], width: int) -> list[str]:
    """The menu as lines, in as many columns as fit; at most three, which leave room on a terminal of 24 lines.

    Args:
        entries: what there is.
        width: columns of the terminal; 0 = one entry a line.
    """
    texts = [f"{one.number}. {one.words}" for one in entries]
    for parts in (3, 2):
        rows = -(-len(texts) // parts)
        blocks = [texts[start : start + rows] for start in range(0, len(texts), rows)]
        widths = [max(map(len, block)) + GAP for block in blocks]
        if sum(widths) - GAP <= width:
            lines = []
            for row in range(rows):
                cells = [block[row].ljust(wide) for block, wide in zip(blocks, widths, strict=True) if row < len(block)]
                lines.append("".join(cells).rstrip())
            return lines
    return texts


def brief(entries: Sequence[Entry]) -> str:
    """The menu in one line, where what was asked for would be pushed away by all of it."""
    last = [f"{one.number}. {one.words}" for one in entries if one.number in SHORT]
    return "   ".join([*last, "Enter shows all entries"])


def load(target: str) -> Callable[[Context], None]:
    """The function behind an entry."""
    import importlib

    module, _, name = target.partition(":")
    function: Callable[[Context], None] = getattr(importlib.import_module(f"cli.screens.{module}"), name)
    return function
