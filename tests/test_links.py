"""What a link allows: who may set it, what is recorded and shown, and that hosts have it at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudrepo import link_switches
from cloudrepo.errors import SettingsError
from cloudrepo.invariants import violations
from cloudrepo.naming import dhcp_port, gateway_port, meter_number, tap_name
from cloudrepo.rebuilt import rebuilt
from cloudrepo.resources import Disk
from cloudrepo.settings import Settings
from cloudrepo.state import ShapeError, normalise
from cloudrepo.watched import slices_of
from deployment_api import DeploymentAPI
from fakes.host import ModelHost
from fakes.orchestrator import HOSTS, hosts_of, orchestrator
from orchestrator_api import OrchestratorAPI

USUAL = {"spoofing": "forbidden", "bridging": "forbidden", "vlans": "forbidden", "dhcp": True}
WIRE, NODE = HOSTS[0], HOSTS[2]


@pytest.fixture
def api(tmp_path: Path) -> OrchestratorAPI:
    made = orchestrator(tmp_path)
    with made.db.transaction() as data:
        for name, role in (("sam", "student"), ("ines", "instructor")):
            data["users"][name] = {"username": name, "password_hash": "", "quota_vms": 9, "role": role}
    return made


def one_of(name: str, value: Any) -> dict[str, Any]:
    return {name: value}


def ok(answer: tuple[bool, Any]) -> Any:
    assert answer[0], answer
    return answer[1]


def refused(answer: tuple[bool, Any], code: str) -> str:
    assert not answer[0] and answer[1].code == code, answer
    return str(answer[1])


def pair(api: OrchestratorAPI, owner: str = "sam", **switches: Any) -> int:
    """A slice with two linked VMs on two hosts; its id."""
    slice_id = int(ok(api.create_slice(owner, "pair"))["slice_id"])
    ids = [ok(api.add_vm_to_slice(owner, slice_id, name, "cirros", 1))["vm_id"] for name in ("a", "b")]
    link = ok(api.create_link(owner, slice_id, ids[0], "eth1", ids[1], "eth1", **switches))
    assert link.keys() == {"link_id", "vlan_id", "vm1_id", "vm1_interface", "vm2_id", "vm2_interface"}
    return slice_id


def shown(api: OrchestratorAPI, slice_id: int) -> dict[str, Any]:
    view = ok(api.get_slice("admin", slice_id))["links"][0]
    return {name: view[name] for name in USUAL}


def record(api: OrchestratorAPI, slice_id: int) -> dict[str, Any]:
    found = api.db.get_slice(slice_id)
    assert found is not None and violations(api.db.data) == []
    return found


def drops(host: ModelHost, word: str) -> int:
    """How many flows of a host with this word drop."""
    return sum(word in line and line.endswith("actions=drop") for line in host.flows.dump().splitlines())


# ---------------------------------------------------------------------------------------- records and views


def test_a_link_is_as_usual_unless_somebody_says_otherwise(api: OrchestratorAPI) -> None:
    slice_id = pair(api)
    assert shown(api, slice_id) == USUAL
    assert not set(USUAL) & set(record(api, slice_id)["links"][0]), "what is usual is not written"


@pytest.mark.parametrize("name", link_switches.NAMES)
def test_each_switch_is_set_when_a_link_is_made_and_later_and_back(name: str, api: OrchestratorAPI) -> None:
    opened, usual = (False, True) if name == "dhcp" else ("allowed", "forbidden")
    made = pair(api, "admin", **{name: opened})
    assert shown(api, made) == {**USUAL, name: opened}
    assert ok(api.set_link("admin", made, 1, **one_of(name, usual)))[name] == usual
    assert shown(api, made) == USUAL and name not in record(api, made)["links"][0]
    later = ok(api.set_link("admin", made, 1, **one_of(name, opened)))
    assert later == ok(api.get_slice("admin", made))["links"][0] and later[name] == opened
    assert {key: value for key, value in shown(api, made).items() if key != name} == {
        key: value for key, value in USUAL.items() if key != name
    }


def test_on_a_plain_wire_no_address_is_recorded_or_shown(api: OrchestratorAPI) -> None:
    slice_id = pair(api)
    link = record(api, slice_id)["links"][0]
    before = [vm["interfaces"] for vm in record(api, slice_id)["vms"]]
    assert [one[1]["ip_config"]["ip"].rpartition(".")[2] for one in before] == ["10", "11"]
    view = ok(api.set_link("sam", slice_id, 1, dhcp=False))
    assert (view["cidr"], view["gateway_ip"], view["vlan_id"]) == (None, None, link["vlan_id"])
    assert [vm["interfaces"][1]["ip_config"] for vm in record(api, slice_id)["vms"]] == [None, None]
    ok(api.set_link("sam", slice_id, 1, dhcp=True))
    assert [vm["interfaces"] for vm in record(api, slice_id)["vms"]] == before
    assert record(api, slice_id)["links"][0] == link


def test_the_monitor_expects_no_server_on_a_plain_wire(api: OrchestratorAPI) -> None:
    slice_id = pair(api)
    ok(api.deploy_slice("sam", slice_id))
    vlan = record(api, slice_id)["links"][0]["vlan_id"]
    assert [one.vlans for one in slices_of(api.db.data)] == [frozenset({vlan})]
    ok(api.set_link("sam", slice_id, 1, dhcp=False))
    assert [one.vlans for one in slices_of(api.db.data)] == [frozenset()]


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"spoofing": True}, "spoofing is allowed or forbidden: found True"),
        ({"bridging": "yes"}, "bridging is allowed or forbidden: found 'yes'"),
        ({"vlans": ["allowed"]}, "vlans is allowed or forbidden"),
        ({"dhcp": "false"}, "dhcp is true or false: found 'false'"),
        ({"dhcp": 0}, "dhcp is true or false"),
    ],
)
def test_a_value_that_a_switch_does_not_have(api: OrchestratorAPI, wish: dict[str, Any], words: str) -> None:
    slice_id = pair(api, "admin")
    vms = [vm["vm_id"] for vm in record(api, slice_id)["vms"]]
    ok(api.remove_link("admin", slice_id, 1))
    assert words in refused(api.create_link("admin", slice_id, vms[0], "eth1", vms[1], "eth1", **wish), "link.switch")
    assert record(api, slice_id)["links"] == []
    ok(api.create_link("admin", slice_id, vms[0], "eth1", vms[1], "eth1"))
    assert words in refused(api.set_link("admin", slice_id, 1, **wish), "link.switch")
    assert shown(api, slice_id) == USUAL


@pytest.mark.parametrize("number", [2, 0, True, "1", None])
def test_a_link_that_is_not_there(api: OrchestratorAPI, number: Any) -> None:
    slice_id = pair(api)
    assert "its links are 1" in refused(api.set_link("sam", slice_id, number, dhcp=False), "link.unknown")


@pytest.mark.parametrize(
    ("key", "value"), [("spoofing", "alowed"), ("spoofing", True), ("bridging", None), ("vlans", ""), ("dhcp", "no")]
)
def test_a_slip_in_a_state_file_is_named(api: OrchestratorAPI, key: str, value: Any) -> None:
    slice_id = pair(api)
    data = json.loads(json.dumps(api.db.data))
    data["slices"][str(slice_id)]["links"][0][key] = value
    with pytest.raises(ShapeError) as caught:
        normalise(data)
    assert caught.value.path == ("slices", str(slice_id), "links", 0, key)
    assert f"{key} is" in str(caught.value) and repr(value) in str(caught.value)


# ---------------------------------------------------------------------------------------- who may


def test_students_set_what_the_settings_leave_to_them(api: OrchestratorAPI) -> None:
    slice_id = pair(api)
    for name, value in (("spoofing", "allowed"), ("vlans", "allowed"), ("dhcp", False)):
        ok(api.set_link("sam", slice_id, 1, **one_of(name, value)))
    said = refused(api.set_link("sam", slice_id, 1, bridging="allowed"), "link.forbidden")
    assert said.startswith("students may not set bridging of a link: by `links.student_switches` they may set spoofing")
    assert "Ask an instructor" in said
    said = refused(api.set_link("sam", slice_id, 1, dhcp=True, bridging="allowed"), "link.forbidden")
    assert shown(api, slice_id)["dhcp"] is False, "of two wishes either both or none is done"
    for who in ("ines", "admin"):
        assert ok(api.set_link(who, slice_id, 1, bridging="allowed"))["bridging"] == "allowed"
        ok(api.set_link("sam", slice_id, 1, bridging="allowed", spoofing="forbidden"))  # what is so already
        ok(api.set_link("sam", slice_id, 1, bridging="forbidden"))  # to close is never forbidden


def test_a_link_that_a_student_may_not_make_takes_no_vlan(api: OrchestratorAPI) -> None:
    slice_id = pair(api)
    vms = [vm["vm_id"] for vm in record(api, slice_id)["vms"]]
    ok(api.remove_link("sam", slice_id, 1))
    before = record(api, slice_id)
    said = refused(
        api.create_link("sam", slice_id, vms[0], "eth1", vms[1], "eth1", bridging="allowed"), "link.forbidden"
    )
    assert "students may not set bridging" in said and record(api, slice_id) == before


def settings_of(text: str, folder: Path) -> Settings:
    (folder / "settings.yaml").write_text(text)
    return Settings.load(folder / "database.yaml", {})


@pytest.mark.parametrize("permitted", [(), ("bridging",), link_switches.NAMES])
def test_the_setting_decides_for_each_switch(permitted: tuple[str, ...], tmp_path: Path) -> None:
    text = yaml.safe_dump({"links": {"student_switches": list(permitted)}})
    found = settings_of(text, tmp_path)
    api = orchestrator(tmp_path)
    assert api.settings.links.student_switches == found.links.student_switches == permitted
    with api.db.transaction() as data:
        data["users"]["sam"] = {"username": "sam", "password_hash": "", "quota_vms": 9, "role": "student"}
    slice_id = pair(api)
    for name in link_switches.NAMES:
        done, answer = api.set_link("sam", slice_id, 1, **one_of(name, False if name == "dhcp" else "allowed"))
        assert done is (name in permitted)
        if not permitted:
            assert "they may set none" in str(answer)


@pytest.mark.parametrize("value", ["[spoofing, nat]", "spoofing", "all", "[1]"])
def test_a_setting_that_names_no_switches(value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a list of spoofing, bridging, vlans, dhcp is wanted"):
        settings_of(f"links: {{student_switches: {value}}}\n", tmp_path)


# ---------------------------------------------------------------------------------------- hosts


def test_hosts_of_a_slice_that_runs_have_a_switch_at_once_and_lose_it_at_once(api: OrchestratorAPI) -> None:
    slice_id = pair(api, "admin")
    ok(api.deploy_slice("admin", slice_id))
    hosts = hosts_of(api)
    ends = {vm["worker_ip"]: tap_name(vm["vm_id"], "eth1") for vm in record(api, slice_id)["vms"]}
    assert len(ends) == 2
    for ip, device in ends.items():
        assert drops(hosts[ip], "arp_spa") > 0 and drops(hosts[ip], f'in_port="{device}",vlan_tci') == 1
    ok(api.set_link("admin", slice_id, 1, spoofing="allowed"))
    assert [drops(hosts[ip], "arp_spa") for ip in ends] == [0, 0]
    ok(api.set_link("admin", slice_id, 1, spoofing="forbidden"))
    assert all(drops(hosts[ip], "arp_spa") > 0 for ip in ends)
    assert "operation" not in record(api, slice_id) and record(api, slice_id)["status"] == "running"
    assert [one for one in ok(api.drift())["objects"] if one["difference"]] == []


def test_a_plain_wire_has_no_server_no_gateway_and_no_namespace(api: OrchestratorAPI) -> None:
    slice_id = pair(api)
    ok(api.deploy_slice("sam", slice_id))
    vlan, node = record(api, slice_id)["links"][0]["vlan_id"], hosts_of(api)[NODE]
    ports = {dhcp_port(vlan), gateway_port(vlan)}
    spaces = dict(node.namespaces)
    assert ports <= set(node.ports) and len(spaces) == 1
    ok(api.set_link("sam", slice_id, 1, dhcp=False))
    assert not ports & set(node.ports) and node.namespaces == {}
    assert not any(process.words[0] == "dnsmasq" for process in node.processes.values())
    assert [one for one in ok(api.drift())["objects"] if one["difference"]] == []
    ok(api.set_link("sam", slice_id, 1, dhcp=True))
    assert ports <= set(node.ports) and node.namespaces == spaces
    assert [one for one in ok(api.drift())["objects"] if one["difference"]] == []


def test_a_slice_that_is_deployed_as_a_plain_wire_and_deleted_leaves_nothing(api: OrchestratorAPI) -> None:
    slice_id = pair(api, dhcp=False)
    ok(api.deploy_slice("sam", slice_id))
    node = hosts_of(api)[NODE]
    assert node.namespaces == {} and not any("vlan" in name for name in node.ports)
    ok(api.delete_slice("sam", slice_id))
    for host in hosts_of(api).values():
        assert set(host.ports) == {"trunk0"} and host.flows.flows == {}


def test_a_stopped_slice_gets_its_switches_with_its_start(api: OrchestratorAPI) -> None:
    slice_id = pair(api)
    ok(api.deploy_slice("sam", slice_id))
    ok(api.stop_slice("sam", slice_id))
    asked = len(hosts_of(api)[NODE].done)
    ok(api.set_link("sam", slice_id, 1, dhcp=False, spoofing="allowed"))
    assert len(hosts_of(api)[NODE].done) == asked, "no host is asked"
    ok(api.start_slice("sam", slice_id))
    assert hosts_of(api)[NODE].namespaces == {}
    assert sum(drops(host, "arp_spa") for host in hosts_of(api).values()) == 0


def worker_of(api: OrchestratorAPI, slice_id: int, number: int) -> ModelHost:
    return hosts_of(api)[record(api, slice_id)["vms"][number]["worker_ip"]]


def test_a_host_that_does_not_answer_leaves_records_and_hosts_as_they_were(api: OrchestratorAPI) -> None:
    slice_id = pair(api)
    ok(api.deploy_slice("sam", slice_id))
    before = record(api, slice_id)
    flows = {ip: host.flows.dump() for ip, host in hosts_of(api).items()}
    worker_of(api, slice_id, 1).is_up = False
    done, answer = api.set_link("sam", slice_id, 1, dhcp=False)
    assert not done and worker_of(api, slice_id, 1).ip in str(answer)
    assert record(api, slice_id) == before
    worker_of(api, slice_id, 1).is_up = True
    assert {ip: host.flows.dump() for ip, host in hosts_of(api).items()} == flows
    assert hosts_of(api)[NODE].namespaces
    assert [one for one in ok(api.drift())["objects"] if one["difference"]] == []


def test_a_host_that_fails_takes_the_others_back_with_it(api: OrchestratorAPI) -> None:
    slice_id = pair(api)
    ok(api.deploy_slice("sam", slice_id))
    before = record(api, slice_id)
    flows = {ip: host.flows.dump() for ip, host in hosts_of(api).items()}
    broken = worker_of(api, slice_id, 1)
    broken.fail_at = {"flows:add"}
    done, answer = api.set_link("sam", slice_id, 1, spoofing="allowed")
    assert not done and "broken on purpose" in str(answer)
    assert record(api, slice_id) == before
    broken.fail_at = set()
    assert {ip: host.flows.dump() for ip, host in hosts_of(api).items()} == flows
    ok(api.set_link("sam", slice_id, 1, spoofing="allowed"))


def test_to_set_a_link_again_brings_it_to_its_hosts_again(api: OrchestratorAPI) -> None:
    slice_id = pair(api, spoofing="allowed")
    ok(api.deploy_slice("sam", slice_id))
    worker = worker_of(api, slice_id, 0)
    flows = worker.flows.dump()
    worker.flows.flush(has_built_in=False)
    ok(api.set_link("sam", slice_id, 1, spoofing="allowed"))
    assert sorted(worker.flows.dump().splitlines()) == sorted(flows.splitlines())


def test_a_slice_at_work_or_in_error_is_refused(api: OrchestratorAPI) -> None:
    slice_id = pair(api)
    ok(api.deploy_slice("sam", slice_id))
    with api.db.transaction() as data:
        data["slices"][str(slice_id)]["status"] = "error"
    said = refused(api.set_link("sam", slice_id, 1, dhcp=False), "slice.state")
    assert "it is error, and must be design, stopped or running" in said
    assert shown(api, slice_id) == USUAL


def test_the_switches_are_found_again_when_the_state_file_is_lost(api: OrchestratorAPI) -> None:
    slice_id = pair(api, spoofing="allowed")
    ok(api.deploy_slice("sam", slice_id))
    ok(api.set_link("sam", slice_id, 1, vlans="allowed", dhcp=False))
    known = api.site.hosts(HOSTS)
    states = api.site.reconciler.observe(known.values())  # type: ignore[arg-type]
    assert any(state.of(Disk) for state in states.values())  # type: ignore[union-attr]
    found = rebuilt(states, "~/vm_images").slices[str(slice_id)]  # type: ignore[arg-type]
    assert found["links"] == record(api, slice_id)["links"]
    assert [vm["interfaces"] for vm in found["vms"]] == [vm["interfaces"] for vm in record(api, slice_id)["vms"]]


def test_the_event_log_says_what_was_set(api: OrchestratorAPI) -> None:
    slice_id = pair(api, dhcp=False)
    ok(api.set_link("ines", slice_id, 1, bridging="allowed"))
    created, changed = [one for one in api.context.events.read() if one.what in ("create_link", "set_link")]
    assert created.details["dhcp"] is False
    assert (changed.who, changed.about, changed.details["owner"]) == ("ines", f"slice {slice_id}", "sam")
    assert (changed.details["link_id"], changed.details["bridging"]) == (1, "allowed")


# ---------------------------------------------------------------------------------------- rates


def limited(folder: Path, mbps: float) -> OrchestratorAPI:
    """A façade whose settings limit what NICs send; the state file and hosts are new."""
    (folder / "settings.yaml").write_text(yaml.safe_dump({"network": {"rate_mbps": mbps}}))
    return orchestrator(folder)


def meters(api: OrchestratorAPI) -> dict[int, str]:
    return {
        number: " ".join(text.split()) for host in hosts_of(api).values() for number, text in host.flows.meters.items()
    }


def ways(api: OrchestratorAPI, slice_id: int) -> list[tuple[int, str]]:
    """Of each flow by which a guest's frame gets anywhere: the meter of its NIC, and its actions."""
    found = []
    for vm in record(api, slice_id)["vms"]:
        for one in vm["interfaces"]:
            device = f'in_port="{tap_name(vm["vm_id"], one["name"])}"'
            lines = hosts_of(api)[vm["worker_ip"]].flows.dump().splitlines()
            actions = [line.partition("actions=")[2] for line in lines if device in line]
            found += [(meter_number(vm["vm_id"], one["name"]) or 0, act) for act in actions if act != "drop"]
    return found


