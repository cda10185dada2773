"""The cluster: its workers, what they have and what is promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.screen import BAD, FAINT, GOOD, STRONG, Piece, Screen
from cli.screens.context import Context
from cli.text import listing
from cloudrepo import limits


def cluster_status_menu(context: Context) -> None:
    """Menu entry 1."""
    ok, answer = context.api.cluster_status()
    if not ok:
        context.screen.complain(answer)
        return
    show_cluster(context.screen, answer)
    error = context.save_error()
    if error and error != (answer.get("monitor") or {}).get("save_error"):
        context.screen.paragraph((f"This session cannot save the state: {error}", BAD))


def show_cluster(screen: Screen, status: Mapping[str, Any]) -> None:
    """The worker list, and where state and log are kept."""
    workers = status.get("workers") or []
    if not workers:
        screen.paragraph("There are no workers. `./cloud worker add IP` enrols one, `./cloud lab up` makes three here.")
    else:
        headings = ("Worker", "State", "VMs", "Cores", "RAM GB", "Disk GB", "Guests run by", "Notes")
        screen.table(headings, [_row(worker) for worker in workers])
        _say_load(screen, workers)
    _say_account(screen, workers, str(status.get("login", "")))
    _say_limits(screen, workers)
    _say_monitor(screen, status.get("monitor") or {})
    for warning in status.get("warnings", ()):
        screen.paragraph((str(warning), BAD))
    for key, label in (("state", "State"), ("log", "Log")):
        if status.get(key):
            screen.line((f"{label}: ", STRONG), str(status[key]))


def _say_account(screen: Screen, workers: Sequence[Mapping[str, Any]], login: str) -> None:
    """Say where guests run as the account we log in with: who breaks out of one is root on its worker."""
    shared = [str(worker["ip"]) for worker in workers if login and worker.get("accel_user") == login]
    if shared:
        where = "every worker" if len(shared) == len(workers) else listing(shared)
        text = (
            f"Guests run as {login}, our login account, on {where}; the setting qemu.user names another, and after "
            "`./cloud worker harden` each VM has a number of its own."
        )
        screen.paragraph((text, FAINT))


def _say_limits(screen: Screen, workers: Sequence[Mapping[str, Any]]) -> None:
    """Say where what guests use of their host is not bounded, and why."""
    where: dict[str, list[str]] = {}
    for worker in workers:
        text = limits.note(worker.get("unlimited") or ())
        if text:
            where.setdefault(text, []).append(str(worker["ip"]))
    for text, hosts in where.items():
        place = "Every worker" if len(hosts) == len(workers) and len(hosts) > 1 else listing(hosts)
        screen.paragraph((f"{place}: {text}.", FAINT))


def _say_monitor(screen: Screen, monitor: Mapping[str, Any]) -> None:
    """Who watches, when they looked last, what they saw, and whether the state can be saved."""
    screen.paragraph(
        ("Monitor: ", STRONG), str(monitor.get("text") or "nobody watches the hosts (./cloud monitor does)")
    )
    if monitor.get("last_pass"):
        age, took = float(monitor["age_s"]), float(monitor["took_s"])
        words = f"last look {age:.0f} s ago, took {took:.2f} s"
        vms = monitor.get("vms") or {}
        seen = ", ".join(f"{number} {state}" for state, number in vms.items())
        line = f"  {words}{f'; VMs: {seen}' if seen else ''}"
        is_old = bool(monitor.get("is_stale"))
        screen.paragraph((f"{line}; that is too old to go by", BAD) if is_old else line, indent=2)
    if monitor.get("save_error"):
        screen.paragraph((f"  The state cannot be saved: {monitor['save_error']}", BAD), indent=2)


def _say_load(screen: Screen, workers: Sequence[Mapping[str, Any]]) -> None:
    """What was measured beside what is promised: processors in percent, memory and disk in GB."""
    loads = [(str(worker["ip"]), worker["load"]) for worker in workers if worker.get("load")]
    if not loads:
        return
    screen.line()
    keys = ("cpu_percent", "ram_gb", "disk_gb")
    rows = [[ip, *(f"{load[key]:g}" if load.get(key) is not None else "?" for key in keys)] for ip, load in loads]
    screen.table(("In use now", "CPU %", "RAM GB", "Disk GB"), rows)
    screen.line()


def _row(worker: Mapping[str, Any]) -> list[Piece]:
    state = str(worker.get("state", "unknown"))
    notes = ["network node"] if worker.get("is_network_node") else []
    if not worker.get("is_listed", True):
        notes.append("not in workers_list: no new VMs")
    if worker.get("is_drained"):
        notes.append("drained: no new VMs")
    assumed = worker.get("assumed") or ()
    if assumed:
        notes.append(f"assumed: {', '.join(assumed)}")
    notes += [str(problem) for problem in worker.get("problems") or ()]
    if worker.get("reason"):
        notes.append(str(worker["reason"]))
    return [
        str(worker["ip"]),
        (state, {"up": GOOD, "down": BAD}.get(state, FAINT)),
        str(worker.get("vms", "")),
        _share(worker, "cores"),
        _share(worker, "ram_gb"),
        _share(worker, "disk_gb"),
        {"kvm": "KVM", "tcg": "emulation"}.get(str(worker.get("accel")), "?"),
        "; ".join(notes),
    ]


def _share(worker: Mapping[str, Any], what: str) -> str:
    used, most = worker.get(f"used_{what}"), worker.get(f"max_{what}")
    if most is None:
        return "?"
    return f"{used or 0:g} of {most:g}"
