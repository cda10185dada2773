"""Cells for boxes: which box stands where on a grid, so that few lines are long and few cross.

Deterministic: some orders are tried as a beginning, and two cells change places as long as that helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from functools import cache

from cloudrepo.late_dataclass import dataclass

Cell = tuple[int, int]  # column, row
Edge = tuple[str, str]

MOST_ROUNDS = 12
CROSSING, BEHIND = 4.0, 5.0  # what it costs when two lines cross, and when a box stands between two others


@dataclass(frozen=True)
class Placement:
    """Where each box stands, and how good that is; less is better."""

    at: Mapping[str, Cell]
    cost: float
    columns: int
    rows: int


def place(boxes: Sequence[str], edges: Sequence[Edge], most_columns: int) -> Placement:
    """The best placement found on any grid of at most so many columns.

    Args:
        boxes: at least one.
        edges: pairs of different boxes; a pair may be there twice.
        most_columns: at least one.
    """
    found = [
        placed
        for columns, rows in _grids(len(boxes), most_columns)
        for placed in _attempts(boxes, edges, columns, rows)
    ]
    best = min(found, key=lambda placed: (placed.cost + 0.3 * placed.columns * placed.rows, placed.rows))
    return _from_the_left(best, boxes[0])


def _from_the_left(placed: Placement, first: str) -> Placement:
    """The same, mirrored so that the first box stands in the upper left half."""
    x, y = placed.at[first]
    over_x = 2 * x > placed.columns - 1
    over_y = 2 * y > placed.rows - 1
    at = {
        box: (placed.columns - 1 - column if over_x else column, placed.rows - 1 - row if over_y else row)
        for box, (column, row) in placed.at.items()
    }
    return Placement(at, placed.cost, placed.columns, placed.rows)


def _grids(number: int, most_columns: int) -> Iterator[Cell]:
    for columns in range(1, min(number, most_columns) + 1):
        rows = -(-number // columns)
        if rows <= 4 or columns == min(number, most_columns):
            yield columns, rows
            if columns > 2 and rows < 4 and columns * rows - number < 2:
                yield columns, rows + 1  # room around the middle of a star


def _attempts(boxes: Sequence[str], edges: Sequence[Edge], columns: int, rows: int) -> Iterator[Placement]:
    cells = [(column, row) for row in range(rows) for column in range(columns)]
    snake = [(columns - 1 - x if y % 2 else x, y) for x, y in cells]
    walk = _walk(boxes, edges)
    beginnings = [(boxes, cells), (walk, snake), (walk, _around(columns, rows))]
    for order, places in beginnings:
        board = _Board(edges, dict(zip(order, places, strict=False)), cells)
        board.improve()
        yield Placement(board.at, board.cost(), columns, rows)


def _walk(boxes: Sequence[str], edges: Sequence[Edge]) -> list[str]:
    """The boxes along lines as far as that goes, from one with the fewest."""
    near: dict[str, list[str]] = {box: [] for box in boxes}
    for one, other in edges:
        near[one].append(other)
        near[other].append(one)
    order: dict[str, None] = {}
    for start in sorted(boxes, key=lambda box: len(near[box])):
        waiting = [start]
        while waiting:
            box = waiting.pop()
            if box not in order:
                order[box] = None
                waiting += [other for other in reversed(near[box]) if other not in order]
    return list(order)


def _around(columns: int, rows: int) -> list[Cell]:
    """The cells in rings from the outside in."""
    left, top, right, bottom = 0, 0, columns - 1, rows - 1
    found: dict[Cell, None] = {}
    while left <= right and top <= bottom:
        ring = [(x, top) for x in range(left, right + 1)] + [(right, y) for y in range(top, bottom + 1)]
        ring += [(x, bottom) for x in range(right, left - 1, -1)] + [(left, y) for y in range(bottom, top - 1, -1)]
        found.update(dict.fromkeys(ring))
        left, top, right, bottom = left + 1, top + 1, right - 1, bottom - 1
    return list(found)


@dataclass
class _Board:
    edges: Sequence[Edge]
    at: dict[str, Cell]
    cells: Sequence[Cell]
    of: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, edge in enumerate(self.edges):
            for box in edge:
                self.of.setdefault(box, []).append(number)

    def cost(self, only: Sequence[int] | None = None) -> float:
        """Of all lines, or of those with these numbers, with what they cross."""
        numbers = range(len(self.edges)) if only is None else only
        ends = [(self.at[one], self.at[other]) for one, other in self.edges]
        among = set(numbers)
        total = 0.0
        for number in numbers:
            start, end = ends[number]
            total += _length(start, end)
            if _is_long(start, end):
                total += BEHIND * sum(_is_between(cell, start, end) for cell in self.at.values())
            for other, (first, second) in enumerate(ends):
                if other != number and not (other in among and other < number):
                    total += CROSSING * _cross(start, end, first, second)
        return total

    def improve(self) -> None:
        """Let two cells change places while that helps."""
        for _round in range(MOST_ROUNDS):
            if not any([self._try(box, cell) for box in self.at for cell in self.cells]):
                return

    def _try(self, box: str, cell: Cell) -> bool:
        here = self.at[box]
        if here == cell:
            return False
        other = next((name for name, place in self.at.items() if place == cell), None)
        touched = sorted({*self.of.get(box, ()), *(self.of.get(other, ()) if other else ())})
        before = self.cost(touched) + self._blocking(box, other, touched)
        self._exchange(box, other, here, cell)
        if self.cost(touched) + self._blocking(box, other, touched) < before - 1e-9:
            return True
        self._exchange(box, other, cell, here)
        return False

    def _blocking(self, box: str, other: str | None, touched: Sequence[int]) -> float:
        """What these boxes cost where they stand between the ends of other lines."""
        places = [self.at[name] for name in (box, other) if name is not None]
        apart = set(touched)
        ends = [(self.at[a], self.at[b]) for number, (a, b) in enumerate(self.edges) if number not in apart]
        return BEHIND * sum(
            _is_between(place, start, end) for start, end in ends if _is_long(start, end) for place in places
        )

    def _exchange(self, box: str, other: str | None, here: Cell, there: Cell) -> None:
        self.at[box] = there
        if other is not None:
            self.at[other] = here


@cache
def _length(start: Cell, end: Cell) -> float:
    across, down = abs(start[0] - end[0]), abs(start[1] - end[1])
    return across + down + (1.5 if across and down else 0)  # a bend


def _is_long(start: Cell, end: Cell) -> bool:
    """Whether a cell lies straight between two."""
    across, down = abs(start[0] - end[0]), abs(start[1] - end[1])
    return (across > 1 and not down) or (down > 1 and not across)


@cache
def _is_between(cell: Cell, start: Cell, end: Cell) -> bool:
    if cell in (start, end):
        return False
    x, y = cell
    (x1, y1), (x2, y2) = start, end
    on_row = y1 == y2 == y and min(x1, x2) < x < max(x1, x2)
    on_column = x1 == x2 == x and min(y1, y2) < y < max(y1, y2)
    return on_row or on_column


@cache
def _cross(a: Cell, b: Cell, c: Cell, d: Cell) -> bool:
    """Whether two straight lines cross, other than at a common end."""

    def side(p: Cell, q: Cell, r: Cell) -> int:
        value = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
        return (value > 0) - (value < 0)

    if {a, b} & {c, d}:
        return False
    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
