"""The executor against a real sshd on loopback, and one suite that both transports pass."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.errors import CloudError, HostError, HostKeyError, HostUnreachable, MessageRefused
from cloudrepo.host.message import encode, encode_next
from cloudrepo.known_hosts import KnownHosts
from cloudrepo.plan import Plan, Run, Stage, Step, StepEvent
from cloudrepo.transports.local import LocalHost, LocalTransport, wait_until_gone
from cloudrepo.transports.ssh import SshTransport
from private_sshd import PrivateSshd, free_port, make_key, private_sshd
from remote_executor import RemoteExecutor
from transport_conformance import HOST, Conformance, plan_of, step


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSshd]:
    with private_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def executor_for(server: PrivateSshd, directory: Path, **options: object) -> RemoteExecutor:
    given: dict[str, object] = {
        "port": server.port,
        "key_file": server.key_file,
        "known_hosts": directory / "known_hosts",
        "config_file": directory / "ssh_config",
        **options,
    }
    return RemoteExecutor(server.user, **given)  # type: ignore[arg-type]


@pytest.fixture
def over_ssh(sshd: PrivateSshd, tmp_path: Path) -> Iterator[RemoteExecutor]:
    if sshd.user != "root" and subprocess.run(("sudo", "-n", "true"), capture_output=True).returncode != 0:
        pytest.skip("the runner over SSH needs root or sudo without a password")
    with executor_for(sshd, tmp_path) as executor:
        yield executor


class TestLocal(Conformance):
    @pytest.fixture
    def executor(self, tmp_path: Path) -> Iterator[RemoteExecutor]:
        host = LocalHost(home=str(tmp_path), environment={"COLOR": "blue"})
        yield RemoteExecutor(transport=LocalTransport({HOST: host}))

    def test_a_pretended_host_has_its_own_tools(self, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "ovs-vsctl").write_text("#!/bin/sh\necho pretended $COLOR\n")
        (tmp_path / "bin" / "ovs-vsctl").chmod(0o755)
        host = LocalHost(path_prefix=(f"{tmp_path}/bin",), environment={"COLOR": "blue"})
        executor = RemoteExecutor(transport=LocalTransport({"10.0.10.1": host}))
        plan = Plan(installation="t", observe=(step("o", "ovs-vsctl"),))
        assert executor.run_plan("10.0.10.1", plan).observed["o"].out == "pretended blue\n"
        with pytest.raises(HostUnreachable):
            executor.run_plan("10.0.10.2", plan)


class TestSsh(Conformance):
    @pytest.fixture
    def executor(self, over_ssh: RemoteExecutor) -> RemoteExecutor:
        return over_ssh


def test_the_end_of_stdin_ends_a_runner_that_waits_at_a_gate(tmp_path: Path) -> None:
    stage = Stage(name="s", steps=(step("a", "touch", f"{tmp_path}/a"),), gate="never")
    transport = LocalTransport()
    stream = transport.open_message(HOST, encode("runner", plan_of(tmp_path, stage, lease_s=60).to_json()))
    parts = stream.receive(10)
    assert parts is not None and b'"gate"' in parts[0]
    assert stream.status(0.3) is None
    stream.finish()
    assert stream.status(3) == 0
    stream.close()
    assert not (tmp_path / "a").exists()


# ── what only SSH has ───────────────────────────────────────────────────────────────────────────────────


def test_the_orchestrator_killed_in_mid_apply(sshd: PrivateSshd, over_ssh: RemoteExecutor, tmp_path: Path) -> None:
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
from test_remote_executor import *
server = PrivateSshd({sshd.port}, {sshd.user!r}, {sshd.key_file!r}, Path({str(sshd.directory)!r}), 0)
steps = tuple(step(str(n), "sh", "-c", f"echo {{n}} >> {tmp_path}/did; sleep 0.4") for n in range(20))
here = Path({str(tmp_path)!r})
executor_for(server, here).run_plan(HOST, plan_of(here, Stage(name="s", steps=steps), operation=5))
"""
    process = subprocess.Popen((sys.executable, "-c", program))
    until = time.monotonic() + 20
    while not (tmp_path / "did").exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.5)
    process.kill()
    process.wait()
    time.sleep(1.0)
    done = (tmp_path / "did").read_text()
    time.sleep(1.0)
    assert (tmp_path / "did").read_text() == done and len(done.split()) < 6
    assert over_ssh.run_plan(HOST, plan_of(tmp_path, operation=6)).ok  # the lock is free
    with pytest.raises(MessageRefused):
        over_ssh.run_plan(HOST, plan_of(tmp_path, operation=5))


