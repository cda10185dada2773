"""`./cloud status`: the workers and the slices, as they are known now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli.screen import BAD, FAINT, STRONG, Piece
from cli.text import count
from cli.work import Work

MOST_SHOWN = 40  # slices; a screen of a thousand is read by nobody


def show_status(work: Work, *, asks: bool) -> int:
    """Show the cluster and the slices; the exit status.

    Args:
        work: the command.
        asks: ask the workers first what they are, for as long as `discovery.wait` says.

    Raises:
        NotDone: the records cannot be read.
    """
    from cli.screens.cluster import show_cluster

    if work.installation.untouched:
        work.screen.line(("This cluster has never been contacted; the menu asks before it does.", FAINT))
    elif asks:
        work.api.discovery.start()
        work.api.discovery.wait(work.installation.settings.discovery.wait)
    cluster = work.done(work.api.cluster_status())
    slices = [summary(view) for view in work.done(work.api.list_all_slices(None))]
    work.ids(*(one["slice_id"] for one in slices))
    if not work.as_json:
        show_cluster(work.screen, cluster)
        _show_slices(work, slices)
    return work.end({"cluster": cluster, "slices": slices})


def summary(view: Mapping[str, Any]) -> dict[str, Any]:
    """A slice in a few numbers: how many of its VMs are in each recorded and in each observed state."""
    vms = view["vms"]
    return {
        **{key: view[key] for key in ("slice_id", "name", "owner", "status", "error", "pending")},
        "vms": len(vms),
        "links": len(view["links"]),
        "vm_states": _counted(vm["status"] for vm in vms),
        "vm_observed": _counted(vm["observed"] for vm in vms if vm["observed"]),
        "workers": sorted({str(vm["worker_ip"]) for vm in vms}),
    }


def _counted(words: Any) -> dict[str, int]:
    found = list(words)
    return {word: found.count(word) for word in sorted(set(found))}


def _show_slices(work: Work, slices: list[dict[str, Any]]) -> None:
    if not slices:
        work.screen.line("There are no slices. `./cloud slice create NAME` makes one.")
        return
    states = ", ".join(f"{number} {word}" for word, number in _counted(one["status"] for one in slices).items())
    vms = sum(one["vms"] for one in slices)
    work.screen.line()
    work.screen.line((f"{count(len(slices), 'slice')} with {count(vms, 'VM')}: ", STRONG), states)
    # what needs somebody comes first, then what runs
    ranked = sorted(slices, key=lambda one: (not one["error"], one["status"] == "design", one["slice_id"]))
    work.screen.table(
        ("Slice", "Name", "Owner", "State", "VMs", "Links", ""), [_row(one) for one in ranked[:MOST_SHOWN]]
    )
    if len(slices) > MOST_SHOWN:
        more = count(len(slices) - MOST_SHOWN, "more slice")
        work.screen.line((f"{more}: `./cloud slice list` shows all.", FAINT))


def _row(one: Mapping[str, Any]) -> list[Piece]:
    notes = one["error"] or ", ".join(f"waits for {ip}" for ip in one["pending"])
    odd = {word: number for word, number in one["vm_states"].items() if word != one["status"]}
    inner = f" ({', '.join(f'{number} {word}' for word, number in odd.items())})" if odd else ""
    return [
        *(str(one["slice_id"]), one["name"], one["owner"], one["status"]),
        *(f"{one['vms']}{inner}", str(one["links"])),
        (notes, BAD),
    ]
