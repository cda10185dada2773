"""What every transport does alike: one suite for all of them, and plans in a few words."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cloudrepo import plan as words
from cloudrepo.errors import CloudError, HostError, HostUnreachable, MessageRefused
from cloudrepo.plan import Plan, Run, Stage, Step, StepEvent
from cloudrepo.transports.local import wait_until_gone
from remote_executor import Gate, RemoteExecutor

HOST = "127.0.0.1"


def plan_of(tmp_path: Path, *stages: Stage, operation: int = 1, observe: tuple[Step, ...] = (), **more: Any) -> Plan:
    return Plan(
        installation="t", operation=operation, fence_dir=f"{tmp_path}/fence", stages=stages, observe=observe, **more
    )


def step(name: str, *command: str, **more: object) -> Step:
    return Step(name=name, label=f"do {name}", act=Run(words=command, **more))  # type: ignore[arg-type]


class Conformance:
    """What every transport does alike."""

    @pytest.fixture
    def executor(self, tmp_path: Path) -> object:
        raise NotImplementedError

    def test_steps_run_in_order_and_are_told(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        events: list[StepEvent] = []
        stage = Stage(name="s", steps=(step("a", "echo", "1"), step("b", "echo", "2")))
        plan = plan_of(tmp_path, stage, observe=(step("o", "echo", "3"),))
        result = executor.run_plan(HOST, plan, on_event=events.append)
        assert result.ok and [one.out for one in result.steps.values()] == ["1\n", "2\n"]
        assert result.observed["o"].out == "3\n"
        told = [(one.kind, one.name) for one in events]
        assert told == [("begin", "a"), ("end", "a"), ("begin", "b"), ("end", "b")]

    def test_a_failed_step_ends_the_plan_and_the_host_still_observes(
        self, executor: RemoteExecutor, tmp_path: Path
    ) -> None:
        stage = Stage(name="s", steps=(step("a", "false"), step("b", "touch", f"{tmp_path}/b")))
        later = Stage(name="t", steps=(step("c", "touch", f"{tmp_path}/c"),))
        result = executor.run_plan(HOST, plan_of(tmp_path, stage, later, observe=(step("o", "echo", "3"),)))
        assert not result.ok and result.failed is not None and result.failed.name == "a"
        assert list(result.steps) == ["a"] and result.observed["o"].accepted
        assert not (tmp_path / "b").exists() and not (tmp_path / "c").exists()

    def test_parallel_steps_keep_their_lanes(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        """Each step waits for its fellows in the other lanes: one after another they would wait in vain."""
        meet = "touch {part}{vm}; until [ -e {part}0 ] && [ -e {part}1 ] && [ -e {part}2 ]; do sleep 0.02; done"
        steps = tuple(
            step(
                f"vm{vm}:{part}",
                *("sh", "-c", f"cd {tmp_path}; {meet.format(part=part, vm=vm)}; echo {part} >> vm{vm}"),
                timeout_s=20,
            )
            for part in "ab"
            for vm in range(3)
        )
        assert executor.run_plan(HOST, plan_of(tmp_path, Stage(name="s", steps=steps, parallel=3))).ok
        assert [(tmp_path / f"vm{vm}").read_text() for vm in range(3)] == ["a\nb\n"] * 3

    def test_out_of_time_is_124(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        result = executor.run_plan(
            HOST, plan_of(tmp_path, Stage(name="s", steps=(step("a", "sleep", "9", timeout_s=0.2),)))
        )
        assert result.failed is not None and result.failed.status == 124

    def test_a_spawned_process_survives(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        act = words.Spawn(words=("sleep", "60"), log=f"{tmp_path}/log")
        plan = plan_of(tmp_path, Stage(name="s", steps=(Step(name="a", label="a", act=act),)))
        pid = int(executor.run_plan(HOST, plan).steps["a"].out)
        executor.close()
        assert not wait_until_gone(pid, 0.3)
        os.kill(pid, signal.SIGKILL)

    def test_a_gate_is_waited_for(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        gate, seen = Gate(), threading.Event()
        stages = (
            Stage(name="s", steps=(step("a", "true"),)),
            Stage(name="t", steps=(step("b", "true"),), gate="vlans"),
        )

        def watch(event: StepEvent) -> None:
            if event.kind == "gate":
                seen.set()

        def opener() -> None:
            seen.wait(10)
            time.sleep(0.2)
            gate.open()

        thread = threading.Thread(target=opener)
        thread.start()
        began = time.monotonic()
        result = executor.run_plan(HOST, plan_of(tmp_path, *stages), gates={"vlans": gate}, on_event=watch)
        thread.join()
        assert result.ok and list(result.steps) == ["a", "b"]
        assert time.monotonic() - began >= 0.2

    def test_a_closed_gate_ends_the_plan(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        gate = Gate()
        gate.close("no VLAN 100")
        stage = Stage(name="t", steps=(step("b", "touch", f"{tmp_path}/b"),), gate="vlans")
        result = executor.run_plan(HOST, plan_of(tmp_path, stage, observe=(step("o", "true"),)), gates={"vlans": gate})
        assert result.aborted == "gate vlans closed: no VLAN 100" and not result.ok
        assert result.observed and not (tmp_path / "b").exists()
        with pytest.raises(ValueError, match="vlans"):
            executor.run_plan(HOST, plan_of(tmp_path, stage))

    def test_stop_begins_no_further_step(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        stop = threading.Event()
        stage = Stage(name="s", steps=(step("a", "sleep", "0.5"), step("b", "touch", f"{tmp_path}/b")))
        plan = plan_of(tmp_path, stage, observe=(step("o", "true"),))
        result = executor.run_plan(HOST, plan, stop=stop, on_event=lambda event: stop.set())
        assert result.aborted == "stopped" and list(result.steps) == ["a"] and result.observed
        assert not (tmp_path / "b").exists()

    def test_a_lower_operation_is_refused(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        stage = Stage(name="s", steps=(step("a", "touch", f"{tmp_path}/a"),))
        assert executor.run_plan(HOST, plan_of(tmp_path, operation=7)).ok
        with pytest.raises(MessageRefused, match="operation 6 came too late") as caught:
            executor.run_plan(HOST, plan_of(tmp_path, stage, operation=6))
        assert caught.value.details["seen"] == 7 and not (tmp_path / "a").exists()
        assert executor.run_plan(HOST, plan_of(tmp_path, stage, operation=7)).ok

    def test_only_messages_with_a_common_scope_are_late_for_each_other(
        self, executor: RemoteExecutor, tmp_path: Path
    ) -> None:
        assert executor.run_plan(HOST, plan_of(tmp_path, operation=7, scopes=("1000", "shared"))).ok
        assert executor.run_plan(HOST, plan_of(tmp_path, operation=3, scopes=("1001",))).ok
        for late in (("shared",), ("1000",), ("1001", "shared"), ("*",)):
            with pytest.raises(MessageRefused, match="operation 6 came too late"):
                executor.run_plan(HOST, plan_of(tmp_path, operation=6, scopes=late))
        assert executor.run_plan(HOST, plan_of(tmp_path, operation=9)).ok  # speaks for everything
        with pytest.raises(MessageRefused, match="operation 8 came too late"):
            executor.run_plan(HOST, plan_of(tmp_path, operation=8, scopes=("1002",)))

    def test_a_message_about_a_host_that_has_changed_since_it_was_looked_at_is_refused(
        self, executor: RemoteExecutor, tmp_path: Path
    ) -> None:
        def count(scope: str) -> int:
            found = json.loads((tmp_path / "fence" / "fences").read_text())
            return int(found["changes"] if scope == "*" else found["scopes"][scope][1])

        assert executor.run_plan(HOST, plan_of(tmp_path, operation=1, scopes=("1000",), seen={"1000": 0})).ok
        seen = count("1000")
        assert executor.run_plan(HOST, plan_of(tmp_path, operation=2, scopes=("1001",), seen={"1001": 0})).ok
        assert executor.run_plan(HOST, plan_of(tmp_path, operation=3, scopes=("1000",), seen={"1000": seen})).ok
        with pytest.raises(MessageRefused, match="operation 3 was here since the host was looked at") as caught:
            executor.run_plan(HOST, plan_of(tmp_path, operation=4, scopes=("1000",), seen={"1000": seen}))
        assert caught.value.code == "host.refused.changed"
        everything = count("*")
        assert executor.run_plan(HOST, plan_of(tmp_path, operation=5, seen={"*": everything})).ok
        with pytest.raises(MessageRefused):
            executor.run_plan(HOST, plan_of(tmp_path, operation=6, seen={"*": everything}))

    def test_a_look_at_the_host_while_a_message_runs_there_is_out_of_date_when_it_ends(
        self, executor: RemoteExecutor, tmp_path: Path
    ) -> None:
        running = threading.Event()
        over = tmp_path / "over"
        waits = step("a", "sh", "-c", f"until [ -e {over} ]; do sleep 0.05; done")
        slow = plan_of(tmp_path, Stage(name="s", steps=(waits,)), operation=1, scopes=("1000",))
        thread = threading.Thread(
            target=executor.run_plan, args=(HOST, slow), kwargs={"on_event": lambda event: running.set()}
        )
        thread.start()
        assert running.wait(30)
        seen = json.loads((tmp_path / "fence" / "fences").read_text())["scopes"]["1000"][1]
        assert executor.run_plan(HOST, plan_of(tmp_path, operation=2, scopes=("1001",))).ok  # does not wait
        assert thread.is_alive()
        over.touch()
        with pytest.raises(MessageRefused, match="operation 1 was here since"):
            executor.run_plan(HOST, plan_of(tmp_path, operation=3, scopes=("1000",), seen={"1000": seen}))
        thread.join()

    def test_old_scopes_are_forgotten_and_their_late_messages_refused_all_the_same(
        self, executor: RemoteExecutor, tmp_path: Path
    ) -> None:
        scopes = {str(1000 + number): [10 + number, number] for number in range(1, 65)}
        (tmp_path / "fence").mkdir(mode=0o700)
        (tmp_path / "fence" / "fences").write_text(json.dumps({"changes": 64, "floor": 0, "scopes": scopes}))
        assert executor.run_plan(HOST, plan_of(tmp_path, operation=80, scopes=("2000",))).ok
        found = json.loads((tmp_path / "fence" / "fences").read_text())
        assert len(found["scopes"]) == 64 and "1001" not in found["scopes"] and found["floor"] == 11
        with pytest.raises(MessageRefused, match="operation 11 was already here"):
            executor.run_plan(HOST, plan_of(tmp_path, operation=10, scopes=("1001",)))

    def test_a_damaged_file_of_fences_is_named_and_nothing_is_done(
        self, executor: RemoteExecutor, tmp_path: Path
    ) -> None:
        (tmp_path / "fence").mkdir(mode=0o700)
        for text in ("7\n", "{", '{"changes": 1, "floor": 0, "scopes": {"1000": "x"}}'):
            (tmp_path / "fence" / "fences").write_text(text)
            with pytest.raises(MessageRefused, match="fences is damaged"):
                executor.run_plan(HOST, plan_of(tmp_path, operation=1))

    def test_the_lock_is_waited_for_and_its_holder_named(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        running = threading.Event()
        slow = plan_of(tmp_path, Stage(name="s", steps=(step("a", "sleep", "1"),)), operation=3)
        thread = threading.Thread(
            target=executor.run_plan, args=(HOST, slow), kwargs={"on_event": lambda e: running.set()}
        )
        thread.start()
        assert running.wait(30)
        with pytest.raises(MessageRefused, match="operation 3 holds the lock"):
            executor.run_plan(HOST, plan_of(tmp_path, operation=4, lock_wait_s=0.1))
        assert executor.run_plan(HOST, Plan(installation="t", observe=(step("o", "true"),))).ok  # reading needs no lock
        assert executor.run_plan(HOST, plan_of(tmp_path, operation=4)).ok
        thread.join()

    def test_silence_for_a_lease_begins_no_further_step(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        stage = Stage(name="s", steps=(step("a", "sleep", "3"), step("b", "touch", f"{tmp_path}/b")))
        plan = plan_of(tmp_path, stage, lease_s=0.5)
        with pytest.raises(HostUnreachable):  # the beats come from the thread that is held up here
            executor.run_plan(HOST, plan, on_event=lambda event: time.sleep(5))
        assert not (tmp_path / "b").exists()

    def test_upload_is_whole_and_resumed(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        local = tmp_path / "image"
        local.write_bytes(os.urandom(3_000_000))
        reports: list[tuple[int, int]] = []

        def cut(done: int, total: int) -> None:
            if done >= 1_800_000:
                raise KeyboardInterrupt

        target = f"{tmp_path}/far/image"
        with pytest.raises(KeyboardInterrupt):
            executor.upload(HOST, local, target, progress=cut)
        assert not os.path.exists(target)
        again = executor.upload(HOST, local, target, progress=lambda *report: reports.append(report))
        assert again.sent <= 0.45 * again.size and again.resumed_from + again.sent == again.size
        assert Path(target).read_bytes() == local.read_bytes() and os.listdir(tmp_path / "far") == ["image"]
        assert reports[-1] == (3_000_000, 3_000_000)

    def test_a_damaged_part_is_not_trusted(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        local = tmp_path / "image"
        local.write_bytes(b"a" * 1000)
        digest = "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3"
        (tmp_path / "far").mkdir()
        (tmp_path / "far" / f"image.{digest[:16]}.part").write_bytes(b"b" * 600)
        asked: list[str] = []
        genuine = executor.run_plan

        def run_plan(host: str, plan: Any, **options: Any) -> Any:
            asked.append(plan.installation)
            return genuine(host, plan, **options)

        executor.run_plan = run_plan  # type: ignore[method-assign]
        sent = executor.upload(HOST, local, f"{tmp_path}/far/image", installation="ab12cd34")
        assert set(asked) == {"ab12cd34"}, "a helper is asked for the installation that the caller names"
        assert (sent.sha256, sent.sent, sent.resumed_from) == (digest, 1000, 0)

    def test_execute_direct(self, executor: RemoteExecutor) -> None:
        answer = executor.execute_direct(HOST, "echo out; echo err >&2; exit 3")
        assert (answer.returncode, answer.stdout, answer.stderr) == (3, "out\n", "err\n")
        assert executor.execute_direct(HOST, ("echo", "$(id) '", "b")).stdout == "$(id) ' b\n"
        late = executor.execute_direct(HOST, "sleep 5", timeout=0.5)
        assert late.returncode == 124 and "out of time" in late.stderr
        big = executor.execute_direct(HOST, "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2")
        assert (len(big.stdout), len(big.stderr)) == (1000000, 1000000)

    def test_tunnel(self, executor: RemoteExecutor) -> None:
        with socket.create_server((HOST, 0)) as far:
            port = far.getsockname()[1]
            with executor.open_tunnel(HOST, port) as tunnel:
                far.accept()[0].close()  # the look whether somebody listens
                with socket.create_connection((HOST, tunnel.port), timeout=5) as near:
                    peer, _ = far.accept()
                    near.sendall(b"ping")
                    assert peer.recv(4) == b"ping"
                    peer.sendall(b"pong")
                    assert near.recv(4) == b"pong"
                    peer.close()
                    assert near.recv(1) == b""
            with pytest.raises(OSError):
                socket.create_connection((HOST, tunnel.port), timeout=1)
        with pytest.raises(HostError):
            executor.open_tunnel(HOST, port)

    def test_serial(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        path = f"{tmp_path}/serial"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as far:
            far.bind(path)
            far.listen()
            with executor.open_serial(HOST, path) as serial:
                peer, _ = far.accept()
                peer.sendall(b"login: ")
                assert serial.receive(5) == b"login: "
                serial.send(b"root\n")
                assert peer.recv(10) == b"root\n"
            assert peer.recv(1) == b""
            peer.close()
        with pytest.raises(HostError, match="nothing answers"):
            executor.open_serial(HOST, path)

    def test_gather_is_not_held_up_by_one(self, executor: RemoteExecutor) -> None:
        def dead() -> str:
            raise HostUnreachable("b", "no connection")

        found = executor.gather({"a": lambda: "1", "b": dead})
        assert found["a"] == "1" and isinstance(found["b"], CloudError)
