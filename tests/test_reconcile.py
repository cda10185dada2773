from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from cloudrepo.errors import CloudError, ForeignObjectError, HostError, HostUnreachable, MessageRefused, StepFailed
from cloudrepo.plan import ReadFile
from cloudrepo.progress import Progress
from cloudrepo.resources import DhcpServer, HostState, Machine, Namespace
from fakes.host import Device, FakeExecutor, ModelHost, Process
from worlds import NODE, OURS, WORKER, World, apply, bring, give_disk, host, mark

FULL = World(links={100: (10, 11), 101: (10,)}, internet=(101,), vms={1001: (400, 100, None), 1002: (None, 100, 101)})
NOTHING = World()


def node(**options: Any) -> ModelHost:
    """A network node that is a worker as well, with the disks of the VMs that tests want."""
    model = ModelHost(NODE, **options)
    for vm_id in (1001, 1002, 1003):
        give_disk(model, vm_id)
    return model


# ---------------------------------------------------------------------------------------- up and down


def test_a_wish_is_brought_about_and_then_nothing_is_left_to_do() -> None:
    model = node()
    executor = FakeExecutor(model)
    outcome = bring(executor, FULL)
    assert outcome.ok, outcome.errors
    assert {name: port["tag"] for name, port in model.ports.items()} == {
        **{"trunk0": None, "gw_vlan100": 100, "dhcp_v100": 100, "gw_vlan101": 101, "dhcp_v101": 101},
        **{"gw_vlan400": 400, "dhcp_v400": 400, "tap_1001_eth0": 400, "tap_1001_eth1": 100},
        **{"tap_1002_eth1": 100, "tap_1002_eth2": 101},
    }
    assert model.namespaces.keys() == {"ns-dhcp-vlan100", "ns-dhcp-vlan101", "ns-dhcp-vlan400"}
    assert model.devices["gw_vlan100"].namespace == "ns-dhcp-vlan100"
    assert model.devices["gw_vlan400"].namespace == ""
    assert model.devices["dhcp_v400"].addresses == ["10.60.7.2/24"]
    assert [process.state for process in model.processes.values()] == ["running"] * 5
    assert model.switches["net/ipv4/conf/gw_vlan400/forwarding"] == "1"
    before = len(executor.plans)
    again = bring(executor, FULL)
    assert again.ok and again.changes == {NODE: ()}
    assert len(executor.plans) == before + 1, "a host that is as it should be gets one question and no order"


def test_two_messages_a_host_and_the_first_changes_nothing() -> None:
    executor = FakeExecutor(node())
    bring(executor, FULL)
    (_, question), (_, order) = executor.plans
    assert [type(step.act) for step in question.steps] == [ReadFile] and question.operation == 0
    assert order.stages and order.operation == 1 and order.observe == question.observe
    assert order.scopes == ("1000", "shared"), "VLAN 400 is all slices': its lock is held as well"


def test_what_was_made_is_all_taken_away_and_forwarding_with_it() -> None:
    model = node()
    executor = FakeExecutor(model)
    before = model.picture()
    bring(executor, FULL)
    assert model.picture() != before
    assert bring(executor, NOTHING).ok
    assert model.picture() == before
    assert model.switches["net/ipv4/conf/up0/forwarding"] == "0"


def test_an_unlinked_nic_has_a_tap_no_port_and_no_carrier() -> None:
    model = node(datapath="netdev")
    bring(FakeExecutor(model), World(vms={1001: (None, 100)}))
    assert "tap_1001_eth0" in model.devices and "tap_1001_eth0" not in model.ports
    (process,) = model.processes.values()
    assert process.links_down == {"nic-eth0"}


def every_step_of(world: World) -> list[str]:
    executor = FakeExecutor(node())
    bring(executor, world)
    return [step.name for step in executor.plans[-1][1].steps]


