"""The runner's acts, each run for real on this machine through the local transport."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloudrepo import limit_acts, plan as words, wire_acts
from cloudrepo.host.runner import base, file_acts, plans, processes, program
from cloudrepo.host.session import PlanSession
from cloudrepo.plan import Act, Plan, Stage, Step, StepResult
from cloudrepo.transports.local import LocalHost, LocalTransport, wait_until_gone

FAKE_QEMU = str(Path(__file__).with_name("fake_qemu.py"))
UUID = "6f0b6a51-32f4-5d0e-9c0a-000000001001"


def do(act: Act, *, prefix: tuple[str, ...] = ()) -> StepResult:
    """One act as a plan's only step."""
    plan = Plan(installation="t", stages=(Stage(name="one", steps=(Step(name="it", label="it", act=act),)),))
    hosts = {"here": LocalHost(path_prefix=prefix)}
    return PlanSession(LocalTransport(hosts), "here", plan).run().steps["it"]


# ── run ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_words_never_meet_a_shell() -> None:
    assert do(words.Run(words=("echo", "$(id); '\"", "*"))).out == "$(id); '\" *\n"


def test_stdin_and_both_streams() -> None:
    answer = do(words.Run(words=("sh", "-c", "cat; echo bad >&2; exit 3"), stdin="für\n", ok=(0, 3)))
    assert (answer.status, answer.out, answer.err, answer.accepted) == (3, "für\n", "bad", True)


def test_environment_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAK", "1")
    lines = do(words.Run(words=("env",))).out.split("\n")
    assert "LC_ALL=C" in lines and f"PATH={base.PATH}" in lines
    assert not any(line.startswith("LEAK") for line in lines)


def test_big_outputs_on_both_streams_do_not_stall() -> None:
    code = "import sys; sys.stderr.write('e' * 1000000); sys.stdout.write('o' * 1000000)"
    answer = do(words.Run(words=(sys.executable, "-c", code), stdin="i" * 1000000))
    assert (answer.status, len(answer.out), len(answer.err)) == (0, 1000000, 1000000)


def test_output_is_kept_within_a_limit_and_says_so() -> None:
    answer = do(words.Run(words=("head", "-c", str(base.OUTPUT_LIMIT + 10), "/dev/zero")))
    assert len(answer.out) == base.OUTPUT_LIMIT
    assert "10 bytes of output beyond" in answer.err


def test_a_missing_tool_is_255() -> None:
    answer = do(words.Run(words=("no-such-tool-here",)))
    assert answer.status == 255 and not answer.accepted
    assert "no-such-tool-here" in answer.err and "No such file" in answer.err


def test_the_deadline_kills_grandchildren_even_in_other_sessions(tmp_path: Path) -> None:
    script = f"setsid sleep 60 & echo $! > {tmp_path}/a; sleep 61 & echo $! > {tmp_path}/b; wait"
    began = time.monotonic()
    answer = do(words.Run(words=("sh", "-c", script), timeout_s=0.5))
    assert answer.status == 124 and "out of time" in answer.err
    assert time.monotonic() - began < 5
    for name in ("a", "b"):
        assert wait_until_gone(int((tmp_path / name).read_text()), 2), name


def test_a_daemon_that_keeps_the_streams_is_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    answer = do(words.Run(words=("sh", "-c", f"sleep 30 & echo $! > {tmp_path}/pid; echo up")))
    assert (answer.status, answer.out) == (0, "up\n")
    assert time.monotonic() - began < 3
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another account")
def test_run_as_another_account() -> None:
    answer = do(words.Run(words=("id",), user="nobody"))
    assert "nobody" in answer.out and "root" not in answer.out


def test_an_unknown_account_is_an_answer() -> None:
    assert do(words.Run(words=("id",), user="no-such-account")).status == 255