def with_internet(api: OrchestratorAPI) -> int:
    slice_id = pair(api, "admin", bridging="allowed")
    ok(api.add_vm_to_slice("admin", slice_id, "c", "cirros", 1, True))
    return slice_id


def test_every_nic_on_a_wire_has_a_meter_and_nothing_it_sends_goes_by_it(tmp_path: Path) -> None:
    api = limited(tmp_path, 8)
    slice_id = with_internet(api)
    ok(api.deploy_slice("admin", slice_id))
    numbers = {
        meter_number(vm["vm_id"], one["name"])
        for vm in record(api, slice_id)["vms"]
        for one in vm["interfaces"]
        if one["vlan_id"] is not None
    }
    assert len(numbers) == 3 and set(meters(api)) == numbers
    assert {text.partition("kbps ")[2] for text in meters(api).values()} == {
        "burst bands= type=drop rate=8000 burst_size=1600"
    }
    found = ways(api, slice_id)
    assert {number for number, _ in found} == numbers and len(found) >= 10
    assert all(act.startswith(f"meter:{number},") for number, act in found)
    assert [one for one in ok(api.drift())["objects"] if one["difference"]] == []
    ok(api.stop_vm("admin", slice_id, record(api, slice_id)["vms"][0]["vm_id"]))
    assert len(meters(api)) == 2
    ok(api.delete_slice("admin", slice_id))
    assert meters(api) == {}


