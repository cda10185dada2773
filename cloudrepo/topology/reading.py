"""From the text of a topology file to what it says; or all that is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping as AnyMapping
from dataclasses import replace
from typing import Any

from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.topology import checks, ends, keys, patterns, shapes, tree, variables
from cloudrepo.topology.keys import Key
from cloudrepo.topology.mistakes import Mistakes, Place, meant
from cloudrepo.topology.model import End, Link, Node, Topology
from cloudrepo.topology.tree import Mapping, Scalar, Sequence, Tree, described
from cloudrepo.validation import excerpt, shown

DEFAULT_PREFIX = "vm"  # of the machines of a shape that has no name


@dataclass(frozen=True)
class Known:
    """What the installation has, so that a name that it does not have is a mistake of the file. None = anything."""

    flavors: Collection[str] | None = None
    images: Collection[str] | None = None
    workers: Collection[str] | None = None


def read(text: str, source: str, *, known: Known | None = None, given: AnyMapping[str, Any] | None = None) -> Topology:
    """What a topology file says.

    Args:
        text: of the file.
        source: its name, as people are to see it.
        known: what the installation has.
        given: values of variables from the command line.

    Raises:
        RefusedError: `topology.file`: all mistakes of the file, each with line, column and a suggestion.
    """
    mistakes = Mistakes(source)
    found = tree.read(text, mistakes)
    topology = _Reader(mistakes, known or Known(), given or {}).topology(found) if found is not None else None
    if mistakes or topology is None:
        raise mistakes.error()
    return replace(topology, source=source)


class _Reader:
    """Reads one file."""

    def __init__(self, mistakes: Mistakes, known: Known, given: AnyMapping[str, Any]) -> None:
        self.mistakes = mistakes
        self.known = known
        self.given = given
        self.nodes: dict[str, Node] = {}
        self.groups: dict[str, tuple[str, ...]] = {}  # as written: the names it makes
        self.shapes: set[str] = set()
        self.links: list[Link] = []

    def topology(self, found: Tree) -> Topology | None:
        if not isinstance(found, Mapping):
            self.mistakes.add(found.place, f"a topology file is a mapping of keys, and this is {described(found)}")
            return None
        declared = found.get("variables")
        values = variables.declared(declared.value if declared else None, self.given, self.mistakes)
        found = variables.substituted(found, values, self.mistakes)
        assert isinstance(found, Mapping)  # noqa: S101 - for the type checker: a mapping stays one
        top = self._fields(found, keys.TOP, "a topology file")
        for name in keys.NEEDED:
            if found.get(name) is None:
                hint = "It begins with `version: 1`" if name == "version" else "Such as `name: my lab`"
                self.mistakes.add(found.place, f"the key {name} is missing", hint)
        defaults = top.get("defaults")
        usual = self._fields(defaults, keys.DEFAULTS, "`defaults`") if isinstance(defaults, Mapping) else {}
        self._nodes(found, top, usual)
        links = top.get("links")
        for item in links if isinstance(links, Sequence) else ():
            self._link(item)
        checks.check(tuple(self.nodes.values()), tuple(self.links), self.mistakes)
        shape = _value(top, "shape")
        return Topology(
            name=str(_value(top, "name") or "").strip(" "),
            type=str(_value(top, "type") or shape or "custom"),
            nodes=tuple(self.nodes.values()),
            links=tuple(self.links),
            groups=tuple(self.groups.items()),
            shapes=frozenset(self.shapes),
            shape_group=DEFAULT_PREFIX if shape else "",
        )

    def _fields(self, mapping: Mapping, table: AnyMapping[str, Key], what: str) -> dict[str, Tree]:
        """The values of a mapping that are as they should be; the others are mistakes."""
        good: dict[str, Tree] = {}
        for entry in mapping:
            key = table.get(entry.key)
            if key is None:
                self.mistakes.add(entry.place, f"{what} has no key {shown(entry.key)}", meant(entry.key, table))
                continue
            problem, remedy = key.kind.wrong(entry.value)
            if problem and _is_open(entry.value):
                continue  # of a variable that is not there is said enough
            if problem:
                self.mistakes.add(entry.value.place, f"{entry.key}: {problem}", remedy)
            else:
                good[entry.key] = entry.value
        return good

    # -- machines

    def _nodes(self, found: Mapping, top: AnyMapping[str, Tree], usual: AnyMapping[str, Tree]) -> None:
        if found.get("shape") is not None or found.get("size") is not None:
            self._group(DEFAULT_PREFIX, _place_of(found, "shape", "size"), dict(usual), found, top)
        nodes = top.get("nodes")
        if isinstance(nodes, Sequence):
            for item in nodes:
                if isinstance(item, Scalar) and isinstance(item.value, str):
                    self._group(item.value, item.place, dict(usual))
                else:
                    self.mistakes.add(item.place, f"the name of a node is wanted, found {described(item)}")
        elif isinstance(nodes, Mapping):
            for entry in nodes:
                self._written(entry.key, entry.place, entry.value, usual)
        if not self.nodes and found.get("nodes") is None and found.get("shape") is None:
            self.mistakes.add(found.place, "there are no nodes", "Write `nodes:`, or `shape:` and `size:`")

    def _written(self, name: str, place: Place, value: Tree, usual: AnyMapping[str, Tree]) -> None:
        if isinstance(value, Scalar) and value.value is None:
            self._group(name, place, dict(usual))
        elif isinstance(value, Mapping):
            fields = self._fields(value, keys.NODE, "a node")
            self._group(name, place, {**usual, **fields}, value, fields)
        else:
            self.mistakes.add(value.place, f"the node {excerpt(name)} is a mapping of keys, and not {described(value)}")

    def _group(
        self,
        written: str,
        place: Place,
        fields: dict[str, Tree],
        mapping: Mapping | None = None,
        own: AnyMapping[str, Tree] | None = None,
    ) -> None:
        """One key of `nodes`: a machine, or several by pattern, count or shape."""
        shape, names = "", self._names(written, place)
        if mapping is not None and (mapping.get("shape") is not None or mapping.get("size") is not None):
            shape = self._shape(mapping, own or {})
            size = _value(own or {}, "size")
            names = self._counted(written, names, size if shape else 0, place)
        elif (count := fields.get("count")) is not None:
            names = self._counted(written, names, _value(fields, "count"), count.place)
        made = [name for name in names if self._node(name, place, fields)]
        self.groups[written] = tuple(names)
        if shape and len(made) == len(names):
            self.shapes.add(written)
            for wire in shapes.wires(shape, len(names)):
                self.links.append(Link(ends=tuple(End(names[number]) for number in wire), place=place))

    def _names(self, written: str, place: Place) -> list[str]:
        try:
            return patterns.expanded(written)
        except ValueError as error:
            self.mistakes.add(place, str(error))
            return []

    def _counted(self, written: str, names: list[str], count: Any, place: Place) -> list[str]:
        if patterns.is_pattern(written):
            self.mistakes.add(place, f"{shown(written)} says by its brackets how many there are", "Leave one out")
            return []
        return [f"{name}{number}" for name in names for number in range(1, int(count or 0) + 1)]

    def _shape(self, mapping: Mapping, own: AnyMapping[str, Tree]) -> str:
        """The shape of a group; "" where something is wrong with it."""
        place = _place_of(mapping, "shape", "size")
        if mapping.get("shape") is None:
            self.mistakes.add(place, "a size without a shape", f"Shapes are {', '.join(shapes.NAMES)}; or use `count`")
        if mapping.get("size") is None:
            self.mistakes.add(place, "a shape without a size", "Such as `size: 5`")
        if (count := mapping.get("count")) is not None:
            self.mistakes.add(count.place, "a shape has a size, and no count", "Leave `count` out")
        shape, size = own.get("shape"), own.get("size")
        if not isinstance(shape, Scalar) or not isinstance(size, Scalar):
            return ""
        known = shapes.SHAPES[str(shape.value)]
        if not known.least <= size.value <= known.most:
            bounds = f"From {known.least} to {known.most} are possible"
            self.mistakes.add(size.place, f"a {shape.value} cannot have {size.value} machines", bounds)
            return ""
        return str(shape.value)

    def _node(self, name: str, place: Place, fields: AnyMapping[str, Tree]) -> bool:
        """Note a machine; whether its name is one, and free."""
        problem, remedy = checks.name_problem(name, {one.name: one.place.line for one in self.nodes.values()})
        if problem:
            self.mistakes.add(place, problem, remedy)
            return False
        self._require_known(fields)
        keyed = {key: tree.plain(value) for key, value in fields.items() if key in keys.DEFAULTS}
        users, ssh_keys = (tuple(keyed.pop(key, ())) for key in ("users", "ssh_keys"))
        node = self.nodes[name] = Node(name=name, place=place, users=users, ssh_keys=ssh_keys, **keyed)
        try:
            node.first_boot  # noqa: B018 - it refuses
        except RefusedError as error:
            self.mistakes.add(place, f"{name}: {error.brief}", error.remedy)
        return True

    def _require_known(self, fields: AnyMapping[str, Tree]) -> None:
        for key, names in (
            ("flavor", self.known.flavors),
            ("image", self.known.images),
            ("worker", self.known.workers),
        ):
            value = fields.get(key)
            if isinstance(value, Scalar) and names is not None and value.value not in names:
                self.mistakes.add(
                    value.place, f"there is no {key} {shown(value.value)}", meant(str(value.value), names)
                )

    # -- networks

    def _link(self, item: Tree) -> None:
        fields: dict[str, Tree] = {}
        written: Tree | None = item
        if isinstance(item, Mapping):
            fields = self._fields(item, keys.LINK, "a link")
            written = fields.get("ends")
            if item.get("ends") is None:
                self.mistakes.add(item.place, "a link without ends", "Such as `ends: [r1, r2]`")
        if written is None:
            return
        found = ends.read(written, tuple(self.nodes), self.groups, self.mistakes)
        switches = {key: tree.plain(value) for key, value in fields.items() if key not in ("ends", "subnet")}
        if found:
            subnet = str(_value(fields, "subnet") or "")
            usual = Link(ends=found, subnet=subnet, place=item.place)
            self.links.append(replace(usual, switches={**usual.switches, **switches}))


def _is_open(value: Tree) -> bool:
    return isinstance(value, Scalar) and "${" in str(value.value)


def _value(fields: AnyMapping[str, Tree], key: str) -> Any:
    found = fields.get(key)
    return found.value if isinstance(found, Scalar) else None


def _place_of(mapping: Mapping, *names: str) -> Place:
    return next((entry.place for name in names if (entry := mapping.get(name)) is not None), mapping.place)
