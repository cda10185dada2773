"""`./cloud link`, the menu's entry, and where a link's switches are shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.screens.links import described
from cloudrepo.pictures import terminal
from cloudrepo.pictures.graph import of_slice
from crashing import SLICE, Installation
from fakes.facade import FakeApi
from test_cli_menu import LOGIN, converse
from test_cli_recovery import installation, run

__all__ = ["installation"]

USUAL = {"spoofing": "forbidden", "bridging": "forbidden", "vlans": "forbidden", "dhcp": True}


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def switches(link: dict[str, Any]) -> dict[str, Any]:
    return {name: link[name] for name in USUAL}


def test_a_link_from_first_to_last(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("link", "remove", "lab", "1") == 0
    assert capsys.readouterr().out == "Link removed.\n"
    assert run("link", "list", "lab") == 0
    assert capsys.readouterr().out == "It has no links.\n"
    assert run("link", "add", "lab", "vm1:eth1", "1002:eth1", "--vlans", "allowed", "--no-dhcp", "--json") == 0
    made = document(capsys)
    assert (made["ok"], made["command"], made["slice_id"], made["link"]["link_id"]) == (True, "link", SLICE, 1)
    assert switches(made["link"]) == {**USUAL, "vlans": "allowed", "dhcp": False}
    assert run("link", "set", "1000", "1", "--dhcp", "--spoofing", "allowed", "--vlans", "forbidden", "--json") == 0
    assert switches(document(capsys)["link"]) == {**USUAL, "spoofing": "allowed"}
    assert run("link", "list", "lab", "--json") == 0
    (link,) = document(capsys)["links"]
    assert switches(link) == {**USUAL, "spoofing": "allowed"}
    assert run("link", "list", "lab") == 0
    words = capsys.readouterr().out.split()
    assert "spoofing" in words and "allowed" in words and words.count("forbidden") == 2 and words[-1] == "yes"


@pytest.mark.parametrize(
    ("words", "status", "code", "said"),
    [
        (("set", "lab", "1"), 64, "usage", "--spoofing, --bridging, --vlans, --dhcp"),
        (("set", "lab", "one", "--dhcp"), 1, "link.unknown", "there is no link one"),
        (("set", "nowhere", "1", "--dhcp"), 1, "slice.unknown", "There is no slice nowhere"),
        (("set", "lab", "7", "--dhcp"), 1, "link.unknown", "its links are 1"),
        (("set", "lab", "1", "--spoofing", "yes"), 1, "link.switch", "spoofing is allowed or forbidden: found 'yes'"),
        (("set", "lab", "1", "--bridging", "allowed", "--as", "student"), 1, "slice.owner", "Not authorized"),
        (("add", "lab", "vm9:eth1", "vm2:eth1"), 1, "link.end", "Its VMs are 1001 (vm1), 1002 (vm2)"),
        (("add", "lab", "vm1", "vm2:eth1"), 1, "link.end", "Write VM:INTERFACE"),
        (("add", "lab", "vm1:eth7", "vm2:eth1"), 1, "interface.unknown", "eth7"),
        (("remove", "lab", "2"), 1, "link.unknown", "its links are 1"),
        (("list", ""), 64, "usage", "an empty word"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input(
    installation: Installation, capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...], status: int, code: str, said: str,
) -> None:  # fmt: skip
    before = installation.record()
    assert run("link", *words, "--json") == status
    error = document(capsys)["error"]
    assert error["code"] == code and said in error["message"]
    assert installation.record() == before


def test_a_student_is_refused_what_the_instructor_forbids_and_told_who_may(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    installation.ok("add_user", None, "ines", "correct horse", role="instructor")
    with installation.api.db.transaction() as data:
        data["slices"][str(SLICE)]["owner"] = "student"
        for vm in data["slices"][str(SLICE)]["vms"]:
            vm["owner"] = "student"
    assert run("link", "set", "lab", "1", "--bridging", "allowed") == 1
    assert "students may not set bridging" in capsys.readouterr().out
    assert run("link", "set", "lab", "1", "--bridging", "allowed", "--as", "ines") == 0
    assert installation.record()["links"][0]["bridging"] == "allowed"


def test_an_orchestrator_that_dies_at_it_leaves_what_the_next_one_brings_to_the_hosts(
    installation: Installation,
) -> None:
    """At each fifth moment; what is recorded is either as it was or as it was wanted."""
    installation.ok("deploy_slice", "admin", SLICE)
    usual = installation.picture()
    installation.ok("set_link", "admin", SLICE, 1, dhcp=False, spoofing="allowed")
    opened = installation.picture()
    assert usual["10.0.10.3"]["ports"] != opened["10.0.10.3"]["ports"]
    installation.ok("set_link", "admin", SLICE, 1, dhcp=True, spoofing="forbidden")
    died = 0
    for die_at in range(1, 200, 5):
        life = installation.killed(die_at, lambda api: api.set_link("admin", SLICE, 1, dhcp=False, spoofing="allowed"))
        if not life.is_over:
            break
        died += 1
        link = installation.record()["links"][0]
        assert ("dhcp" in link) is ("spoofing" in link)
        installation.ok("set_link", "admin", SLICE, 1, dhcp=False, spoofing="allowed")
        assert shape(installation.picture()) == shape(opened), life.moments[-1]
        installation.ok("set_link", "admin", SLICE, 1, dhcp=True, spoofing="forbidden")
        assert shape(installation.picture()) == shape(usual), life.moments[-1]
    assert died > 5
    installation.ok("delete_slice", "admin", SLICE)


def shape(picture: dict[str, Any]) -> dict[str, Any]:
    return {
        ip: {kind: sorted(map(str, host[kind])) for kind in ("ports", "files", "flows", "namespaces") if kind in host}
        for ip, host in picture.items()
    }


# ---------------------------------------------------------------------------------------- shown


def facade() -> FakeApi:
    api = FakeApi()
    api.create_slice("ann", "one")
    for name in ("web", "db"):
        api.add_vm_to_slice("ann", 1000, name, "cirros", 1)
    api.create_link("ann", 1000, 1001, "eth1", 1002, "eth1")
    return api


def test_the_menu_sets_a_switch_and_shows_it_with_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    api = facade()
    shown, keyboard, _status = converse(
        monkeypatch, api, *LOGIN, "14", "1000", "1", "spoofing", "1", "14", "", "", "4", "n", "5", "0"
    )
    assert "14. Link switches" in shown
    calls = [
        {key: value for key, value in call[3].items() if key != "progress"}
        for call in api.calls
        if call[0] == "set_link"
    ]
    assert calls == [{"spoofing": "allowed"}, {"dhcp": False}]
    lines = shown.splitlines()
    assert "Link 1: web eth1 to db eth1, VLAN 100 (spoofing allowed)" in lines
    assert "Link 1: web eth1 to db eth1, VLAN 100 (spoofing allowed, no DHCP)" in lines
    assert "       eth1: 52:54:00:03:e9:01, VLAN 100, link 1 to db eth1 (spoofing allowed, no DHCP)" in lines
    assert "DHCP server (y/n): " in keyboard.prompts


def test_a_slice_without_links_has_nothing_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    api.create_slice("ann", "one")
    shown, _keyboard, _status = converse(monkeypatch, api, *LOGIN, "14", "1000", "0")
    assert "This slice has no links yet. 4 makes one." in shown


def picture(record: dict[str, Any]) -> list[str]:
    return terminal.draw(of_slice(record))


def test_the_picture_says_what_is_unusual() -> None:
    record = facade().slices[1000]
    assert picture(record)[-1].endswith("web eth1 ── db eth1  VLAN 100")
    assert described(record, record["links"][0]) == "1: web eth1 to db eth1, VLAN 100 (as usual)"
    record["links"][0] |= {"bridging": "allowed", "vlans": "allowed"}
    assert picture(record)[-1].endswith("VLAN 100  bridging allowed, vlans allowed")
