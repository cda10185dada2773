"""`./cloud worker trust`: what is shown, what is asked, and that exactly what was shown is pinned."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.ask import Ask
from cli.documents import NotDone
from cli.screen import Screen
from cli.workers import trust_worker
from cloudrepo.known_hosts import KnownHosts, fingerprint
from test_cli_schemas import validator

WORKER = "10.0.10.1"
OLD, NEW = b"old key", b"new key"


class Keyboard:
    """Types one line."""

    def __init__(self, line: str) -> None:
        self.line = line

    def read(self, prompt: str, *, secret: bool = False, hints: object = None) -> str:
        return self.line


@pytest.fixture
def pins(tmp_path: Path) -> KnownHosts:
    return KnownHosts(tmp_path / "known_hosts")


def trust(pins: KnownHosts, shown: bytes, answer: str = "", *, assume_yes: bool = False, dry_run: bool = False) -> bool:
    """The command for a host that is no worker yet and shows this key at every look but the first another one."""
    keys = iter([shown])
    transport = SimpleNamespace(shown_key=lambda ip: ("ssh-ed25519", next(keys, b"of somebody between")))
    options = SimpleNamespace(known_hosts=pins.path, host_keys="strict")
    installation: Any = SimpleNamespace(
        settings=SimpleNamespace(ssh=SimpleNamespace(port=22)),
        db=SimpleNamespace(data={"workers_list": []}),
        api=SimpleNamespace(executor=SimpleNamespace(transport=transport, options=options)),
    )
    ask = Ask(Keyboard(answer))
    try:
        status = trust_worker(
            installation, WORKER, Screen(), ask, assume_yes=assume_yes, dry_run=dry_run, as_json=dry_run
        )
        assert status in ((0, 2) if dry_run else (0, 1))
        return status == 0
    except NotDone as refused:
        assert refused.answer.code == "unanswered"
        return False


@pytest.mark.parametrize("before", [None, OLD], ids=["new", "changed"])
def test_it_shows_what_is_pinned_and_what_is_seen_and_pins_after_a_yes(
    pins: KnownHosts, before: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if before:
        pins.replace(WORKER, 22, "ssh-ed25519", before)
    assert not trust(pins, NEW, "n")
    assert pins.pins(WORKER) == ({"ssh-ed25519": OLD} if before else {}), "a no changes nothing"
    assert trust(pins, NEW, "y")
    assert pins.pins(WORKER) == {"ssh-ed25519": NEW}
    shown = capsys.readouterr().out
    assert f"shows now: ssh-ed25519 {fingerprint(NEW)}" in shown and "ssh_host_ed25519_key.pub" in shown
    assert (fingerprint(OLD) in shown) == bool(before)
    assert f"./cloud worker add {WORKER}" in shown


def test_the_key_that_is_pinned_needs_no_yes(pins: KnownHosts, capsys: pytest.CaptureFixture[str]) -> None:
    pins.replace(WORKER, 22, "ssh-ed25519", OLD)
    assert trust(pins, OLD)
    assert "shows the key that is pinned; nothing was changed" in capsys.readouterr().out


def test_a_dry_run_shows_both_keys_and_pins_none(pins: KnownHosts, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with `--yes`; where the key is pinned already there is nothing to do."""
    pins.replace(WORKER, 22, "ssh-ed25519", OLD)
    before = pins.path.read_bytes()
    assert not trust(pins, NEW, dry_run=True, assume_yes=True)
    text = capsys.readouterr().out
    found = json.loads(text[text.index("{\n") :])
    validator("worker trust").validate(found)
    assert (found["dry_run"], found["changed"], found["shown"]["fingerprint"]) == (True, True, fingerprint(NEW))
    assert found["pinned_before"][0]["fingerprint"] == fingerprint(OLD)
    assert "It would be pinned" in text and pins.path.read_bytes() == before
    assert trust(pins, OLD, dry_run=True)


def test_other_hosts_keep_their_pins_and_other_types_of_this_one_go(pins: KnownHosts) -> None:
    """Else the host's former key of another type would still be taken for it."""
    pins.path.write_text(f"# mine\n{WORKER} ssh-rsa T0xE\n10.0.10.11 ssh-rsa T0xE\n{WORKER} ssh-ed25519 T0xE")
    assert trust(pins, NEW, assume_yes=True)
    lines = pins.path.read_text().splitlines()
    assert lines == ["# mine", "10.0.10.11 ssh-rsa T0xE", f"{WORKER} ssh-ed25519 bmV3IGtleQ=="]