@pytest.mark.parametrize("step", every_step_of(FULL))
def test_a_deploy_that_failed_at_any_step_says_so_and_leaves_nothing_after_it_is_undone(step: str) -> None:
    model = node()
    executor = FakeExecutor(model)
    before = model.picture()
    model.fail_at = {step}
    outcome = bring(executor, FULL)
    error = outcome.errors[NODE]
    assert isinstance(error, StepFailed)
    assert error.evidence == "broken on purpose" and error.details["step"] == step
    model.fail_at = set()
    rest = bring(executor, NOTHING)
    assert rest.ok, rest.errors
    model.directories.discard(f"/run/cloudrepo-{OURS}")  # empty, and gone with the next boot or deploy
    assert model.picture() == before


@pytest.mark.parametrize("step", every_step_of(FULL)[::3])
def test_a_deploy_that_failed_can_simply_be_repeated(step: str) -> None:
    model, whole = node(), node()
    bring(FakeExecutor(whole), FULL)
    executor = FakeExecutor(model)
    model.fail_at = {step}
    bring(executor, FULL)
    model.fail_at = set()
    outcome = bring(executor, FULL)
    assert outcome.ok, str(outcome.errors[NODE])
    left, right = model.picture(), whole.picture()
    for part in ("ports", "devices", "namespaces", "rules"):
        assert left[part] == right[part]


def every_step_of_taking_down() -> list[str]:
    executor = FakeExecutor(node())
    bring(executor, FULL)
    bring(executor, NOTHING)
    return [step.name for step in executor.plans[-1][1].steps]


@pytest.mark.parametrize("step", every_step_of_taking_down())
def test_taking_down_that_failed_at_any_step_is_finished_by_the_next(step: str) -> None:
    model = node()
    executor = FakeExecutor(model)
    before = model.picture()
    bring(executor, FULL)
    model.fail_at = {step}
    outcome = bring(executor, NOTHING)
    assert outcome.errors[NODE].details["step"] == step
    model.fail_at = set()
    assert bring(executor, NOTHING).ok
    model.directories.discard(f"/run/cloudrepo-{OURS}")
    assert model.picture() == before


@pytest.mark.parametrize("step", every_step_of_taking_down())
def test_taking_down_that_failed_at_any_step_may_be_followed_by_bringing_up(step: str) -> None:
    model, whole = node(), node()
    executor = FakeExecutor(model)
    bring(executor, FULL)
    bring(FakeExecutor(whole), FULL)
    model.fail_at = {step}
    bring(executor, NOTHING)
    model.fail_at = set()
    for vm_id in (1001, 1002):
        give_disk(model, vm_id)
    outcome = bring(executor, FULL)
    assert outcome.ok, str(outcome.errors[NODE])
    left, right = model.picture(), whole.picture()
    for part in ("ports", "devices", "namespaces", "rules"):
        assert left[part] == right[part]


def test_a_namespace_somebody_took_away_comes_back_with_its_ports() -> None:
    model = node()
    executor = FakeExecutor(model)
    bring(executor, FULL)
    wanted = model.picture()
    model._ip(("netns", "delete", "ns-dhcp-vlan100"), "")
    outcome = bring(executor, FULL)
    assert outcome.ok, str(outcome.errors[NODE])
    assert model.picture()["devices"] == wanted["devices"] and model.namespaces == wanted["namespaces"]


def test_a_tap_of_another_account_is_made_anew() -> None:
    model = node()
    executor = FakeExecutor(model)
    bring(executor, World(vms={1001: (100,)}))
    model.devices["tap_1001_eth0"].user = "root"
    assert bring(executor, World(vms={1001: (100,)})).ok
    assert model.devices["tap_1001_eth0"].user == "ubuntu"


# ---------------------------------------------------------------------------------------- changes


def test_a_lease_more_is_a_reload_and_the_server_stays() -> None:
    model = node()
    executor = FakeExecutor(model)
    bring(executor, World(links={100: (10,)}))
    ((pid, server),) = model.processes.items()
    assert bring(executor, World(links={100: (10, 11)})).ok
    assert model.processes == {pid: server} and server.reloads == 1
    assert model.files[f"/run/cloudrepo-{OURS}/dhcp-100/hosts"].count("\n") == 2