def test_without_a_rate_there_is_no_meter(tmp_path: Path) -> None:
    api = limited(tmp_path, 0)
    slice_id = with_internet(api)
    ok(api.deploy_slice("admin", slice_id))
    assert meters(api) == {} and not any("meter" in act for _, act in ways(api, slice_id))


def test_a_meter_that_is_gone_or_changed_is_told_and_mended(tmp_path: Path) -> None:
    api = limited(tmp_path, 8)
    slice_id = pair(api, "admin")
    ok(api.deploy_slice("admin", slice_id))
    before, worker = meters(api), worker_of(api, slice_id, 0)
    flows = sorted(worker.flows.dump().splitlines())
    (number,) = worker.flows.meters
    changed, gone = {f"meter {number} changed"}, {f"meter {number} missing", f"flows slice {slice_id} changed"}
    for said in (changed, gone):
        if said == gone:
            worker.flows.delete_meter(number)
        else:
            worker.flows.set_meter(f"meter={number},kbps,bands=type=drop,rate=9", is_new=False)
        found = [one for one in ok(api.drift())["objects"] if one["difference"]]
        assert {f"{one['kind']} {one['name']} {one['state']}" for one in found} == said
        ok(api.drift_fix())
        assert meters(api) == before and sorted(worker.flows.dump().splitlines()) == flows


