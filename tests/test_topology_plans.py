"""Plans of topology files that are kept: applied as they are, or refused with what moved, and then nothing is done."""

from __future__ import annotations

import copy
import io
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crashing import SLICE, Installation
from orchestrator_api import OrchestratorAPI
from test_cli_recovery import installation, run
from test_cli_schemas import document

__all__ = ["installation"]  # the fixture

LAB = """\
version: 1
name: lab
variables: {policy: never}
nodes:
  vm1: {flavor: cirros, internet: true}
  vm2: {flavor: cirros}
  "x[1-2]": {flavor: cirros, restart: "${policy}"}
links: [vm1:eth1 -- vm2:eth1, x1 -- x2]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of slice `lab`, which has vm1 and vm2, and a link."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "lab.cloud.yml"
    made.write_text(LAB)
    return made


def planned(*words: str, status: int = 2) -> Path:
    """The plan of these words, kept."""
    assert run("topology", "plan", *(words or ("lab.cloud.yml",)), "-o", "lab.plan") == status
    return Path("lab.plan").absolute()


def applied(*words: str) -> int:
    return run("topology", "apply", "--plan", "lab.plan", *words)


def names(installation: Installation) -> list[str]:
    return [vm["name"] for vm in installation.record()["vms"]]


def world(installation: Installation) -> Any:
    return copy.deepcopy((installation.api.db.data["slices"], installation.picture()))


def refused(installation: Installation, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The error of an apply that leaves everything as it is."""
    before = world(installation)
    capsys.readouterr()
    assert applied("--yes", "--json", *words) == 1
    error: dict[str, Any] = document("topology apply", capsys)["error"]
    assert world(installation) == before
    return error


def test_a_kept_plan_is_applied_once(
    installation: Installation, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned()
    assert f"./cloud topology apply --plan {plan.name}" in capsys.readouterr().out
    assert plan.stat().st_mode & 0o777 == 0o600
    assert applied("--dry-run", "--json") == 2
    promised = document("topology apply", capsys)["actions"]
    assert names(installation) == ["vm1", "vm2"]
    assert applied("--json") == 0
    done = document("topology apply", capsys)
    assert done["actions"] == promised and done["done"] == len(promised) > 3
    assert names(installation) == ["vm1", "vm2", "x1", "x2"]
    error = refused(installation, capsys)
    assert error["code"] == "plan.stale" and "the record of slice 1000 changed" in error["message"]
    assert "./cloud topology plan FILE -o PLAN" in error["message"]


def test_a_new_slice_is_made_for_whom_the_plan_was(
    installation: Installation, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(LAB.replace("name: lab", "name: other"))
    planned("lab.cloud.yml", "--as", "student")
    assert applied("--as", "admin") == 1
    assert "was made for student, and admin cannot apply it" in capsys.readouterr().out
    assert applied("--deploy", "--json") == 0
    done = document("topology apply", capsys)
    record = installation.api.db.get_slice(done["slice_id"]) or {}
    assert (record["owner"], record["status"], done["status"]) == ("student", "running", "running")


def test_from_a_pipe_the_plan_holds_the_text(
    installation: Installation, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LAB.encode())))
    planned("-", "--var", "policy=always")
    file.unlink()
    assert applied() == 0
    assert [vm.get("restart") for vm in installation.record()["vms"][2:]] == ["always", "always"]


def test_nothing_to_do_is_a_plan_too(installation: Installation, file: Path) -> None:
    assert run("topology", "apply", "lab.cloud.yml") == 0
    planned(status=0)
    before = world(installation)
    assert applied() == 0
    assert world(installation) == before


def _record(installation: Installation, file: Path) -> None:
    installation.ok("set_link", "admin", SLICE, 1, spoofing="allowed")


def _gone(installation: Installation, file: Path) -> None:
    installation.ok("delete_slice", "admin", SLICE)


def _file(installation: Installation, file: Path) -> None:
    file.write_text(LAB + "# a word more\n")


