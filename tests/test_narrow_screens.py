"""What commands show on a terminal of 80x24, which breaks no word: golden screens, cell by cell.

Golden screens are tests/golden/screens/*.txt; `CLOUDREPO_WRITE_GOLDEN=1` writes those that differ.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pyte
import pytest

from cli.path import show_hops
from cli.screen import Screen
from cli.screens.cluster import show_cluster
from cli.tables import broken

GOLDEN = Path(__file__).parent / "golden/screens"
COLUMNS, ROWS = 80, 24
TRACE = (
    "sudo ovs-appctl ofproto/trace br-int 'in_port=tap_1001_eth1,dl_src=52:54:00:03:e9:01,dl_dst=ff:ff:ff:ff:ff:ff,"
    "dl_type=0x88b5'"
)
WAY: dict[str, Any] = {
    "from": "VM 1001 eth1",
    "to": "VM 1002 eth1",
    "must_reach": True,
    "hops": [
        {"name": "TAP", "host": "10.0.10.1", "device": "tap_1001_eth1", "found": "up, with a carrier", "broken": "",
         "command": "ip -s link show tap_1001_eth1"},
        {"name": "flows", "host": "10.0.10.1", "device": "br-int", "found": "sent on by the flow of priority 200 with"
         " the cookie 0xcbfe46d0000003e8, then normally", "broken": "", "command": TRACE},
        {"name": "uplink", "host": "10.0.10.1", "device": "eth1", "found": "trunks 100 to 105, and VLAN 107 is none of"
         " them", "broken": "the port carries no VLAN 107, so nothing of it leaves this host; what sets trunks is not"
         " this installation", "command": "sudo ovs-vsctl --columns=trunks,tag list Port eth1; ip -s link show eth1"},
    ],
}  # fmt: skip
WAY |= {"broken": WAY["hops"][-1], "stale": None}
for hop in WAY["hops"]:
    hop["stale"] = ""
NOTE = "assumed: cores, disk; br-int has no uplink: frames of links to other hosts go nowhere"
CLUSTER: dict[str, Any] = {
    "login": "ubuntu",
    "workers": [
        {
            "ip": f"10.0.10.{number}", "state": "up", "vms": 12, "accel": "tcg", "accel_user": "ubuntu",
            **{f"{side}_{what}": size for side, size in (("used", 1.5), ("max", 128)) for what in
               ("cores", "ram_gb", "disk_gb")},
            "is_network_node": number == 3, "is_drained": number == 2, "problems": [NOTE] if number == 2 else [],
            "unlimited": ["cgroup2"] if number == 1 else [],
        }
        for number in (1, 2, 3)
    ],
    "monitor": {
        "text": "./cloud monitor (process 12345 on manager.example.org, since 2026-01-02T03:04:05+00:00)",
        "last_pass": "x", "age_s": 4.2, "took_s": 0.05, "is_stale": False, "vms": {"running": 30, "killed": 6},
    },
    "state": "/srv/class/database.yaml",
    "log": "/srv/class/cloudrepo.log",
}  # fmt: skip


class Tty(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, show: Any, columns: int = COLUMNS) -> list[str]:
    """What a terminal of this width shows, all that has left it at its top included."""
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Tty()
    show(Screen(stream, width=columns))
    screen = pyte.HistoryScreen(columns, ROWS, history=1000)
    pyte.Stream(screen).feed(stream.getvalue().replace("\n", "\r\n"))
    gone = ["".join(row[x].data for x in range(columns)) for row in screen.history.top]
    return [line.rstrip() for line in [*gone, *screen.display]]


SHOWN = {
    "path": lambda screen: show_hops(screen, WAY),
    "cluster": lambda screen: show_cluster(screen, CLUSTER),
}


@pytest.mark.parametrize("name", SHOWN)
def test_golden_screens_of_commands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, lines = GOLDEN / f"{name}-80x24.txt", on_terminal(monkeypatch, SHOWN[name])
    text = "\n".join(lines).rstrip("\n") + "\n"
    if os.environ.get("CLOUDREPO_WRITE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", [72, 80, 100, 120])
@pytest.mark.parametrize("name", SHOWN)
def test_no_word_is_broken(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each word that is shown stands whole in a line, but for one that is longer than a line."""
    told = io.StringIO()
    SHOWN[name](Screen(told, width=1000))
    words = {word for word in told.getvalue().split() if len(word) < columns - 12} - {"Notes"}
    shown = {word for line in on_terminal(monkeypatch, SHOWN[name], columns) for word in line.split()}
    assert words <= shown, sorted(words - shown)


def test_a_command_line_that_is_broken_is_the_same_to_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in on_terminal(monkeypatch, SHOWN["path"])]
    at = next(number for number, line in enumerate(lines) if "ovs-vsctl" in line)
    assert lines[at].endswith(" \\")
    joined = lines[at].removesuffix("\\") + lines[at + 1].lstrip()
    assert " ".join(joined.split()) == WAY["hops"][2]["command"]


@pytest.mark.parametrize("words", ["a 'b c' d", 'say "x y" z', "one", "a;b c", r"a\ b c", "it's odd"])
def test_what_is_quoted_stays_in_one_piece(words: str) -> None:
    pieces = broken(words, 1)
    assert " ".join(pieces) == words
    assert not any(piece.count("'") % 2 or piece.count('"') % 2 for piece in pieces if "it's" not in words)


def test_what_goes_into_a_file_is_one_line_each() -> None:
    told = io.StringIO()
    SHOWN["path"](Screen(told, width=80))
    assert f"          {TRACE}\n" in told.getvalue()
    assert (
        "the port carries no VLAN 107, so nothing of it leaves this host; what sets trunks is not this installation.\n"
        in told.getvalue()
    )


def test_a_table_without_headings_has_no_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second column is what the first one means, and stays beside it."""
    rows = [("Enter", "takes the line; an empty one means what is in brackets, or shown faintly; at the menu, all")]
    lines = on_terminal(monkeypatch, lambda screen: screen.table(("", ""), rows))
    assert any(line.startswith("Enter  takes the line") for line in lines)
