"""Plans: what would be done is what is done, looking changes nothing, and a world that moved is said."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.reconcile import Reconciler
from control import lifecycle, plan_parts, planning
from crashing import SLICE, Installation
from test_cli_recovery import installation, run

__all__ = ["installation"]  # the fixture

OTHER_KINDS: tuple[tuple[str, tuple[str, ...], dict[str, Any], tuple[Any, ...]], ...] = (
    # kind, what is done before it, which VM or link, the call that does it
    ("deploy", (), {}, ("deploy_slice", "admin", SLICE)),
    ("stop", ("deploy_slice",), {}, ("stop_slice", "admin", SLICE)),
    ("start", ("deploy_slice", "stop_slice"), {}, ("start_slice", "admin", SLICE)),
    ("delete", ("deploy_slice",), {}, ("delete_slice", "admin", SLICE)),
    ("stop_vm", ("deploy_slice",), {"vm_id": 1002}, ("stop_vm", "admin", SLICE, 1002)),
    ("remove_vm", (), {"vm_id": 1002}, ("remove_vm", "admin", SLICE, 1002)),
    ("remove_link", ("deploy_slice",), {"link_id": 1}, ("remove_link", "admin", SLICE, 1)),
)


@pytest.mark.parametrize(("kind", "before", "about", "call"), OTHER_KINDS, ids=[one[0] for one in OTHER_KINDS])
def test_what_is_planned_is_what_is_done(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, kind: str, before: tuple[str, ...],
    about: dict[str, Any], call: tuple[Any, ...],
) -> None:  # fmt: skip
    for earlier in before:
        installation.ok(earlier, "admin", SLICE)
    planned = installation.ok("plan", "admin", SLICE, kind, **about)
    done: dict[str, list[Any]] = {}
    genuine = Reconciler.apply

    def apply(self: Reconciler, *args: Any, **kwargs: Any) -> Any:
        outcome = genuine(self, *args, **kwargs)
        for ip, changes in outcome.changes.items():
            done.setdefault(ip, []).extend(plan_parts.action(change) for change in changes)
        return outcome

    monkeypatch.setattr(Reconciler, "apply", apply)
    installation.ok(*call)
    assert {one["host"]: one["actions"] for one in planned["hosts"]} == done
    assert planned["differences"] - ("link" in planned) == sum(map(len, done.values())) > 0


def test_a_look_changes_neither_records_nor_hosts(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    before = copy.deepcopy((installation.record(), installation.picture(), installation.api.db.data["next_vm_id"]))
    placed = installation.api.round_robin_idx
    for words in (
        "deploy lab --dry-run", "delete lab --dry-run", "vm remove vm1 --dry-run", "vm add lab x --dry-run",
        "link add lab vm1:eth1 vm2:eth1 --dry-run", "slice create x --dry-run", "plan lab",
    ):  # fmt: skip
        assert run(*words.split()) == (1 if words.startswith("link") else 2), words
    shown = capsys.readouterr().out
    assert "+ VM 1001" in shown and "nothing was done" in shown and "VNC 5901" in shown and "Quota of admin" in shown
    after = (installation.record(), installation.picture(), installation.api.db.data["next_vm_id"])
    assert (after, installation.api.round_robin_idx) == (before, placed)


def test_a_change_of_a_link_is_shown_and_not_made(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a design, where no host has anything of it; what is so already is nothing to do."""
    before = installation.record()
    assert run("link", "remove", "lab", "1", "--dry-run") == 2
    assert "VLAN 100 and its interfaces are free again" in capsys.readouterr().out
    assert run("link", "set", "lab", "1", "--no-dhcp", "--vlans", "allowed", "--dry-run") == 2
    shown = capsys.readouterr().out
    assert "link 1: dhcp yes -> no" in shown and "link 1: vlans forbidden -> allowed" in shown
    assert run("link", "set", "lab", "1", "--dhcp", "--dry-run") == 0
    assert "Nothing would be done" in capsys.readouterr().out
    assert run("link", "set", "lab", "1", "--vlans", "perhaps", "--dry-run") == 1
    assert run("link", "remove", "lab", "7", "--dry-run") == 1
    assert "there is no link 7 in slice 1000" in capsys.readouterr().out
    assert installation.record() == before