def _no_file(installation: Installation, file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize(
    ("move", "says"),
    [
        (_record, "the record of slice 1000 changed"),
        (_gone, "slice 1000 was removed"),
        (_file, "lab.cloud.yml was changed"),
        (_no_file, "lab.cloud.yml went away (No such file or directory)"),
    ],
)
def test_what_moved_is_said_and_nothing_is_done(
    installation: Installation, file: Path, capsys: pytest.CaptureFixture[str],
    move: Callable[[Installation, Path], None], says: str,
) -> None:  # fmt: skip
    planned()
    move(installation, file)
    error = refused(installation, capsys)
    assert error["code"] == "plan.stale" and says in error["message"]
    assert any(says in one for one in error["details"]["moved"])


def test_a_slice_of_that_name_that_was_made_meanwhile_is_seen(
    installation: Installation, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(LAB.replace("name: lab", "name: other"))
    planned()
    assert run("slice", "create", "other") == 0
    assert "named other, was made" in refused(installation, capsys)["message"]


def test_another_default_flavor_is_another_plan(
    installation: Installation, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(LAB.replace('x[1-2]": {flavor: cirros, ', 'x[1-2]": {'))
    planned()
    known = installation.api.settings
    turned = replace(known, flavors=dict(reversed([*known.flavors.items()])))
    monkeypatch.setattr(installation.api, "settings", turned)
    error = refused(installation, capsys)
    assert "other changes are needed: + add x1: ubuntu" in error["message"]


def test_who_lost_the_right_is_refused(
    installation: Installation, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the calls themselves: a plan gives no right."""
    plan = planned()
    held = json.loads(plan.read_text())
    held["plan"]["user"] = "student"
    plan.write_text(json.dumps(held))
    assert refused(installation, capsys)["code"] == "slice.owner"
    held["plan"]["user"] = "nobody"
    plan.write_text(json.dumps(held))
    assert refused(installation, capsys)["code"]


def test_a_file_that_is_refused_keeps_no_plan(installation: Installation, file: Path) -> None:
    file.write_text(LAB.replace("vm1: {flavor: cirros, ", "vm1: {flavor: ubuntu, "))
    planned(status=1)
    assert not Path("lab.plan").exists()
    planned("lab.cloud.yml", "--replace", "vm1")
    assert applied() == 1, "nobody is there to say yes to the loss of a disk"
    assert applied("--yes") == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "its version is 2, and 1 can be read"),
        ({"installation": "00000000"}, "it is of installation '00000000'"),
        ({"kind": "deploy"}, "it is one of 'deploy'; ./cloud apply applies those of slices"),
        ({"text": None}, "its text cannot be read"),
        ({"user": 7}, "its user cannot be read"),
        ({"slice_id": True}, "its slice_id cannot be read"),
        ({"replace": [1]}, "its replace cannot be read"),
        ({"actions": ["x"]}, "its actions cannot be read"),
        ({"variables": []}, "its variables cannot be read"),
    ],
)
def test_a_foreign_or_corrupt_plan_is_refused(
    installation: Installation, file: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], says: str
) -> None:
    plan = planned()
    held = json.loads(plan.read_text())
    held["plan"] |= change
    plan.write_text(json.dumps(held))
    error = refused(installation, capsys)
    assert (error["code"], says in error["message"]) == ("plan.file", True), error


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plan": 7}', LAB, "[" * 100_000])
def test_what_is_no_plan_at_all_is_refused(
    installation: Installation, file: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    Path("lab.plan").write_text(text)
    assert refused(installation, capsys)["code"] == "plan.file"


def test_each_kind_of_plan_names_the_command_of_the_other(
    installation: Installation, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned()
    assert run("apply", "lab.plan") == 1
    assert "./cloud topology apply --plan lab.plan applies it" in capsys.readouterr().out
    assert run("plan", "lab", "-o", "lab.plan") == 2
    assert "./cloud apply applies those of slices" in refused(installation, capsys)["message"]


@pytest.mark.parametrize(
    "words", ["", "lab.cloud.yml --plan x", "--plan x --slice lab", "--plan x --var a=1", "--plan x --replace vm1"]
)
def test_a_plan_takes_nothing_beside_it(
    installation: Installation, file: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("topology", "apply", *words.split()) == 64


# ── a world that moves between two calls ────────────────────────────────────────────────────────────────


Move = Callable[[OrchestratorAPI], Any]

MOVES: dict[str, tuple[Move, str]] = {
    "a link": (
        lambda api: api.set_link("admin", SLICE, 1, vlans="allowed"),
        "vlans of link 1 of slice 1000 is allowed",
    ),
    "a VM comes": (lambda api: api.add_vm_to_slice("admin", SLICE, "new", "cirros", 1), "was made"),
    "a VM goes": (lambda api: api.remove_vm("admin", SLICE, 1001), "VM 1001 was removed"),
    "a policy": (
        lambda api: api.set_restart_policy("admin", SLICE, 1001, "always"),
        "restart of VM 1001 is always now",
    ),
    "all is gone": (lambda api: api.delete_slice("admin", SLICE), "slice 1000 was removed"),
}


def slipped_in(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, after: str, move: Move, *, when: str = "between"
) -> list[str]:
    """Have another process change something once, with the first calls of a name; which calls are made.

    Args:
        installation: where.
        monkeypatch: for the calls.
        after: the name.
        move: the change.
        when: `between` the first and the second; `within` the second, before its own transaction; `during` the first,
            between its transactions.
    """
    calls: list[str] = []
    others = installation.orchestrator()
    todo = [move]

    def moved() -> None:
        if todo:
            done, answer = todo.pop()(others)
            assert done, answer

    for name in ("add_vm_to_slice", "create_link", "set_restart_policy", "create_slice", "deploy_slice"):
        genuine = getattr(installation.api, name)

        def call(*args: Any, _genuine: Any = genuine, _name: str = name, **options: Any) -> Any:
            calls.append(_name)
            if _name == after and when == "within" and calls.count(_name) == 2:
                moved()
            answer = _genuine(*args, **options)
            if _name == after and when == "between":
                moved()
            return answer

        monkeypatch.setattr(installation.api, name, call)
    if when == "during":
        disks = installation.api.deployment_api.qcow_manager
        make = disks.create

        def create(*words: Any) -> Any:
            moved()
            return make(*words)

        monkeypatch.setattr(disks, "create", create)
    return calls


@pytest.mark.parametrize("when", ["between", "within"])
@pytest.mark.parametrize("moves", MOVES)
def test_what_slips_in_between_two_calls_is_said_and_the_rest_is_not_done(
    installation: Installation, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    moves: str, when: str,
) -> None:  # fmt: skip
    """Also where it comes after the last look, and only the transaction of the call can see it."""
    planned()
    move, says = MOVES[moves]
    calls = slipped_in(installation, monkeypatch, "add_vm_to_slice", move, when=when)
    capsys.readouterr()
    assert applied("--json") == 1
    error = document("topology apply", capsys)["error"]
    assert "1 of " in error["message"] and "changes were made before" in error["message"]
    assert calls == ["add_vm_to_slice"] * (2 if when == "within" else 1), "there is no further one"
    names_now = [] if moves == "all is gone" else names(installation)
    assert "x2" not in names_now and (moves == "all is gone" or "x1" in names_now)
    assert installation.ok("unfinished_operations") == []
    if (moves, when) == ("all is gone", "within"):
        assert error["code"] == "slice.unknown", "the call itself says so"
        return
    assert error["code"] == "plan.stale" and says in error["message"], error
    assert says in "; ".join(error["details"]["moved"])
    assert "and stay" in error["message"] and "./cloud topology plan FILE -o PLAN" in error["message"]


def test_what_slips_in_while_a_call_is_at_its_host_stops_the_next_one(
    installation: Installation, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not this one, which would be left half done."""
    planned()
    move, says = MOVES["a policy"]
    calls = slipped_in(installation, monkeypatch, "add_vm_to_slice", move, when="during")
    assert applied() == 1
    assert says in capsys.readouterr().err
    assert calls == ["add_vm_to_slice"]
    assert [vm["status"] for vm in installation.record()["vms"]] == ["design"] * 3
    assert installation.ok("unfinished_operations") == []


def test_another_thread_of_this_process_is_seen_too(
    installation: Installation, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned()

    def elsewhere(_others: OrchestratorAPI) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(installation.api.set_link, "admin", SLICE, 1, vlans="allowed").result()

    slipped_in(installation, monkeypatch, "add_vm_to_slice", elsewhere)
    assert applied() == 1
    assert "vlans of link 1 of slice 1000 is allowed now" in capsys.readouterr().err


def test_what_others_do_to_other_slices_does_not_matter(
    installation: Installation, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned()
    slipped_in(installation, monkeypatch, "add_vm_to_slice", lambda api: api.create_slice("student", "lab"))
    assert applied() == 0
    assert names(installation) == ["vm1", "vm2", "x1", "x2"]


def test_a_new_slice_that_somebody_began_to_use_is_not_removed_again(
    installation: Installation, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(LAB.replace("name: lab", "name: other"))
    planned()
    calls = slipped_in(
        installation, monkeypatch, "create_slice", lambda api: api.add_vm_to_slice("admin", 1003, "mine", "cirros", 1)
    )
    assert applied() == 1
    assert "VM 1004 was made" in capsys.readouterr().err
    assert calls == ["create_slice"]
    assert [vm["name"] for vm in (installation.api.db.get_slice(1003) or {})["vms"]] == ["mine"]


def test_a_slice_that_moved_is_not_brought_up(
    installation: Installation, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned()
    move, says = MOVES["a link"]
    slipped_in(installation, monkeypatch, "create_link", move)
    assert applied("--deploy") == 1
    assert says in capsys.readouterr().err
    assert installation.states()[0] == "design" and "x2" in names(installation)
