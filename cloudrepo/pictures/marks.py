"""The characters of a drawing, for terminals that know Unicode and for those that do not; and texts cut to columns."""

from __future__ import annotations

from cloudrepo.late_dataclass import dataclass
from cloudrepo.pictures.graph import Graph

RIGHT, DOWN, LEFT, UP = (1, 0), (0, 1), (-1, 0), (0, -1)

_STATES = {"running": 0, "error": 1, "": 2, "design": 2, "stopped": 3}
_MARK_WORDS = ("running", "error", "design", "stopped", "under way")


@dataclass(frozen=True)
class Marks:
    """What lines, boxes and states are drawn with.

    Attributes:
        across, down, crossing: lines.
        corners: of a VM's box: top left, top right, bottom left, bottom right.
        round: of a network's box, the same.
        tees: on a border where a line leaves: right, down, left, up.
        knot: where a line ends on another.
        states: for running, error, design, stopped, and anything under way.
        more: for a text that was cut.
        uplink: behind the name of a VM on the internet, where there is no room for the word.
    """

    across: str
    down: str
    crossing: str
    corners: str
    round: str
    tees: str
    knot: str
    states: str
    more: str
    uplink: str

    def uplink_of(self, is_online: bool) -> str:
        """What stands behind a VM's name."""
        return f" {self.uplink}" if is_online else ""

    def state(self, word: str) -> str:
        """The mark of a state."""
        return self.states[_STATES.get(word, 4)]

    def explained(self, graph: Graph) -> str:
        """The marks that a drawing of this graph uses, each with its meaning."""
        used = dict.fromkeys(_STATES.get(node.state, 4) for node in graph.nodes)
        return "  ".join(f"{self.states[number]} {_MARK_WORDS[number]}" for number in sorted(used))

    def bend(self, directions: set[tuple[int, int]]) -> str:
        """The character of a line's cell, by where it leaves the cell."""
        if len(directions) > 2:
            return self.crossing
        if directions in ({LEFT, RIGHT}, {LEFT}, {RIGHT}):
            return self.across
        if directions in ({UP, DOWN}, {UP}, {DOWN}):
            return self.down
        return self.corners[(0 if DOWN in directions else 2) + (0 if RIGHT in directions else 1)]


UNICODE = Marks("─", "│", "┼", "┌┐└┘", "╭╮╰╯", "├┬┤┴", "●", "●✗○◌◐", "…", "↑")
# A crossing is a line that passes over the other: `+` would read as a corner.
ASCII = Marks("-", "|", "|", "..''", "..''", "+-+-", "o", "*x.o~", "~", "^")


def marks_for(*, unicode: bool) -> Marks:
    """Those of a terminal that knows more than ASCII, or of one that does not."""
    return UNICODE if unicode else ASCII


def columns_of(text: str) -> int:
    """How many columns a terminal gives to a text."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    return int(max(wcswidth(text), 0))


def fit(text: str, width: int, marks: Marks) -> str:
    """A text in exactly so many columns: filled with blanks, or cut and marked so."""
    if columns_of(text) > width:
        while text and columns_of(text) > width - 1:
            text = text[:-1]
        text += marks.more
    return text + " " * (width - columns_of(text))
