"""What the monitor decides, with a clock of the test's own."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from cloudrepo.host_report import Report
from cloudrepo.observations import DOWN, KILLED, OFF, PAUSED, RUNNING, SUSPECT, UNREACHABLE, UP, Snapshot
from cloudrepo.settings import Settings
from cloudrepo.watched import Decision, Policy, hosts_of, slices_of
from cloudrepo.watching import decide, is_power_off
from watched_world import NODE, POWERED_OFF, TERMINATED, A, B, World, alive, dead, report, silent, slice_of, vm

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