def test_a_connection_lost_in_mid_plan_names_what_had_ended(tmp_path: Path, over_ssh: RemoteExecutor) -> None:
    executor = over_ssh
    stage = Stage(name="s", steps=(step("a", "true"), step("b", "sleep", "1"), step("c", "touch", f"{tmp_path}/c")))

    def cut(event: StepEvent) -> None:
        if (event.kind, event.name) == ("begin", "b"):
            executor.close()

    with pytest.raises(HostUnreachable) as caught:
        executor.run_plan(HOST, plan_of(tmp_path, stage), on_event=cut)
    assert caught.value.details["ended"] == ["a"]
    time.sleep(1.5)
    assert not (tmp_path / "c").exists()


def test_a_dead_connection_is_made_anew(over_ssh: RemoteExecutor) -> None:
    assert over_ssh.execute_direct(HOST, "true").returncode == 0
    transport = over_ssh.transport
    transport.connection(HOST).transport.sock.close()  # type: ignore[attr-defined]
    assert over_ssh.execute_direct(HOST, "true").returncode == 0


def test_one_connection_serves_many_threads(over_ssh: RemoteExecutor) -> None:
    found = over_ssh.gather({str(n): lambda: over_ssh.execute_direct(HOST, "sleep 0.1; echo x") for n in range(25)})
    assert [one.stdout for one in found.values() if not isinstance(one, CloudError)] == ["x\n"] * 25


def test_a_stream_closed_while_output_arrives_leaves_the_connection_alone(over_ssh: RemoteExecutor) -> None:
    transport = over_ssh.transport
    assert isinstance(transport, SshTransport)
    kept = transport.connection(HOST)
    for _ in range(300):
        stream = transport.open_shell(HOST, "yes", 10)
        assert stream.receive(10)
        stream.close()
    assert transport.connection(HOST) is kept


def test_fewer_sessions_than_usual_are_waited_for(tmp_path: Path) -> None:
    with private_sshd(tmp_path / "sshd", "MaxSessions 2") as server, executor_for(server, tmp_path) as executor:
        found = executor.gather({str(n): lambda: executor.execute_direct(HOST, "sleep 0.1; echo x") for n in range(6)})
        assert [one.stdout for one in found.values() if not isinstance(one, CloudError)] == ["x\n"] * 6


def test_resets_by_max_startups_are_tried_again(tmp_path: Path) -> None:
    with private_sshd(tmp_path / "sshd", "MaxStartups 2:100:2") as server:
        executors = [executor_for(server, tmp_path, connect_timeout_s=1) for _ in range(12)]
        work = {str(n): (lambda one=one: one.execute_direct(HOST, "true")) for n, one in enumerate(executors)}
        found = executors[0].gather(work)
        for one in executors:
            one.close()
        assert [one.returncode for one in found.values() if not isinstance(one, CloudError)] == [0] * 12
        assert "MaxStartups" in (tmp_path / "sshd" / "log").read_text()  # it did throttle


