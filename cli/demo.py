"""The demo: a lab, a slice on its three hosts, and a look from inside the guests at what reaches what."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.ask import Ask
from cli.installation import BeforeWrite, Installation
from cli.keyboard import TerminalKeyboard
from cli.operation import run_operation
from cli.progress import ProgressDisplay
from cli.screen import BAD, FAINT, GOOD, STRONG, Piece, Screen
from cli.screens.context import Context
from cli.text import count, listing
from cloudrepo.pictures import terminal
from cloudrepo.pictures.graph import of_slice

if TYPE_CHECKING:
    from cloudrepo.dataplane import Addresses, Verdict
    from cloudrepo.guest_agent import GuestAgent
    from orchestrator_api import OrchestratorAPI

OWNER = "admin"
PAGE = "http://203.0.113.1/"  # the lab's internet
GUEST_WAIT_S = 120.0  # four guests on two cores without KVM need about fifteen
INSIDE = "--inside"

IN_FULL = ("link", "internet")  # the others are many, and their failures are enough
SUBJECTS = {
    "link": "Linked machines talk",
    "apart": "Machines without a link do not",
    "internet": "Internet where it was asked for, nowhere else",
    "management": "Management network and network node are out of reach",
}


def demo(*, assume_yes: bool) -> int:
    """Bring the lab up and run the rest where its orchestrator runs.

    Returns:
        The exit status.
    """
    from lab import packages
    from lab.cluster import Lab
    from lab.errors import LabError

    screen = Screen()
    try:
        lab = Lab()
        if not lab.status().up:  # refuses without root, with the remedy
            packages.ensure(assume_yes=assume_yes, say=screen.line)
            screen.line("Bringing up the lab: three hosts, their cables, an internet …")
            lab.up(say=screen.line)
        main = Path(__file__).resolve().parent.parent / "main.py"
        return lab.exec_foreground([sys.executable, str(main), "demo", INSIDE])
    except LabError as error:
        screen.complain(error)
        return 1


def demo_inside(before_write: BeforeWrite) -> int:
    """The part that runs on the lab; the exit status."""
    from cloudrepo.accounts import must_change

    screen = Screen()
    installation = Installation.open(before_write)
    api = installation.api
    context = Context(api, OWNER, screen, Ask(TerminalKeyboard()))
    if not _find_workers(api, screen):
        return 1
    record = _slice(context)
    if record is None:
        return 1
    slice_id = int(record["slice_id"])
    if not _bring_up(context, slice_id, str(record["status"])):
        return 1
    record = context.slice(slice_id)
    if record is None:
        return 1
    passed = examine(api, record, screen)
    _farewell(screen, is_new=must_change(installation.db.get_user(OWNER) or {}))
    return 0 if passed else 1


def examine(api: OrchestratorAPI, record: Mapping[str, Any], screen: Screen) -> bool:
    """Wait for the guests of a running slice, show it, and try its data plane.

    Returns:
        Whether everything was as it should be.
    """
    from cloudrepo import dataplane
    from cloudrepo.errors import CloudError

    began = time.monotonic()
    screen.line(f"Waiting for {count(len(record['vms']), 'guest')} to boot and to get their addresses …")
    try:
        guests = _agents(api, record)
        addresses = _await_addresses(guests, dataplane.expected_interfaces(record))
    except CloudError as error:
        screen.complain(error)
        return False
    screen.line((f"All answer after {time.monotonic() - began:.1f} s.", FAINT))
    same = _show_machines(screen, record, addresses)
    screen.heading("Topology")
    for line in terminal.draw(of_slice(record), screen.console.width, unicode=screen.unicode):
        screen.line(line)
    screen.heading("Tried from inside the guests")
    checks = dataplane.plan(record, addresses, url=PAGE, hosts=_hosts(api))
    verdicts = dataplane.run(checks, guests)
    return _show_verdicts(screen, verdicts) and same


def _find_workers(api: OrchestratorAPI, screen: Screen) -> bool:
    found = api.discovery.discover_all()
    for each in found.values():
        if not each.ok:
            screen.complain(each.reason)
    up = [ip for ip, each in found.items() if each.ok]
    screen.line(f"Workers: {listing(up) or 'none'}.")
    return bool(up)


def _slice(context: Context) -> Mapping[str, Any] | None:
    """The demo's slice: that of an earlier run, or a new one."""
    from examples.four_machines import NAME, design

    for record in context.slices():
        if record.get("name") == NAME:
            return record
    return context.slice(design(context.api, context.username))


def _bring_up(context: Context, slice_id: int, status: str) -> bool:
    """Deploy or start it; one that runs gets back what hosts have lost since, as after `lab down` and `lab up`."""
    if status != "running":
        context.screen.heading(f"Deploying slice {slice_id}")
        return run_operation(context, "start" if status == "stopped" else "deploy", slice_id)
    context.screen.line(f"Slice {slice_id} runs already; its hosts are compared with its records …")
    with ProgressDisplay(context.screen) as display:
        ok, answer = context.api.drift_fix(slice_id, progress=display)
    if not ok:
        context.screen.complain(answer)
        return False
    for one in answer["failed"]:
        context.screen.complain(f"{one['about']}: {one['error']}")
    fixed = sum(len(words) for one in answer["fixed"] for words in one["hosts"].values())
    context.screen.line(f"{count(fixed, 'object')} brought back." if fixed else "It is used as it is.")
    return not answer["failed"]