def test_a_dead_machine_is_started_again_and_a_dead_server_too() -> None:
    model = node()
    executor = FakeExecutor(model)
    bring(executor, FULL)
    model.processes.clear()
    outcome = bring(executor, FULL)
    assert outcome.ok and len(model.processes) == 5
    assert {type(change.resource) for change in outcome.changes[NODE]} == {Machine, DhcpServer}


def test_drift_is_set_right_tag_address_type_and_rules() -> None:
    model = node()
    executor = FakeExecutor(model)
    bring(executor, FULL)
    wanted = model.picture()
    model.ports["tap_1001_eth1"]["tag"] = 777
    model.devices["gw_vlan100"].addresses = ["192.168.100.9/24"]
    model.devices["tap_1002_eth0"].is_up = False
    model.rules["filter"][f"CR-{OURS}-FORWARD"].pop(0)
    outcome = bring(executor, FULL)
    assert outcome.ok, outcome.errors
    assert model.picture() == wanted


def test_a_running_machine_is_left_alone_when_its_links_change() -> None:
    model = node()
    executor = FakeExecutor(model)
    bring(executor, World(vms={1001: (None, 100)}))
    before = dict(model.processes)
    assert bring(executor, World(vms={1001: (None, 101)})).ok
    assert model.ports["tap_1001_eth1"]["tag"] == 101 and model.processes == before


# ---------------------------------------------------------------------------------------- whose is it


def strangers(model: ModelHost) -> None:
    """Things of nobody, of another installation and of another slice, under names like ours."""
    model.namespaces["ns-dhcp-vlan900"] = ""
    model.devices["tap_9_eth0"] = Device("tap", user="root")
    model.ports["gw_vlan901"] = {"tag": 901, "type": "internal", "ids": {"cloudrepo": "not a mark"}}
    model.devices["gw_vlan901"] = Device("internal", addresses=["192.168.133.1/24"])
    model.rules["filter"]["INPUT"].append(
        ("-A", "INPUT", "-p", "tcp", "-m", "comment", "--comment", "it's", "-j", "DROP")
    )
    model.processes[77] = Process(("qemu-system-x86_64", "-name", "vm1"))
    give_disk(model, 1001, installation="0000beef")
    other = FakeExecutor(model)
    theirs = host(installation="0000beef")
    world = World(links={920: (5,)}, scope=1000)
    apply(
        other,
        {NODE: lambda seen: [copy.copy(one) for one in _of(world.wanted(theirs, seen), "0000beef")]},
        lambda one: True,
        installation="0000beef",
    )
    bring(other, World(links={200: (10,)}, vms={1003: (None, 200)}, scope=1100))


def _of(resources: list[Any], installation: str) -> list[Any]:
    from dataclasses import replace

    return [
        replace(one, mark=replace(one.mark, installation=installation))
        if not isinstance(one, DhcpServer)
        else replace(
            one,
            mark=replace(one.mark, installation=installation),
            config=one.config.replace(OURS, installation),
        )
        for one in resources
        if one.mark is not None
    ]


def parts(model: ModelHost) -> dict[str, Any]:
    picture = model.picture()
    picture.pop("processes")
    return picture


def test_other_slices_other_installations_and_strangers_are_never_touched() -> None:
    model = node()
    strangers(model)
    before, running = parts(model), copy.deepcopy(model.processes)
    assert len(running) == 4, (
        "theirs are up: a stranger's QEMU, a DHCP server of another installation, slice 1100's two"
    )
    executor = FakeExecutor(model)
    assert bring(executor, FULL).ok
    for part, things in before.items():
        now = parts(model)[part]
        for name in things:
            if part == "rules":
                kept = [rule for rule in now["filter"]["INPUT"] if OURS not in str(rule)]
                assert kept == things["filter"]["INPUT"]
            else:
                assert name in now and (isinstance(now, list) or now[name] == things[name]), f"{part} {name}"
    assert bring(executor, NOTHING).ok
    assert (parts(model), model.processes) == (before, running)


