"""A new lab by its shape: asked, shown, and made; nothing of it is left where it could not be made whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cli.ask import Back, meant
from cli.screen import FAINT, GOOD, Screen
from cli.screens.context import Context
from cli.screens.slices import why_no_slice_name
from cli.screens.vms import ask_flavor
from cli.text import clean, count
from cloudrepo.late_dataclass import dataclass
from cloudrepo.pictures import fitting
from cloudrepo.pictures.graph import End, Graph, Network, Node
from cloudrepo.topology.shapes import NAMES, SHAPES, checked, wires
from cloudrepo.validation import MAX_DATA_INTERFACES

CUSTOM = "custom"
NOBODY, FIRST, EVERYBODY = INTERNET = ("nobody", "the first machine", "all machines")
MOST_CUSTOM = 30
USUAL_SIZE = 3
AROUND = 4  # lines around a drawing: an empty one, the question, why its answer cannot be used, the status
ENDLESS = 1000  # lines, where none leaves at the top
Wire = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What is to be made.

    Attributes:
        size: how many machines; they are called vm1, vm2 and so on.
        wires: the machines of each network, by number from 0.
        online: which of them reach the internet.
    """

    size: int
    wires: tuple[Wire, ...]
    online: frozenset[int] = frozenset()

    @property
    def ends(self) -> list[list[tuple[int, str]]]:
        """The ends of each network: a machine and its interface, each interface once."""
        used = [0] * self.size
        found = []
        for wire in self.wires:
            ends = []
            for place in wire:
                used[place] += 1
                ends.append((place, f"eth{used[place]}"))
            found.append(ends)
        return found

    def interfaces(self, place: int) -> int:
        """How many data interfaces a machine needs."""
        return sum(wire.count(place) for wire in self.wires)

    def graph(self) -> Graph:
        """The same as a picture's graph."""
        nodes = tuple(Node(key=str(place), name=f"vm{place + 1}") for place in range(self.size))
        networks = [
            Network(
                key=f"link{number}",
                name=f"link {number}",
                ends=tuple(End(str(place), interface) for place, interface in ends),
            )
            for number, ends in enumerate(self.ends, 1)
        ]
        if self.online:
            ends = tuple(End(str(place), "eth0") for place in sorted(self.online))
            networks.insert(0, Network(key="internet", name="internet", kind="internet", ends=ends))
        return Graph(title="", nodes=nodes, networks=tuple(networks))


def new_lab_menu(context: Context) -> None:
    """Menu entry 9."""
    screen = context.screen
    shapes = (*NAMES, CUSTOM)
    for number, name in enumerate(shapes, 1):
        text = SHAPES[name].text if name in SHAPES else "as you say, link by link"
        screen.line(f"  {number}. {name} ", (f"({text})", FAINT))
    shape = shapes[context.ask.choice("Shape", shapes, suggestion=0)]
    plan = _custom(context) if shape == CUSTOM else _shaped(context, shape)
    flavor = ask_flavor(context, [])
    plan = Plan(plan.size, plan.wires, _ask_online(context, plan.size))
    draw(screen, plan)
    machines, links = count(plan.size, f"{flavor} machine"), count(len(plan.wires), "link")
    if not context.ask.yes(f"Make these {machines} and {links}", default=True):
        screen.line("Nothing was made.")
        return
    name = context.ask.text("Slice name", check=why_no_slice_name, suggestion=_unused_name(context, shape))
    make(context, name, shape, plan, flavor)


def draw(screen: Screen, plan: Plan) -> None:
    """The drawing of what would be made; on a terminal so low that the question under it is seen with all of it."""
    screen.line()
    height = screen.console.height - AROUND if screen.on_terminal else ENDLESS
    for line in fitting.draw(plan.graph(), screen.console.width, height, unicode=screen.unicode):
        screen.line(line)


def _shaped(context: Context, shape: str) -> Plan:
    known = SHAPES[shape]
    size = context.ask.number(
        f"Machines ({known.least} to {known.most})",
        least=known.least,
        most=known.most,
        suggestion=max(USUAL_SIZE, known.least),
    )
    return Plan(checked(shape, size), tuple(wires(shape, size)))


def _custom(context: Context) -> Plan:
    """Link by link, with the drawing after each."""
    size = context.ask.number(f"Machines (1 to {MOST_CUSTOM})", least=1, most=MOST_CUSTOM, suggestion=USUAL_SIZE)
    plan = Plan(size, ())
    if size == 1:
        return plan
    context.screen.line(
        ("A link is two numbers, such as 1-2, or more for a network of several. `done` ends it.", FAINT)
    )
    while True:
        options = [("done", "no more links"), *((f"{a}-{b}", "") for a, b in _unjoined(plan))]

        def check(typed: str, plan: Plan = plan) -> str:
            return "" if typed == "done" else _why_no_wire(plan, typed)

        words = context.ask.text("Link", options=options, check=check, suggestion="done" if plan.wires else "")
        if words == "done":
            return plan
        plan = Plan(size, (*plan.wires, _wire(words)))
        draw(context.screen, plan)


