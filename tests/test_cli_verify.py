"""`./cloud verify` and `./cloud path` as a person and as a program meet them; and evidence on the disk."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from cli.documents import NotDone
from cli.installation import Installation
from cli.path import show_path
from cli.screen import Screen
from cli.verify import show_verification
from cloudrepo.errors import CloudError, Message
from control import evidence
from control.verify import verify
from fakes.orchestrator import orchestrator

REACHES = {
    "sender": "a:eth1", "slice_id": 1000, "kind": "broadcast", "listener": "b:eth1", "host": "10.0.10.2",
    "device": "tap_1002_eth1", "heard": False, "reach": True, "hop": "port tap_1002_eth1 on 10.0.10.2: its tag is 7",
    "commands": ["sudo ovs-vsctl list Port tap_1002_eth1"], "text": "a:eth1 does not reach b:eth1",
}  # fmt: skip
SERVER = {
    **REACHES, "kind": "no DHCP offer", "reach": False, "hop": "dnsmasq is stopped",
    "text": "the DHCP server offers a:eth1 no address",
}  # fmt: skip


def told(**more: Any) -> dict[str, Any]:
    return {
        "nics": 2, "frames": 40, "heard": 60, "not_heard": 400, "violations": [], "unproven": [], "guests": {},
        "unreachable": {}, "seconds": 0.5, "evidence": "/state/verify-1.json", **more,
    }  # fmt: skip


class Room:
    """A façade that answers as it is told, and what is shown of it."""

    def __init__(self, folder: Path, answer: Any, monkeypatch: pytest.MonkeyPatch, *, is_done: bool = True) -> None:
        api = orchestrator(folder)
        for call, *arguments in (
            ("create_slice", "admin", "lab"),
            ("add_vm_to_slice", "admin", 1000, "a", "cirros", 2),
        ):
            assert getattr(api, str(call))(*arguments)[0]
        self.asked: list[tuple[Any, ...]] = []

        def answering(*words: Any) -> tuple[bool, Any]:
            self.asked.append(words)
            return is_done, answer

        monkeypatch.setattr(api, "verify", answering)
        monkeypatch.setattr(api, "path", answering)
        self.installation = Installation(folder / "database.yaml", api.db, api.settings, api)
        self.stream = io.StringIO()
        self.screen = Screen(self.stream, width=200)

    @property
    def text(self) -> str:
        return self.stream.getvalue()


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, 0),
        ({"violations": [REACHES]}, 1),
        ({"violations": [REACHES], "unreachable": {"10.0.10.3": "no answer"}}, 1),
        ({"frames": 0}, 2),
        ({"unreachable": {"10.0.10.3": "no answer"}}, 3),
        ({"unproven": ["nothing was heard at e:eth1"]}, 3),
    ],
)
def test_the_exit_status_says_what_was_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    room = Room(tmp_path, told(**more), monkeypatch)
    assert show_verification(room.installation, "lab", room.screen, as_json=False) == status
    assert show_verification(room.installation, None, room.screen, as_json=True) == status
    assert room.asked == [(1000,), (None,)]
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is not (status == 1 or "unreachable" in more)
    assert document["frames"] == more.get("frames", 40)


def test_each_violated_pair_has_a_line_with_its_kinds_its_hop_and_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    violations = [REACHES, {**REACHES, "kind": "ARP"}, SERVER]
    room = Room(tmp_path, told(violations=violations, unreachable={"10.0.10.3": "no answer"}), monkeypatch)
    show_verification(room.installation, None, room.screen, as_json=False)
    assert room.text.splitlines() == [
        "violated  the DHCP server offers a:eth1 no address",
        "          at dnsmasq is stopped",
        "          sudo ovs-vsctl list Port tap_1002_eth1",
        "violated  a:eth1 does not reach b:eth1 (tap_1002_eth1 on 10.0.10.2)  broadcast, ARP",
        "          at port tap_1002_eth1 on 10.0.10.2: its tag is 7",
        "          sudo ovs-vsctl list Port tap_1002_eth1",
        "not tried 10.0.10.3: no answer",
        "evidence: /state/verify-1.json",
        "3 violations: 2 NICs, 40 frames in 0.5 s; 60 heard where they must be, 400 not heard where they must not.",
    ]


# ---------------------------------------------------------------------------------------- path


def hop(broken: str = "", stale: str = "") -> dict[str, Any]:
    return {
        "name": "TAP", "host": "10.0.10.1", "device": "tap_1001_eth1", "found": "up, held", "broken": broken,
        "command": "ip link", "stale": stale,
    }  # fmt: skip


def way(*, must_reach: bool, broken: str = "", stale: str = "") -> dict[str, Any]:
    one = hop(broken, stale)
    first = {"broken": one if broken else None, "stale": one if stale else None}
    return {"from": "a:eth1", "to": "b:eth1", "must_reach": must_reach, "hops": [one], **first}


@pytest.mark.parametrize(
    ("must_reach", "broken", "status", "last", "code"),
    [
        (True, "", 0, "The way from a:eth1 to b:eth1 is whole.", ""),
        (True, "it is off", 1, "TAP tap_1001_eth1 on 10.0.10.1: it is off.", "path.broken"),
        (False, "it is off", 0, "a:eth1 must not reach b:eth1, and does not.", ""),
        (False, "", 1, "a:eth1 must not reach b:eth1, and nothing keeps it from it.", "path.open"),
    ],
)
def test_a_way_is_shown_with_where_it_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    must_reach: bool, broken: str, status: int, last: str, code: str,
) -> None:  # fmt: skip
    room = Room(tmp_path, way(must_reach=must_reach, broken=broken), monkeypatch)
    assert show_path(room.installation, "a:eth1", "b:eth1", room.screen, as_json=False) == status
    assert room.asked == [("admin", "1001:eth1", "b:eth1")]
    lines = room.text.splitlines()
    assert lines[0].split()[0] == ("broken" if broken else "whole") and lines[-1] == last
    assert "ip link" in room.text
    assert show_path(room.installation, "a:eth1", "b:eth1", room.screen, as_json=True) == status
    document = json.loads(capsys.readouterr().out)
    assert document.get("error", {}).get("code", "") == code and document["ok"] is not bool(code)


def test_a_way_that_will_be_whole_by_itself_has_a_status_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    room = Room(tmp_path, way(must_reach=True, stale="it was elsewhere"), monkeypatch)
    assert show_path(room.installation, "a:eth1", "b:eth1", room.screen, as_json=False) == 3
    lines = room.text.splitlines()
    assert lines[0].split()[0] == "stale" and lines[-1] == "TAP tap_1001_eth1 on 10.0.10.1: it was elsewhere."
    assert show_path(room.installation, "a:eth1", "b:eth1", room.screen, as_json=True) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["error"]["code"], document["broken"]) == (False, "path.stale", None)
    (tmp_path / "kept").mkdir()
    kept = Room(tmp_path / "kept", way(must_reach=False, stale="it was elsewhere"), monkeypatch)
    assert show_path(kept.installation, "a:eth1", "b:eth1", kept.screen, as_json=False) == 1, "nothing keeps them apart"


@pytest.mark.parametrize("start", ["zoe:eth1", "eth1", ":eth1", ""])
def test_a_machine_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    room = Room(tmp_path, way(must_reach=True), monkeypatch)
    with pytest.raises(NotDone, match="There is no VM"):
        show_path(room.installation, start, "a:eth1", room.screen, as_json=False)
    assert room.asked == []


def test_a_refusal_of_the_facade_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path, Message("there is no such NIC", code="path.words"), monkeypatch, is_done=False)
    with pytest.raises(NotDone, match="no such NIC"):
        show_path(room.installation, "a:eth1", "a:eth9", room.screen, as_json=False)


# ---------------------------------------------------------------------------------------- what cannot be verified


def test_a_slice_in_design_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    api = orchestrator(tmp_path)
    assert api.create_slice("admin", "lab")[0]
    done, message = api.verify(1000)
    assert not done and message.code == "slice.state" and "it is design" in str(message)
    assert "Deploy it first" in str(message)
    done, message = api.verify(77)
    assert not done and message == "Slice not found"


def test_where_nothing_runs_there_is_nothing_to_test_and_no_evidence(tmp_path: Path) -> None:
    api = orchestrator(tmp_path)
    done, found = api.verify()
    assert done and (found["frames"], found["violations"], found["evidence"]) == (0, [], "")
    assert not (tmp_path / ".cloudrepo" / "evidence").exists()


# ---------------------------------------------------------------------------------------- evidence


def test_evidence_is_for_its_owner_alone_and_the_oldest_goes(tmp_path: Path) -> None:
    context = orchestrator(tmp_path).context
    made = [evidence.write(context, {"number": number}) for number in range(evidence.KEPT + 3)]
    foreign = made[0].with_name("verify-mine.json")
    foreign.write_text("{}")
    last = evidence.write(context, {"number": "last"})
    kept = sorted(path.name for path in last.parent.iterdir())
    assert kept == sorted([foreign.name, *(path.name for path in made[4:]), last.name])
    assert last.stat().st_mode & 0o777 == 0o600 and last.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(last.read_text()) == {"number": "last"}


def test_evidence_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    context = orchestrator(tmp_path).context
    folder = context.observations.path.parent
    folder.mkdir(exist_ok=True)
    (folder / evidence.FOLDER).write_text("in the way")
    with pytest.raises(CloudError, match="evidence cannot be made"):
        evidence.write(context, {})
    assert verify(context).violations == []
