"""Where packets of the lab can go, and where they cannot."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
from contextlib import ExitStack

import pytest

from lab.cluster import Lab
from lab.layout import Options
from lab.namespaces import Room
from lab.record import INTERNET, LAB, ORCHESTRATOR, Record
from lab_infra.waiting import wait_for
from on_lab.cluster import HOSTS, network_of
from on_lab.packets import ethernet

pytestmark = pytest.mark.lab
_OURS = [ipaddress.IPv4Network(text) for text in ("10.0.10.0/24", "100.64.0.0/24")]


def rooms(lab: Lab) -> list[Room]:
    record = Record.load(lab.folder.record)
    assert record is not None
    found = [record.room(name) for name in (LAB, ORCHESTRATOR, INTERNET, "10.0.10.1", "10.0.10.2", "10.0.10.3")]
    assert None not in found
    return [room for room in found if room is not None]


def ip_json(room: Room | None, *words: str) -> list[dict[str, object]]:
    argv = ["ip", "-j", *words]
    if room is None:
        text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    else:
        text = room.run(argv, net_only=True, check=True).stdout
    entries: list[dict[str, object]] = json.loads(text or "[]")
    return [entry for entry in entries if entry]


@pytest.mark.cost(seconds=1)
def test_no_namespace_has_a_route_beyond_the_lab(lab: Lab) -> None:
    for room in rooms(lab):
        for route in ip_json(room, "route", "show", "table", "main"):
            if route["dst"] == "default":
                assert room.name == "10.0.10.3", f"{room.name}: {route}"
                assert route["gateway"] == "100.64.0.1"
            else:
                network = ipaddress.IPv4Network(str(route["dst"]))
                assert any(network.subnet_of(ours) for ours in _OURS), f"{room.name}: {route}"


@pytest.mark.cost(seconds=1)
def test_no_cable_leads_to_the_machine(lab: Lab) -> None:
    inside = {os.stat(f"/proc/{room.pid()}/ns/net").st_ino for room in rooms(lab)}
    assert os.stat("/proc/self/ns/net").st_ino not in inside
    # A veth whose other end is in a namespace that has an id here would show it.
    listed = subprocess.run(["ip", "-j", "link", "show", "type", "veth"], check=True, capture_output=True, text=True)
    names = {port for node in Options().nodes() for port in (node.mgmt_port, node.trunk_port)}
    assert not names & {entry["ifname"] for entry in json.loads(listed.stdout or "[]") if entry}


@pytest.mark.cost(seconds=1)
def test_every_namespace_carries_the_labs_mark(lab: Lab) -> None:
    marks = {str(ip_json(room, "link", "show", "lo")[0].get("ifalias")) for room in rooms(lab)}
    assert marks == {lab.status().mark}
    assert lab.status().mark.startswith("cloudrepo-lab ")
    assert lab.exec(["cat", "/sys/class/net/lo/ifalias"]).stdout.strip() == lab.status().mark


@pytest.mark.cost(seconds=1)
def test_only_the_network_node_reaches_the_internet(lab: Lab) -> None:
    fetch = ["curl", "-s", "-m", "2", "http://203.0.113.1/"]
    if lab.host("10.0.10.3", ["sh", "-c", "command -v curl"]).returncode:
        probe = "import urllib.request as u; print(u.urlopen('http://203.0.113.1/', timeout=2).read().decode(), end='')"
        fetch = ["/usr/bin/python3", "-c", probe]
    assert lab.host("10.0.10.3", fetch).stdout == "hello from the internet\n"
    assert lab.host("10.0.10.1", fetch).returncode != 0


@pytest.mark.cost(seconds=6)
def test_the_uplink_may_be_the_management_network(fresh_lab: Lab) -> None:
    fresh_lab.up(Options(workers=2, uplink="mgmt"), with_parent=os.getpid())
    probe = "import urllib.request as u; print(u.urlopen('http://203.0.113.1/', timeout=2).read().decode(), end='')"
    python = ["/usr/bin/python3", "-c", probe]
    assert fresh_lab.host("10.0.10.2", python).stdout == "hello from the internet\n"
    assert fresh_lab.host("10.0.10.1", python).returncode != 0
    assert "via 10.0.10.253 dev eth0" in fresh_lab.host("10.0.10.2", ["ip", "route", "show", "default"]).stdout
    settings = (fresh_lab.folder.state / "settings.yaml").read_text(encoding="utf-8")
    assert "node: 10.0.10.2" in settings


@pytest.mark.cost(seconds=1)
def test_a_mac_that_is_in_two_vlans_on_two_hosts_is_reached_in_each(lab: Lab) -> None:
    """As behind a guest that forwards frames from one VLAN to another."""
    mine, other = "02:77:00:00:00:01", "02:77:00:00:00:02"
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(_trunk_card(lab, ip)) for ip in HOSTS)
        first.send(ethernet(other, mine, 0x88B5, b"here in 3001", tags=(3001,)))
        wait_for(lambda: _came(third, b"here in 3001"), 30, "the switch floods what it does not know")
        second.send(ethernet(other, mine, 0x88B5, b"here in 3002", tags=(3002,)))
        wait_for(lambda: _came(third, b"here in 3002"), 30, "in the other VLAN too")
        third.send(ethernet(mine, other, 0x88B5, b"to 3001", tags=(3001,)))
        wait_for(lambda: _came(first, b"to 3001"), 30, "3001 leads to the first host")
        third.send(ethernet(mine, other, 0x88B5, b"to 3002", tags=(3002,)))
        wait_for(lambda: _came(second, b"to 3002"), 30, "3002 leads to the second host")


def _trunk_card(lab: Lab, ip: str) -> socket.socket:
    """A socket on a host's end of its trunk cable, that hears what comes."""
    with network_of(lab.host_room(ip).pid()):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        opened.bind(("eth1", 0))
    opened.setblocking(False)
    return opened


def _came(card: socket.socket, note: bytes) -> bool:
    """Whether a frame with a note has come in; all up to it are taken."""
    try:
        while True:
            frame, (_, _, kind, *_) = card.recvfrom(4096)
            if note in frame and kind != socket.PACKET_OUTGOING:
                return True
    except BlockingIOError:
        return False