def _unjoined(plan: Plan) -> Iterable[Wire]:
    """Pairs that nothing joins yet, as people count, in order."""
    joined = {tuple(sorted(wire)) for wire in plan.wires}
    pairs = ((one, other) for one in range(plan.size) for other in range(one + 1, plan.size))
    return ((one + 1, other + 1) for one, other in pairs if (one, other) not in joined)


def _wire(words: str) -> Wire:
    return tuple(int(word) - 1 for word in words.split("-"))


def _why_no_wire(plan: Plan, typed: str) -> str:
    parts = typed.split("-")
    if len(parts) < 2 or not all(part.isdecimal() and len(part) < 4 for part in parts):
        return f"A link is written 1-2; found {typed}."
    places = _wire(typed)
    wrong = [place + 1 for place in places if not 0 <= place < plan.size]
    if wrong:
        return f"There is no machine {wrong[0]}; there are 1 to {plan.size}."
    if len(set(places)) < len(places):
        return "A link joins different machines."
    full = [place + 1 for place in places if plan.interfaces(place) >= MAX_DATA_INTERFACES]
    return f"Machine {full[0]} has {MAX_DATA_INTERFACES} links, and can have no more." if full else ""


def _ask_online(context: Context, size: int) -> frozenset[int]:
    """Nobody, the first machine, all, or those that are named."""
    for number, words in enumerate(INTERNET, 1):
        context.screen.line(f"  {number}. {words}")
    context.screen.line((f"  or machines by name, such as vm{size}", FAINT))
    options = [(str(number), words) for number, words in enumerate(INTERNET, 1)]
    answer = context.ask.text(
        "Who reaches the internet",
        options=[*options, *((f"vm{place}", "alone, or with others after it") for place in range(1, size + 1))],
        check=lambda typed: "" if online_of(size, typed) is not None else _why_not_online(size, typed),
        suggestion="1",
    )
    return online_of(size, answer) or frozenset()


def online_of(size: int, typed: str) -> frozenset[int] | None:
    """Which machines are meant; None = that cannot be told."""
    answers = {NOBODY: range(0), FIRST: range(1), EVERYBODY: range(size)}
    place = int(typed) - 1 if typed in ("1", "2", "3") else meant(INTERNET, typed)
    if place is not None:
        return frozenset(answers[INTERNET[place]])
    names = {f"vm{number + 1}": number for number in range(size)}
    words = typed.casefold().replace(",", " ").split()
    return frozenset(names[word] for word in words) if words and all(word in names for word in words) else None


def _why_not_online(size: int, typed: str) -> str:
    return f"Please choose 1 to {len(INTERNET)}, or name machines of vm1 to vm{size}; found {clean(repr(typed))}."


def _unused_name(context: Context, shape: str) -> str:
    ok, slices = context.api.list_slices(context.username)
    taken = {record["name"] for record in slices} if ok else set()
    return next(name for number in range(1, len(taken) + 2) if (name := f"{shape} {number}") not in taken)


# ── making it ───────────────────────────────────────────────────────────────────────────────────────────


def make(context: Context, name: str, shape: str, plan: Plan, flavor: str) -> None:
    """Make the slice; where a step is refused, what was made is removed again and nothing is left."""
    ok, answer = context.api.create_slice(context.username, name, shape)
    if not ok:
        context.screen.complain(answer)
        return
    slice_id = int(answer["slice_id"])
    try:
        why = _fill(context, slice_id, plan, flavor)
    except KeyboardInterrupt:
        why = "Ctrl-C"
    except BaseException:
        _take_back(context, slice_id)
        raise
    if why is not None:
        context.screen.complain(why)
        if getattr(why, "code", "") == "quota":
            context.screen.line((f"  {getattr(why, 'hint', '')}", FAINT))
        _take_back(context, slice_id)
        raise Back
    context.last_slice = slice_id
    made = f"{count(plan.size, 'VM')} and {count(len(plan.wires), 'link')}"
    context.screen.line((f"Slice created! ID: {slice_id}", GOOD), f", {made}. ", ("6 deploys it.", FAINT))


def _fill(context: Context, slice_id: int, plan: Plan, flavor: str) -> Any:
    """Make machines and links; why a step was refused, or None when none was."""
    api, user = context.api, context.username
    ids: list[int] = []
    for place in range(plan.size):
        ok, answer = api.add_vm_to_slice(
            user, slice_id, f"vm{place + 1}", flavor, plan.interfaces(place), place in plan.online
        )
        if not ok:
            return answer
        ids.append(int(answer["vm_id"]))
        context.screen.line((f"  vm{place + 1} on {answer['worker_ip']}", FAINT))
    for ends in plan.ends:
        named = [(ids[place], interface) for place, interface in ends]
        more: dict[str, Any] = {"more_ends": named[2:]} if named[2:] else {}
        ok, answer = api.create_link(user, slice_id, *named[0], *named[1], **more)
        if not ok:
            return answer
    return None


def _take_back(context: Context, slice_id: int) -> None:
    ok, answer = context.api.delete_slice(context.username, slice_id)
    if ok:
        context.screen.line("Nothing of it was kept.")
    else:
        context.screen.complain(answer)
