"""A class at eight in the morning: thirty menus in thirty terminals, on hosts whose sshd has its defaults."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import bcrypt
import pexpect
import pytest

from models import User
from on_lab.cluster import HOSTS, Cluster
from on_lab.terminal import CHOOSE, Terminal

pytestmark = pytest.mark.lab

CHECKOUT = Path(__file__).resolve().parents[2]
STUDENTS = [f"student{number:02d}" for number in range(1, 31)]
PASSWORD = "orange-seven"
PATIENCE_S = 120  # thirty at once on two cores


def enrol(cluster: Cluster) -> None:
    """Thirty accounts with a password of their own."""
    printed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()  # cheap: the hash is not the subject
    with cluster.api.db.transaction() as data:
        for name in STUDENTS:
            data["users"][name] = User(name, printed, quota_vms=2).to_dict()


def open_terminal(cluster: Cluster, stack: ExitStack) -> Terminal:
    """A menu of this installation, in the network the test is in."""
    child: pexpect.spawn[str] = pexpect.spawn(
        sys.executable,
        [str(CHECKOUT / "main.py")],
        env=os.environ
        | {"CLOUDREPO_STATE": str(cluster.state), "CLOUDREPO_LAB_DIR": str(cluster.lab.folder.path)}
        | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        cwd=str(cluster.folder),
        encoding="utf-8",
        dimensions=(50, 140),
        timeout=PATIENCE_S,
    )
    stack.callback(child.close, force=True)
    return Terminal(child)


def everyone(terminals: dict[str, Terminal], prompt: str, words: str) -> None:
    """All answer the same question; each as soon as it is asked, none waits for another's hosts."""
    for name, terminal in terminals.items():
        terminal.answer(prompt, words.format(name=name), PATIENCE_S)


def everyone_sees(terminals: dict[str, Terminal], text: str) -> None:
    for terminal in terminals.values():
        terminal.wait(text, PATIENCE_S)


@pytest.mark.cost(seconds=60)
def test_thirty_menus_log_in_design_deploy_and_delete_at_once(clusters: Callable[..., Cluster], tmp_path: Path) -> None:
    disk = tmp_path / "nothing-on-it.qcow2"  # guests that do not boot: the subject is what comes before
    subprocess.run(("qemu-img", "create", "-q", "-f", "qcow2", str(disk), "8M"), check=True)
    cluster = clusters(flavors={"cirros": {"cores": 1, "ram_gb": 0.125, "disk_gb": 1, "image": str(disk)}})
    enrol(cluster)
    for ip in HOSTS:  # as Debian ships it
        assert "maxstartups 10:30:100" in cluster.host(ip, "sshd", "-T").lower()
        assert "maxsessions 10\n" in cluster.host(ip, "sshd", "-T").lower()
    with ExitStack() as stack:
        terminals = {name: open_terminal(cluster, stack) for name in STUDENTS}
        everyone(terminals, "Username: ", "{name}")
        everyone(terminals, "Password: ", PASSWORD)
        everyone_sees(terminals, "Welcome, student")
        everyone(terminals, CHOOSE, "2")
        everyone(terminals, "Slice name: ", "lab of {name}")
        everyone(terminals, CHOOSE, "3")
        everyone(terminals, "Slice ID", "")
        for prompt, words in (("VM name: ", "web"), ("Flavor: ", "1"), ("Data interfaces: ", "1")):
            everyone(terminals, prompt, words)
        everyone(terminals, "Internet access (y/n): ", "y")
        everyone_sees(terminals, "VM added! ID: ")
        everyone(terminals, CHOOSE, "6")
        everyone(terminals, "Slice ID", "")
        everyone_sees(terminals, "Slice deployed successfully")

        records = cluster.api.db.list_slices()
        vms = [vm for record in records for vm in record["vms"]]
        assert {record["owner"]: record["status"] for record in records} == dict.fromkeys(STUDENTS, "running")
        assert len({vm["vm_id"] for vm in vms}) == len({vm["vnc_port"] for vm in vms}) == 30
        assert len({vm["interfaces"][0]["ip_config"]["ip"] for vm in vms}) == 30
        assert Counter(vm["worker_ip"] for vm in vms) == dict.fromkeys(HOSTS, 10)
        for vm in vms:
            assert cluster.host(vm["worker_ip"], "cat", f"/proc/{vm['pid']}/comm").startswith("qemu-system")

        everyone(terminals, CHOOSE, "7")
        everyone(terminals, "Slice ID", "")
        everyone(terminals, "(y/N): ", "y")
        everyone_sees(terminals, "Slice deleted")
        everyone(terminals, CHOOSE, "0")
        for terminal in terminals.values():
            terminal.child.expect(pexpect.EOF, timeout=PATIENCE_S)
            terminal.child.close()
    assert {terminal.child.exitstatus for terminal in terminals.values()} == {0}
    assert cluster.api.db.list_slices() == []