@pytest.mark.parametrize("rate", [20, 0])
def test_another_rate_is_a_drift_and_set_with_it(rate: float, tmp_path: Path) -> None:
    api = limited(tmp_path, 8)
    slice_id = pair(api, "admin")
    ok(api.deploy_slice("admin", slice_id))
    again = OrchestratorAPI(api.db, DeploymentAPI(api.executor), settings=Settings.of({"network.rate_mbps": rate}))
    again.site.accelerator_of = lambda ip: "tcg"
    assert {one["kind"] for one in ok(again.drift())["objects"] if one["difference"]} >= {"meter"}
    ok(again.drift_fix())
    assert [one for one in ok(again.drift())["objects"] if one["difference"]] == []
    assert all("rate=20000 " in text for text in meters(api).values()) and len(meters(api)) == (2 if rate else 0)


def test_a_closed_bridge_that_was_opened_gets_its_meters_with_its_flows(tmp_path: Path) -> None:
    """Opening flushes both."""
    api = limited(tmp_path, 8)
    slice_id = pair(api, "admin")
    ok(api.deploy_slice("admin", slice_id))
    before, worker = meters(api), worker_of(api, slice_id, 0)
    worker.bridge["fail_mode"] = ""
    worker.flows.flush(has_built_in=True)
    ok(api.drift_fix())
    assert meters(api) == before and all("meter" in act for _, act in ways(api, slice_id))


