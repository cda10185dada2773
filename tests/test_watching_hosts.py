"""What the monitor decides about hosts that rebooted or lost something, and about what waits for a host."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from cloudrepo.host_report import Report
from cloudrepo.watched import Decision, slices_of
from watched_world import NODE, A, B, World, alive, report, silent, slice_of, vm

# ── hosts that rebooted ─────────────────────────────────────────────────────────────────────────────────


def test_a_worker_that_rebooted_gets_its_machines_back_and_the_slice_is_told_once() -> None:
    world = World(slice_of(vm(), vm(1002, B)))
    world.pass_(a=report({1001: alive()}), b=report({1002: alive()}))
    gone = report(boot_id="boot 2")
    decision = world.pass_(a=gone, b=report({1002: alive()}))
    assert world.told == ["worker.rebooted", "slice.lost"]
    [repair] = decision.repairs
    assert (repair.hosts, repair.vms) == ((A,), (1001,))
    decision = world.pass_(1, a=gone, b=report({1002: alive()}))
    assert (decision.repairs, world.told) == ((), [])  # its time has not come again
    assert len(world.pass_(10, a=gone, b=report({1002: alive()})).repairs) == 1
    assert world.told == []
    world.pass_(a=report({1001: alive()}, boot_id="boot 2"), b=report({1002: alive()}))
    assert (world.snapshot.slices, world.told) == ({}, [])


def test_bringing_back_is_never_given_up_only_tried_less_often() -> None:
    world = World(slice_of(vm()), pause_s=10, limit=2)
    world.pass_(a=report({1001: alive()}))
    started = [world.now for _ in range(2000) if world.pass_(1.0, a=report()).repairs and not world.decision.settles]
    pauses = [round(b - a) for a, b in pairwise(started)]
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300, 300, 300]


def test_the_network_node_comes_first_also_when_it_rebooted_alone() -> None:
    world = World(slice_of(vm(), vm(1002, NODE), vlans=frozenset({100, 101, 400})))
    fine = report({1002: alive()}, servers=frozenset({100, 101, 400}))
    world.pass_(a=report({1001: alive()}), node=fine)
    decision = world.pass_(a=report({1001: alive()}), node=report(boot_id="boot 2", servers=frozenset()))
    [repair] = decision.repairs
    assert (repair.hosts, repair.vms) == ((NODE,), (1002,))
    assert "VLANs 100, 101, 400" in repair.why
    world = World(slice_of(vm()))
    decision = world.pass_(a=report({1001: alive()}), node=report(servers=frozenset({400})))
    [repair] = decision.repairs
    assert (repair.hosts, repair.vms) == ((NODE,), ())


def test_vlan_400_without_its_rules_is_lost_and_other_vlans_are_not() -> None:
    world = World(slice_of(vm(), vlans=frozenset({100, 400})))
    fine = report({1001: alive()})
    assert not world.pass_(a=fine, node=report(has_rules=True)).repairs
    [repair] = world.pass_(a=fine, node=report(has_rules=False)).repairs
    assert repair.hosts == (NODE,) and repair.why == "the network node lost VLAN 400"
    world = World(slice_of(vm(), vlans=frozenset({100})))
    assert not world.pass_(a=fine, node=report(has_rules=False)).repairs


def wired() -> World:
    """One machine on a link, and one on VLAN 400 as well."""
    return World(
        slice_of(vm(), vm(1002, B), vlans=frozenset({100, 400}), wired=frozenset({A, B}), online=frozenset({B}))
    )


def test_hosts_that_lost_flows_get_them_again_and_that_is_told_once() -> None:
    def look(after: float = 15.0, **flows: set[str] | None) -> Decision:
        def answer(name: str, *vm_ids: int) -> Report:
            found = flows.get(name, {"1000", "shared"})
            machines = {vm_id: alive() for vm_id in vm_ids}
            return report(machines, flows=None if found is None else frozenset(found))

        return world.pass_(after, a=answer("a", 1001), b=answer("b", 1002), node=answer("node"))

    world = wired()
    assert look().repairs == look(a={"1000"}).repairs == look(a=None, b=None, node=None).repairs == ()
    [repair] = look(a=set(), node={"1000"}).repairs
    assert (sorted(repair.hosts), repair.vms, repair.is_restart) == ([A, NODE], (), False)
    assert "10.0.10.1, 10.0.10.3 lost the flows of its ports" in repair.why
    assert world.told == ["slice.lost"]
    look(1.0, a=set(), node={"1000"})
    assert (world.decision.repairs, world.told) == ((), []), "not at once again"
    [repair] = look(20.0, b={"1000"}).repairs
    assert (repair.hosts, world.told) == ((B,), []), "VLAN 400 is missing where a machine is on it"
    look()
    [repair] = look(b={"shared"}).repairs
    assert (repair.hosts, world.told) == ((B,), ["slice.lost"])


def test_a_meter_that_is_gone_is_brought_back_with_the_flows_that_went_with_it() -> None:
    world = World(replace(slice_of(vm(), vlans=frozenset({100}), wired=frozenset({A})), meters={A: frozenset({7, 8})}))

    def look(meters: set[int] | None) -> Decision:
        found = None if meters is None else frozenset(meters)
        return world.pass_(
            15.0,
            a=report({1001: alive()}, meters=found, flows=frozenset({"1000"})),
            node=report(servers=frozenset({100})),
        )

    assert look({7, 8, 9}).repairs == look(None).repairs == (), "others' meters, and a host without a rate"
    [repair] = look({7}).repairs
    assert repair.hosts == (A,) and f"{A} lost the flows of its ports" in repair.why
    assert world.told == ["slice.lost"]


def test_the_meters_of_a_slice_are_those_of_its_wired_nics_that_run() -> None:
    nics = [{"name": "eth0", "vlan_id": 400}, {"name": "eth1", "vlan_id": None}, {"name": "eth2", "vlan_id": 100}]
    machines = [
        {"vm_id": 1, "name": "a", "worker_ip": A, "status": "running", "interfaces": nics},
        {"vm_id": 2, "name": "b", "worker_ip": A, "status": "running", "interfaces": nics[:1]},
        {"vm_id": 3, "name": "c", "worker_ip": B, "status": "stopped", "interfaces": nics},
    ]
    record: dict[str, Any] = {"slice_id": 1000, "owner": "ann", "status": "running", "links": [], "vms": machines}
    [one] = slices_of({"slices": {"1000": record}})
    assert one.meters == {A: frozenset({256, 258, 512})}


def test_flows_do_not_wait_for_the_network_node_but_with_the_setting_nothing_is_set() -> None:
    lost = report({1001: alive()}, flows=frozenset())
    [repair] = wired().pass_(a=lost, b=report({1002: alive()}), node=silent()).repairs
    assert repair.hosts == (A,)
    world = wired()
    world.policy = replace(world.policy, recover=False)
    assert world.pass_(a=lost, b=report({1002: alive()})).repairs == ()


def test_when_both_lost_power_machines_wait_for_the_network_node_and_one_repair_has_both() -> None:
    world = World(slice_of(vm()), misses=1)
    world.pass_(a=report({1001: alive()}))
    world.pass_(a=silent(), node=silent())
    assert world.pass_(a=report(boot_id="boot 2"), node=silent()).repairs == ()
    [repair] = world.pass_(a=report(boot_id="boot 2"), node=report(boot_id="boot 2", servers=frozenset())).repairs
    assert (repair.hosts, repair.vms) == ((NODE, A), (1001,))


def test_without_the_setting_or_with_the_policy_never_it_stays_down_and_that_is_told_once() -> None:
    for policy, restart, settles in (({"recover": False}, "always", 0), ({}, "never", 1)):
        world = World(slice_of(vm(restart=restart)), **policy)
        world.pass_(a=report({1001: alive()}))
        decision = world.pass_(a=report(boot_id="boot 2"), node=report(servers=frozenset({100})))
        assert (decision.repairs, len(decision.settles)) == ((), settles)
        assert "vm.lost" in world.told
        world.pass_(a=report(boot_id="boot 2"))
        assert world.told == []


# ── what is unfinished ──────────────────────────────────────────────────────────────────────────────────


def cleared(decision: Decision) -> set[str]:
    """The hosts that are cleared, of all slices."""
    return {ip for one in decision.clearings for ip in one.hosts}


@pytest.mark.parametrize("is_running", [False, True])
def test_what_waits_for_a_host_is_finished_when_it_answers_and_tried_less_often_when_that_fails(
    is_running: bool,
) -> None:
    """Also under a running slice, for which no other one waits."""
    waiting = slice_of(is_settled=is_running, waits_for=(A, B), vlans=frozenset())
    world = World(waiting, misses=1, pause_s=10)
    assert cleared(world.pass_(a=silent(), b=silent())) == set()
    assert cleared(world.pass_(b=silent())) == {A}
    assert cleared(world.pass_(1, b=silent())) == set()
    assert cleared(world.pass_(10, b=silent())) == {A}
    assert cleared(world.pass_(10, b=silent())) == set()
    assert cleared(world.pass_(1)) == {A, B}  # B has only now come back
    assert cleared(world.pass_(300, busy=(1000,))) == set()  # something begun before is still at it
    assert cleared(world.pass_(1)) == {A, B}
    [clearing] = world.decision.clearings
    assert (clearing.slice_id, clearing.hosts) == (1000, frozenset({A, B}))
    world.slices[0] = replace(waiting, waits_for=())
    world.pass_()
    assert (world.snapshot.slices, world.snapshot.clearings) == ({}, {})


def test_the_pauses_of_bringing_back_and_of_clearing_are_not_each_others() -> None:
    """Neither ever helps here, and B becomes silent for a while. Both go on as if there were only one of them."""
    lost = World(slice_of(vm()), pause_s=10)
    both = World(slice_of(vm(), waits_for=(B,)), pause_s=10)
    repaired: dict[int, list[float]] = {0: [], 1: []}
    cleared_at = []
    for number in range(700):
        b = silent() if 300 <= number < 302 else report()
        for which, world in enumerate((lost, both)):
            if world.pass_(1.0, a=report(), b=b).repairs:
                repaired[which].append(number)
        if both.decision.clearings:
            cleared_at.append(number)
    assert repaired[0] == repaired[1] == [0, 10, 30, 70, 150, 310, 610]
    assert cleared_at == [0, 10, 30, 70, 150, 302, 602]  # what comes back is cleared at once
