"""Shapes that labs have: which machine is joined to which, by which interfaces. Pure.

::

    design("ring", 4).links  # ((vm1:eth1, vm2:eth1), (vm2:eth2, vm3:eth1), …)
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

from cloudrepo.allocation import POOL_SIZE
from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.topology.mistakes import meant
from cloudrepo.validation import MAX_DATA_INTERFACES, shown

MOST_LINKS = POOL_SIZE  # that a slice can have
Wire = tuple[int, ...]  # the machines of one network, by number from 0


@dataclass(frozen=True)
class Shape:
    """One shape.

    Attributes:
        text: what it looks like, in a few words.
        least: how many machines it has at least.
        most: how many at most: a slice has 20 networks, and a machine 15 data interfaces.
        wires: from the number of machines to their networks.
    """

    text: str
    least: int
    most: int
    wires: Callable[[int], list[Wire]]


def _line(size: int) -> list[Wire]:
    return [(one, one + 1) for one in range(size - 1)]


def _ring(size: int) -> list[Wire]:
    return [*_line(size), (size - 1, 0)]


def _star(size: int) -> list[Wire]:
    return [(0, leaf) for leaf in range(1, size)]


def _mesh(size: int) -> list[Wire]:
    return list(combinations(range(size), 2))


def _tree(size: int) -> list[Wire]:
    return [((child - 1) // 2, child) for child in range(1, size)]


def _bus(size: int) -> list[Wire]:
    return [tuple(range(size))]


SHAPES: dict[str, Shape] = {
    "line": Shape("one after another", 2, MOST_LINKS + 1, _line),
    "ring": Shape("one after another, and the last joined to the first", 3, MOST_LINKS, _ring),
    "star": Shape("the first in the middle, joined to each of the others", 2, MAX_DATA_INTERFACES + 1, _star),
    "mesh": Shape("each joined to each", 2, 6, _mesh),
    "tree": Shape("each joined to two below it", 2, MOST_LINKS + 1, _tree),
    "bus": Shape("all on one network", 2, 200, _bus),
}
NAMES = tuple(SHAPES)


@dataclass(frozen=True, order=True)
class End:
    """One end of a network: a machine's name, and its interface."""

    node: str
    interface: str

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}"


@dataclass(frozen=True)
class Design:
    """A shape of a size, with names.

    Attributes:
        interfaces: by machine, in order, how many data interfaces it needs.
        links: the networks; two ends each, but for a bus, whose one network has all.
    """

    interfaces: dict[str, int]
    links: tuple[tuple[End, ...], ...]


def design(shape: str, size: int, prefix: str = "vm") -> Design:
    """The machines of a shape, named `vm1`, `vm2` …, and how they are joined.

    Args:
        shape: one of `NAMES`.
        size: how many machines.
        prefix: what their names begin with.

    Raises:
        RefusedError: there is no such shape, or none of this size.
    """
    names = [f"{prefix}{number}" for number in range(1, checked(shape, size) + 1)]
    used = dict.fromkeys(names, 0)
    links = []
    for wire in wires(shape, size):
        ends = []
        for number in wire:
            used[names[number]] += 1
            ends.append(End(names[number], f"eth{used[names[number]]}"))
        links.append(tuple(ends))
    return Design(used, tuple(links))


def wires(shape: str, size: int) -> list[Wire]:
    """The networks of a shape, as numbers of machines from 0.

    Raises:
        RefusedError: as `design`.
    """
    return SHAPES[shape].wires(checked(shape, size))


def checked(shape: str, size: int) -> int:
    """The size, if the shape has it.

    Raises:
        RefusedError: there is no such shape, or none of this size.
    """
    known = SHAPES.get(shape)
    if known is None:
        raise RefusedError(f"there is no shape {shown(shape)}", remedy=meant(str(shape), NAMES), code="topology.shape")
    if type(size) is not int or not known.least <= size <= known.most:
        raise RefusedError(
            f"a {shape} cannot have {shown(size)} machines",
            remedy=f"From {known.least} to {known.most} are possible",
            code="topology.shape",
        )
    return size