def test_a_bridge_that_cannot_limit_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    api = limited(tmp_path, 8)
    slice_id = pair(api, "admin")
    worker = worker_of(api, slice_id, 1)
    worker.most_meters = 0
    said = refused(api.deploy_slice("admin", slice_id), "host.meters")
    assert f"{worker.ip}: the bridge br-int cannot limit what guests send" in said and "network.rate_mbps" in said
    assert record(api, slice_id)["status"] == "design"
    assert meters(api) == {} and all(set(host.ports) == {"trunk0"} for host in hosts_of(api).values())


def test_a_meter_of_others_under_our_number_is_left_alone(tmp_path: Path) -> None:
    api = limited(tmp_path, 8)
    slice_id = pair(api, "admin")
    worker, vm = worker_of(api, slice_id, 0), record(api, slice_id)["vms"][0]
    number = meter_number(vm["vm_id"], "eth1") or 0
    worker.flows.set_meter(f"meter={number},kbps,bands=type=drop,rate=9", is_new=True)
    said = refused(api.deploy_slice("admin", slice_id), "host.foreign")
    assert f"meter {number} is there and is not ours" in said
    assert list(worker.flows.meters) == [number] and "rate=9" in worker.flows.meters[number]


def test_a_bridge_that_is_closed_already_and_lost_its_mark_keeps_what_it_limits(tmp_path: Path) -> None:
    """Nothing is flushed then: a meter that is there cannot be added."""
    api = limited(tmp_path, 8)
    slice_id = pair(api, "admin")
    ok(api.deploy_slice("admin", slice_id))
    before, worker = meters(api), worker_of(api, slice_id, 0)
    worker.bridge["ids"].clear()
    ok(api.set_link("admin", slice_id, 1, spoofing="allowed"))
    assert worker.bridge["ids"] and meters(api) == before and all("meter" in act for _, act in ways(api, slice_id))
