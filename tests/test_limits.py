"""What a machine may use of its host: what is wanted, how it is seen, set and taken away, and where it is missing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.screens.cluster import show_cluster
from cloudrepo import limits, worker_facts
from cloudrepo.aspects import aspects
from cloudrepo.diff import Change
from cloudrepo.host import json_text
from cloudrepo.host.judge import NotAllowed, judge_step
from cloudrepo.host.runner import cgroups, processes
from cloudrepo.limit_acts import Confine, Release
from cloudrepo.limits import Limits
from cloudrepo.naming import machine_uuid
from cloudrepo.plan import StepResult
from cloudrepo.resources import HostFacts, Machine
from cloudrepo.settings import Settings
from cloudrepo.stages import StageBuilder
from fakes.bounds import bounds_for
from vm_launcher import vm_resources
from worlds import OURS, WORKER, host, mark, vm

GROUP = f"cloudrepo-{OURS}/vm-1001"
FULL = (("cpu.max", "200000 100000"), ("memory.max", str((512 + 1536) << 20)), ("pids.max", "256"))
HELD = Limits(group=GROUP, values=FULL)


def of_vm(controllers: tuple[str, ...] | None, **settings: Any) -> Machine:
    facts = HostFacts(datapath="system", has_bridge=True, uplinks=("trunk0",), controllers=controllers)
    made = vm_resources(
        "1000", vm(1001, (100,)) | {"cores": 1, "ram_gb": 0.5}, host(WORKER), facts, Settings.of(settings),
        disk="/d/x", accelerator="tcg",
    )  # fmt: skip
    return next(one for one in made if isinstance(one, Machine))


# ── what is wanted ──────────────────────────────────────────────────────────────────────────────────────


def test_a_machine_is_held_by_what_its_host_has() -> None:
    assert of_vm(limits.CONTROLLERS).limits == HELD
    assert of_vm(("pids",)).limits == Limits(group=GROUP, values=FULL[2:])
    assert of_vm(()).limits == Limits(group=GROUP), "a group of its own needs no controller"
    assert of_vm(None).limits is None and of_vm(limits.CONTROLLERS, **{"qemu.limits": False}).limits is None
    kvm = limits.wanted(OURS, 7, cores=4, ram_mib=1024, accelerator="kvm", controllers=("cpu", "memory"))
    assert kvm.values == (("cpu.max", "500000 100000"), ("memory.max", str(1536 << 20)))


@pytest.mark.parametrize(
    ("alone", "beside", "found"),
    [
        ("cpuset cpu io memory pids\n", None, ("cpu", "memory", "pids")),
        (None, "\n", ()),
        (None, "memory\n", ("memory",)),
        (None, None, None),
    ],
)
def test_which_controllers_a_host_has(alone: str | None, beside: str | None, found: tuple[str, ...] | None) -> None:
    answers = {
        name: StepResult(name=name, label="", status=0 if text is not None else 1, out=text or "")
        for name, text in zip(limits.PLACES, (alone, beside), strict=True)
    }
    assert limits.controllers(answers, lambda name, parser: parser(answers[name].out)) == found
    question = worker_facts.Question(installation=OURS, base_dir="/d")
    lacking = worker_facts.read(question, answers).unlimited
    assert lacking == limits.missing(found)
    assert bool(limits.note(lacking)) == (found != limits.CONTROLLERS)


def test_what_is_not_limited_is_told_of_each_worker() -> None:
    assert limits.note(["memory", "pids"]) == "cgroup2 without memory, pids: not limited: memory, processes"
    said: list[str] = []

    class Paper:
        def line(self, *pieces: Any) -> None:
            said.append("".join(piece if isinstance(piece, str) else piece[0] for piece in pieces))

        paragraph = line

        def table(self, *rows: Any) -> None:
            pass

    workers = [{"ip": "10.0.10.1", "unlimited": ["cgroup2"]}, {"ip": "10.0.10.2", "unlimited": []}]
    show_cluster(Paper(), {"workers": workers})  # type: ignore[arg-type]
    wanted = "10.0.10.1: no cgroup2: guests' memory, processes and processor time are not limited."
    assert wanted in said and not any("10.0.10.2" in line for line in said)


# ── the difference, and what is done about it ───────────────────────────────────────────────────────────


def running(held: Limits | None) -> Machine:
    return Machine(
        vm_id=1001, uuid=machine_uuid(OURS, 1001), mark=mark(1000, 1001, "eth0"), pid=7, start=8, status="running",
        plugged=("eth0",), limits=held,
    )  # fmt: skip


def steps(change: Change, controllers: tuple[str, ...] | None = limits.CONTROLLERS) -> list[Any]:
    facts = HostFacts(datapath="system", has_bridge=True, controllers=controllers)
    return [step for stage in StageBuilder(host(WORKER), facts).build([change]) for step in stage.steps]


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (HELD, []),
        (Limits(group=GROUP, values=(*FULL, ("pids.peak", "9"))), []),
        (Limits(group="", values=FULL), [f"cgroup none of its own, wanted {GROUP}"]),
        (Limits(group=GROUP, values=(*FULL[:2], ("pids.max", "max"))), ["pids.max max, wanted 256"]),
        (Limits(group=GROUP, values=FULL[1:]), ["cpu.max none, wanted 200000 100000"]),
    ],
)
def test_a_machine_that_is_held_otherwise_differs_and_is_set_right_while_it_runs(seen: Limits, told: list[str]) -> None:
    wish = of_vm(limits.CONTROLLERS)
    assert [str(one) for one in aspects(wish, running(seen))] == told
    if told:
        assert [step.name for step in steps(Change(wanted=wish, seen=running(seen)))] == [
            *("vm1001:dir", "vm1001:mark", "vm1001:limit"),
        ]


def test_limits_hold_before_the_guest_runs_and_are_gone_with_the_machine() -> None:
    names = [step.name for step in steps(Change(wanted=of_vm(limits.CONTROLLERS)))]
    assert names[-3:] == ["vm1001:start", "vm1001:limit", "vm1001:run"]
    assert "vm1001:limit" not in [step.name for step in steps(Change(wanted=of_vm(None)), None)]
    names = [step.name for step in steps(Change(seen=running(HELD)))]
    assert names[:3] == ["vm1001:stop", "vm1001:release", "vm1001:clear"]
    assert "vm1001:release" not in [step.name for step in steps(Change(seen=running(None)), None)]


def test_what_the_runner_tells_is_read() -> None:
    assert limits.seen({"group": GROUP, "values": dict(FULL)}) == HELD
    assert limits.seen(None) is None
    for odd in (7, {"group": GROUP}, {"group": GROUP, "values": 7}):
        with pytest.raises(json_text.NOT_UNDERSTOOD):
            limits.seen(odd)


# ── on a host ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a kernel would show, with the group's files there already."""
    group = tmp_path / "unified" / GROUP
    group.mkdir(parents=True)
    for path in (tmp_path / "unified", group.parent, group):
        (path / "cgroup.controllers").write_text("cpu pids\n")
        (path / "cgroup.subtree_control").write_text("")
    for name in ("cpu.max", "pids.max", "cgroup.procs"):
        (group / name).write_text("")
    monkeypatch.setattr(cgroups, "CGROUPS", (str(tmp_path), str(tmp_path / "unified")))
    return tmp_path / "unified"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A process of ours, and its pid file."""
    with subprocess.Popen(["sh", "-c", "read x", "token-of-ours"], stdin=subprocess.PIPE) as child:
        (tmp_path / "pid").write_text(f"{child.pid} {processes.state_and_start(child.pid)[1]}\n")
        yield child.pid, str(tmp_path / "pid")
        child.kill()


def test_a_process_is_put_into_its_group_once_the_limits_stand(tree: Path, process: tuple[int, str]) -> None:
    pid, pid_file = process
    act = {"pid_file": pid_file, "token": "token-of-ours", "group": GROUP, "limits": [FULL[0], FULL[2]]}
    assert cgroups.act_confine(act) == (0, "", "")
    group = tree / GROUP
    assert {name: (group / name).read_text() for name in ("cpu.max", "pids.max", "cgroup.procs")} == {
        **{"cpu.max": "200000 100000", "pids.max": "256", "cgroup.procs": str(pid)},
    }
    assert (group.parent / "cgroup.subtree_control").read_text() in ("+pids", "+cpu")  # a real one takes both
    assert (tree / "cgroup.subtree_control").read_text() == "", "what the root hands on is the host's"
    for number, found in ((pid, GROUP), (pid + 1, "")):
        held = cgroups.held_by({"root": f"/run/cloudrepo-{OURS}"}, "/x/vm-1001", number)
        assert held == {"group": found, "values": {"cpu.max": "200000 100000", "pids.max": "256"}}


def test_a_process_that_has_just_been_started_has_no_words_yet(
    tree: Path, process: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said, genuine = iter([[""], [""], [""]]), processes.command_line
    monkeypatch.setattr(cgroups, "command_line", lambda pid: next(said, None) or genuine(pid))
    act = {"pid_file": process[1], "token": "token-of-ours", "group": GROUP, "limits": []}
    assert cgroups.act_confine(act) == (0, "", "")


def test_nobody_elses_process_is_confined_and_a_missing_file_is_an_error(tree: Path, process: tuple[int, str]) -> None:
    act = {"pid_file": process[1], "token": "another", "group": GROUP, "limits": []}
    assert cgroups.act_confine(act)[0] == 1
    assert (tree / GROUP / "cgroup.procs").read_text() == ""
    with pytest.raises(FileNotFoundError):
        cgroups.act_confine({**act, "token": "token-of-ours", "limits": [FULL[1]]})


def test_a_group_goes_when_it_is_empty_and_what_others_have_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "CGROUPS", ())
    monkeypatch.chdir(tmp_path)
    (tmp_path / GROUP).mkdir(parents=True)
    assert cgroups.act_release({"group": GROUP})[0] == 0 and (tmp_path / GROUP).exists(), "a host without cgroup2"
    (tmp_path / "cgroup.controllers").write_text("")
    monkeypatch.setattr(cgroups, "CGROUPS", (str(tmp_path),))
    (tmp_path / GROUP).with_name("vm-2").mkdir()
    for _ in range(2):
        assert cgroups.act_release({"group": GROUP}) == (0, "", "")
        assert sorted(path.name for path in (tmp_path / GROUP).parent.iterdir()) == ["vm-2"]
    cgroups.act_release({"group": GROUP.replace("1001", "2")})
    assert [path.name for path in tmp_path.iterdir()] == ["cgroup.controllers"]


@pytest.mark.parametrize(
    "act",
    [
        Confine(pid_file=f"/run/cloudrepo-{OURS}/vm-1001/pid", token=machine_uuid(OURS, 1001), group="system.slice"),
        Confine(pid_file="/run/sshd.pid", token=machine_uuid(OURS, 1001), group=GROUP),
        Confine(
            pid_file=f"/run/cloudrepo-{OURS}/vm-1001/pid", token=machine_uuid(OURS, 1001), group=GROUP,
            limits=(("cgroup.kill", "1"),),
        ),
        Release(group="cloudrepo-feedface/vm-1"),
        Release(group=f"cloudrepo-{OURS}/../user.slice"),
    ],
)  # fmt: skip
def test_the_helper_confines_machines_of_ours_only(act: Any) -> None:
    right = Confine(
        pid_file=f"/run/cloudrepo-{OURS}/vm-1001/pid", token=machine_uuid(OURS, 1001), group=GROUP, limits=FULL
    )
    beside = {"name": "n", "label": "l"}
    assert judge_step({**beside, **right.to_json()}, bounds_for(OURS))
    with pytest.raises(NotAllowed):
        judge_step({**beside, **act.to_json()}, bounds_for(OURS))