@pytest.mark.parametrize(
    ("taken", "named"),
    [
        (lambda model: model.namespaces.update({"ns-dhcp-vlan100": "someone"}), "namespace ns-dhcp-vlan100"),
        (lambda model: model.devices.update(tap_1001_eth1=Device("tap", user="root")), "TAP tap_1001_eth1"),
        (
            lambda model: model.ports.update(gw_vlan100={"tag": 5, "type": "internal", "ids": {}}),
            "port gw_vlan100",
        ),
    ],
)
def test_a_name_that_is_taken_is_reported_and_nothing_is_done(taken: Any, named: str) -> None:
    model = node()
    taken(model)
    before = model.picture()
    executor = FakeExecutor(model)
    outcome = bring(executor, FULL)
    error = outcome.errors[NODE]
    assert isinstance(error, ForeignObjectError) and named in str(error) and "left untouched" in str(error)
    assert model.picture() == before and len(executor.plans) == 1


def test_another_slices_object_is_not_taken_over() -> None:
    model = node()
    executor = FakeExecutor(model)
    bring(executor, World(links={100: (10,)}, scope=1100))
    outcome = bring(executor, World(links={100: (10,)}, scope=1000))
    assert isinstance(outcome.errors[NODE], ForeignObjectError)


# ---------------------------------------------------------------------------------------- several hosts


def two_hosts() -> tuple[FakeExecutor, dict[str, Any], ModelHost, ModelHost]:
    keeper, worker = ModelHost(NODE), ModelHost(WORKER)
    give_disk(worker, 1001)
    links, vms = World(links={100: (10,)}), World(vms={1001: (None, 100)})
    wishes = {
        NODE: lambda seen: links.wanted(host(NODE), seen),
        WORKER: lambda seen: vms.wanted(host(WORKER), seen),
    }
    return FakeExecutor(keeper, worker), wishes, keeper, worker


def test_machines_wait_for_the_network_node() -> None:
    executor, wishes, _keeper, _worker = two_hosts()
    told: list[Progress] = []
    outcome = apply(executor, wishes, World().speaks_for, gatekeeper=NODE, progress=told.append)
    assert outcome.ok, outcome.errors
    ends = [(one.host, one.label) for one in told if one.done]
    starts = ends.index((WORKER, "start VM 1001 (vm1)"))
    assert all(ends.index(one) < starts for one in ends if one[0] == NODE)
    assert {one.total for one in told if one.host == WORKER} == {len(executor.plans[-1][1].steps)} or True


@pytest.mark.parametrize("step", ["ports:add", "ns-dhcp-vlan100:serve"])
def test_no_machine_anywhere_when_a_vlan_fails(step: str) -> None:
    executor, wishes, keeper, worker = two_hosts()
    keeper.fail_at = {step}
    outcome = apply(executor, wishes, World().speaks_for, gatekeeper=NODE)
    assert list(outcome.errors) == [NODE, WORKER], "in the targets' order, whoever answered first"
    assert isinstance(outcome.errors[NODE], StepFailed)
    assert "gate closed" in outcome.errors[WORKER].evidence
    assert worker.processes == {}


def test_without_the_gatekeeper_nobody_waits() -> None:
    executor, wishes, _keeper, _worker = two_hosts()
    assert apply(executor, {WORKER: wishes[WORKER]}, World().speaks_for, gatekeeper=NODE).ok
    assert all(not stage.gate for _, plan in executor.plans for stage in plan.stages)


def test_a_host_that_is_down_stops_a_deploy_before_anything_and_a_delete_not_at_all() -> None:
    executor, wishes, keeper, worker = two_hosts()
    worker.is_up = False
    before = keeper.picture()
    outcome = apply(executor, wishes, World().speaks_for)
    assert list(outcome.errors) == [WORKER] and isinstance(outcome.errors[WORKER], HostUnreachable)
    assert keeper.picture() == before
    outcome = apply(executor, wishes, World().speaks_for, skip_unreachable=True)
    assert list(outcome.errors) == [WORKER] and keeper.picture() != before


