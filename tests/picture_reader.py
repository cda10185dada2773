"""Reads a drawing of boxes and lines back, as a person does: from a box along its line to the next one."""

from __future__ import annotations

from collections.abc import Sequence

from cloudrepo.pictures.graph import End, Graph, Network, Nic, Node

Cell = tuple[int, int]
RIGHT, DOWN, LEFT, UP = (1, 0), (0, 1), (-1, 0), (0, -1)
OUT = {"├": RIGHT, "┬": DOWN, "┤": LEFT, "┴": UP}
BENDS = {
    "┌": {LEFT: DOWN, UP: RIGHT},
    "┐": {RIGHT: DOWN, UP: LEFT},
    "└": {LEFT: UP, DOWN: RIGHT},
    "┘": {RIGHT: UP, DOWN: LEFT},
}


def graph(
    number: int, pairs: Sequence[Sequence[int]], *, online: Sequence[int] = (), names: Sequence[str] = ()
) -> Graph:
    """Nodes vm1, vm2 and so on, a network for each tuple of them, and some on the internet."""
    nics: dict[int, list[Nic]] = {place: [] for place in range(number)}
    networks = []
    if online:
        ends = tuple(End(str(place), "eth0") for place in online)
        networks.append(Network(key="internet", name="internet", kind="internet", vlan=400, ends=ends))
        for place in online:
            nics[place].append(Nic(name="eth0", mac="52:54:00:00:00:01", address="10.60.7.101", network="internet"))
    for link, those in enumerate(pairs):
        key, found = f"link{link}", []
        for place in those:
            name = f"eth{len(nics[place]) + 1}"
            nics[place].append(Nic(name=name, mac=f"52:54:00:00:{place:02x}:{link:02x}", network=key))
            found.append(End(str(place), name))
        networks.append(Network(key=key, name=f"link {link + 1}", vlan=100 + link, ends=tuple(found)))
    nodes = tuple(
        Node(
            key=str(place),
            name=names[place] if place < len(names) else f"vm{place + 1}",
            state="running",
            worker=f"10.0.10.{place % 3 + 1}",
            nics=tuple(nics[place]),
        )
        for place in range(number)
    )
    return Graph(title="Slice 1000", state="running", nodes=nodes, networks=tuple(networks))


class Reader:
    """A drawing as cells.

    Attributes:
        boxes: the first word in each box, by its cells.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self.cells = {(x, y): char for y, line in enumerate(lines) for x, char in enumerate(line)}
        self.boxes: dict[Cell, str] = {}
        for (x, y), char in self.cells.items():
            if char in "┌╭" and (size := self._box(x, y)):
                right, bottom = size
                row = "".join(self.cells.get((at, y + 1), " ") for at in range(x + 1, right)).strip()
                word = row.lstrip("●✗○◌◐").strip()
                for u in range(x, right + 1):
                    for v in range(y, bottom + 1):
                        self.boxes[u, v] = word

    def _box(self, x: int, y: int) -> Cell | None:
        right, bottom = x + 1, y + 1
        while self.cells.get((right, y)) in ("─", "┴"):
            right += 1
        while self.cells.get((x, bottom)) in ("│", "┤"):
            bottom += 1
        closed = self.cells.get((right, y), " ") in "┐╮" and self.cells.get((x, bottom), " ") in "└╰"
        inside = self.cells.get((x + 1, y + 1)) == " " and self.cells.get((x + 2, y + 1), " ") != " "
        return (right, bottom) if closed and inside and right - x >= 10 else None

    def connections(self) -> list[tuple[str, str]]:
        """Every line by the words of the boxes at its ends, sorted."""
        found = []
        for cell, char in self.cells.items():
            if cell in self.boxes and char in OUT and self._leaves(cell, OUT[char]):
                found.append(tuple(sorted((self.boxes[cell], self._follow(cell, OUT[char])))))
        assert len(found) % 2 == 0, "each line is found from both its ends"
        found.sort()
        assert found[::2] == found[1::2]
        return [(one, other) for one, other in found[::2]]

    def _leaves(self, cell: Cell, direction: Cell) -> bool:
        return (cell[0] + direction[0], cell[1] + direction[1]) not in self.boxes

    def _follow(self, cell: Cell, direction: Cell) -> str:
        for _step in range(2000):
            cell = (cell[0] + direction[0], cell[1] + direction[1])
            if cell in self.boxes:
                return self.boxes[cell]
            char = self.cells.get(cell, "?")
            assert char != "?", f"a line ends in nothing at {cell}"
            direction = BENDS.get(char, {}).get(direction, direction)
        raise AssertionError("a line without an end")
