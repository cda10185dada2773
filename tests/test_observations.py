"""What was seen, in its file: read by others, shifted after a reboot, never believed for long."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from cloudrepo import observations
from cloudrepo.errors import HostError
from cloudrepo.host_report import ask_last_words, parse_memory, parse_processors, questions, read, read_last_words
from cloudrepo.observations import Observations, SliceView, Snapshot, VmView, WorkerView, this_boot
from cloudrepo.plan import Run, StepResult
from worlds import NODE, WORKER, host

SNAPSHOT = Snapshot(
    workers={"10.0.10.1": WorkerView(state="up", boot_id="b", cpu_percent=12.5, ram_free_mib=100.0)},
    vms={1001: VmView(state="killed", reason="ñ", pid=7, restarts=(1.0, 2.5))},
    slices={1000: SliceView(attempts=2, last=3.0)},
    clearings={1000: SliceView(attempts=1, last=4.0), 1003: SliceView(attempts=3, last=5.0)},
    taken=100.0,
    taken_at="2026-11-24T15:00:00+00:00",
    boot=this_boot(),
    save_error="no space",
)


class Clock:
    def __init__(self) -> None:
        self.now = 110.0

    def __call__(self) -> float:
        return self.now


def test_it_is_read_as_it_was_written_by_its_owner_alone(tmp_path: Path) -> None:
    writer = Observations(tmp_path / ".cloudrepo")
    reader = Observations(tmp_path / ".cloudrepo")
    assert reader.read() is None
    writer.write(SNAPSHOT)
    assert reader.read() == SNAPSHOT
    assert reader.read() is reader.read()
    assert stat.S_IMODE(writer.path.stat().st_mode) == 0o600
    writer.write(replace(SNAPSHOT, took_s=0.5))
    assert reader.read() == replace(SNAPSHOT, took_s=0.5)
    assert [path.name for path in writer.path.parent.iterdir()] == ["observed.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 2}', '{"schema_version": 1}', "null"])
def test_a_damaged_file_is_none(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = Observations(tmp_path)
    reader.path.write_text(text)
    assert reader.read() is None
    assert "passed over" in caplog.text


def test_a_file_of_a_version_without_clearings_is_read(tmp_path: Path) -> None:
    reader = Observations(tmp_path)
    value = SNAPSHOT.to_json()
    del value["clearings"]
    reader.path.write_text(json.dumps(value))
    assert reader.read() == replace(SNAPSHOT, clearings={})


def test_what_is_old_decides_nothing(tmp_path: Path) -> None:
    clock = Clock()
    found = Observations(tmp_path, clock=clock)
    found.write(SNAPSHOT)
    assert found.fresh() == SNAPSHOT
    assert found.age_s(SNAPSHOT) == 10.0
    clock.now = 100.0 + 4 * 15 + 0.1
    assert found.fresh() is None
    assert found.read() == SNAPSHOT


def test_a_jump_of_the_wall_clock_changes_no_age_and_another_boot_does_not_confuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    found = Observations(tmp_path, clock=clock)
    found.write(replace(SNAPSHOT, taken_at="2099-01-01T00:00:00+00:00"))
    read = found.read()
    assert read is not None and found.age_s(read) == 10.0
    monkeypatch.setattr(observations, "this_boot", lambda: "another")
    clock.now = 5.0  # the machine has just booted: its monotonic clock began anew
    found.write(SNAPSHOT)
    read = found.read()
    assert read is not None
    assert (found.age_s(read) > 0 and found.fresh() is None) or read.taken <= 5.0
    assert read.vms[1001].restarts[1] - read.vms[1001].restarts[0] == 1.5
    assert read.taken - read.vms[1001].restarts[0] == pytest.approx(99.0)


# ── the message ─────────────────────────────────────────────────────────────────────────────────────────

STAT = "cpu  100 10 50 800 40 0 5 15 30 2\ncpu0 50 5 25 400 20 0 2 7 15 1\nintr 5\n"
MEMINFO = "MemTotal:        8388608 kB\nMemFree:  1 kB\nMemAvailable:    2097152 kB\nHugePages_Total: 0\n"
MACHINES = [
    {"dir": "/run/cloudrepo-ab12cd34/vm-1001", "pid": 7, "alive": True, "process_state": "S", "status": "running"},
    {"dir": "/run/cloudrepo-ab12cd34/vm-1002", "pid": 8, "alive": False, "process_state": None, "status": None},
]


def answers(**changes: str) -> dict[str, StepResult]:
    texts = {"boot": "abc\n", "processors": STAT, "memory": MEMINFO, "space": "Size Avail\n1073741824 536870912\n"}
    texts |= {"flows": " cookie=0xab12cd34000003e8, priority=0,metadata=0xab12cd34000003e8 actions=drop\n"}
    texts |= {"machines": json.dumps(MACHINES), "servers": '[{"dir": "/r/dhcp-100", "alive": true}]'} | changes
    return {name: StepResult(name=name, label=name, status=0, out=text) for name, text in texts.items()}


def test_what_a_host_answers() -> None:
    report = read(host(NODE), answers())
    assert (report.boot_id, report.busy_ticks, report.all_ticks) == ("abc", 180, 1020)
    assert (report.ram_mib, report.ram_free_mib) == (8192, 2048)
    assert (report.disk_gib, report.disk_free_gib) == (1, 0.5)
    assert report.servers == {100}
    assert report.flows == frozenset({"1000"})
    assert report.machines[1001].is_alive and report.machines[1001].status == "running"
    assert (report.machines[1002].is_alive, report.machines[1002].process_state) == (False, "")


def test_no_sign_of_flows_is_an_answer_and_a_switch_that_is_away_is_none() -> None:
    assert read(host(NODE), answers(flows="")).flows == frozenset()
    failed = StepResult(name="flows", label="flows", status=1, err="br-int is not a bridge", accepted=False)
    for found in ({**answers(), "flows": failed}, answers(flows="?")):
        assert read(host(NODE), found).flows is None


@pytest.mark.parametrize(
    ("lost", "has_rules"),
    [
        ("-A FORWARD", False),
        ("-A CR-ab12cd34-INPUT", False),
        ("-A POSTROUTING -m comment", False),
        ("*nat", None),  # what is no answer says nothing
        ("-A POSTROUTING -s", True),  # that is somebody else's
    ],
)
def test_rules_that_are_not_in_force_at_each_hook_are_missed(lost: str, has_rules: bool | None) -> None:
    lines = (Path(__file__).parent / "golden/captured/iptables-rules.txt").read_text().splitlines(keepends=True)
    lines = [line for line in lines if "0000beef" not in line]
    assert read(host(NODE), answers(rules="".join(lines))).has_rules is True
    kept = "".join(line for line in lines if not line.startswith(lost))
    assert read(host(NODE), answers(rules=kept)).has_rules is has_rules
    behind = "".join(lines).replace("-A INPUT", "-A INPUT -j ACCEPT\n-A INPUT", 1)
    assert read(host(NODE), answers(rules=behind)).has_rules is False
    assert read(host(NODE), answers(rules="")).has_rules is False
    assert read(host(WORKER), answers()).has_rules is None


def test_a_figure_that_makes_no_sense_is_not_known_and_the_rest_counts() -> None:
    report = read(host(WORKER), answers(processors="?", memory="MemTotal: 5 kB\n", space="x", boot=""))
    assert (report.all_ticks, report.ram_mib, report.disk_gib, report.boot_id) == (0, None, None, "")
    assert len(report.machines) == 2


@pytest.mark.parametrize("text", ["", "{}x", '[{"dir": "x"}]', "[1]"])
def test_a_host_that_does_not_say_which_machines_it_has_did_not_answer(text: str) -> None:
    with pytest.raises(HostError, match=WORKER):
        read(host(WORKER), answers(machines=text))
    with pytest.raises(HostError, match="machines"):
        read(host(WORKER), {name: one for name, one in answers().items() if name != "machines"})


def test_a_worker_is_asked_less_than_the_network_node() -> None:
    names = [step.name for step in questions(host(WORKER)).observe]
    assert names == ["boot", "processors", "memory", "space", "machines", "flows"]
    plan = questions(host(NODE))
    assert [step.name for step in plan.observe] == [*names, "servers", "rules"]
    assert (plan.operation, plan.stages) == (0, ())  # it takes no lock and changes nothing


def test_last_words_are_read_where_there_are_some() -> None:
    found = {
        "1001": StepResult(name="1001", label="", status=0, out=" abort\n"),
        "1002": StepResult(name="1002", label="", status=1, err="tail: cannot open", accepted=False),
    }
    assert read_last_words(found) == {1001: "abort"}


def test_last_words_are_read_as_the_account_that_qemu_ran_as() -> None:
    """Which may have put a link to anything in the place of its log."""
    steps = ask_last_words(host(WORKER), [1001, 1002]).observe
    acts = [step.act for step in steps if isinstance(step.act, Run)]
    assert [act.user for act in acts] == ["ubuntu", "ubuntu"]
    assert acts[0].words == ("tail", "-c", "2000", "--", "/run/cloudrepo-ab12cd34/vm-1001/qemu.log")


def test_idle_and_waiting_is_not_busy() -> None:
    assert parse_processors("cpu 1 2 3 4 5 6 7 8 9 10\n") == (27, 36)
    assert parse_processors("cpu 1 2 3 4\n") == (6, 10)
    for text in ("", "cpu0 1 2 3 4\n", "cpu 1 2 3\n"):
        with pytest.raises(ValueError):
            parse_processors(text)
    with pytest.raises(KeyError):
        parse_memory("MemTotal: 5 kB\n")
