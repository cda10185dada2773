"""One look after another over hosts in memory: what is asked, written, restarted, and left alone."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest

from cloudrepo import placement, untold
from cloudrepo.crew import Crew
from cloudrepo.errors import HostUnreachable
from cloudrepo.leadership import Leadership
from cloudrepo.notify import Notifier
from cloudrepo.observations import Observations, Seen
from cloudrepo.plan import Plan, PlanResult
from cloudrepo.watched import Notice
from control import lifecycle
from control.states import REPAIR
from control.unfinished import CLEAN
from control.watch import Watcher
from database import Database
from deployment_api import DeploymentAPI
from fakes.host import Device, FakeExecutor, ModelHost
from orchestrator_api import OrchestratorAPI
from worlds import NODE, WORKER, give_disk, vm

STAT = "cpu  100 0 0 300 0 0 0 0 0 0\n"
MEMINFO = "MemTotal: 4194304 kB\nMemAvailable: 1048576 kB\n"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Hosts(FakeExecutor):
    """Two hosts that also say how loaded they are; `hung` ones answer only when they are dropped."""

    def __init__(self) -> None:
        super().__init__(ModelHost(WORKER), ModelHost(NODE))
        self.dropped: list[str] = []
        self.hung: dict[str, threading.Event] = {}
        for host in self.hosts.values():
            host.files |= {"/proc/stat": STAT, "/proc/meminfo": MEMINFO}
            host.switches["kernel/random/boot_id"] = "boot 1"

    def run_plan(self, host: str, plan: Plan, **options: Any) -> PlanResult:
        if host in self.hung:
            self.hung[host].wait(30)
            raise HostUnreachable(host, "the connection was lost")
        return super().run_plan(host, plan, **options)

    def drop(self, host: str) -> None:
        self.dropped.append(host)
        if host in self.hung:
            self.hung[host].set()

    def reboot(self, ip: str) -> None:
        """All that does not survive it is gone."""
        host = self.hosts[ip]
        host.processes.clear()
        host.namespaces.clear()
        host.devices = {"up0": host.devices["up0"]}
        host.rules = ModelHost(ip).rules
        host.files = {path: text for path, text in host.files.items() if not path.startswith("/run/")}
        host.directories = {path for path in host.directories if not path.startswith("/run/")}
        host.switches["kernel/random/boot_id"] += "+"


class Setting:
    """An installation over hosts in memory, with a slice of one VM on the worker and one on the network node."""

    def __init__(self, folder: Path) -> None:
        self.hosts = Hosts()
        (folder / "settings.yaml").write_text("monitor: {misses: 2}\nssh: {connect_timeout: 0.1}\n")
        self.api = OrchestratorAPI(Database(folder / "database.yaml"), DeploymentAPI(self.hosts))
        self.db = self.api.db
        self.clock = Clock()
        self.api.context.observations.clock = self.clock
        self.told: list[Notice] = []
        self.watcher = self.new_watcher()
        self.never = threading.Event()
        with self.db.transaction() as data:
            data["workers_list"] = [WORKER, NODE]
            for ip in (WORKER, NODE):
                data["workers"][ip] = {"ip": ip, "max_vms": 9, "max_cores": 4, "max_ram_gb": 4, "max_disk_gb": 50}
                data["workers"][ip] |= {"accel": "tcg", "boot_id": "boot 1"}
            link = {"link_id": 1, "vlan_id": 100, "vm1_id": 1001, "vm1_interface": "eth1", "vm2_id": 1002}
            link |= {"vm2_interface": "eth1", "cidr": "192.168.100.0/24", "gateway_ip": "192.168.100.1"}
            record = {"slice_id": 1000, "owner": "admin", "name": "net", "vms": [vm(1001), vm(1002, worker=NODE)]}
            data["slices"]["1000"] = record | {"links": [link], "status": "design", "topology_type": "custom"}
            for one in record["vms"]:  # type: ignore[attr-defined]
                give_disk(self.hosts.hosts[one["worker_ip"]], one["vm_id"], installation=self.db.installation)
        assert self.api.deploy_slice("admin", 1000) == (True, "Slice deployed successfully")

    def new_watcher(self, **options: Any) -> Watcher:
        notifier = Notifier(self.api.settings, ways={})
        return Watcher(
            self.api.context, "monitor", notifier=notifier, on_change=self.told.append, clock=self.clock, **options
        )

    def look(self, after: float = 15.0) -> list[str]:
        """One look; what was told by it and by what it began, once all that has ended."""
        self.told.clear()
        self.clock.now += after
        self.watcher.look(self.never)
        until = time.monotonic() + 30
        while self.watcher._jobs._names and time.monotonic() < until:
            time.sleep(0.001)
        return [notice.what for notice in self.told]

    def kill(self, vm_id: int = 1001, ip: str = WORKER) -> None:
        """Its process ends."""
        host = self.hosts.hosts[ip]
        pid_file = f"/run/cloudrepo-{self.db.installation}/vm-{vm_id}/pid"
        del host.processes[int(host.files[pid_file].split()[0])]

    def vm(self, vm_id: int = 1001) -> dict[str, Any]:
        done, record = self.api.get_slice("admin", 1000)
        assert done
        return next(one for one in record["vms"] if one["vm_id"] == vm_id)

    @property
    def record(self) -> dict[str, Any]:
        found = self.db.get_slice(1000)
        assert found is not None
        return found


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    yield made
    made.watcher.close()


def test_one_message_a_host_and_nothing_is_done_where_nothing_is_wrong(setting: Setting) -> None:
    setting.hosts.plans.clear()
    assert setting.look() == []
    assert sorted(host for host, _ in setting.hosts.plans) == [WORKER, NODE]
    assert all(plan.operation == 0 and not plan.steps for _, plan in setting.hosts.plans)
    assert (setting.vm()["observed"], setting.vm(1002)["observed"]) == ("running", "running")
    status = setting.api.cluster_status()[1]
    assert status["workers"][0]["load"] == {"cpu_percent": 25.0, "ram_gb": 3.0, "disk_gb": 6.0}
    assert status["monitor"]["vms"] == {"running": 2}
    assert (status["monitor"]["is_stale"], status["monitor"]["age_s"], status["monitor"]["holder"]) == (False, 0, None)


def test_flows_that_went_with_the_switch_are_set_again_on_a_bridge_that_stayed_closed(setting: Setting) -> None:
    switches = [host.flows for host in setting.hosts.hosts.values()]
    before = [one.dump() for one in switches]
    setting.look()
    for one in switches:
        one.flush(has_built_in=False)
    assert setting.look() == ["slice.lost", "slice.recovered"]
    assert [sorted(one.dump().splitlines()) for one in switches] == [sorted(one.splitlines()) for one in before]
    assert setting.look() == []
    host = setting.hosts.hosts[WORKER]
    host.bridge["fail_mode"] = ""
    host.flows.flush(has_built_in=True)
    assert setting.look() == ["slice.lost", "slice.recovered"]
    assert (host.bridge["fail_mode"], host.flows.has_built_in) == ("secure", False)
    assert host.flows.dump() == before[0]


def test_a_vm_that_died_is_started_again_and_its_process_is_noted(setting: Setting) -> None:
    setting.look()
    before = setting.vm()["pid"]
    log = f"/run/cloudrepo-{setting.db.installation}/vm-1001/qemu.log"
    setting.hosts.hosts[WORKER].files[log] = "qemu: out of luck\n"
    setting.kill()
    assert setting.look() == ["vm.died", "vm.restarted"]
    assert "out of luck" in setting.told[0].text
    assert setting.vm()["pid"] not in (None, before)
    assert "operation" not in setting.record
    assert setting.look() == []
    whats = [event.what for event in setting.api.context.events.read()]
    assert whats[-2:] == ["vm.died", "vm.restarted"]


def test_a_guest_that_powered_itself_off_is_stopped_in_the_records(setting: Setting) -> None:
    log = f"/run/cloudrepo-{setting.db.installation}/vm-1001/qemu.log"
    setting.hosts.hosts[WORKER].files[log] = "12@3.4:qemu_system_shutdown_request reason=6\n"
    setting.kill()
    assert setting.look() == ["vm.powered_off"]
    assert (setting.vm()["status"], setting.vm()["pid"]) == ("stopped", None)
    assert setting.look() == []
    assert setting.vm()["observed"] == "off"


def test_a_policy_of_its_own_is_kept_with_the_vm(setting: Setting) -> None:
    assert setting.api.set_restart_policy("admin", 1000, 1001, "never") == (True, "never")
    setting.kill()
    assert setting.look() == ["vm.died"]
    assert setting.vm()["status"] == "error" and "restart policy is never" in setting.vm()["error"]
    done, message = setting.api.set_restart_policy("admin", 1000, 1001, "perhaps")
    assert not done and "never, on-failure, always" in message
    assert not setting.api.set_restart_policy("student", 1000, 1001, "never")[0]
    assert setting.api.set_restart_policy("admin", 1000, 1001, "") == (True, "")
    assert setting.vm()["restart"] == ""


def test_what_a_rebooted_host_lost_is_brought_back_networks_first(setting: Setting) -> None:
    setting.look()
    for ips in ([WORKER], [NODE], [WORKER, NODE]):
        for ip in ips:
            setting.hosts.reboot(ip)
        setting.hosts.plans.clear()
        told = setting.look(3600)
        assert sorted(told) == sorted(["worker.rebooted"] * len(ips) + ["slice.lost", "slice.recovered"])
        assert [setting.vm(vm_id)["status"] for vm_id in (1001, 1002)] == ["running"] * 2
        stages = [stage for host, plan in setting.hosts.plans if host == WORKER for stage in plan.stages]
        assert any(stage.gate for stage in stages) == (len(ips) == 2)  # machines wait for networks
        for ip in ips:  # what it is now was asked before anything is started there
            kinds = [
                "asked" if any(step.name == "qemu-img" for step in plan.observe) else "repaired"
                for host, plan in setting.hosts.plans
                if host == ip and (plan.operation or any(step.name == "qemu-img" for step in plan.observe))
            ]
            assert kinds == ["asked", "repaired"]
        assert setting.look() == []


def test_a_host_that_hangs_is_given_up_and_dropped_and_the_others_count(setting: Setting, monkeypatch: Any) -> None:
    monkeypatch.setattr("control.watch.PATIENCE_S", 0.1)
    setting.hosts.hung[WORKER] = threading.Event()
    assert setting.look() == ["worker.suspect"]
    assert setting.hosts.dropped == [WORKER]
    assert "no answer within 0.2 s" in setting.told[0].text
    assert setting.vm(1002)["observed"] == "running"
    assert setting.look() == ["worker.down"]
    assert setting.api.discovery.down() == {WORKER}
    assert setting.vm()["observed"] == "unreachable"
    del setting.hosts.hung[WORKER]
    assert setting.look() == ["worker.up"]
    assert setting.api.discovery.down() == frozenset()


def test_a_repair_that_fails_is_told_once_and_the_slice_still_should_run(setting: Setting) -> None:
    setting.look()
    setting.kill()
    setting.hosts.hosts[WORKER].fail_at.add("vm1001:start")
    assert setting.look() == ["vm.died", "slice.not_recovered"]
    assert setting.look(100) == []
    assert (setting.record["status"], "operation" in setting.record) == ("running", False)
    assert (setting.vm()["status"], setting.vm()["observed"]) == ("running", "killed")
    setting.hosts.hosts[WORKER].fail_at.clear()
    assert setting.look(100) == ["vm.restarted"]


def test_a_repair_whose_process_died_stands_in_nobodys_way(setting: Setting) -> None:
    setting.kill()
    with setting.db.transaction() as data:
        dead = {"number": 5, "kind": REPAIR, "who": "monitor", "process": f"{'x' * 3}:1:1:1", "began": "then"}
        data["slices"]["1000"]["operation"] = dead
    assert setting.look() == []  # it may live on another machine
    with setting.db.transaction() as data:
        data["slices"]["1000"]["operation"]["process"] = f"{socket.gethostname()}:1:1:boot"
    assert setting.api.unfinished_operations() == (True, [])
    assert setting.look(100) == ["vm.died", "vm.restarted"]
    assert "operation" not in setting.record


def test_a_clearing_whose_process_died_stands_in_nobodys_way(setting: Setting) -> None:
    setting.kill()
    with setting.db.transaction() as data:
        dead = {"number": 5, "kind": CLEAN, "who": "monitor", "process": f"{socket.gethostname()}:1:1:boot"}
        data["slices"]["1000"]["operation"] = dead | {"began": "then"}
        data["slices"]["1000"]["pending"] = ["10.0.10.9"]
    assert setting.look(100) == ["worker.suspect", "vm.died", "vm.restarted"]
    assert "operation" not in setting.record and setting.record["pending"] == ["10.0.10.9"]


def test_a_host_is_cleared_under_a_running_slice_that_no_other_one_waits_for(setting: Setting) -> None:
    """Beside the repair of the same slice, which comes first."""
    third = ModelHost("10.0.10.9")
    setting.hosts.hosts[third.ip] = third
    third.is_up = False
    third.devices["tap_1003_eth0"] = Device("tap", alias=f"cloudrepo/{setting.db.installation}/1000/1003/eth0")
    with setting.db.transaction() as data:
        data["slices"]["1000"]["pending"] = [third.ip]
    assert setting.look() == ["worker.suspect"]
    setting.kill()
    third.is_up = True
    third.files |= {"/proc/stat": STAT, "/proc/meminfo": MEMINFO}
    third.switches["kernel/random/boot_id"] = "boot 1"
    assert setting.look() == ["worker.up", "vm.died", "vm.restarted", "slice.finished"]
    assert "tap_1003_eth0" not in third.devices and "pending" not in setting.record
    assert [setting.vm(vm_id)["status"] for vm_id in (1001, 1002)] == ["running"] * 2
    assert setting.record["status"] == "running" and "operation" not in setting.record
    assert setting.look() == []


def test_a_slice_that_is_being_mended_is_left_alone_until_that_has_ended(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.look()
    setting.kill()
    may_go_on = threading.Event()
    genuine = setting.hosts.run_plan

    def run_plan(host: str, plan: Plan, **options: Any) -> PlanResult:
        assert not plan.operation or may_go_on.wait(10)
        return genuine(host, plan, **options)

    monkeypatch.setattr(setting.hosts, "run_plan", run_plan)
    setting.clock.now += 15
    first = setting.watcher.look(setting.never)
    assert first is not None and len(first.repairs) == 1 and setting.watcher._jobs.busy() == {1000}
    setting.clock.now += 300
    second = setting.watcher.look(setting.never)
    assert second is not None and (second.repairs, second.clearings) == ((), ())
    may_go_on.set()
    assert setting.watcher._jobs.wait(30)
    assert setting.look() == []


@pytest.mark.parametrize("is_cut", [False, True])
def test_connections_are_closed_only_when_operations_have_ended_or_took_too_long(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, is_cut: bool
) -> None:
    """A stop that was handed over, told to end in the middle of a step."""
    monkeypatch.setattr("control.watch.CLOSE_WAIT_S", 0.3 if is_cut else 10.0)
    setting.look()
    lifecycle.hand_over(setting.api.context, "admin", 1000, "stop")
    in_step, may_go_on = threading.Event(), threading.Event()
    closed: list[bool] = []  # whether an operation was under way
    genuine_run, genuine_close = setting.hosts.run_plan, setting.hosts.close

    def run_plan(host: str, plan: Plan, **options: Any) -> PlanResult:
        if plan.operation and host == WORKER:
            in_step.set()
            assert may_go_on.wait(30)
            if is_cut:
                raise HostUnreachable(host, "the connection was closed")
        return genuine_run(host, plan, **options)

    def close() -> None:
        closed.append(bool(setting.watcher._jobs.busy()))
        may_go_on.set()
        genuine_close()

    monkeypatch.setattr(setting.hosts, "run_plan", run_plan)
    monkeypatch.setattr(setting.hosts, "close", close)
    setting.clock.now += 15
    setting.watcher.look(setting.never)
    assert in_step.wait(30) and setting.watcher._jobs.busy() == {1000}
    closing = threading.Thread(target=setting.watcher.close)
    closing.start()
    if not is_cut:
        assert setting.watcher._jobs.stop.wait(30)
        time.sleep(0.05)
        assert closed == []
        may_go_on.set()
    closing.join(30)
    assert closed == ([True, False] if is_cut else [False])
    assert setting.watcher._jobs.busy() == frozenset()
    [found] = setting.api.unfinished_operations()[1]
    assert (found["kind"], found["is_dead"], setting.record["status"]) == ("stop", True, "stopping")
    assert "error" not in setting.record
    monkeypatch.setattr(setting.hosts, "run_plan", genuine_run)
    assert setting.api.resume("admin", 1000) == (True, "Slice stopped")


def jump(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the wall clock, as everything reads it that a watcher uses."""

    class Jumped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(time.time(), tz)

    genuine = time.clock_gettime_ns
    monkeypatch.setattr(time, "time_ns", lambda: genuine(time.CLOCK_REALTIME) + int(seconds * 1e9))
    monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9)
    for room in ("control.watch", "control.intents", "cloudrepo.observations", "cloudrepo.events"):
        monkeypatch.setattr(f"{room}.datetime", Jumped)
    for room in ("cloudrepo.leadership", "cloudrepo.notify", "cloudrepo.untold"):
        monkeypatch.setattr(f"{room}.datetime", Jumped)