def ways_to_a_host(executor: RemoteExecutor, directory: Path) -> dict[str, Callable[[], Any]]:
    """Everything of the executor that makes a connection, and of what hangs on one."""
    (directory / "file").write_text("x")
    return {
        "plan": lambda: executor.run_plan(HOST, Plan(installation="t")),
        "home": lambda: executor.home(HOST),
        "upload": lambda: executor.upload(HOST, directory / "file", f"{directory}/there"),
        "tunnel": lambda: executor.open_tunnel(HOST, 1),
        "serial": lambda: executor.open_serial(HOST, "/run/none"),
        "another": lambda: executor.another().home(HOST),
    }


def test_a_changed_host_key_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    port = free_port()
    with private_sshd(tmp_path / "sshd", port=port) as server, executor_for(server, tmp_path) as executor:
        assert executor.execute_direct(HOST, "true").returncode == 0
        assert (tmp_path / "known_hosts").read_text().startswith(f"[{HOST}]:{port} ssh-ed25519 ")
    with private_sshd(tmp_path / "sshd", port=port) as server:
        for mode in ("accept-new", "strict"):
            with executor_for(server, tmp_path, host_keys=mode) as executor:
                for way, call in ways_to_a_host(executor, tmp_path).items():
                    with pytest.raises(HostKeyError) as caught:
                        call()
                    details = caught.value.details
                    assert details["pinned"] != details["shown"], way
                    assert all(f" {details[side]}" in str(caught.value) for side in ("pinned", "shown")), way
                    assert f"`./cloud worker trust {HOST}`" in caught.value.remedy, way
                answer = executor.execute_direct(HOST, "true")
                assert answer.returncode == 255 and answer.stderr.count("SHA256:") == 2
        assert "Accepted" not in (tmp_path / "sshd" / "log").read_text().rpartition("Server listening")[2]
        with executor_for(server, tmp_path, host_keys="off") as executor:
            assert executor.execute_direct(HOST, "true").returncode == 0


def test_the_key_that_a_host_shows_is_seen_without_a_login(sshd: PrivateSshd, tmp_path: Path) -> None:
    """Also one that is not pinned, and whatever is pinned; what was seen can be pinned, and then holds."""
    pins = KnownHosts(tmp_path / "known_hosts")
    pins.replace(HOST, sshd.port, "ssh-ed25519", b"another")
    pins.replace("10.0.10.1", 22, "ssh-ed25519", b"untouched")
    before = (sshd.directory / "log").read_text()
    with executor_for(sshd, tmp_path, host_keys="strict") as executor:
        assert isinstance(executor.transport, SshTransport)
        kind, key = executor.transport.shown_key(HOST)
        line = f"{kind} {base64.b64encode(key).decode()}"
        assert (sshd.directory / "host_key.pub").read_text().startswith(line)
        assert "Accepted" not in (sshd.directory / "log").read_text().removeprefix(before)
        assert executor.execute_direct(HOST, "true").returncode == 255
        pins.replace(HOST, sshd.port, kind, key)
        assert executor.execute_direct(HOST, "true").returncode == 0
    assert pins.pins("10.0.10.1") == {"ssh-ed25519": b"untouched"}


