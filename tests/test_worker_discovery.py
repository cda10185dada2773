"""Discovery: what a worker says is read, what it does not say is assumed and marked, who is silent gets no VM."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudrepo import worker_facts
from cloudrepo.accelerator import WORKS, Proof
from cloudrepo.errors import HostError, HostUnreachable
from cloudrepo.plan import Plan, PlanResult, StepResult
from cloudrepo.settings import Settings
from cloudrepo.transports.local import LocalHost
from cloudrepo.worker_facts import Question
from database import Database
from image_tools import ME, local_executor, require
from worker_discovery import WorkerDiscovery

KVM = Proof(accelerator="kvm", reason="KVM ran a guest", boot_id="boot-1")
OURS = "cloudrepo/0a1b2c3d/1000/1001/eth1"
MEMINFO = "MemTotal:        8127940 kB\nMemFree:          512345 kB\nMemAvailable:    6000000 kB\n"
DF = "   1B-blocks        Avail\n536870912000  107374182400\n"


def ports(*rows: tuple[str, str, int | None, str], datapath: str = "", error: str = "", bridge: str = "br-int") -> str:
    """The three tables of `ovs-vsctl -f json`; a row is name, type, tag and mark."""
    all_rows, none = [(bridge, "internal", None, ""), *rows], ["set", []]
    ids = [["uuid", f"{number:08d}-0000-0000-0000-000000000000"] for number in range(len(all_rows))]
    tables: list[dict[str, Any]] = [
        {
            "headings": ["name", "ports", "datapath_type", "fail_mode", "external_ids"],
            "data": [[bridge, ["set", ids], datapath, none, ["map", []]]],
        },
        {
            "headings": ["_uuid", "name", "tag", "trunks", "vlan_mode", "external_ids"],
            "data": [
                [number, name, none if tag is None else tag, none, none, ["map", [["cloudrepo", mark]] if mark else []]]
                for number, (name, _, tag, mark) in zip(ids, all_rows, strict=True)
            ],
        },
        {
            "headings": ["name", "type", "error", "mac"],
            "data": [[name, kind, error if error and kind == "" else none, none] for name, kind, _, _ in all_rows],
        },
    ]
    return "\n".join(json.dumps(table) for table in tables)


GOOD_BRIDGE = ports(("eth1", "", None, ""), ("tap_1001_eth1", "", 100, OURS))
GOOD: dict[str, str] = {
    "cores": "8\n",
    "memory": MEMINFO,
    "space": DF,
    "boot": "boot-1\n",
    "kernel": "6.1.0-18-amd64\n",
    "python": "Python 3.11.2\n",
    "rights": "0\n",
    "groups": "ubuntu kvm\n",
    "devices": json.dumps({"/dev/kvm": {"kind": "file"}, "/dev/net/tun": {"kind": "file"}}),
    "folders": json.dumps({"/home/ubuntu": {"kind": "dir", "mode": 0o750}, "/home": {"kind": "dir", "mode": 0o755}}),
    "qemu": "QEMU emulator version 7.2.9 (Debian 1:7.2+dfsg-7+deb12u5)\nCopyright (c) 2003-2022\n",
    "qemu-img": "qemu-img version 7.2.9 (Debian 1:7.2+dfsg-7+deb12u5)\n",
    "ip": "ip utility, iproute2-6.1.0, libbpf 1.1.0\n",
    "ovs": "ovs-vsctl (Open vSwitch) 3.1.0\nDB Schema 8.3.1\n",
    "bridge": GOOD_BRIDGE,
    "controllers": "cpuset cpu io memory pids\n",
    "controllers beside cgroup1": "",
    "dnsmasq": "Dnsmasq version 2.90  Copyright (c) 2000-2024 Simon Kelley\n",
    "iptables": "iptables v1.8.9 (nf_tables)\n",
}


def answers(changes: dict[str, str | None] | None = None) -> dict[str, StepResult]:
    """The answers of a sound worker with changes; None = that step failed."""
    texts: dict[str, str | None] = {**GOOD, **(changes or {})}
    return {
        name: StepResult(name=name, label=name, status=255, err=f"could not run {name}", accepted=False)
        if text is None
        else StepResult(name=name, label=name, status=0, out=text)
        for name, text in texts.items()
    }


QUESTION = Question(installation="0a1b2c3d", base_dir="/home/ubuntu/vm_images", is_network_node=True)


def record(changes: dict[str, str | None] | None = None, question: Question = QUESTION) -> dict[str, Any]:
    return worker_facts.record("10.0.10.1", question, worker_facts.read(question, answers(changes)), KVM)


# -- reading -----------------------------------------------------------------------------------------------


def test_a_sound_workers_record() -> None:
    assert record() == {
        "ip": "10.0.10.1",
        "max_vms": 10,
        "max_cores": 8,
        "max_ram_gb": 7.8,
        "max_disk_gb": 500,
        "free_disk_gb": 100,
        "assumed": [],
        "accel": "kvm",
        "accel_reason": "KVM ran a guest",
        "accel_user": "ubuntu",
        "unlimited": [],
        "boot_id": "boot-1",
        "datapath": "system",
        "uplinks": ["eth1"],
        "kernel": "6.1.0-18-amd64",
        "python": "3.11.2",
        "qemu": "7.2.9",
        "ovs": "3.1.0",
        "problems": [],
    }


def test_memory_is_not_rounded_down_to_whole_gigabytes() -> None:
    assert record({"memory": "MemTotal:        1992294 kB\n"})["max_ram_gb"] == 1.9
    assert record({"memory": "MemTotal:         943718 kB\n"})["max_ram_gb"] == 0.9
    assert worker_facts.parse_memory(MEMINFO) == 7937


@pytest.mark.parametrize(
    ("question", "field", "default"),
    [("cores", "max_cores", 2), ("memory", "max_ram_gb", 1), ("space", "max_disk_gb", 500)],
)
@pytest.mark.parametrize("answer", [None, "", "garbage\nin two lines\n", "0\n"])
def test_a_figure_that_is_not_told_is_the_documented_one_and_marked(
    question: str, field: str, default: int, answer: str | None
) -> None:
    found = record({question: answer})
    assert (found[field], found["assumed"]) == (default, [field])


def test_nothing_at_all_is_still_a_record() -> None:
    facts = worker_facts.read(QUESTION, {})
    found = worker_facts.record("10.0.10.1", QUESTION, facts, KVM)
    assert found["assumed"] == ["max_cores", "max_ram_gb", "max_disk_gb"]
    assert "free_disk_gb" not in found


def test_the_probe_changes_nothing() -> None:
    plan = worker_facts.probe(QUESTION)
    assert plan.stages == () and plan.operation == 0
    assert {step.act.ACT for step in plan.observe} == {"run", "read", "files"}
    assert {step.name for step in plan.observe} == set(GOOD)
    assert {"dnsmasq", "iptables"}.isdisjoint(step.name for step in worker_facts.probe(Question(
        installation="0a1b2c3d", base_dir="/i")).observe)  # fmt: skip


# -- problems ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said", "remedy"),
    [
        ({"qemu": None}, "qemu-system-x86_64 is missing", "sudo apt-get install qemu-system-x86"),
        ({"qemu-img": None}, "qemu-img is missing", "sudo apt-get install qemu-utils"),
        ({"dnsmasq": None}, "dnsmasq is missing", "sudo apt-get install dnsmasq-base"),
        ({"ovs": None, "bridge": None}, "ovs-vsctl is missing", "sudo apt-get install openvswitch-switch"),
        ({"bridge": None}, "Open vSwitch does not answer (could not run bridge)", "sudo systemctl start"),
        ({"bridge": ports(bridge="br-ex")}, "the bridge br-int is missing", "sudo ovs-vsctl add-br br-int"),
        ({"bridge": ports()}, "br-int has no uplink", "sudo ovs-vsctl add-port br-int DEVICE"),
        ({"bridge": ports(("tap_1001_eth1", "", None, OURS))}, "br-int has no uplink", "add-port br-int"),
        ({"bridge": ports(("gw", "internal", None, ""))}, "br-int has no uplink", "add-port br-int"),
        ({"bridge": ports(("eth1", "", 7, ""))}, "eth1, carries VLAN 7 alone", "sudo ovs-vsctl clear port eth1 tag"),
        (
            {"bridge": ports(("eth9", "", None, ""), error="No such device")},
            "eth9 of br-int does not",
            "No such device",
        ),
        ({"rights": "1000\n"}, "do not run as root", "sudo without a password"),
        ({"groups": None}, "there is no account ubuntu", "qemu.user"),
        ({"devices": json.dumps({"/dev/kvm": None, "/dev/net/tun": None})}, "/dev/net/tun is missing", "modprobe tun"),
    ],
)
def test_each_problem_is_one_sentence_with_its_remedy(changes: dict[str, str | None], said: str, remedy: str) -> None:
    problems = record(changes)["problems"]
    assert len(problems) == 1, problems
    assert said in problems[0] and remedy in problems[0]


def test_a_tunnel_is_an_uplink_too_and_the_datapath_is_told() -> None:
    found = record({"bridge": ports(("vx0", "vxlan", None, ""), datapath="netdev")})
    assert (found["problems"], found["uplinks"], found["datapath"]) == ([], ["vx0"], "netdev")


@pytest.mark.parametrize("second", [("eth2", "", None, ""), ("vnet0", "", 5, ""), ("mgmt0", "internal", None, "")])
def test_what_keeps_a_bridge_open_is_said(second: tuple[str, str, int | None, str]) -> None:
    (problem,) = record({"bridge": ports(("eth1", "", None, ""), second)})["problems"]
    assert f"(eth1, {second[0]})" in problem and "is not closed" in problem
    ours = ("tap_1001_eth0", "", 100, "cloudrepo/0a1b2c3d/1000/1001/eth0")
    assert record({"bridge": ports(("eth1", "", None, ""), ours)})["problems"] == []


def test_a_worker_that_is_no_network_node_needs_no_dnsmasq() -> None:
    question = Question(installation="0a1b2c3d", base_dir="/home/ubuntu/vm_images")
    assert record({"dnsmasq": None, "iptables": None}, question)["problems"] == []


def test_a_separate_account_for_qemu_must_be_let_into_the_image_folder() -> None:
    question = Question(installation="0a1b2c3d", base_dir="/home/ubuntu/vm_images", user="guests")
    (problem,) = record({}, question)["problems"]
    assert "guests may not enter /home/ubuntu" in problem and "sudo chmod o+x /home/ubuntu" in problem


@pytest.mark.parametrize("parser", [worker_facts.parse_cores, worker_facts.parse_memory, worker_facts.parse_version])
@pytest.mark.parametrize("text", ["", "x", "-1", "MemTotal: many kB"])
def test_a_figure_that_is_none_is_an_error(parser: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError):
        parser(text)


# -- all workers -------------------------------------------------------------------------------------------

Answer = Callable[[Plan], PlanResult]


class Workers:
    """An executor of pretended workers; it refuses plans it does not know."""

    def __init__(self, **changes: dict[str, str | None]) -> None:
        self.remote_user = "ubuntu"
        self.changes: dict[str, dict[str, str | None] | Exception] = {}
        self.holds: dict[str, threading.Event] = {}
        self.boot_status = WORKS
        self.proofs: list[str] = []
        self.asked: list[str] = []

    def images_home(self, host: str) -> str:
        """As the account's."""
        return self.home(host)

    def home(self, host: str) -> str:
        self.asked.append(host)
        if host in self.holds:
            self.holds[host].wait(10)
        problem = self.changes.get(host)
        if isinstance(problem, Exception):
            raise problem
        return "/home/ubuntu"

    def run_plan(self, host: str, plan: Plan) -> PlanResult:
        if [stage.name for stage in plan.stages] == ["proof"]:
            self.proofs.append(host)
            boot = StepResult(
                name="boot", label="boot", status=self.boot_status, accepted=self.boot_status == WORKS, err="kvm: no"
            )
            return PlanResult(host=host, steps={"boot": boot}, failed=None if boot.accepted else boot)
        assert plan.stages == (), "an unknown plan"
        changes = self.changes.get(host, {})
        assert not isinstance(changes, Exception)
        return PlanResult(host=host, observed=answers(changes))

    def upload(self, *words: Any, **options: Any) -> Any:
        raise AssertionError("discovery copies nothing")