def story(setting: Setting, before_look: Callable[[int], None]) -> list[Any]:
    """A VM that dies again and again until it is given up; a host that is lost meanwhile, and waited for."""
    setting.watcher.close()
    setting.watcher = setting.new_watcher()
    told: list[Any] = []
    with setting.db.transaction() as data:
        data["slices"]["1000"]["pending"] = ["10.0.10.9"]
    for number in range(22):
        if setting.vm()["observed"] == "running":
            setting.kill()
        setting.hosts.hosts[NODE].is_up = number not in (9, 10, 11)
        before_look(number)
        told.append((setting.look(), setting.vm()["status"], setting.vm()["observed"]))
        shown = setting.api.cluster_status()[1]["monitor"]
        told.append((shown["is_stale"], shown["age_s"], sorted(setting.api.discovery.down())))
    return told


def test_no_jump_of_the_wall_clock_moves_a_pause_a_limit_or_an_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Observations(tmp_path).clock is time.monotonic
    year_s, stories = 365 * 86400.0, []
    for name in ("still", "jumping"):
        (tmp_path / name).mkdir()
        setting = Setting(tmp_path / name)
        assert Watcher(setting.api.context, "menu").clock is time.monotonic

        def before_look(number: int, is_jumping: bool = name == "jumping") -> None:
            if is_jumping:
                jump(monkeypatch, (-1) ** number * number * year_s)

        stories.append(story(setting, before_look))
        setting.watcher.close()
    assert stories[0] == stories[1]
    told = [what for looks, *_ in stories[0][::2] for what in looks]
    assert {"vm.restarted", "vm.given_up", "worker.down", "worker.up"} <= set(told), told


