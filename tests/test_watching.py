"""What the monitor decides, with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from cloudrepo.host_report import MachineReport, Report
from cloudrepo.observations import DOWN, KILLED, OFF, PAUSED, RUNNING, SUSPECT, UNREACHABLE, UP, Snapshot
from cloudrepo.settings import Settings
from cloudrepo.watched import Decision, Policy, SliceRecord, VmRecord, hosts_of, slices_of
from cloudrepo.watching import decide, is_power_off, newly_dead

A, B, NODE = "10.0.10.1", "10.0.10.2", "10.0.10.3"
POWERED_OFF = "qemu_system_shutdown_request reason=6"
TERMINATED = "qemu-system-x86_64: terminating on signal 15 from pid 7 (sh)\nqemu_system_shutdown_request reason=4"


def alive(pid: int = 4000, **changes: Any) -> MachineReport:
    return MachineReport(**{"is_alive": True, "pid": pid, "process_state": "S", "status": "running", **changes})


def dead(pid: int = 4000) -> MachineReport:
    return MachineReport(is_alive=False, pid=pid)


def report(machines: Mapping[int, MachineReport] | None = None, **changes: Any) -> Report:
    return Report(**{"boot_id": "boot 1", "machines": machines or {}, "servers": frozenset({100, 400}), **changes})


def silent(reason: str = "no route") -> Report:
    return Report(error=reason)


def vm(vm_id: int = 1001, worker: str = A, **changes: Any) -> VmRecord:
    return VmRecord(**{"vm_id": vm_id, "name": f"vm{vm_id - 1000}", "worker": worker, "should_run": True, **changes})


def slice_of(*vms: VmRecord, slice_id: int = 1000, **changes: Any) -> SliceRecord:
    facts = {"slice_id": slice_id, "owner": "ann", "is_settled": True, "vms": vms, "vlans": frozenset({100})}
    return SliceRecord(**{**facts, **changes})


class World:
    """A monitor over simulated time. `pass_` takes what hosts answer now."""

    def __init__(self, *slices: SliceRecord, **policy: Any) -> None:
        self.slices = list(slices)
        self.policy = Policy(**{"network_node": NODE, **policy})
        self.now = 1000.0
        self.snapshot = Snapshot()
        self.decision = Decision(snapshot=self.snapshot)
        self.asked_words: dict[str, list[int]] = {}

    def pass_(self, after: float = 15.0, *, words: str = "", busy: tuple[int, ...] = (), **hosts: Report) -> Decision:
        """One pass so many seconds after the last one; hosts by `a`, `b`, `node`, which answer by default."""
        self.now += after
        reports = {A: report(), B: report(), NODE: report()}
        reports |= {{"a": A, "b": B, "node": NODE}[name]: answer for name, answer in hosts.items()}
        self.asked_words = newly_dead(self.snapshot, reports, self.slices)
        found = {vm_id: words for vm_ids in self.asked_words.values() for vm_id in vm_ids} if words else {}
        self.decision = decide(
            self.snapshot,
            reports,
            self.slices,
            self.policy,
            self.now,
            known=(A, B, NODE),
            enrolled=(A, B, NODE),
            busy=busy,
            last_words=found,
        )
        self.snapshot = self.decision.snapshot
        return self.decision

    @property
    def told(self) -> list[str]:
        return [notice.what for notice in self.decision.notices]

    def state(self, vm_id: int = 1001) -> str:
        return self.snapshot.vms[vm_id].state


# ── workers ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_is_down_only_after_so_many_misses_and_each_change_is_told_once() -> None:
    world = World(slice_of(vm()), misses=3)
    told = []
    for answers in (True, False, False, False, False, False, True, True):
        world.pass_(a=report({1001: alive()}) if answers else silent())
        told.append((world.snapshot.workers[A].state, world.told))
    assert told == [
        (UP, []),
        (SUSPECT, ["worker.suspect"]),
        (SUSPECT, []),
        (DOWN, ["worker.down"]),
        (DOWN, []),
        (DOWN, []),
        (UP, ["worker.up"]),
        (UP, []),
    ]


def test_a_miss_now_and_then_never_adds_up() -> None:
    world = World(slice_of(vm()), misses=2)
    for _ in range(10):
        world.pass_(a=silent())
        assert world.snapshot.workers[A].state == SUSPECT
        world.pass_(a=report({1001: alive()}))
    assert world.snapshot.workers[A].state == UP


def test_the_reason_and_the_number_of_vms_are_told() -> None:
    world = World(slice_of(vm(), vm(1002), vm(1003, should_run=False)), misses=1)
    [notice] = world.pass_(a=silent("Connection refused")).notices
    assert (notice.level, notice.about) == ("error", f"worker {A}")
    assert notice.text == f"{A} is down: Connection refused"
    assert notice.details == {"vms": 2, "reason": "Connection refused"}
    world.pass_(a=silent("No route"))
    assert world.snapshot.workers[A].reason == "No route"
    assert world.told == []
    [notice] = world.pass_(after=585, a=report({1001: alive(), 1002: alive()})).notices
    assert (notice.level, notice.text) == ("notice", f"{A} answers again after 10 min")


def test_vms_of_a_worker_that_is_down_are_unreachable_and_not_told_one_by_one() -> None:
    world = World(slice_of(vm(), vm(1002)), misses=2)
    both = report({1001: alive(), 1002: alive(5000)})
    world.pass_(a=both)
    world.pass_(a=silent())
    assert world.state() == RUNNING  # suspect: what was seen last still counts
    world.pass_(a=silent())
    assert [world.state(), world.state(1002)] == [UNREACHABLE] * 2
    assert world.told == ["worker.down"]
    world.pass_(a=both)
    assert [world.state(), world.state(1002)] == [RUNNING] * 2
    assert world.told == ["worker.up"]


@pytest.mark.parametrize("is_known", [True, False])
def test_a_worker_is_asked_anew_when_it_comes_back_or_rebooted_or_is_unknown(is_known: bool) -> None:
    def asked(before: Snapshot, answer: Report) -> Decision:
        known = (A,) if is_known else ()
        return decide(before, {A: answer}, [], Policy(misses=1), 0.0, known=known, enrolled=(A,))

    first = asked(Snapshot(), report())
    assert first.ask == (() if is_known else (A,))
    down = asked(first.snapshot, silent())
    assert down.ask == ()
    assert asked(down.snapshot, report()).ask == (A,)
    assert asked(first.snapshot, report(boot_id="boot 2")).ask == (A,)
    assert decide(Snapshot(), {A: report()}, [], Policy(), 0.0).ask == ()  # not enrolled any more


def test_load_is_that_between_two_answers() -> None:
    world = World()
    world.pass_(a=report(busy_ticks=500, all_ticks=1000, ram_mib=8192.0, ram_free_mib=4096.0))
    assert world.snapshot.workers[A].cpu_percent == 50.0  # since its boot, for want of better
    world.pass_(a=report(busy_ticks=590, all_ticks=1100, ram_mib=8192.0, ram_free_mib=1024.0))
    assert world.snapshot.workers[A].cpu_percent == 90.0
    assert world.snapshot.workers[A].ram_free_mib == 1024.0
    world.pass_(a=silent())
    assert world.snapshot.workers[A].cpu_percent is None
    world.pass_(a=report(busy_ticks=600, all_ticks=1300))
    assert world.snapshot.workers[A].cpu_percent == 5.0
    world.pass_(a=report(boot_id="boot 2", busy_ticks=20, all_ticks=80))
    assert world.snapshot.workers[A].cpu_percent == 25.0


# ── VMs that are there ──────────────────────────────────────────────────────────────────────────────────


def test_a_paused_vm_is_told_with_what_qemu_says_and_again_when_it_runs() -> None:
    world = World(slice_of(vm()))
    world.pass_(a=report({1001: alive()}))
    [notice] = world.pass_(a=report({1001: alive(status="io-error")})).notices
    assert (notice.what, notice.text) == ("vm.paused", "VM 1001 (vm1) is paused: QEMU says io-error")
    assert world.state() == PAUSED
    world.pass_(a=report({1001: alive(status="io-error")}))
    assert world.told == []
    world.pass_(a=report({1001: alive()}))
    assert world.told == ["vm.running"]
    world.pass_(a=report({1001: alive(process_state="T", status=None)}))
    assert (world.state(), world.told) == (PAUSED, ["vm.paused"])
    assert "signal" in world.snapshot.vms[1001].reason


def test_a_vm_whose_qmp_does_not_answer_is_unreachable_after_so_many_misses() -> None:
    world = World(slice_of(vm()), misses=3)
    world.pass_(a=report({1001: alive()}))
    states = []
    for _ in range(4):
        world.pass_(a=report({1001: alive(status=None)}))
        states.append((world.state(), world.told))
    assert states == [(RUNNING, []), (RUNNING, []), (UNREACHABLE, ["vm.unreachable"]), (UNREACHABLE, [])]
    world.pass_(a=report({1001: alive()}))
    assert (world.state(), world.told) == (RUNNING, ["vm.running"])


def test_a_vm_that_should_not_run_is_off_and_nothing_is_done() -> None:
    world = World(slice_of(vm(should_run=False)))
    for machines in ({}, {1001: dead()}):
        decision = world.pass_(a=report(machines))
        assert (world.state(), decision.repairs, decision.notices) == (OFF, (), ())
    world.pass_(a=report({1001: alive()}))
    assert (world.state(), world.told) == (RUNNING, [])  # seen, and left to the drift report


# ── VMs that died ───────────────────────────────────────────────────────────────────────────────────────


def test_a_vm_that_died_is_told_with_its_last_words_and_restarted_at_once() -> None:
    world = World(slice_of(vm()))
    world.pass_(a=report({1001: alive()}))
    decision = world.pass_(a=report({1001: dead()}), words="KVM: entry failed,\n  hardware error 0x7")
    assert world.asked_words == {A: [1001]}
    [notice] = decision.notices
    assert (notice.level, notice.what, notice.about) == ("warning", "vm.died", "vm 1001")
    assert notice.text == f"VM 1001 (vm1) died on {A}: KVM: entry failed, hardware error 0x7"
    assert notice.details["slice"] == 1000 and notice.details["owner"] == "ann"
    [repair] = decision.repairs
    assert (repair.slice_id, repair.hosts, repair.vms) == (1000, (A,), (1001,))
    assert world.state() == KILLED


def test_one_that_is_dead_at_the_first_look_died_too() -> None:
    decision = World(slice_of(vm())).pass_(a=report({1001: dead()}))
    assert [notice.what for notice in decision.notices] == ["vm.died"]
    assert "no last words" in decision.notices[0].text
    assert len(decision.repairs) == 1


def test_restarts_come_with_growing_pauses_up_to_a_limit_and_then_it_is_given_up() -> None:
    """It dies again right after each restart, which the process id of the dead process tells."""
    world = World(slice_of(vm()), pause_s=10, limit=5, window_s=600)
    world.pass_(a=report({1001: alive(4000)}))
    started, pid, told = [], 4000, []
    for _ in range(600):
        decision = world.pass_(1.0, a=report({1001: dead(pid)}), words="abort")
        told += world.told
        if decision.repairs:
            started.append(world.now)
            pid += 1
        if decision.settles:
            break
    pauses = [round(b - a) for a, b in pairwise(started)]
    assert pauses == [10, 20, 40, 80]
    assert told == ["vm.died"] * 6 + ["vm.given_up"]
    [settle] = decision.settles
    assert (settle.vm_id, settle.status) == (1001, "error")
    assert settle.error == "died and was restarted 5 times within 10 min: abort"


def test_an_end_that_could_not_be_written_is_written_later_without_another_word() -> None:
    world = World(slice_of(vm()), limit=1)
    world.pass_(a=report({1001: alive()}))
    world.pass_(a=report({1001: dead()}))
    assert len(world.pass_(a=report({1001: dead(4001)})).settles) == 1
    assert world.told == ["vm.died", "vm.given_up"]
    assert len(world.pass_(a=report({1001: dead(4001)})).settles) == 1
    assert world.told == []
    world.pass_(700, a=report({1001: alive(4002)}))  # somebody started it
    world.pass_(a=report({1001: dead(4002)}))
    world.pass_(a=report({1001: dead(4003)}))
    assert world.told == ["vm.died", "vm.given_up"]

    world = World(slice_of(vm()))
    world.pass_(a=report({1001: alive()}))
    for told in (["vm.powered_off"], []):
        [settle] = world.pass_(a=report({1001: dead()}), words=POWERED_OFF).settles
        assert (settle.status, world.told) == ("stopped", told)


def test_restarts_that_are_long_ago_do_not_count() -> None:
    world = World(slice_of(vm()), pause_s=10, limit=2, window_s=600)
    for pid in range(4000, 4010):
        world.pass_(650, a=report({1001: alive(pid)}))
        decision = world.pass_(1, a=report({1001: dead(pid)}))
        assert len(decision.repairs) == 1 and not decision.settles
    world.pass_(1, a=report({1001: alive(5000)}))
    assert len(world.pass_(50, a=report({1001: dead(5000)})).repairs) == 1
    assert len(world.pass_(1, a=report({1001: dead(5001)})).settles) == 1


def test_pauses_have_a_bound() -> None:
    policy = Policy(pause_s=10)
    assert [policy.pause_after(n) for n in range(9)] == [0, 10, 20, 40, 80, 160, 300, 300, 300]
    assert Policy(pause_s=1000).pause_after(20) == 1000
    assert Policy(pause_s=0).pause_after(20) == 0


def test_a_restart_that_did_not_help_is_tried_again_without_another_word() -> None:
    world = World(slice_of(vm()))
    world.pass_(a=report({1001: alive()}))
    assert len(world.pass_(a=report({1001: dead()})).repairs) == 1
    assert len(world.pass_(a=report({1001: dead()}), busy=(1000,)).repairs) == 0
    decision = world.pass_(a=report({1001: dead()}))
    assert (len(decision.repairs), decision.notices, world.asked_words) == (1, (), {})


@pytest.mark.parametrize(
    ("restart", "words", "outcome"),
    [
        ("", POWERED_OFF, "stopped"),
        ("", TERMINATED, "restarted"),
        ("", "", "restarted"),
        ("on-failure", POWERED_OFF, "stopped"),
        ("always", POWERED_OFF, "restarted"),
        ("always", TERMINATED, "restarted"),
        ("never", POWERED_OFF, "stopped"),
        ("never", TERMINATED, "error"),
        ("nonsense", POWERED_OFF, "stopped"),
    ],
)
def test_what_becomes_of_a_dead_vm_by_its_policy_and_its_end(restart: str, words: str, outcome: str) -> None:
    world = World(slice_of(vm(restart=restart)))
    world.pass_(a=report({1001: alive()}))
    decision = world.pass_(a=report({1001: dead()}), words=words)
    if outcome == "restarted":
        assert decision.repairs and not decision.settles
    else:
        assert [settle.status for settle in decision.settles] == [outcome] and not decision.repairs
    level = {"stopped": "info"}.get(outcome, "warning")
    assert [notice.level for notice in decision.notices] == [level]


def test_the_setting_is_the_policy_of_vms_without_one() -> None:
    for restart, repairs in (("never", 0), ("always", 1)):
        world = World(slice_of(vm()), restart=restart)
        world.pass_(a=report({1001: alive()}))
        assert len(world.pass_(a=report({1001: dead()})).repairs) == repairs


def test_only_the_last_request_to_end_counts() -> None:
    assert is_power_off(f"x\n1234@17.5:{POWERED_OFF}\n")
    assert not is_power_off("qemu_system_shutdown_request reason=2")
    assert not is_power_off(f"{POWERED_OFF}\nqemu_system_shutdown_request reason=4")
    assert not is_power_off("qemu_system_shutdown_request reason=66")
    assert not is_power_off("")


def test_nothing_is_done_about_a_slice_that_an_operation_is_at_work_on_and_the_death_is_noted_after_it() -> None:
    world = World(slice_of(vm()))
    world.pass_(a=report({1001: alive()}))
    settled = world.slices[0]
    world.slices[0] = replace(settled, is_settled=False)
    decision = world.pass_(a=report({1001: dead()}))
    assert (decision.repairs, decision.settles, decision.notices, world.asked_words) == ((), (), (), {})
    world.slices[0] = settled
    decision = world.pass_(a=report({1001: dead()}))
    assert world.asked_words == {A: [1001]}
    assert len(decision.repairs) == 1 and world.told == ["vm.died"]


def test_a_vm_that_was_started_by_hand_begins_anew() -> None:
    world = World(slice_of(vm()), limit=1)
    world.pass_(a=report({1001: alive()}))
    world.pass_(a=report({1001: dead()}))
    assert len(world.pass_(a=report({1001: dead(4001)})).settles) == 1
    world.slices[0] = slice_of(vm(should_run=False))
    world.pass_(a=report({1001: dead(4001)}))
    world.slices[0] = slice_of(vm())
    world.pass_(a=report({1001: alive(4002)}))
    assert len(world.pass_(a=report({1001: dead(4002)})).repairs) == 1


def test_a_restart_waits_for_the_network_node() -> None:
    world = World(slice_of(vm()))
    world.pass_(a=report({1001: alive()}))
    assert world.pass_(a=report({1001: dead()}), node=silent()).repairs == ()
    [repair] = world.pass_(a=report({1001: dead()})).repairs
    assert repair.hosts == (A,)
    alone = World(slice_of(vm(), vlans=frozenset()))
    assert len(alone.pass_(a=report({1001: dead()}), node=silent()).repairs) == 1


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


# ── records ─────────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_records_say() -> None:
    data = {
        "workers_list": [A],
        "slices": {
            "1000": {
                "slice_id": 1000,
                "owner": "ann",
                "status": "running",
                "links": [{"vlan_id": 100}],
                "vms": [
                    {
                        **{"vm_id": 1001, "name": "vm1", "worker_ip": B, "status": "running", "restart": "always"},
                        "interfaces": [{"name": "eth0", "vlan_id": 400}],
                    },
                    {"vm_id": 1002, "name": "vm2", "worker_ip": A, "status": "stopped", "interfaces": []},
                ],
            },
            "1003": {"slice_id": 1003, "owner": "bob", "status": "design", "links": [{"vlan_id": 120}], "vms": []},
            "1004": {
                **{"slice_id": 1004, "owner": "bob", "status": "deleting", "links": [], "vms": []},
                "pending": ["10.0.10.9"],
            },
            "1005": {
                **{"slice_id": 1005, "owner": "bob", "status": "running", "links": [], "vms": []},
                "operation": {"number": 1},
            },
        },
    }
    first, design, deleting, at_work = slices_of(data)
    assert first.is_settled and first.vlans == {100, 400}
    assert first.wired == first.online == {B}
    assert [(one.should_run, one.restart) for one in first.vms] == [(True, "always"), (False, "")]
    assert (design.is_settled, design.vlans) == (False, frozenset())
    assert deleting.waits_for == ("10.0.10.9",)
    assert not at_work.is_settled
    assert hosts_of(data, [first, design, deleting], NODE) == [A, B, NODE, "10.0.10.9"]
    assert hosts_of(data, [design], NODE) == [A]


def test_the_policy_comes_from_the_settings() -> None:
    found = Policy.of(Settings.of({"monitor.misses": 7, "monitor.restart": "never", "monitor.recover": False}))
    assert (found.misses, found.restart, found.recover, found.limit, found.network_node) == (7, "never", False, 5, NODE)


# ── whatever happens ────────────────────────────────────────────────────────────────────────────────────

MACHINES = st.sampled_from([None, alive(1), alive(2), dead(1), dead(2), alive(status=None), alive(status="paused")])
ANSWERS = st.one_of(
    st.just(silent()),
    st.builds(
        lambda machine, boot, servers: report(
            {} if machine is None else {1001: machine}, boot_id=boot, servers=frozenset(servers)
        ),
        MACHINES,
        st.sampled_from(["boot 1", "boot 2", ""]),
        st.sets(st.sampled_from([100, 400])),
    ),
)


@hypothesis_settings(max_examples=60)
@given(
    st.lists(st.tuples(ANSWERS, ANSWERS, st.floats(0, 400), st.booleans(), st.sampled_from(["", POWERED_OFF]))),
    st.sampled_from(["never", "on-failure", "always"]),
)
def test_whatever_hosts_answer_restarts_are_bounded_and_nothing_is_told_twice(
    history: list[tuple[Report, Report, float, bool, str]], restart: str
) -> None:
    world = World(slice_of(vm()), restart=restart)
    died_at: list[float] = []
    for answer, node, after, is_settled, words in history:
        world.slices[0] = slice_of(vm(), is_settled=is_settled)
        decision = world.pass_(after, a=answer, node=node, words=words)
        assert is_settled or not (decision.repairs or decision.settles)
        assert len(decision.repairs) <= 1
        for repair in decision.repairs:
            assert repair.hosts and len(set(repair.hosts)) == len(repair.hosts)
            assert NODE not in repair.hosts[1:]
            assert restart != "never" or not repair.vms
        told = [(notice.what, notice.about) for notice in decision.notices]
        assert len(told) == len(set(told))
        died_at += [world.now for repair in decision.repairs if 1001 in repair.vms and 1001 in answer.machines]
        assert sum(world.now - when < 600 for when in died_at) <= 5
        if answer.error or node.error or any(one.is_alive and one.status is None for one in answer.machines.values()):
            continue  # a miss more may be one too many
        reports = {A: answer, NODE: node}
        again = decide(world.snapshot, reports, world.slices, world.policy, world.now, known=(A, NODE))
        assert again.notices == ()  # the same once more is no change


@pytest.mark.parametrize("seconds", [-5000.0, 5000.0])
def test_a_snapshot_of_another_boot_is_shifted_whole(seconds: float) -> None:
    world = World(slice_of(vm(), waits_for=(B,)))
    world.pass_(a=report({1001: dead()}))
    world.pass_(a=report())
    moved = world.snapshot.shifted(seconds)
    assert moved.clearings[1000].last == world.snapshot.clearings[1000].last + seconds
    assert moved.taken == world.snapshot.taken + seconds
    assert moved.vms[1001].restarts == (world.snapshot.vms[1001].restarts[0] + seconds,)
    assert moved.slices[1000].last == world.snapshot.slices[1000].last + seconds
    assert moved.workers[A].since == world.snapshot.workers[A].since + seconds
    assert moved.shifted(-seconds) == world.snapshot
