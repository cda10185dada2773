"""The menu in a real terminal on real hosts: the documented conversation, its lines, and nothing left."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from lab.cluster import Lab
from on_lab.cluster import NETWORK_NODE, differences, snapshot
from on_lab.faults import broken_tool
from on_lab.terminal import CHOOSE, Terminal

pytestmark = pytest.mark.lab

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PASSWORD = "orange-seven"
HOST_OF_WEB = "10.0.10.1"


@contextmanager
def menu(lab: Lab, folder: Path, *, bare_home: Path | None = None) -> Iterator[Terminal]:
    """The menu of a new installation in `folder`, where the lab's orchestrator runs.

    With `bare_home` it has nothing of the lab but the network: a home, a path and a terminal.
    """
    variables = [f"CLOUDREPO_STATE={folder}/database.yaml"]
    if bare_home is not None:
        variables = ["-i", f"HOME={bare_home}", f"PATH={os.environ['PATH']}", "TERM=xterm", "PROMPT_TOOLKIT_NO_CPR=1"]
    words = ["-m", "lab", "exec", "--", "env", *variables, sys.executable]
    environment = os.environ | {
        "CLOUDREPO_LAB_DIR": str(lab.folder.path),
        "PYTHONPATH": str(CHECKOUT),
        "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",  # pexpect does not answer the question where the cursor is
    }
    arguments = [*words, str(CHECKOUT / "main.py")]
    child: pexpect.spawn[str] = pexpect.spawn(
        sys.executable, arguments, env=environment, cwd=str(folder), encoding="utf-8", dimensions=(50, 140), timeout=20
    )
    try:
        yield Terminal(child)
    finally:
        child.close(force=True)


def log_in(terminal: Terminal) -> None:
    """As admin, who must choose a password first."""
    terminal.answer("Username: ", "admin")
    terminal.answer("Password: ", "admin")
    terminal.answer("New password: ", PASSWORD)
    terminal.answer("Again: ", PASSWORD)


def design(terminal: Terminal) -> None:
    """A slice with two linked machines."""
    terminal.answer(CHOOSE, "2")
    terminal.answer("Slice name: ", "two machines")
    for name, internet in (("web", "y"), ("db", "n")):
        terminal.answer(CHOOSE, "3")
        terminal.answer("Slice ID", "1000")
        terminal.answer("VM name: ", name)
        terminal.answer("Flavor: ", "1")
        terminal.answer("Data interfaces: ", "1")
        terminal.answer("Internet access (y/n): ", internet)
        terminal.wait("VM added! ID: ", 60)
    terminal.answer(CHOOSE, "4")
    terminal.answer("Slice ID", "1000")
    terminal.answer("First VM (ID or name): ", "1001")
    terminal.answer("Interface of web", "eth1")
    terminal.answer("Second VM (ID or name): ", "1002")
    terminal.answer("Interface of db", "eth1")


def deploy(terminal: Terminal) -> None:
    """Menu entry 6, to its end."""
    terminal.answer(CHOOSE, "6")
    terminal.answer("Slice ID", "1000")
    terminal.wait("Slice deployed successfully", 60)


def delete(terminal: Terminal) -> None:
    """Menu entry 7, with its question, to its end."""
    terminal.answer(CHOOSE, "7")
    terminal.answer("Slice ID", "1000")
    terminal.answer("(y/N): ", "y")
    terminal.wait("Slice deleted", 60)


def look_closely(terminal: Terminal, lab: Lab) -> None:
    """Menu entries 21 to 23, good and bad answers: the way is whole, nothing is heard astray, a TAP is set right."""
    terminal.answer(CHOOSE, "21")
    terminal.answer("Slice ID", "1000")
    terminal.answer("From (VM:interface): ", "web")
    terminal.wait("There is web:eth0, web:eth1, db:eth1; found web.")
    terminal.answer("From (VM:interface): ", "web:eth1")
    terminal.answer("To (VM:interface, gateway or dhcp): ", "db:eth1")
    terminal.wait("The way from web:eth1 to db:eth1 is whole.", 60)
    terminal.answer(CHOOSE, "22")
    terminal.answer("Slice ID, or all [all]: ", "2000")
    terminal.wait("There is no slice 2000.")
    terminal.answer("Slice ID, or all [all]: ", "1000")
    terminal.wait("0 violations: 3 NICs, ", 60)
    terminal.answer(CHOOSE, "23")
    terminal.answer("Slice ID, or all [all]: ", "two machines")
    terminal.wait("0 differences: ", 60)
    for answer, shown in (("n", "Nothing was changed."), ("y", "A second look finds no difference.")):
        lab.host(HOST_OF_WEB, ["ip", "link", "set", "tap_1001_eth1", "down"])
        terminal.answer(CHOOSE, "23")
        terminal.answer("Slice ID, or all [all]: ", "")
        terminal.answer("Set 1 of them right (y/N): ", answer, 60)
        terminal.wait(shown, 60)


def open_shell(terminal: Terminal, vm: str) -> None:
    """The serial console of a guest, once its shell asks for a line."""
    terminal.answer(CHOOSE, "8")
    terminal.answer("VM (ID or name): ", vm)
    terminal.answer("Console: ", "1")
    terminal.wait("Ctrl-] leaves")
    until = time.monotonic() + 60
    while terminal.child.expect_exact(["# ", pexpect.TIMEOUT], timeout=2) == 1:
        assert time.monotonic() < until, "no prompt in the guest"
        terminal.child.send("\r")


@pytest.mark.cost(seconds=25)
def test_the_documented_conversation(lab: Lab, tmp_path: Path) -> None:
    before = snapshot(lab)
    with menu(lab, tmp_path) as terminal:
        log_in(terminal)
        design(terminal)
        terminal.answer(CHOOSE, "5")
        deploy(terminal)
        terminal.answer(CHOOSE, "5")
        look_closely(terminal, lab)
        delete(terminal)
        terminal.answer(CHOOSE, "0")
        terminal.child.expect(pexpect.EOF, timeout=20)
        terminal.child.close()

    assert terminal.child.exitstatus == 0
    for line in (
        "Slice created! ID: 1000",
        "VM added! ID: 1001, VNC: 5901, Flavor: cirros",
        "VM added! ID: 1002, VNC: 5902, Flavor: cirros",
        "Link created! ID: 1, VLAN: 100",
        "=" * 70,
        "Slice 1000 [design]: 2 VMs, 1 Links, VLAN pool: 100-119",
        "Slice 1000 [running]: 2 VMs, 1 Links, VLAN pool: 100-119",
        "  └─ VM 1001: web (VNC: 5901, Worker: 10.0.10.1, Disk: 1 GB)",
        "       eth0: 52:54:00:03:e9:00, VLAN 400, internet, 10.60.7.101",
        "       eth1: 52:54:00:03:e9:01, VLAN 100, link 1 to db eth1, 192.168.100.10",
        "  └─ VM 1002: db (VNC: 5902, Worker: 10.0.10.2, Disk: 1 GB)",
        "       eth0: 52:54:00:03:ea:00, not linked",
        "             state down, wanted up",
    ):
        assert line in terminal.lines, f"{line!r} is missing in:\n" + "\n".join(terminal.lines)
    assert differences(before, snapshot(lab)) == []
    assert (tmp_path / "database.yaml").stat().st_mode & 0o777 == 0o600


@pytest.mark.cost(seconds=12)
def test_ctrl_c_in_a_deploy_asks_and_rolls_back(lab: Lab, tmp_path: Path) -> None:
    before = snapshot(lab)
    with menu(lab, tmp_path) as terminal:
        log_in(terminal)
        design(terminal)
        with broken_tool(lab, NETWORK_NODE, "ovs-vsctl", "gw_vlan100", slow_s=4):
            terminal.answer(CHOOSE, "6")
            terminal.answer("Slice ID", "1000")
            terminal.wait("gw_vlan100", 30)  # the node is at it, and slow
            terminal.child.sendintr()
            terminal.wait("roll it back:", 30)
            terminal.child.send("2\r")
            terminal.wait("what was made is removed again", 60)
        delete(terminal)
        terminal.answer(CHOOSE, "0")
        terminal.child.expect(pexpect.EOF, timeout=20)
    assert differences(before, snapshot(lab)) == []


@pytest.mark.cost(seconds=25)
def test_a_console_of_the_menu_is_a_shell_in_the_guest(lab: Lab, tmp_path: Path) -> None:
    before = snapshot(lab)
    with menu(lab, tmp_path) as terminal:
        log_in(terminal)
        design(terminal)
        deploy(terminal)
        open_shell(terminal, "web")
        terminal.child.send("echo $((6 * 7))-answers\r")
        terminal.wait("42-answers")
        terminal.child.sendcontrol("]")
        terminal.wait("Console left.")
        delete(terminal)
    assert differences(before, snapshot(lab)) == []


@pytest.mark.cost(seconds=30)
def test_the_documented_defaults_alone(lab: Lab, tmp_path: Path) -> None:
    """No settings, no variables, the shipped state file, one's own key, the image at its documented path."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    shutil.copy(lab.folder.private_key, tmp_path / ".ssh/id_ed25519")
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(CHECKOUT / "database.yaml", work / "database.yaml")
    before = snapshot(lab)
    with menu(lab, work, bare_home=tmp_path) as terminal:
        log_in(terminal)
        terminal.answer("over SSH now (y/N): ", "y")
        design(terminal)
        deploy(terminal)
        open_shell(terminal, "web")
        terminal.child.send("until ping -c 1 -W 1 192.168.100.11; do sleep 1; done; echo $((6 * 7))-pinged\r")
        terminal.wait("42-pinged", 90)
        terminal.child.sendcontrol("]")
        terminal.wait("Console left.")
        delete(terminal)
        terminal.answer(CHOOSE, "0")
        terminal.child.expect(pexpect.EOF, timeout=20)
    assert differences(before, snapshot(lab)) == []