def test_what_was_seen_by_another_process_is_gone_on_from(setting: Setting) -> None:
    setting.look()
    setting.kill()
    setting.hosts.hosts[WORKER].fail_at.add("vm1001:start")
    assert setting.look() == ["vm.died", "slice.not_recovered"]
    setting.watcher.close()
    setting.watcher = setting.new_watcher()
    assert setting.look(1) == []  # neither told again, nor tried again before its time


def test_only_the_one_that_leads_looks(setting: Setting, tmp_path: Path) -> None:
    other = Leadership(tmp_path / ".cloudrepo", "monitor")
    assert other.lead()
    setting.hosts.plans.clear()
    setting.watcher(setting.never)
    assert setting.hosts.plans == [] and setting.api.context.observations.read() is None
    other.release()
    setting.watcher(setting.never)
    assert len(setting.hosts.plans) == 2


def test_a_look_ends_soon_after_it_is_stopped(setting: Setting) -> None:
    setting.hosts.hung[WORKER] = threading.Event()
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    assert setting.watcher.look(stop) is None
    assert setting.api.context.observations.read() is None


def test_a_slice_that_is_being_deleted_is_finished_when_its_host_is_back(setting: Setting) -> None:
    setting.hosts.hosts[WORKER].is_up = False
    assert not setting.api.delete_slice("admin", 1000)[0]
    assert setting.record["status"] == "deleting"
    assert setting.look() == ["worker.suspect"]
    setting.hosts.hosts[WORKER].is_up = True
    assert setting.look() == ["worker.up", "slice.finished"]
    assert setting.db.get_slice(1000) is None