def _hosts(api: OrchestratorAPI) -> list[str]:
    ok, status = api.cluster_status()
    return [str(worker["ip"]) for worker in status["workers"]] if ok else []


# -- guests ----------------------------------------------------------------------------


def _agents(api: OrchestratorAPI, record: Mapping[str, Any]) -> dict[int, GuestAgent]:
    """A connection to the agent of every guest, once each answers.

    Raises:
        CloudError: a host cannot be reached, or a guest stays silent.
    """
    from cloudrepo.guest_agent import GuestAgent

    def connect(vm: Mapping[str, Any]) -> GuestAgent:
        ok, target = api.console_target(str(record["owner"]), int(vm["vm_id"]))
        if not ok:
            raise SystemExit(str(target))
        agent = GuestAgent(api.executor.open_serial(target["worker_ip"], target["agent_socket"]))
        agent.wait(GUEST_WAIT_S)
        return agent

    with ThreadPoolExecutor(max(1, len(record["vms"]))) as pool:
        agents = list(pool.map(connect, record["vms"]))
    return {int(vm["vm_id"]): agent for vm, agent in zip(record["vms"], agents, strict=True)}


def _await_addresses(guests: Mapping[int, GuestAgent], expected: Mapping[int, set[str]]) -> Addresses:
    """What addresses the guests have, once every interface on a VLAN has one.

    Raises:
        CloudError: an interface stays without.
    """
    from cloudrepo.dataplane import read_addresses
    from cloudrepo.guest_agent import GuestSilent

    until = time.monotonic() + GUEST_WAIT_S
    found: dict[int, dict[str, str]] = {}
    while True:
        for vm_id, agent in guests.items():
            if not expected[vm_id] <= set(found.get(vm_id, ())):
                found[vm_id] = read_addresses(agent.run(("ip", "-4", "-o", "addr", "show")).out)
        missing = [f"VM {vm} {name}" for vm, names in expected.items() for name in sorted(names - set(found[vm]))]
        if not missing:
            return found
        if time.monotonic() > until:
            raise GuestSilent(f"no address by DHCP on {listing(missing)}", code="guest.address")
        time.sleep(0.3)


# -- what is shown -----------------------------------------------------------------------


def _show_machines(screen: Screen, record: Mapping[str, Any], addresses: Addresses) -> bool:
    """The VMs with their addresses; whether each is the recorded one."""
    screen.heading("Machines")
    rows: list[Sequence[Piece]] = []
    same = True
    for vm in record["vms"]:
        for place, interface in enumerate(vm["interfaces"]):
            real = addresses[int(vm["vm_id"])].get(str(interface["name"]), "")
            recorded = (interface.get("ip_config") or {}).get("ip", "")
            agrees = not recorded or real == recorded
            same = same and agrees
            first: list[Piece] = [
                str(vm["vm_id"]),
                (str(vm["name"]), STRONG),
                str(vm["worker_ip"]),
                str(vm["vnc_port"]),
            ]
            rows.append(
                [
                    *(first if place == 0 else ["", "", "", ""]),
                    str(interface["name"]),
                    str(interface.get("vlan_id") or "—"),
                    (real or "—", "" if agrees else BAD),
                    "" if agrees else f"recorded: {recorded}",
                ]
            )
    screen.table(("ID", "Name", "Worker", "VNC", "NIC", "VLAN", "Address", ""), rows)
    return same


def _show_verdicts(screen: Screen, verdicts: Sequence[Verdict]) -> bool:
    """The checks by subject: how many passed, each of the few, and of the many those that failed."""
    rows: list[Sequence[Piece]] = []
    for subject, title in SUBJECTS.items():
        mine = [verdict for verdict in verdicts if verdict.check.subject == subject]
        good = sum(verdict.passed for verdict in mine)
        rows.append([(title, STRONG), f"{good} of {len(mine)}", _mark(good == len(mine))])
        for verdict in mine:
            if verdict.check.subject in IN_FULL or not verdict.passed:
                found = verdict.found if not verdict.passed else ""
                rows.append([f"  {verdict.check.title}", found, _mark(verdict.passed)])
    screen.table(("What was tried", "Found", "Result"), rows)
    failed = sum(not verdict.passed for verdict in verdicts)
    screen.line()
    if failed:
        screen.line((f"{failed} of {count(len(verdicts), 'check')} failed.", BAD))
    else:
        screen.line((f"All {len(verdicts)} checks passed.", GOOD))
    return not failed


def _mark(passed: bool) -> Piece:
    return ("pass", GOOD) if passed else ("FAIL", BAD)


def _farewell(screen: Screen, *, is_new: bool) -> None:
    login = f"log in as {OWNER}, first password {OWNER}" if is_new else f"log in as {OWNER}"
    screen.heading("What next")
    screen.line(f"  ./cloud              the menu; {login}")
    screen.line("  ./cloud console web  a shell in the guest web; Ctrl-] leaves")
    screen.line("  ./cloud lab down     take everything down again")