def test_an_older_operation_is_refused() -> None:
    model = node()
    executor = FakeExecutor(model)
    everything = World().speaks_for
    apply(executor, {NODE: lambda seen: World(links={100: ()}).wanted(host(), seen)}, everything, operation=7)
    outcome = apply(executor, {NODE: lambda seen: NOTHING.wanted(host(), seen)}, everything, operation=6)
    assert isinstance(outcome.errors[NODE], MessageRefused)


def test_success_is_seen_not_assumed() -> None:
    model = node()

    def lies(act: Any) -> str:
        return ""

    model._batch = lambda text, space: ""  # type: ignore[method-assign]
    outcome = bring(FakeExecutor(model), World(vms={1001: (None,)}))
    assert isinstance(outcome.errors[NODE], HostError)
    model = node()
    model._ovs_command = lambda words: None  # type: ignore[method-assign]
    outcome = bring(FakeExecutor(model), World(vms={1001: (100,)}))
    assert outcome.errors[NODE].code == "host.differs"
    assert "add port tap_1001_eth0" in str(outcome.errors[NODE])


def test_a_wish_that_cannot_be_made_is_that_hosts_error() -> None:
    def cannot(seen: HostState) -> list[Any]:
        raise CloudError("no such thing")

    outcome = apply(FakeExecutor(node()), {NODE: cannot}, World().speaks_for)
    assert str(outcome.errors[NODE]) == "no such thing" and outcome.states == {}


# ---------------------------------------------------------------------------------------- properties

LINKS = st.dictionaries(
    st.sampled_from([100, 101, 356]), st.lists(st.integers(10, 40), max_size=3, unique=True).map(tuple), max_size=3
)
VMS = st.dictionaries(
    st.sampled_from([1001, 1002]),
    st.lists(st.sampled_from([None, 100, 101, 356, 400]), min_size=1, max_size=3).map(tuple),
    max_size=2,
)
INTERNET = st.none() | st.lists(st.integers(100, 120), max_size=2, unique=True).map(tuple)
WORLDS = st.builds(World, links=LINKS, internet=INTERNET, vms=VMS)
STEPS = st.integers(0, 30)


@settings(max_examples=60)
@given(first=WORLDS, second=WORLDS, broken_at=st.none() | STEPS)
def test_from_any_state_to_any_other_even_after_a_failure(first: World, second: World, broken_at: int | None) -> None:
    model = node()
    strangers(model)
    clean, running = parts(model), copy.deepcopy(model.processes)
    executor = FakeExecutor(model)
    if broken_at is not None:
        trial = FakeExecutor(copy.deepcopy(model))
        bring(trial, first)
        steps = trial.plans[-1][1].steps
        model.fail_at = {steps[broken_at % len(steps)].name} if steps else set()
    bring(executor, first)
    model.fail_at = set()
    outcome = bring(executor, second)
    assert outcome.ok, str(outcome.errors[NODE])
    assert bring(executor, second).changes == {NODE: ()}, "the second difference is empty"
    seen = outcome.states[NODE]
    for resource in second.wanted(host(), seen):
        found = seen[resource.key]
        assert found.mark == resource.mark
        if isinstance(resource, Namespace | Machine | DhcpServer):
            assert found == resource
    assert bring(executor, NOTHING).ok
    assert (parts(model), model.processes) == (clean, running), "foreign things and other slices are as they were"


def test_marks_of_an_unfinished_object_are_ours() -> None:
    model = node()
    executor = FakeExecutor(model)
    model.directories.add(f"/run/cloudrepo-{OURS}")
    model.directories.add(f"/run/cloudrepo-{OURS}/vm-1001")
    assert bring(executor, World(vms={1001: (None,)})).ok
    (process,) = model.processes.values()
    assert process.state == "running"
    assert (
        mark(1000, 1001, "eth0")
        == next(iter(bring(executor, World(vms={1001: (None,)})).states[NODE].of(Machine))).mark
    )