def test_measured_memory_and_disk_decide_placement_while_they_are_fresh(setting: Setting) -> None:
    setting.look()
    big, deep = placement.Wanted(1, 1.5, 1), placement.Wanted(1, 0.1, 5)

    def lack(wanted: placement.Wanted) -> str:
        seen = setting.api.context.observations.up()
        return placement.lacks(setting.db.data, setting.api.settings, WORKER, wanted, seen.get(WORKER))

    assert lack(big) == "1 GB RAM free as measured, 1.5 wanted"
    assert lack(deep) == "4 GB disk free as measured, 5 wanted"
    setting.clock.now += 1000
    assert (lack(big), lack(deep)) == ("", "")


def test_who_watches_tells_what_another_process_could_not(setting: Setting) -> None:
    folder = setting.api.context.observations.path.parent
    assert Watcher(setting.api.context, "menu").notifier.folder == folder
    late = Notice(level="error", what="worker.down", about="worker x", text="x", time=datetime.now(UTC).isoformat())
    untold.keep(folder, {"mail": [late]})
    told: list[Notice] = []
    news = threading.Event()

    def tell(notices: Sequence[Notice]) -> None:
        told.extend(notices)
        news.set()

    setting.watcher.close()
    notifier = Notifier(setting.api.settings, ways={"mail": (tell, 10)}, folder=folder)
    setting.watcher = Watcher(setting.api.context, "monitor", notifier=notifier, clock=setting.clock)
    setting.look()
    assert news.wait(30) and told == [late]