def test_a_host_with_keys_of_several_types_shows_the_one_that_is_pinned(tmp_path: Path) -> None:
    """Else a host that is as it was would look changed."""
    other = tmp_path / "ecdsa"
    subprocess.run(("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(other)), check=True)
    with private_sshd(tmp_path / "sshd", f"HostKey {other}") as server:
        for kind, path in (("ssh-ed25519", server.directory / "host_key.pub"), ("ecdsa-sha2-nistp256", f"{other}.pub")):
            words = Path(path).read_text().split()
            KnownHosts(tmp_path / "known_hosts").replace(HOST, server.port, kind, base64.b64decode(words[1]))
            with executor_for(server, tmp_path, host_keys="strict") as executor:
                assert isinstance(executor.transport, SshTransport)
                assert executor.transport.shown_key(HOST)[0] == kind
                assert executor.execute_direct(HOST, "true").returncode == 0


def test_strict_refuses_an_unpinned_host(sshd: PrivateSshd, tmp_path: Path) -> None:
    with executor_for(sshd, tmp_path, host_keys="strict") as executor:
        answer = executor.execute_direct(HOST, "true")
    assert answer.returncode == 255 and "not pinned" in answer.stderr
    assert f"run `./cloud worker trust {HOST}`" in answer.stderr
    assert not (tmp_path / "known_hosts").exists()


def test_a_key_that_is_not_let_in(sshd: PrivateSshd, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    with executor_for(sshd, tmp_path, key_file=str(tmp_path / "other")) as executor:
        answer = executor.execute_direct(HOST, "true")
    assert answer.returncode == 255 and "lets none of our keys in" in answer.stderr and "ssh-copy-id" in answer.stderr


def test_a_missing_key_file(sshd: PrivateSshd, tmp_path: Path) -> None:
    with executor_for(sshd, tmp_path, key_file=str(tmp_path / "none")) as executor:
        answer = executor.execute_direct(HOST, "true")
    assert answer.returncode == 255 and "there is no private key" in answer.stderr


def test_nobody_listens(tmp_path: Path) -> None:
    executor = RemoteExecutor(port=free_port(), known_hosts=tmp_path / "k", config_file=tmp_path / "c")
    began = time.monotonic()
    answer = executor.execute_direct(HOST, "true")
    assert answer.returncode == 255 and "Connection refused" in answer.stderr
    assert time.monotonic() - began < 2


def test_a_host_that_was_heard_may_take_its_time(tmp_path: Path) -> None:
    """Resets by MaxStartups for longer than a silent host is waited for."""
    with private_sshd(tmp_path / "sshd", "MaxStartups 1:100:1") as server:
        crowd = socket.create_connection((HOST, server.port))
        threading.Timer(2.0, crowd.close).start()
        with executor_for(server, tmp_path, connect_timeout_s=0.5) as executor:
            assert executor.execute_direct(HOST, "true").returncode == 0
        assert "MaxStartups" in (tmp_path / "sshd" / "log").read_text()


def executor_for_nobody(port: int, directory: Path, **options: Any) -> RemoteExecutor:
    """For a port where no sshd is."""
    return RemoteExecutor(port=port, known_hosts=directory / "k", config_file=directory / "c", **options)


def test_a_listener_that_never_speaks(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as mute:
        executor = executor_for_nobody(mute.getsockname()[1], tmp_path, connect_timeout_s=0.5)
        began = time.monotonic()
        with pytest.raises(HostUnreachable, match="no answer from"):
            executor.home(HOST)
        assert time.monotonic() - began < 3


def test_a_commands_own_time_counts_for_its_connection_too(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as mute:
        executor = executor_for_nobody(mute.getsockname()[1], tmp_path, connect_timeout_s=60)
        began = time.monotonic()
        assert executor.execute_direct(HOST, "true", timeout=0.5).returncode == 255
        assert time.monotonic() - began < 3


def test_the_users_ssh_configuration_is_honoured(sshd: PrivateSshd, tmp_path: Path) -> None:
    (tmp_path / "ssh_config").write_text(
        f"Host worker1\n HostName {HOST}\n Port {sshd.port}\n User {sshd.user}\n IdentityFile {sshd.key_file}\n"
        f"Host worker2\n HostName {HOST}\n Port {sshd.port}\n User {sshd.user}\n IdentityFile {sshd.key_file}\n"
        " ProxyJump worker1\n"
    )
    with RemoteExecutor(known_hosts=tmp_path / "known_hosts", config_file=tmp_path / "ssh_config") as executor:
        for host in ("worker1", "worker2"):
            assert executor.execute_direct(host, "echo $USER").stdout == f"{sshd.user}\n", host
    assert len((tmp_path / "known_hosts").read_text().split("\n")) == 3  # each pinned under its own name


@pytest.mark.parametrize("address", ["10.0.10.1", "203.0.113.1", "worker.example"])
def test_outside_the_lab_no_host_is_contacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("CLOUDREPO_LAB_ONLY", "1")
    monkeypatch.setattr("cloudrepo.lab_guard._no_labs", set())
    answers: list[str | None] = [None, "", "cloudrepo-lab /tmp/x"]  # not known, none, and what nobody asks for any more
    monkeypatch.setattr("cloudrepo.lab_guard.loopback_alias", lambda: answers.pop(0))
    executor = RemoteExecutor(known_hosts=tmp_path / "k", config_file=tmp_path / "c")
    for _ in range(4):
        with pytest.raises(HostError, match="only the lab is allowed") as caught:
            executor.home(address)
        assert caught.value.code == "host.lab_only"
    assert answers == ["cloudrepo-lab /tmp/x"]


@pytest.mark.parametrize(("variable", "alias"), [("1", "cloudrepo-lab /tmp/x"), (None, ""), ("0", "")])
def test_inside_a_lab_or_unguarded_hosts_are_contacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, alias: str
) -> None:
    asked: list[object] = []

    def refuse(address: object, **_: object) -> socket.socket:
        asked.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    if variable is None:
        monkeypatch.delenv("CLOUDREPO_LAB_ONLY")
    else:
        monkeypatch.setenv("CLOUDREPO_LAB_ONLY", variable)
    monkeypatch.setattr("cloudrepo.lab_guard._no_labs", set())
    monkeypatch.setattr("cloudrepo.lab_guard.loopback_alias", lambda: alias)
    monkeypatch.setattr("socket.create_connection", refuse)
    executor = RemoteExecutor(known_hosts=tmp_path / "k", config_file=tmp_path / "c")
    with pytest.raises(HostUnreachable, match="Connection refused"):
        executor.home("10.0.10.1")
    assert asked == [("10.0.10.1", 22)]


def runner_of(executor: RemoteExecutor) -> int:
    """The process that waits on the host for plans: the parent of the one that runs this plan."""
    act = Run(words=("sh", "-c", "cut -d' ' -f4 /proc/$PPID/stat"))
    plan = Plan(installation="t", observe=(Step(name="parent", label="parent", act=act),))
    return int(executor.run_plan(HOST, plan).observed["parent"].out)


def test_a_runner_waits_for_the_next_plan_and_ends_with_the_connection(over_ssh: RemoteExecutor) -> None:
    first = runner_of(over_ssh)
    assert runner_of(over_ssh) == first
    over_ssh.close()
    assert wait_until_gone(first, 5)


def test_a_waiting_runner_that_died_is_replaced(over_ssh: RemoteExecutor) -> None:
    first = runner_of(over_ssh)
    os.kill(first, signal.SIGKILL)
    assert wait_until_gone(first, 5)
    time.sleep(0.2)
    assert runner_of(over_ssh) != first


def test_a_silent_runner_is_asked_before_it_gets_a_plan(
    over_ssh: RemoteExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudrepo.host.idle.FRESH_S", 0.0)
    monkeypatch.setattr("cloudrepo.host.idle.ANSWER_S", 0.3)
    first = runner_of(over_ssh)
    assert runner_of(over_ssh) == first
    os.kill(first, signal.SIGSTOP)
    try:
        assert runner_of(over_ssh) != first
    finally:
        os.kill(first, signal.SIGKILL)


def test_what_came_too_late_for_a_plan_is_passed_over_by_the_next(tmp_path: Path) -> None:
    stream = LocalTransport().open_message(HOST, encode("runner", plan_of(tmp_path).to_json()))
    try:
        assert last_event(stream) == "done"
        stream.send(b"beat\nopen network\nclose x y\n")
        stream.send(encode_next(plan_of(tmp_path, operation=2).to_json()))
        assert last_event(stream) == "done"
    finally:
        stream.close()


def last_event(stream: Any) -> str:
    text = b""
    while not text.endswith(b"}\n"):
        parts = stream.receive(5)
        assert parts is not None, text
        text += parts[0]
    return str(json.loads(text.splitlines()[-1])["event"])