# ── spawn ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_spawned_process_survives_and_is_detached(tmp_path: Path) -> None:
    log, pid_file = tmp_path / "log", tmp_path / "pid"
    command = ("sh", "-c", "umask; ls -l /proc/self/fd | wc -l; pwd; exec sleep 60")
    answer = do(words.Spawn(words=command, log=str(log), pid_file=str(pid_file)))
    pid = int(answer.out)
    try:
        assert pid_file.read_text().split() == [str(pid), str(processes.state_and_start(pid)[1])]
        until = time.monotonic() + 30
        while len(log.read_text().split()) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        assert log.read_text().split()[0] == "0077" and log.read_text().split()[2] == "/"
        assert int(log.read_text().split()[1]) <= 5  # a heading, three streams and ls's own
        assert log.stat().st_mode & 0o777 == 0o600
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_process_that_ends_at_once_fails_with_its_last_words(tmp_path: Path) -> None:
    answer = do(words.Spawn(words=("sh", "-c", "echo no disk >&2; exit 4"), log=str(tmp_path / "log"), settle_s=5))
    assert answer.status == 4 and "no disk" in answer.err


def test_a_log_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "precious")
    assert not do(words.Spawn(words=("true",), log=str(tmp_path / "log"))).accepted
    assert not (tmp_path / "precious").exists()