# ── the crew ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_crew_answers_for_all_also_when_some_hang_or_fail() -> None:
    free = threading.Event()

    def fail() -> int:
        raise ValueError("no")

    def work(number: int) -> Callable[[], int]:
        return lambda: number

    jobs: dict[str, Callable[[], int]] = {f"n{number}": work(number) for number in range(50)}
    jobs |= {"h1": lambda: int(free.wait(30)), "h2": lambda: int(free.wait(30)), "bad": fail}
    crew = Crew(dict(sorted(jobs.items())), at_once=2, patience_s=0.1)
    stop = threading.Event()
    timer = threading.Timer(20, stop.set)
    timer.start()
    answers = crew.run(stop)
    timer.cancel()
    free.set()
    assert crew.late == {"h1", "h2"}
    assert isinstance(answers.pop("bad"), ValueError)
    assert answers == {f"n{number}": number for number in range(50)}


# ── what is shown of it ─────────────────────────────────────────────────────────────────────────────────


def test_why_the_state_cannot_be_saved_is_seen_by_all(setting: Setting) -> None:
    setting.watcher.close()
    setting.watcher = setting.new_watcher(save_error=lambda: "no space")
    setting.look()
    assert setting.api.cluster_status()[1]["monitor"]["save_error"] == "no space"


def test_of_two_looks_at_a_worker_the_later_one_counts(setting: Setting) -> None:
    """Discovery in this process and the monitor in another may differ; neither is right for good."""
    discovery, now = setting.api.discovery, time.monotonic()
    discovery.seen = lambda: {WORKER: Seen(reason="it was dark", when=now - 100)}
    assert discovery.down_reasons() == {WORKER: "it was dark"}
    discovery.start()
    discovery.wait(10)
    assert WORKER not in discovery.down()
    since = time.monotonic()
    discovery.seen = lambda: {WORKER: Seen(reason="it is dark", when=since)}
    assert discovery.down_reasons()[WORKER] == "it is dark"
    setting.hosts.hosts[WORKER].is_up = False
    discovery.ask_again(WORKER)
    assert "no connection" in discovery.down_reasons()[WORKER]
    discovery.seen = lambda: {WORKER: Seen(reason="", when=time.monotonic())}
    assert WORKER not in discovery.down()
