"""A slice is made what a topology file says, by the calls that a person has: rights, quotas and events are theirs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import field
from typing import Any, Protocol

from cloudrepo.errors import CloudError, Message, RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.settings import Settings
from cloudrepo.topology import difference as kinds, slices
from cloudrepo.topology.difference import Action, Difference, difference
from cloudrepo.topology.model import Topology
from control.expected import STALE, Expected

Answer = tuple[bool, Any]
Told = Callable[[Action], None]


class Calls(Protocol):
    """The façade, as far as it is used here."""

    @property
    def settings(self) -> Settings: ...  # noqa: D102
    @property
    def list_slices(self) -> Callable[..., Answer]: ...  # noqa: D102
    @property
    def get_slice(self) -> Callable[..., Answer]: ...  # noqa: D102
    @property
    def create_slice(self) -> Callable[..., Answer]: ...  # noqa: D102
    @property
    def add_vm_to_slice(self) -> Callable[..., Answer]: ...  # noqa: D102
    @property
    def create_link(self) -> Callable[..., Answer]: ...  # noqa: D102
    @property
    def set_link(self) -> Callable[..., Answer]: ...  # noqa: D102
    @property
    def set_ends(self) -> Callable[..., Answer]: ...  # noqa: D102
    @property
    def set_restart_policy(self) -> Callable[..., Answer]: ...  # noqa: D102
    @property
    def remove_vm(self) -> Callable[..., Answer]: ...  # noqa: D102
    @property
    def remove_link(self) -> Callable[..., Answer]: ...  # noqa: D102
    @property
    def start_vm(self) -> Callable[..., Answer]: ...  # noqa: D102
    @property
    def delete_slice(self) -> Callable[..., Answer]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is between a file and a slice.

    Attributes:
        view: the slice as it is; None = there is none.
        difference: the calls that are missing.
    """

    view: Mapping[str, Any] | None
    difference: Difference


@dataclass(kw_only=True)
class Applied:
    """What was done.

    Attributes:
        slice_id: the slice.
        done: the actions.
    """

    slice_id: int
    done: list[Action] = field(default_factory=list)


def plan(
    api: Calls, username: str, topology: Topology, *, slice_id: int | None = None, replace: Collection[str] = ()
) -> Plan:
    """What makes a user's slice what a file says.

    Args:
        api: the façade.
        username: whose slice.
        topology: the file.
        slice_id: the slice; None = that of the file's name, or a new one.
        replace: machines that may be made anew; `*` = all.

    Raises:
        RefusedError: several slices have the name, something of the slice is under way, or the façade refuses.
    """
    view = _view(api, username, topology, slice_id)
    if view is not None:
        _require_settled(view)
    flavor = next(iter(api.settings.flavors), "")
    return Plan(view=view, difference=difference(topology, view, default_flavor=flavor, replace=replace))


def _view(api: Calls, username: str, topology: Topology, slice_id: int | None) -> Mapping[str, Any] | None:
    if slice_id is not None:
        found: Mapping[str, Any] = _answer(api.get_slice(username, slice_id))
        return found
    named = [one for one in _answer(api.list_slices(username)) if one["name"] == topology.name]
    if len(named) > 1:
        ids = ", ".join(str(one["slice_id"]) for one in named)
        raise RefusedError(
            f"{username} has several slices named {topology.name}",
            evidence=f"their ids are {ids}",
            remedy="Say which by `--slice ID`",
            code="slice.many",
            details={"slices": [one["slice_id"] for one in named]},
        )
    return named[0] if named else None


def _require_settled(view: Mapping[str, Any]) -> None:
    slice_id, busy = view["slice_id"], [vm for vm in view["vms"] if vm["status"] in ("creating", "deleting")]
    if busy:
        raise RefusedError(
            f"slice {slice_id} is not changed: {busy[0]['name']} is {busy[0]['status']}",
            remedy=f"Wait for it, or `./cloud resume {slice_id}` if the session that was at it has ended",
            code="slice.state",
        )
    if view["status"] not in ("design", "stopped", "running"):
        raise RefusedError(
            f"slice {slice_id} cannot be changed",
            evidence=f"it is {view['status']}, and must be design, stopped or running",
            code="slice.state",
        )


def apply(
    api: Calls,
    username: str,
    topology: Topology,
    found: Plan,
    told: Told = lambda action: None,
    expected: Expected | None = None,
) -> Applied:
    """Do what a plan says, call by call.

    A slice that is made for it is whole or not there. One that was there before keeps what was done: each call leaves
    it whole, and to apply the file again goes on.

    Args:
        api: the façade.
        username: whose slice.
        topology: the file.
        found: the plan.
        told: called before each action.
        expected: the slice's record, which is compared by each call; None = each refuses what does not fit it.

    Raises:
        RefusedError: the plan has refusals; nothing was done.
        CloudError: a call was refused or failed.
    """
    if found.difference.refusals:
        raise refusal(topology, found.difference)
    work = _Work(api, username, topology, found.view, expected)
    total = len(found.difference.actions)
    with expected.held() if expected is not None else nullcontext():
        for number, action in enumerate(found.difference.actions):
            told(action)
            try:
                work.begin()
                work.do(action)
            except CloudError as error:
                raise _stopped(work, action, number, total, error) from error
    return Applied(slice_id=work.slice_id, done=list(found.difference.actions))