IPS = ["10.0.10.1", "10.0.10.2", "10.0.10.3"]


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database(tmp_path / "database.yaml")


def discovery(db: Database, workers: Workers, **settings: Any) -> WorkerDiscovery:
    return WorkerDiscovery(db, workers, settings=Settings.of(settings))


def test_all_workers_are_registered_with_the_documented_keys(db: Database) -> None:
    found = discovery(db, Workers()).discover_all()
    assert list(found) == IPS and all(one.ok for one in found.values())
    documented = {
        "ip",
        "max_vms",
        "max_cores",
        "max_ram_gb",
        "max_disk_gb",
        "used_cores",
        "used_ram_gb",
        "used_disk_gb",
    }
    for ip in IPS:
        assert documented <= set(db.data["workers"][ip])
        assert db.data["workers"][ip]["max_vms"] == 10
    assert Database(db.path).data["workers"] == db.data["workers"]


def test_a_silent_worker_is_a_warning_with_its_reason_and_absent(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    workers = Workers()
    discovery(db, workers).discover_all()
    workers.changes["10.0.10.2"] = HostUnreachable("10.0.10.2", "no connection", evidence="No route to host")
    workers.changes["10.0.10.3"] = HostError(
        "10.0.10.3", "sudo asks for a password", remedy="do this", code="host.sudo"
    )
    with caplog.at_level(logging.INFO):
        found = discovery(db, workers).discover_all()
    assert list(db.data["workers"]) == ["10.0.10.1"]
    assert (found["10.0.10.2"].ok, found["10.0.10.2"].code) == (False, "host.unreachable")
    assert "do this" in found["10.0.10.3"].reason
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert "Worker skipped: 10.0.10.2: no connection: No route to host" in warnings
    assert caplog.records[0].getMessage() == "Worker list loaded: 10.0.10.1, 10.0.10.2, 10.0.10.3"


def test_a_surprise_of_one_worker_stops_no_other(db: Database) -> None:
    workers = Workers()
    workers.changes["10.0.10.2"] = ZeroDivisionError("surprise")
    found = discovery(db, workers).discover_all()
    assert [one.ok for one in found.values()] == [True, False, True]
    assert "surprise" in found["10.0.10.2"].reason


def test_one_slow_worker_delays_nobody_and_is_named(db: Database) -> None:
    workers = Workers()
    workers.holds["10.0.10.2"] = threading.Event()
    asking = discovery(db, workers)
    asking.start()
    try:
        assert asking.wait(0.5) is False
        assert asking.still_asked() == ["10.0.10.2"]
        assert sorted(db.data["workers"]) == ["10.0.10.1", "10.0.10.3"]
        asking.start()  # under way: nobody is asked twice
        assert list(asking.results()) == ["10.0.10.1", "10.0.10.3"]
        assert sorted(workers.asked) == IPS
    finally:
        workers.holds["10.0.10.2"].set()
    assert asking.wait(float("inf")) is True
    assert asking.still_asked() == [] and list(asking.results()) == IPS


def test_a_worker_taken_out_of_the_list_keeps_its_entry_as_it_was(db: Database) -> None:
    workers = Workers()
    discovery(db, workers).discover_all()
    with db.transaction() as data:
        data["workers_list"] = ["10.0.10.1"]
    before = db.get_worker("10.0.10.2")
    workers.changes = {ip: {"cores": "64\n"} for ip in IPS}
    assert list(discovery(db, workers).discover_all()) == ["10.0.10.1"]
    assert db.get_worker("10.0.10.2") == before
    assert db.data["workers"]["10.0.10.1"]["max_cores"] == 64


def test_used_is_recomputed_and_an_operators_limit_is_kept(db: Database) -> None:
    with db.transaction() as data:
        data["workers"]["10.0.10.1"] = {"ip": "10.0.10.1", "max_vms": 3, "used_cores": 99}
        vm = {"vm_id": 1001, "name": "web", "worker_ip": "10.0.10.1", "cores": 2, "ram_gb": 0.5, "disk_gb": 2.2}
        data["slices"]["1000"] = {"slice_id": 1000, "owner": "admin", "vms": [vm]}
    discovery(db, Workers()).discover_all()
    found = db.data["workers"]["10.0.10.1"]
    assert (found["used_cores"], found["used_ram_gb"], found["used_disk_gb"], found["max_vms"]) == (2, 0.5, 2.2, 3)


def test_an_empty_list_is_no_failure(db: Database) -> None:
    with db.transaction() as data:
        data["workers_list"] = []
    asking = discovery(db, Workers())
    assert asking.discover_all() == {} and asking.wait(0) is True and asking.still_asked() == []


def test_the_proof_is_made_once_for_each_boot(db: Database) -> None:
    workers = Workers()
    for _ in range(3):
        discovery(db, workers).discover_all()
    assert sorted(workers.proofs) == IPS
    workers.changes["10.0.10.2"] = {"boot": "boot-2\n"}
    workers.boot_status = 134
    discovery(db, workers).discover_all()
    assert workers.proofs[3:] == ["10.0.10.2"]
    found = db.data["workers"]["10.0.10.2"]
    assert (found["accel"], found["boot_id"]) == ("tcg", "boot-2") and "status 134: kvm: no" in found["accel_reason"]


def test_another_account_for_qemu_is_proved_again(db: Database) -> None:
    workers = Workers()
    discovery(db, workers).discover_all()
    discovery(db, workers, **{"qemu.user": "guests"}).discover_all()
    assert len(workers.proofs) == 6


def test_a_worker_without_a_boot_id_is_proved_each_time(db: Database) -> None:
    workers = Workers()
    workers.changes = {ip: {"boot": None} for ip in IPS}
    discovery(db, workers).discover_all()
    discovery(db, workers).discover_all()
    assert len(workers.proofs) == 6


def test_the_setting_decides_about_the_proof(db: Database) -> None:
    workers = Workers()
    discovery(db, workers, accel="tcg").discover_all()
    assert workers.proofs == [] and db.data["workers"]["10.0.10.1"]["accel"] == "tcg"
    workers.boot_status = 1
    found = discovery(db, workers, accel="kvm").discover_all()
    assert len(workers.proofs) == 3
    assert any("the setting accel is kvm" in problem for problem in found["10.0.10.1"].problems)


def test_a_worker_that_says_the_same_again_writes_nothing(db: Database) -> None:
    workers = Workers()
    discovery(db, workers).discover_all()
    before = db.path.stat().st_mtime_ns
    workers.changes["10.0.10.1"] = {"space": DF.replace("107374182400", "106837311488")}
    discovery(db, workers).discover_all()
    assert db.path.stat().st_mtime_ns == before


def test_this_machine_answers_as_a_worker(db: Database, tmp_path: Path) -> None:
    require("df", "nproc")
    with db.transaction() as data:
        data["workers_list"] = ["w1"]
    executor = local_executor(w1=LocalHost(home=str(tmp_path)))
    found = WorkerDiscovery(db, executor, settings=Settings.of({"accel": "tcg"})).discover_all()["w1"]
    assert found.worker is not None, found.reason
    assert found.worker["assumed"] == [] and found.worker["max_cores"] >= 1
    assert found.worker["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert found.worker["free_disk_gb"] <= found.worker["max_disk_gb"]
    assert found.worker["accel_user"] == ME


def test_workers_nobody_asked_are_asked_before_a_vm_is_placed(db: Database) -> None:
    workers = Workers()
    found = discovery(db, workers)
    found.ensure_known(IPS[0])  # one is known: that says nothing of the others
    found.ensure_asked()
    assert set(db.data["workers"]) == set(IPS)
    asked = list(workers.asked)
    found.ensure_asked()
    discovery(db, workers).ensure_asked()  # another process, which finds all of them known
    assert workers.asked == asked