@pytest.mark.parametrize("words", ["link set lab 1 --vlans allowed", "link remove lab 1"])
def test_who_may_not_change_a_link_is_not_shown_a_plan_of_it(
    installation: Installation, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert run(*words.split(), "--as", "student", "--dry-run", "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "slice.owner"


def test_what_a_change_of_a_design_is_promised_is_what_it_gets(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    for dry, wet, key in (
        ("slice create two", "slice create two", "slice"),
        ("vm add two web -i 2", "vm add two web -i 2", "vm"),
        ("vm add two db", "vm add two db", "vm"),
        ("link add two web:eth1 db:eth1", "link add two web:eth1 db:eth1", "link"),
    ):
        assert run(*dry.split(), "--dry-run", "--json") == 2
        promised = json.loads(capsys.readouterr().out)["plan"]["allocations"]
        assert run(*wet.split(), "--json") == 0
        given = json.loads(capsys.readouterr().out)[key]
        for name, value in promised.items():
            if name == "interfaces":
                value, given[name] = ([(nic["name"], nic["mac"]) for nic in nics] for nics in (value, given[name]))
            assert given[name] == value, (dry, name)


def test_a_saved_plan_is_applied_once(
    installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lab.plan"
    assert run("plan", "lab", "-o", str(file)) == 2
    assert f"./cloud apply {file}" in capsys.readouterr().out
    assert file.stat().st_mode & 0o777 == 0o600
    assert run("apply", str(file), "--json") == 0
    (done,) = json.loads(capsys.readouterr().out)["operations"]
    assert (done["ok"], done["message"]) == (True, "Slice deployed successfully")
    assert installation.states()[0] == "running"
    assert run("apply", str(file)) == 1
    assert "cannot be deployed: it is running" in capsys.readouterr().out
    events = [(one.what, one.about, one.outcome) for one in installation.api.context.events.read()]
    assert ("apply_plan", "slice 1000", "done") in events and ("apply_plan", "slice 1000", "refused") in events


@pytest.mark.parametrize("maker", ["student", "admin"])
def test_a_saved_plan_is_done_as_whom_it_was_made_for(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    maker: str,
) -> None:  # fmt: skip
    """In the record while it is under way, and in the event log, as of any operation."""
    installation.ok("create_slice", "student", "theirs")
    installation.ok("add_vm_to_slice", "student", 1003, "web", "cirros", 1)
    file = tmp_path / "theirs.plan"
    assert run("plan", "theirs", "--as", maker, "-o", str(file)) == 2
    other = "student" if maker == "admin" else "admin"
    assert run("apply", str(file), "--as", other) == 1
    assert f"the plan was made for {maker}, and {other} cannot apply it" in capsys.readouterr().out
    seen: list[dict[str, Any]] = []
    genuine = lifecycle.carry_out

    def carry_out(context: Any, *words: Any) -> str:
        seen.append(dict((context.db.get_slice(1003) or {})["operation"]))
        return genuine(context, *words)

    monkeypatch.setattr(lifecycle, "carry_out", carry_out)
    assert run("apply", str(file)) == 0
    assert [(one["kind"], one["who"]) for one in seen] == [("deploy", maker)]
    *_, event = installation.api.context.events.read()
    assert (event.what, event.who, event.about, event.outcome) == ("apply_plan", maker, "slice 1003", "done")
    assert event.details["kind"] == "deploy" and event.details.get("owner") == ("student" if maker == "admin" else None)


def _moves_record(installation: Installation) -> None:
    installation.ok("set_link", "admin", SLICE, 1, spoofing="allowed")


def _moves_host(installation: Installation) -> None:
    for host in installation.hosts.values():
        host.devices.pop(next((name for name in host.devices if name.startswith("tap_")), ""), None)


def _moves_silence(installation: Installation) -> None:
    installation.hosts["10.0.10.2"].is_up = False


@pytest.mark.parametrize(
    ("kind", "move", "says"),
    [
        ("deploy", _moves_record, "the record of slice 1000 changed (the state was at revision"),
        ("stop", _moves_host, "is gone from 10.0.10."),
        ("stop", _moves_silence, "10.0.10.2 cannot be looked at"),
    ],
)
def test_a_plan_of_a_world_that_moved_is_refused_and_says_what_moved(
    installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, move: Any, says: str
) -> None:
    if kind == "stop":
        installation.ok("deploy_slice", "admin", SLICE)
    file = tmp_path / "lab.plan"
    assert run("plan", "lab", "--action", kind, "-o", str(file)) == 2
    move(installation)
    before, records = installation.picture(), installation.record()
    capsys.readouterr()
    assert run("apply", str(file), "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "plan.stale" and says in error["message"], error
    assert "./cloud plan 1000 -o FILE" in error["message"]
    assert any(says in one for one in error["details"]["moved"])
    assert (installation.picture(), installation.record()) == (before, records)


def test_a_record_that_changes_between_the_look_and_the_deed_is_seen(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = installation.ok("plan", "admin", SLICE, "deploy")
    genuine = planning.plan

    def plan(*args: Any) -> Any:
        found = genuine(*args)
        installation.ok("set_link", "admin", SLICE, 1, vlans="allowed")  # by somebody else, after the look
        return found

    monkeypatch.setattr(planning, "plan", plan)
    assert "was changed at this moment" in installation.refused("apply_plan", "admin", SLICE, saved)
    assert installation.states()[0] == "design"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "its version is 2, and 1 can be read"),
        ({"installation": "00000000"}, "it is of installation '00000000'"),
        ({"kind": "remove_vm"}, "it says 'remove_vm' of slice 1000"),
        ({"hosts": [{"host": "10.0.10.1"}]}, "its hosts cannot be read"),
        ({"user": None}, "its user cannot be read"),
        ({"slice_id": 77}, "There is no slice 77."),
    ],
)
def test_what_is_no_plan_of_this_installation_is_refused(
    installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], says: str
) -> None:
    file = tmp_path / "lab.plan"
    run("plan", "lab", "-o", str(file))
    held = json.loads(file.read_text())
    held["plan"] |= change
    file.write_text(json.dumps(held))
    assert run("apply", str(file)) == 1
    assert says in capsys.readouterr().out
    assert installation.states()[0] == "design"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plan": 7}', '{"plan": {"slice_id": true}}', "[" * 100_000])
def test_what_is_no_plan_at_all_is_refused(
    installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "x").write_text(text)
    assert run("apply", str(tmp_path / "x"), "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "plan.file"
    assert run("apply", str(tmp_path / "nowhere")) == 1
    assert "cannot be read: No such file" in capsys.readouterr().out


def test_a_plan_that_would_not_go_well_is_status_1_and_not_kept(
    installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installation.hosts["10.0.10.2"].is_up = False
    assert run("plan", "lab", "-o", str(tmp_path / "x"), "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "plan.incomplete"
    assert not (tmp_path / "x").exists()
    assert run("plan", "lab") == 1
    shown = capsys.readouterr().out
    assert "10.0.10.2  could not be looked at\n" in shown and "10.0.10.1  " in shown
    assert "What would be done on 1 host is not known. Elsewhere 25 actions.\nNothing was done.\n" in shown
    assert "all is as it wants it" not in shown and "10.0.10.2  0 actions" not in shown
    assert run("plan", "lab", "--action", "dance") == 1
    assert "dance cannot be planned" in capsys.readouterr().out
