"""Looking closely: the way between two NICs, proof on the wire, hosts against records."""

from __future__ import annotations

from typing import Any

from cli.operation import run_work
from cli.screens.context import RUNNING, Context, Record
from cloudrepo.permissions import RULES, Reach

ALL = "all"
OUTSIDE = ("gateway", "dhcp")


def path_menu(context: Context) -> None:
    """Menu entry 21."""
    from cli.path import show_hops

    record = context.ask_slice_record(RUNNING)
    nics = [f"{vm['name']}:{item['name']}" for vm in record["vms"] for item in vm["interfaces"] if item.get("vlan_id")]
    if not nics:
        context.screen.line("No interface of this slice is in a network.")
        return
    ids = {str(vm["name"]): str(vm["vm_id"]) for vm in record["vms"]}
    start = _ask_nic(context, "From (VM:interface)", nics)
    end = _ask_nic(context, "To (VM:interface, gateway or dhcp)", [one for one in nics if one != start], OUTSIDE)
    words = [_by_id(one, ids) for one in (start, end)]
    run_work(
        context,
        f"path from {start} to {end}",
        lambda _display: context.api.path(context.username, *words),
        lambda found: show_hops(context.screen, found),
    )


def _ask_nic(context: Context, label: str, nics: list[str], outside: tuple[str, ...] = ()) -> str:
    known = [*nics, *outside]
    return context.ask.text(
        label,
        options=[(one, "") for one in known],
        check=lambda typed: "" if typed in known else f"There is {', '.join(known[:8])}; found {typed}.",
    )


def _by_id(nic: str, ids: dict[str, str]) -> str:
    """The same NIC by its VM's id: a name may be used in several slices."""
    name, colon, interface = nic.partition(":")
    return f"{ids[name]}:{interface}" if colon else nic


def verify_menu(context: Context) -> None:
    """Menu entry 22."""
    from cli.verify import show_found

    slice_id = _ask_one_or_all(context)
    run_work(
        context,
        _title("proof on the wire", slice_id),
        lambda _display: context.api.verify(slice_id, username=context.username),
        lambda found: show_found(context.screen, found),
    )


def drift_menu(context: Context) -> None:
    """Menu entry 23: look, show; who may, sets right after a yes."""
    from cli.drift import show_outcome, show_report, warn_of_disks

    slice_id = _ask_one_or_all(context)
    seen: list[Record] = []

    def show(report: Record) -> None:
        show_report(context.screen, report)
        seen.append(report)

    done = run_work(
        context,
        _title("look at the hosts", slice_id),
        lambda _display: context.api.drift(slice_id, username=context.username),
        show,
    )
    may_fix = RULES["drift_fix"].reach(context.role) > Reach.NONE
    if not done or not may_fix or not seen[-1]["differences"]:
        return
    warn_of_disks(context.screen, seen[-1])
    if not context.ask.yes(f"Set {seen[-1]['differences']} of them right", default=False):
        context.screen.line("Nothing was changed.")
        return
    run_work(
        context,
        _title("setting right", slice_id),
        lambda display: context.api.drift_fix(slice_id, username=context.username, progress=display),
        lambda answer: show_outcome(context.screen, answer),
    )


def _ask_one_or_all(context: Context) -> int | None:
    """A slice of anybody by its id or name, or all."""
    ok, slices = context.api.list_all_slices(context.username)
    if not ok:
        context.screen.complain(slices)
        slices = []

    def find(typed: str) -> list[Any]:
        by_id = [one for one in slices if str(one["slice_id"]) == typed]
        return by_id or [one for one in slices if one["name"] == typed]

    def check(typed: str) -> str:
        if typed == ALL or len(find(typed)) == 1:
            return ""
        return f"Several slices are called {typed}; use the ID." if find(typed) else f"There is no slice {typed}."

    options = [(ALL, "every slice"), *((str(one["slice_id"]), f"{one['owner']}: {one['name']}") for one in slices)]
    answer = context.ask.text("Slice ID, or all", default=ALL, options=options, check=check)
    return None if answer == ALL else int(find(answer)[0]["slice_id"])


def _title(what: str, slice_id: int | None) -> str:
    return f"{what} of {'all slices' if slice_id is None else f'slice {slice_id}'}"