def refusal(topology: Topology, found: Difference) -> RefusedError:
    """Why a plan is not applied."""
    lines = "\n".join(found.refusals)
    return RefusedError(
        f"{topology.name} cannot be made what {topology.source or 'the file'} says; nothing was done",
        evidence=f"\n{lines}",
        code="topology.replace",
        details={"refusals": list(found.refusals)},
    )


def _stopped(work: _Work, action: Action, number: int, total: int, error: CloudError) -> CloudError:
    if error.code == STALE:  # what others made is nobody's to remove
        rest = f"{number} of {total} changes were made before, and stay" if number else "Nothing was done"
    elif work.is_new and work.slice_id:
        rest = work.remove_again()
    else:
        rest = f"{number} of {total} changes were made before; apply the file again to go on"
    return CloudError(
        f"could not {action.text}", evidence=str(error), remedy=rest, code=error.code, details=error.details
    )


class _Work:
    """One file at work on one slice."""

    def __init__(
        self,
        api: Calls,
        username: str,
        topology: Topology,
        view: Mapping[str, Any] | None,
        expected: Expected | None,
    ) -> None:
        self.expected = expected
        self.api = api
        self.username = username
        self.topology = topology
        self.is_new = view is None
        self.slice_id = int(view["slice_id"]) if view is not None else 0
        self.ids = {str(vm["name"]): int(vm["vm_id"]) for vm in view["vms"]} if view is not None else {}

    def begin(self) -> None:
        """Another call begins.

        Raises:
            RefusedError: somebody else changed the slice.
        """
        if self.expected is not None:
            self.expected.next_call()

    def remove_again(self) -> str:
        """Remove a slice that was made here and is not whole; what became of that."""
        try:
            self.begin()
            _answer(self.api.delete_slice(self.username, self.slice_id))
        except CloudError as error:
            return f"and slice {self.slice_id} is left: {error}"
        return "what was made is removed again"

    def do(self, action: Action) -> None:
        """Make one call.

        Raises:
            CloudError: it was refused or failed.
        """
        calls: dict[str, Callable[[Action], None]] = {
            kinds.CREATE_SLICE: self._create,
            kinds.ADD_VM: self._add,
            kinds.REMOVE_VM: lambda one: self._call(self.api.remove_vm, self.ids[one.node]),
            kinds.START_VM: lambda one: self._call(self.api.start_vm, self.ids[one.node]),
            kinds.REMOVE_LINK: lambda one: self._call(self.api.remove_link, one.link_id),
            kinds.SET_LINK: lambda one: self._call(self.api.set_link, one.link_id, **one.switches),
            kinds.SET_ENDS: lambda one: self._call(self.api.set_ends, one.link_id, self._ends(one)),
            kinds.ADD_LINK: self._link,
            kinds.SET_RESTART: self._restart,
        }
        calls[action.kind](action)

    def _call(self, call: Callable[..., Answer], *words: Any, **options: Any) -> Any:
        return _answer(call(self.username, self.slice_id, *words, **options))

    def _create(self, _action: Action) -> None:
        made = _answer(self.api.create_slice(self.username, self.topology.name, self.topology.type))
        self.slice_id = int(made["slice_id"])

    def _add(self, action: Action) -> None:
        wish = action.wish
        assert wish is not None  # noqa: S101 - for the type checker: a machine that is added has one
        options = {"image": wish.image, "worker": wish.worker, "first_boot": wish.first_boot or None}
        made = self._call(self.api.add_vm_to_slice, wish.name, wish.flavor, action.interfaces, wish.internet, **options)
        self.ids[wish.name] = int(made["vm_id"])

    def _ends(self, action: Action) -> list[tuple[int, str]]:
        return [(self.ids[end.node], end.interface) for end in action.ends]

    def _link(self, action: Action) -> None:
        first, second, *more = self._ends(action)
        options = {**action.switches, "subnet": action.subnet, "more_ends": more}
        self._call(self.api.create_link, *first, *second, **options)

    def _restart(self, action: Action) -> None:
        policy = action.wish.restart if action.wish is not None else ""
        self._call(self.api.set_restart_policy, self.ids[action.node], policy)


def export(api: Calls, username: str, slice_id: int, *, pinned: bool = False) -> Topology:
    """What a file says of which `apply` makes a slice like this one.

    Raises:
        RefusedError: the façade refuses.
    """
    return slices.topology_of(_answer(api.get_slice(username, slice_id)), pinned=pinned)


def _answer(answer: Answer) -> Any:
    done, payload = answer
    if done:
        return payload
    code, details = (payload.code, payload.details) if isinstance(payload, Message) else ("error", {})
    raise CloudError(str(payload), code=code, details=details)
