"""A drawing with boxes on a grid and lines that find their way between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudrepo.late_dataclass import dataclass
from cloudrepo.pictures.graph import Graph, Network
from cloudrepo.pictures.grid import Placement, place
from cloudrepo.pictures.marks import DOWN, LEFT, RIGHT, UP, Marks, columns_of, fit
from cloudrepo.pictures.routing import Box, Paper, Point

GAPS = ((6, 2), (8, 3), (10, 4))  # columns and rows between boxes: more where lines found no way
MARGIN = 1
WIDEST, NARROWEST = 20, 11  # a box, its border included
TANGLE = 12  # more lines than this are drawn as rails, unless there are few for so many boxes


@dataclass(frozen=True)
class Sketch:
    """What is to be drawn: boxes with their words, and lines with theirs.

    Attributes:
        words: by box, its lines.
        is_round: boxes that are networks.
        lines: two boxes and a label.
    """

    words: Mapping[str, Sequence[str]]
    is_round: frozenset[str]
    lines: Sequence[tuple[str, str, str]]


def sketch(graph: Graph, marks: Marks, text: Mapping[str, str], *, is_low: bool = False) -> Sketch:
    """The boxes and lines of a graph.

    Args:
        graph: what is drawn.
        marks: by which characters.
        text: the names as this terminal can show them, under the keys of nodes.
        is_low: boxes of one line, with a mark for the internet, and without workers and VLANs.
    """
    online = graph.online
    has_workers = any(node.worker for node in graph.nodes)
    words: dict[str, Sequence[str]] = {}
    for node in graph.nodes:
        first = f"{marks.state(node.state)} {text[node.key]}"
        if is_low:
            words[node.key] = [first + marks.uplink_of(node.key in online)]
            continue
        rows = [first, *([f"  {node.worker}"] if has_workers else [])]
        words[node.key] = rows + (["  internet" if node.key in online else ""] if online else [])
    lines, hubs = [], []
    for one in graph.networks:
        if one.kind == "internet":
            continue
        if one.is_wire and one.ends[0].node != one.ends[1].node:
            lines.append((one.ends[0].node, one.ends[1].node, one.label))
            continue
        hubs.append(f"net:{one.key}")
        words[hubs[-1]] = [one.name, *([] if one.vlan is None or is_low else [f"VLAN {one.vlan}"])]
        lines += [(hubs[-1], end.node, "") for end in one.ends]
    return Sketch(words, frozenset(hubs), lines)


def draw(wanted: Sketch, width: int, marks: Marks) -> list[str] | None:
    """The lines of the drawing; None where it would not fit, or would be a tangle.

    Args:
        wanted: at least one box.
        width: columns there are.
        marks: by which characters.
    """
    if len(wanted.lines) > max(TANGLE, 1.5 * len(wanted.words)):
        return None
    longest = max(columns_of(row) for rows in wanted.words.values() for row in rows)
    box_width = max(NARROWEST, min(WIDEST, longest + 4))
    box_height = 2 + max(len(rows) for rows in wanted.words.values())
    pairs = [(one, other) for one, other, _label in wanted.lines]
    placements: dict[int, Placement] = {}
    for gap_x, gap_y in GAPS:
        most = (width - 2 * MARGIN + gap_x) // (box_width + gap_x)
        if most < 1:
            return None
        placed = placements.get(most) or place(list(wanted.words), pairs, most)
        placements[most] = placed
        boxes = {
            key: Box(MARGIN + x * (box_width + gap_x), 1 + y * (box_height + gap_y), box_width, box_height)
            for key, (x, y) in placed.at.items()
        }
        paper = Paper(
            2 * MARGIN + placed.columns * (box_width + gap_x) - gap_x,
            2 + placed.rows * (box_height + gap_y) - gap_y,
            boxes,
        )
        paths = _connect(paper, wanted.lines)
        if paths is not None and paper.crossings <= len(wanted.lines) // 2:
            return _inked(paper, wanted, paths, marks)
    return None


def _connect(paper: Paper, lines: Sequence[tuple[str, str, str]]) -> list[tuple[list[Point], str]] | None:
    """All lines, short ones first; None when one finds no way."""

    def distance(line: tuple[str, str, str]) -> int:
        one, other = paper.boxes[line[0]], paper.boxes[line[1]]
        return abs(one.x - other.x) + abs(one.y - other.y)

    paths = []
    for one, other, label in sorted(lines, key=distance):
        path = paper.connect(one, other)
        if path is None:
            return None
        paths.append((path, label))
    return paths


def _inked(paper: Paper, wanted: Sketch, paths: Sequence[tuple[list[Point], str]], marks: Marks) -> list[str]:
    ink: dict[Point, str] = {cell: marks.bend(directions) for cell, directions in paper.lines.items()}
    for key, box in paper.boxes.items():
        _ink_box(ink, box, wanted.words[key], marks, marks.round if key in wanted.is_round else marks.corners)
    for port, out in paper.ports.items():
        ink[port] = marks.tees[(RIGHT, DOWN, LEFT, UP).index(out)]
    for path, label in paths:
        _ink_label(ink, paper, path, label)
    return _cropped(ink)


def _ink_box(ink: dict[Point, str], box: Box, rows: Sequence[str], marks: Marks, corners: str) -> None:
    right, bottom = box.x + box.width - 1, box.y + box.height - 1
    for x in range(box.x + 1, right):
        ink[x, box.y] = ink[x, bottom] = marks.across
    for y in range(box.y + 1, bottom):
        ink[box.x, y] = ink[right, y] = marks.down
        row = rows[y - box.y - 1] if y - box.y - 1 < len(rows) else ""
        ink[box.x + 1, y] = f" {fit(row, box.width - 4, marks)} "
        for x in range(box.x + 2, right):  # the words stand in their first cell
            ink[x, y] = ""
    for corner, at in zip(corners, ((box.x, box.y), (right, box.y), (box.x, bottom), (right, bottom)), strict=True):
        ink[at] = corner


def _ink_label(ink: dict[Point, str], paper: Paper, path: Sequence[Point], label: str) -> None:
    """The label in the middle of the longest straight piece that nothing crosses; none where there is no room."""
    if not label or not label.isascii():
        return
    run = max(_runs(paper, path, across=True), key=len, default=[])
    if len(run) >= len(label) + 3:
        left, y = min(run)
        start = left + (len(run) - len(label) - 2) // 2
        for offset, letter in enumerate(f" {label} "):
            ink[start + offset, y] = letter
        return
    for run in sorted(_runs(paper, path, across=False), key=len, reverse=True):
        x, y = sorted(run)[len(run) // 2]
        start = x - len(label) // 2
        cells = [(start + offset, y) for offset in range(-1, len(label) + 1)]
        if all(cell == (x, y) or cell not in ink for cell in cells) and min(cells)[0] >= 0:
            for offset, letter in enumerate(label):
                ink[start + offset, y] = letter
            return


def _runs(paper: Paper, path: Sequence[Point], *, across: bool) -> list[list[Point]]:
    """The straight pieces of a path, without bends, crossings and ports."""
    wanted = {LEFT, RIGHT} if across else {UP, DOWN}
    runs: list[list[Point]] = [[]]
    for cell in path[1:-1]:
        if paper.lines[cell] == wanted:
            runs[-1].append(cell)
        else:
            runs.append([])
    return [run for run in runs if run]


def _cropped(ink: Mapping[Point, str]) -> list[str]:
    xs, ys = [x for x, _y in ink], [y for _x, y in ink]
    rows = []
    for y in range(min(ys), max(ys) + 1):
        rows.append("".join(ink.get((x, y), " ") for x in range(min(xs), max(xs) + 1)).rstrip())
    return rows


def networks_of(graph: Graph) -> list[Network]:
    """The networks that are drawn as lines."""
    return [one for one in graph.networks if one.kind != "internet"]