def test_qmp_fails_at_once_when_the_machine_it_waits_for_has_ended(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    steps = (
        Step(name="start", label="start", act=words.Spawn(words=("sh", "-c", "echo bad option; exit 1"), log=log)),
        Step(name="ask", label="ask", act=words.Qmp(socket=str(tmp_path / "none"), log=log, timeout_s=20)),
    )
    began = time.monotonic()
    result = PlanSession(LocalTransport(), "h", Plan(installation="t", stages=(Stage(name="s", steps=steps),))).run()
    assert result.failed is not None and result.failed.name == "ask"
    assert "QEMU has ended. bad option" in result.failed.err
    assert time.monotonic() - began < 5


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────


def test_write_read_checksum_and_facts(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    assert do(words.WriteFile(path=path, text="größe\n", mode=0o640, durable=True)).accepted
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["file"]
    assert do(words.ReadFile(path=path)).out == "größe\n"
    missing = do(words.ReadFile(path=path + "x"))
    assert (missing.status, missing.accepted, missing.out) == (1, True, "")
    whole = json.loads(do(words.Checksum(path=path)).out)
    assert whole == {"sha256": hashlib.sha256("größe\n".encode()).hexdigest(), "size": 8}
    assert json.loads(do(words.Checksum(path=path, length=2)).out)["sha256"] == hashlib.sha256(b"gr").hexdigest()
    facts = json.loads(do(words.ObserveFiles(paths=(path, path + "x"), directory=str(tmp_path))).out)
    assert facts[path]["size"] == 8 and facts[path]["kind"] == "file" and facts[path + "x"] is None


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    answer = do(words.WriteFile(path=str(tmp_path / "d"), text="x"))
    assert not answer.accepted and "directory" in answer.err
    assert os.listdir(tmp_path) == ["d"]


def test_mkdir_twice(tmp_path: Path) -> None:
    for mode in (0o700, 0o711):
        assert do(words.MakeDir(path=str(tmp_path / "a/b"), mode=mode)).accepted
        assert (tmp_path / "a/b").stat().st_mode & 0o777 == mode


def test_remove_takes_exactly_one_thing_and_follows_no_symlink(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    inside = tmp_path / "inside"
    (inside / "vm-1" / "deep").mkdir(parents=True)
    (inside / "vm-1" / "deep" / "file").touch()
    (inside / "vm-1" / "link").symlink_to(outside)
    (inside / "vm-10").mkdir()
    assert not do(words.Remove(path=str(inside / "vm-1"), within=str(inside))).accepted
    assert do(words.Remove(path=str(inside / "vm-1"), within=str(inside), tree=True)).accepted
    assert do(words.Remove(path=str(inside / "vm-1"), within=str(inside), tree=True)).accepted
    assert os.listdir(inside) == ["vm-10"]
    assert (outside / "precious").exists()


def test_only_an_empty_directory_is_removed_and_none_is_as_good(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "of another").mkdir(parents=True)
    assert do(words.RemoveIfEmpty(path=str(shared))).accepted
    assert (shared / "of another").is_dir()
    (shared / "of another").rmdir()
    assert do(words.RemoveIfEmpty(path=str(shared))).accepted
    assert not shared.exists()
    assert do(words.RemoveIfEmpty(path=str(shared))).accepted  # somebody else was first
    (tmp_path / "file").touch()
    refused = do(words.RemoveIfEmpty(path=str(tmp_path / "file")))
    assert not refused.accepted
    assert "Not a directory" in refused.err


@pytest.mark.parametrize("path", ["inside/../outside/x", "inside/link/x", "inside", "inside/", "inside/.", "inside/.."])
def test_remove_refuses_what_is_not_within(tmp_path: Path, path: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").touch()
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    answer = do(words.Remove(path=f"{tmp_path}/{path}", within=str(tmp_path / "inside"), tree=True))
    assert not answer.accepted and "refused" in answer.err
    assert (tmp_path / "outside" / "x").exists() and (tmp_path / "inside").is_dir()


# ── QMP and stopping ────────────────────────────────────────────────────────────────────────────────────


class Machine:
    """A stand-in for QEMU in a directory of its own."""

    def __init__(self, directory: Path, manner: str) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.socket = str(directory / "qmp")
        self.process = subprocess.Popen((sys.executable, FAKE_QEMU, manner, self.socket, UUID))
        self.pid_file = directory / "pid"
        self.pid_file.write_text(f"{self.process.pid} {processes.state_and_start(self.process.pid)[1]}\n")
        (directory / "mark").write_text(f"cloudrepo/0a0a0a0a/1000/1001/\n{UUID}\n")
        until = time.monotonic() + 30
        while not os.path.exists(self.socket) and time.monotonic() < until:
            time.sleep(0.01)

    def stop(self, grace_s: float = 1.0, quit_s: float = 1.0, token: str = UUID, socket: bool = True) -> StepResult:
        """Ask the runner to stop it."""
        return do(
            words.StopProcess(
                pid_file=str(self.pid_file),
                token=token,
                socket=self.socket if socket else "",
                grace_s=grace_s,
                quit_s=quit_s,
            )
        )

    @property
    def lives(self) -> bool:
        """Whether it runs; an ended one is reaped only by this."""
        return bool(processes.state_and_start(self.process.pid)[0])


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    made: list[Machine] = []
    yield made
    for machine in made:
        machine.process.kill()
        machine.process.wait()


def make(machines: list[Machine], directory: Path, manner: str) -> Machine:
    machines.append(Machine(directory, manner))
    return machines[-1]


@pytest.mark.parametrize(
    ("manner", "grace_s", "stage"),
    [("obeys", 5, "powerdown"), ("ignores", 0.2, "quit"), ("obeys", 0, "quit"), ("deaf", 0.2, "kill")],
)
def test_stop_in_stages(machines: list[Machine], tmp_path: Path, manner: str, grace_s: float, stage: str) -> None:
    machine = make(machines, tmp_path / "vm-1001", manner)
    answer = machine.stop(grace_s, quit_s=0.3 if stage == "kill" else 5)
    assert (answer.status, answer.out) == (0, stage)
    assert not machine.lives  # it is a zombie here, since its parent has not waited: that counts as gone
    assert machine.stop().out == "gone"


def test_a_stopped_machine_is_killed_soon(machines: list[Machine], tmp_path: Path) -> None:
    machine = make(machines, tmp_path / "vm-1001", "obeys")
    machine.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert machine.stop(grace_s=20, quit_s=0.3).out == "kill"
    assert time.monotonic() - began < 3


def test_a_machine_that_continues_in_time_is_stopped_gently(machines: list[Machine], tmp_path: Path) -> None:
    machine = make(machines, tmp_path / "vm-1001", "obeys")
    machine.process.send_signal(signal.SIGSTOP)
    waker = threading.Timer(0.5, machine.process.send_signal, (signal.SIGCONT,))
    waker.start()
    assert machine.stop(grace_s=5, quit_s=5).out == "powerdown"
    waker.join()


def test_without_a_socket_it_is_sigterm(machines: list[Machine], tmp_path: Path) -> None:
    assert make(machines, tmp_path / "a", "obeys").stop(socket=False).out == "term"
    assert make(machines, tmp_path / "b", "deaf").stop(quit_s=0.2, socket=False).out == "kill"


@pytest.mark.parametrize("token", ["", UUID[:-1], UUID.replace("1001", "1002"), "/run/other"])
def test_a_foreign_process_is_never_touched(machines: list[Machine], tmp_path: Path, token: str) -> None:
    machine = make(machines, tmp_path / "vm-1001", "obeys")
    assert machine.stop(token=token).out == "gone"
    assert machine.lives


def test_a_pid_given_to_another_process_is_never_touched(machines: list[Machine], tmp_path: Path) -> None:
    machine = make(machines, tmp_path / "vm-1001", "obeys")
    machine.pid_file.write_text(f"{machine.process.pid} 12345\n")
    assert machine.stop().out == "gone"
    assert machine.lives


def test_a_signal_reaches_a_process_of_ours_and_no_other(machines: list[Machine], tmp_path: Path) -> None:
    machine = make(machines, tmp_path / "vm-1001", "obeys")
    foreign = do(words.SignalProcess(pid_file=str(machine.pid_file), token="/run/other", signal="TERM"))
    assert (foreign.status, machine.lives) == (1, True)
    assert str(machine.pid_file) in foreign.err
    assert do(words.SignalProcess(pid_file=str(machine.pid_file), token=UUID, signal="TERM")).status == 0
    assert machine.process.wait(30) == -signal.SIGTERM


def test_every_act_of_a_plan_is_known_to_the_runner() -> None:
    made = {
        act.ACT
        for module in (words, wire_acts, limit_acts)
        for act in vars(module).values()
        if isinstance(act, type) and act in words.Act.__subclasses__()
    }
    assert made == set(plans.ACTS)


@pytest.mark.parametrize("text", ["", "x\n", "1\n", "0\n", "999999999\n", "-1\n"])
def test_a_strange_pid_file_is_content(machines: list[Machine], tmp_path: Path, text: str) -> None:
    machine = make(machines, tmp_path / "vm-1001", "obeys")
    machine.pid_file.write_text(text)
    assert machine.stop().out == "gone"
    machine.pid_file.unlink()
    assert machine.stop().out == "gone"
    assert machine.lives


def test_qmp_commands_uuid_and_errors(machines: list[Machine], tmp_path: Path) -> None:
    machine = make(machines, tmp_path / "vm-1001", "obeys")
    status = {"execute": "query-status"}
    answer = do(words.Qmp(socket=machine.socket, commands=(status,), expect_uuid=UUID.upper()))
    assert json.loads(answer.out) == [{"status": "running", "running": True}]
    assert "another machine" in do(words.Qmp(socket=machine.socket, expect_uuid="0")).err
    assert "no-such: not found" in do(words.Qmp(socket=machine.socket, commands=({"execute": "no-such"},))).err
    began = time.monotonic()
    assert not do(words.Qmp(socket=str(tmp_path / "none"), timeout_s=0.3)).accepted
    assert time.monotonic() - began < 3


def test_observed_machines_and_servers(machines: list[Machine], tmp_path: Path) -> None:
    live = make(machines, tmp_path / "run" / "vm-1001", "obeys")
    stopped = make(machines, tmp_path / "run" / "vm-1002", "obeys")
    zombie = make(machines, tmp_path / "run" / "vm-1003", "obeys")
    stopped.process.send_signal(signal.SIGSTOP)
    zombie.process.kill()
    assert wait_until_gone(zombie.process.pid, 5)
    (tmp_path / "run" / "vm-1004").mkdir()
    found = {
        os.path.basename(one["dir"]): one for one in json.loads(do(words.ObserveMachines(root=f"{tmp_path}/run")).out)
    }
    assert found["vm-1001"]["alive"] and found["vm-1001"]["uuid"] == UUID and found["vm-1001"]["status"] == "running"
    assert found["vm-1001"]["pid"] == live.process.pid
    assert found["vm-1002"]["alive"] and found["vm-1002"]["uuid"] is None and found["vm-1002"]["process_state"] == "T"
    assert not found["vm-1003"]["alive"] and found["vm-1003"]["pid"] == zombie.process.pid
    assert found["vm-1004"]["mark"] is None and found["vm-1004"]["pid"] is None
    act = words.ObserveServers(root=f"{tmp_path}/run", prefix="vm-100", files=("mark", "none"))
    servers = json.loads(do(act).out)
    assert [one["alive"] for one in servers] == [True, True, False, False]  # the path is in the command line
    assert servers[0]["files"] == {"mark": (live.directory / "mark").read_text(), "none": None}
    assert json.loads(do(words.ObserveMachines(root="/no/such")).out) == []


@pytest.mark.parametrize(
    ("line", "token", "expected"),
    [
        (["qemu", "-uuid", UUID], UUID, True),
        (["qemu", f"file={UUID},x"], UUID, True),
        (["vim", f"notes-{UUID}"], UUID, False),
        (["dnsmasq", "--conf-file=/run/c/dhcp-10/dnsmasq.conf"], "/run/c/dhcp-10", True),
        (["dnsmasq", "--conf-file=/run/c/dhcp-100/dnsmasq.conf"], "/run/c/dhcp-10", False),
        (["qemu", "unix:/run/c/vm-1/qmp"], "/run/c/vm-1", True),
        (["x", "/run/c/vm-10", "/run/c/vm-1"], "/run/c/vm-1", True),
        ([], UUID, False),
    ],
)
def test_a_token_is_a_whole_word(line: list[str], token: str, expected: bool) -> None:
    assert processes.holds(line, token) is expected


def test_namespaces_ask_in_each(tmp_path: Path) -> None:
    tool = tmp_path / "ip"
    tool.write_text('#!/bin/sh\necho "$@"\n')
    tool.chmod(0o755)
    answer = do(words.ObserveNamespaces(prefix="no-such-prefix-", words=("ip", "-j", "addr")), prefix=(str(tmp_path),))
    assert json.loads(answer.out) == {}


# ── require, publish ────────────────────────────────────────────────────────────────────────────────────


def test_a_required_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert do(words.RequireFile(path=str(tmp_path / "there"))).accepted
    for missing in (tmp_path, tmp_path / "not-there"):
        assert do(words.RequireFile(path=str(missing))).status == 1


def test_publishing_gives_a_second_name_and_never_replaces(tmp_path: Path) -> None:
    draft, path = tmp_path / "draft", tmp_path / "name"
    draft.write_text("new")
    draft.chmod(0o644)
    assert do(words.PublishFile(draft=str(draft), path=str(path))).accepted
    assert path.samefile(draft) and path.stat().st_mode & 0o777 == 0o600

    assert do(words.PublishFile(draft=str(draft), path=str(path))).accepted, "its own second name is no obstacle"

    dangling, other = tmp_path / "dangling", tmp_path / "other"
    dangling.symlink_to(tmp_path / "nowhere")
    other.write_text("another's")
    for taken in (other, dangling):
        answer = do(words.PublishFile(draft=str(draft), path=str(taken)))
        assert (answer.status, answer.accepted) == (1, False) and "is there already" in answer.err
    assert not (tmp_path / "nowhere").exists() and other.read_text() == "another's"


def test_a_name_is_removed_only_as_that_of_the_given_file(tmp_path: Path) -> None:
    draft, second, other = tmp_path / "draft", tmp_path / "second", tmp_path / "other"
    draft.touch()
    other.touch()
    second.hardlink_to(draft)
    for path in (second, other, tmp_path / "not-there"):
        act = words.Remove(path=str(path), within=str(tmp_path), same_as=str(draft))
        assert do(act).accepted
    assert (second.exists(), other.exists(), draft.exists()) == (False, True, True)


def test_a_draft_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (tmp_path / "draft").symlink_to(tmp_path / "secret")
    assert not do(words.PublishFile(draft=str(tmp_path / "draft"), path=str(tmp_path / "name"))).accepted
    assert not (tmp_path / "name").exists()


def adopting(draft: Path, path: Path, sha256: str) -> words.AdoptFile:
    owner = pwd.getpwuid(os.geteuid()).pw_name
    return words.AdoptFile(
        draft=str(draft), path=str(path), owner=owner, mode=0o444, mtime_s=1_000_000_000, sha256=sha256
    )


def test_an_adopted_file_gets_owner_mode_and_time_before_its_name(tmp_path: Path) -> None:
    draft, path = tmp_path / "draft", tmp_path / "base"
    draft.write_text("content")
    path.write_text("an older one")
    assert do(adopting(draft, path, "")).accepted
    facts = path.stat()
    assert (path.read_text(), facts.st_mode & 0o777, facts.st_mtime) == ("content", 0o444, 1_000_000_000)
    assert os.listdir(tmp_path) == ["base"]


def test_what_is_no_file_is_not_adopted(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe", "nothing"):
        assert not do(adopting(tmp_path / name, tmp_path / "base", "")).accepted, name
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "pipe", "secret"]


def test_a_copy_has_the_content_and_its_holes_and_says_its_digest(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.write(b"head")
        file.seek(5 << 20)
        file.write(b"tail")
    with source.open("rb") as given, target.open("w+b") as made:
        found = file_acts.copy_file(given.fileno(), made.fileno(), source.stat().st_size)
    assert found == hashlib.sha256(source.read_bytes()).hexdigest() and target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 < 4 << 20


def test_what_another_account_wrote_is_copied_and_must_be_what_was_inspected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still have the draft open. Here the file's owner is only said to be another."""
    draft, path = tmp_path / "draft", tmp_path / "base"
    draft.write_text("content")
    entry = pwd.getpwuid(os.geteuid())
    other = SimpleNamespace(pw_uid=entry.pw_uid + 1, pw_gid=entry.pw_gid)
    monkeypatch.setattr("pwd.getpwnam", lambda name: other)
    monkeypatch.setattr(os, "fchown", lambda *given: None)
    act = adopting(draft, path, hashlib.sha256(b"content").hexdigest()).to_json()
    with draft.open("r+") as still_open:
        assert file_acts.act_adopt(act)[0] == 0
        still_open.write("CHANGED")
    assert path.read_text() == "content" and os.listdir(tmp_path) == ["base"]
    draft.write_text("another content")
    status, _, said = file_acts.act_adopt(act)
    assert status == 1 and "was changed" in said
    assert path.read_text() == "content" and sorted(os.listdir(tmp_path)) == ["base", "draft"]


def test_links_in_a_machines_directory_lead_nowhere(tmp_path: Path) -> None:
    """Whoever QEMU runs as owns it: neither a text nor a socket nor a log is reached by a link there."""
    (tmp_path / "vm-1").mkdir()
    (tmp_path / "secret").write_text("cloudrepo/secret\nx\n")
    for name in ("mark", "pid", "qemu.log"):
        (tmp_path / "vm-1" / name).symlink_to(tmp_path / "secret")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "real"))
        listening.listen()
        (tmp_path / "vm-1" / "qmp.sock").symlink_to(tmp_path / "real")
        answer = do(words.ObserveMachines(root=str(tmp_path), socket="qmp.sock"))
        assert json.loads(answer.out)[0]["mark"] is None and "secret" not in answer.out
        log = str(tmp_path / "vm-1" / "qemu.log")
        answer = do(words.Qmp(socket=str(tmp_path / "vm-1" / "qmp.sock"), log=log, timeout_s=0.2))
        assert not answer.accepted and "secret" not in answer.err
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_a_log_with_a_second_name_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "log").hardlink_to(tmp_path / "precious")
    answer = do(words.Spawn(words=("true",), log=str(tmp_path / "log")))
    assert not answer.accepted and "no file of its own" in answer.err
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_runner_that_has_said_it_is_there_waits_for_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked in the last moment of its wait: the plan comes a little after what would have been its end."""
    now = [100.0]
    payload = zlib.compress(b"a line\0the plan")
    sent = [(program.IDLE_S - 0.1, b"ready\n"), (0.2, b"%d %s\n" % (len(payload), _sum(payload))), (0.0, payload)]
    arrived = bytearray()

    def read_within(size: int, until: float) -> bytes:
        while len(arrived) < size and sent:
            now[0] += sent[0][0]
            if now[0] > until:
                return b""
            arrived.extend(sent.pop(0)[1])
        taken = bytes(arrived[:size])
        del arrived[:size]
        return taken

    said: list[str] = []
    monkeypatch.setattr(program, "read_within", read_within)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        program, "Control", lambda lease: SimpleNamespace(say=lambda **event: said.append(event["event"]))
    )
    assert program.next_plan() == "the plan"
    assert said == ["ready"]


def _sum(payload: bytes) -> bytes:
    return hashlib.sha256(payload).hexdigest().encode()
