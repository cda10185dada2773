"""Lines between boxes on paper of characters: each finds its way around boxes, and crosses others straight."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import field

from cloudrepo.late_dataclass import dataclass

Point = tuple[int, int]  # column, row
RIGHT, DOWN, LEFT, UP = DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))

TURN, CROSS, BESIDE, OFF_CENTRE, NEXT_PORT = 3.0, 6.0, 2.0, 0.4, 3.0


@dataclass(frozen=True)
class Box:
    """A rectangle of characters, its border included."""

    x: int
    y: int
    width: int
    height: int

    def distance(self, point: Point) -> int:
        """Steps from a point to this box at least."""
        across = max(self.x - point[0], 0, point[0] - self.x - self.width + 1)
        return across + max(self.y - point[1], 0, point[1] - self.y - self.height + 1)

    def ports(self) -> Iterator[tuple[Point, Point, float]]:
        """Border cells without the corners: where, which way leads out, and how far from the middle of the side."""
        middle_x, middle_y = self.x + self.width / 2 - 0.5, self.y + self.height / 2 - 0.5
        for x in range(self.x + 1, self.x + self.width - 1):
            yield (x, self.y), UP, abs(x - middle_x)
            yield (x, self.y + self.height - 1), DOWN, abs(x - middle_x)
        for y in range(self.y + 1, self.y + self.height - 1):
            yield (self.x, y), LEFT, abs(y - middle_y)
            yield (self.x + self.width - 1, y), RIGHT, abs(y - middle_y)


@dataclass
class Paper:
    """What is drawn so far.

    Attributes:
        width, height: of the paper.
        boxes: which are there, each under its key.
        lines: cells with lines: the directions in which something leaves, such as `{RIGHT, LEFT}`.
        ports: border cells in use, and which way they lead out.
        crossings: how many there are.
    """

    width: int
    height: int
    boxes: dict[str, Box]
    lines: dict[Point, set[Point]] = field(default_factory=dict)
    ports: dict[Point, Point] = field(default_factory=dict)
    crossings: int = 0

    def __post_init__(self) -> None:
        self._solid = {
            (x, y)
            for box in self.boxes.values()
            for x in range(box.x, box.x + box.width)
            for y in range(box.y, box.y + box.height)
        }

    def connect(self, start: str, end: str) -> list[Point] | None:
        """Draw a line between two boxes: its cells from port to port; None when there is no way."""
        path = self._way(self.boxes[start], self.boxes[end])
        if path is None:
            return None
        for before, here, after in zip(path, path[1:], path[2:], strict=False):
            directions = self.lines.setdefault(here, set())
            self.crossings += bool(directions)
            directions |= {_step(here, before), _step(here, after)}
        self.ports[path[0]] = _step(path[0], path[1])
        self.ports[path[-1]] = _step(path[-1], path[-2])
        return path

    def _way(self, start: Box, end: Box) -> list[Point] | None:
        goals = {port: (out, off) for port, out, off in end.ports() if port not in self.ports}
        best: dict[tuple[Point, Point], float] = {}
        came: dict[tuple[Point, Point], tuple[Point, Point]] = {}
        queue: list[tuple[float, float, tuple[Point, Point]]] = []  # cost with what is left at least, cost, state
        for port, out, off in start.ports():
            if port not in self.ports:
                best[port, out] = off * OFF_CENTRE + self._crowd(port)
                heapq.heappush(queue, (best[port, out] + end.distance(port), best[port, out], (port, out)))
        while queue:
            _least, cost, state = heapq.heappop(queue)
            if cost > best[state]:
                continue
            here, direction = state
            if here in goals:
                return _back(came, state)
            for turn in self._moves(here, direction, is_port=here in self._solid):
                there = (here[0] + turn[0], here[1] + turn[1])
                price = self._price(there, turn, goals)
                if price is None:
                    continue
                total = cost + price + (TURN if turn != direction else 0)
                if total < best.get((there, turn), float("inf")):
                    best[there, turn] = total
                    came[there, turn] = state
                    heapq.heappush(queue, (total + end.distance(there), total, (there, turn)))
        return None

    def _moves(self, here: Point, direction: Point, *, is_port: bool) -> Sequence[Point]:
        """Straight on; also to the sides where nothing else is."""
        if is_port or here in self.lines:
            return (direction,)
        return [turn for turn in DIRECTIONS if turn != (-direction[0], -direction[1])]

    def _price(self, there: Point, direction: Point, goals: dict[Point, tuple[Point, float]]) -> float | None:
        """What it costs to enter a cell; None = impossible."""
        if not (0 <= there[0] < self.width and 0 <= there[1] < self.height):
            return None
        if there in self._solid:
            out, off = goals.get(there, (None, 0.0))
            if out != (-direction[0], -direction[1]):
                return None
            return 1 + off * OFF_CENTRE + self._crowd(there)
        price = 1.0
        if there in self.lines:
            if self.lines[there] & {direction, (-direction[0], -direction[1])}:  # along it, or at a bend or crossing
                return None
            price += CROSS
        sideways = (direction[1], direction[0])
        for sign in (1, -1):
            beside = (there[0] + sign * sideways[0], there[1] + sign * sideways[1])
            if beside in self._solid or self.lines.get(beside, set()) & {direction, (-direction[0], -direction[1])}:
                price += BESIDE
        return price

    def _crowd(self, port: Point) -> float:
        beside = ((port[0] + x, port[1] + y) for x, y in DIRECTIONS)
        return NEXT_PORT * sum(cell in self.ports for cell in beside)


def _step(here: Point, there: Point) -> Point:
    return (there[0] - here[0], there[1] - here[1])


def _back(came: dict[tuple[Point, Point], tuple[Point, Point]], state: tuple[Point, Point]) -> list[Point]:
    path = [state[0]]
    while state in came:
        state = came[state]
        path.append(state[0])
    return path[::-1]
