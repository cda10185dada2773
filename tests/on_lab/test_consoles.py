"""A guest that can be opened: its serial console and its screen, by the façade and by the commands."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from cloudrepo.naming import machine_dir
from on_lab.cluster import HOSTS, Cluster, Record

pytestmark = pytest.mark.lab

CHECKOUT = Path(__file__).resolve().parents[2]
PROMPT = r"(guest|vm1):/root# "  # DHCP tells it its name
BANNER = b"RFB 003.008\n"  # RFC 6143, 7.1.1
PATIENCE_S = 60  # for a whole command on a busy machine


@pytest.fixture(scope="module")
def opened(module_clusters: Callable[..., Cluster]) -> Iterator[tuple[Cluster, Record]]:
    """A running VM, `vm1`; it has booted."""
    cluster = module_clusters()
    made = cluster.slice("vm1")
    message = cluster.ok("deploy_slice", "admin", made["id"])
    made["message"] = message
    assert cluster.guest(made["vm1"], "true").status == 0
    yield cluster, made
    cluster.ok("delete_slice", "admin", made["id"])


def _read_until(channel: Any, pattern: str, seconds: float = 20) -> str:
    said = b""
    until = time.monotonic() + seconds
    while not re.search(pattern.encode(), said):
        assert time.monotonic() < until, f"no {pattern!r} in {said!r}"
        said += channel.receive(0.5) or b""
    return said.decode(errors="replace")


@pytest.mark.cost(seconds=8)
def test_the_serial_console_is_a_root_shell_each_time_it_is_opened(opened: tuple[Cluster, Record]) -> None:
    cluster, made = opened
    for account in ("vm1", str(made["vm1"])):
        target = cluster.ok("console_target", "admin", account)
        assert (target["vm_id"], target["worker_ip"]) == (made["vm1"], cluster.vm(made["vm1"])["worker_ip"])
        with cluster.api.executor.open_serial(target["worker_ip"], target["socket"]) as channel:
            channel.send(b"\n")
            _read_until(channel, PROMPT)
            channel.send(b"id\n")
            assert "gid=0" in _read_until(channel, r"uid=0[^#]*" + PROMPT)


@pytest.mark.cost(seconds=1)
def test_a_console_is_its_owners(opened: tuple[Cluster, Record]) -> None:
    cluster, _ = opened
    assert "no VM vm1" in cluster.refused("console_target", "student", "vm1")
    assert "no VM vm1" in cluster.refused("vnc_target", "student", "vm1")


@pytest.mark.cost(seconds=3)
def test_the_screen_asks_for_its_own_password_and_no_file_has_it(opened: tuple[Cluster, Record]) -> None:
    cluster, made = opened
    target = cluster.ok("vnc_target", "admin", "vm1")
    password, worker = target["password"], target["worker_ip"]
    assert password == cluster.vm(made["vm1"])["vnc_password"]
    with cluster.api.executor.open_tunnel(worker, target["port"]) as tunnel:
        assert log_in("127.0.0.1", tunnel.port, password)
        assert not log_in("127.0.0.1", tunnel.port, "k7Qm2xRt")
    directory = machine_dir(cluster.api.site.installation, made["vm1"])
    told = cluster.host(
        worker, "sh", "-c", f"cat /proc/*/cmdline /proc/*/environ {directory}/*log {directory}/mark; true"
    )
    assert "guest=vm1" in told and password not in told
    for name in ("cloudrepo.log", "events.jsonl"):
        path = cluster.folder / name
        assert not path.exists() or password not in path.read_text()


@pytest.mark.cost(seconds=6)
def test_the_documented_open_screen_lets_only_the_password_in_and_by_default_only_sshd_listens(
    opened: tuple[Cluster, Record], clusters: Callable[..., Cluster]
) -> None:
    for ip in HOSTS:  # a machine runs on one of them
        listening = open_to_others(opened[0], ip)
        assert {one.rpartition(":")[2] for one in listening} == {"22"}, listening
    cluster = clusters(vnc={"bind": "0.0.0.0", "first_port": 5950}, vlan={"first": 500}, qemu={"stop_grace": 0})
    with cluster.api.db.transaction() as data:
        data["next_vm_id"] = 5000  # beside another installation's
    made = cluster.slice("vm1")
    cluster.ok("deploy_slice", "admin", made["id"])
    target = cluster.ok("vnc_target", "admin", made["vm1"])
    assert (target["bind"], target["port"]) == ("0.0.0.0", 5950)
    assert log_in(target["worker_ip"], target["port"], target["password"])
    assert not log_in(target["worker_ip"], target["port"], "k7Qm2xRt")
    terminal = _command(cluster, "vnc", str(made["vm1"]))
    terminal.expect_exact(f"Screen of vm1: {target['worker_ip']}:5950")
    terminal.expect_exact(f"Password: {target['password']}")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    cluster.ok("stop_slice", "admin", made["id"])
    assert "does not run" in cluster.refused("vnc_target", "admin", made["vm1"])
    cluster.ok("delete_slice", "admin", made["id"])


def open_to_others(cluster: Cluster, ip: str) -> set[str]:
    """Where a host listens, on TCP or UDP, for other machines."""
    places = {line.split()[4] for line in cluster.host(ip, "ss", "-Hltun").splitlines()}
    return {place for place in places if not place.startswith(("127.", "[::1]"))}


def log_in(host: str, port: int, password: str) -> bool:
    """Whether a screen lets somebody in by a password, which it must ask for (RFC 6143, 7.1 and 7.2.2)."""
    with socket.create_connection((host, port), timeout=20) as viewer:
        assert viewer.recv(12, socket.MSG_WAITALL) == BANNER
        viewer.sendall(BANNER)
        (count,) = viewer.recv(1)
        assert viewer.recv(count, socket.MSG_WAITALL) == b"\x02", "VNC authentication, and no other kind"
        viewer.sendall(b"\x02")
        challenge = viewer.recv(16, socket.MSG_WAITALL)
        key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode().ljust(8, b"\0"))
        cipher = Cipher(TripleDES(key * 3), modes.ECB()).encryptor()  # noqa: S305 - the protocol's: DES, once
        viewer.sendall(cipher.update(challenge) + cipher.finalize())
        return viewer.recv(4, socket.MSG_WAITALL) == b"\0\0\0\0"


@pytest.mark.cost(seconds=2)
def test_the_screen_answers_through_a_tunnel_and_on_loopback_alone(opened: tuple[Cluster, Record]) -> None:
    cluster, made = opened
    target = cluster.ok("vnc_target", "admin", "vm1")
    worker, port = target["worker_ip"], target["port"]
    assert port == cluster.vm(made["vm1"])["vnc_port"] == 5901
    with cluster.api.executor.open_tunnel(worker, port) as tunnel:
        for _ in range(2):  # a viewer that comes again
            with socket.create_connection(("127.0.0.1", tunnel.port), timeout=10) as viewer:
                assert viewer.recv(12, socket.MSG_WAITALL) == BANNER
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", tunnel.port), timeout=5)  # the tunnel ends with its context
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((worker, port), timeout=5)
    listeners = cluster.host(worker, "ss", "-Hltn", f"sport = :{port}").split()
    assert listeners[3] == f"127.0.0.1:{port}"


# ---------------------------------------------------------------------------------------- the commands


def _command(cluster: Cluster, *words: str) -> pexpect.spawn[str]:
    """`./cloud WORDS` in a terminal, where the orchestrator runs."""
    arguments = [
        *("-m", "lab", "exec", "--", "env", f"CLOUDREPO_STATE={cluster.state}"),
        *(f"CLOUDREPO_SSH_KNOWN_HOSTS={cluster.folder / 'known_hosts'}", sys.executable, str(CHECKOUT / "main.py")),
        *words,
    ]
    environment = cluster.lab.environment() | {"TERM": "xterm", "PYTHONPATH": str(CHECKOUT)}
    return pexpect.spawn(
        sys.executable, arguments, env=environment, cwd=str(CHECKOUT), encoding="utf-8", timeout=PATIENCE_S
    )


@pytest.mark.cost(seconds=8)
def test_the_console_command_opens_a_shell_and_control_bracket_leaves_it(opened: tuple[Cluster, Record]) -> None:
    cluster, _ = opened
    terminal = _command(cluster, "console", "vm1")
    terminal.expect(r"Console of vm1\..*Ctrl-\] leaves")
    terminal.send("\r")
    terminal.expect(PROMPT)
    terminal.send("expr 6 \\* 7\r")
    terminal.expect(r"\n42\r")
    terminal.send("sleep 60\r")
    time.sleep(0.3)
    terminal.send("\x03")  # Ctrl-C is the guest's
    terminal.expect(PROMPT)
    terminal.send("\x1d")
    terminal.expect_exact("Console left.")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


@pytest.mark.cost(seconds=8)
def test_the_vnc_command_prints_an_address_that_answers_until_it_ends(opened: tuple[Cluster, Record]) -> None:
    cluster, _ = opened
    terminal = _command(cluster, "vnc", "vm1")
    terminal.expect(r"Screen of vm1: 127\.0\.0\.1:(\d+)")
    port = int(terminal.match.group(1))  # type: ignore[union-attr] # expect() raises without a match
    terminal.expect_exact("Ctrl-C closes it.")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as viewer:
        assert viewer.recv(12, socket.MSG_WAITALL) == BANNER
    terminal.send("\x03")
    terminal.expect_exact("Closed.")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.cost(seconds=3)
def test_a_command_for_no_guest_says_so(opened: tuple[Cluster, Record]) -> None:
    terminal = _command(opened[0], "console", "vm9")
    terminal.expect_exact("There is no VM vm9")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 1


# ---------------------------------------------------------------------------------------- how guests run


@pytest.mark.cost(seconds=2)
def test_emulation_is_proved_shown_and_said(opened: tuple[Cluster, Record]) -> None:
    """Each worker says how guests run there and why; a deploy on emulation says so."""
    cluster, made = opened
    worker = cluster.vm(made["vm1"])["worker_ip"]
    status = cluster.ok("cluster_status")
    assert len(status["workers"]) == 3
    for row in status["workers"]:
        has_device = cluster.lab.host(row["ip"], ["test", "-e", "/dev/kvm"]).returncode == 0
        assert row["accel"] in ("kvm", "tcg")
        assert row["accel_reason"]
        if has_device and row["accel"] == "tcg":
            assert re.match("KVM is there, but ", row["accel_reason"])
        elif not has_device:
            assert (row["accel"], row["accel_reason"][:21]) == ("tcg", "there is no /dev/kvm:")
    accelerator = next(row["accel"] for row in status["workers"] if row["ip"] == worker)
    line = cluster.host(worker, "cat", f"/proc/{cluster.vm(made['vm1'])['pid']}/cmdline").split("\0")
    if accelerator == "tcg":
        assert line[line.index("-accel") + 1] == "tcg"
        assert made["message"].details["emulated"] == [worker]
        assert worker in made["message"].hint
    else:
        assert "-enable-kvm" in line
        assert (made["message"].details["emulated"], made["message"].hint) == ([], "")


@pytest.mark.cost(seconds=8)
def test_a_device_that_is_there_and_does_not_work_is_emulation_with_a_reason(clusters: Callable[..., Cluster]) -> None:
    """A plain file in the place of /dev/kvm: it exists, it opens, and no guest runs."""
    cluster = clusters()
    worker = cluster.ok("cluster_status")["workers"][0]["ip"]
    had_device = cluster.lab.host(worker, ["test", "-e", "/dev/kvm"]).returncode == 0
    if had_device:
        cluster.host(worker, "mv", "/dev/kvm", "/dev/kvm.aside")
    try:
        cluster.host(worker, "sh", "-c", ": > /dev/kvm && chmod 666 /dev/kvm")
        with cluster.api.db.transaction() as data:
            data["workers"][worker]["boot_id"] = "another boot"  # what was proved no longer counts
        cluster.api.discovery.discover_all()
        row = cluster.ok("cluster_status")["workers"][0]
        assert row["accel"] == "tcg"
        assert row["accel_reason"].startswith("KVM is there, but QEMU ended with status 1: ")
        assert "kvm" in row["accel_reason"].partition(": ")[2].lower()  # QEMU's own words
    finally:
        cluster.host(worker, "rm", "-f", "/dev/kvm")
        if had_device:
            cluster.host(worker, "mv", "/dev/kvm.aside", "/dev/kvm")
