"""The runner's looks for drift, run for real on this machine: processes, disks, and one process ended by its number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudrepo import plan as acts
from cloudrepo.host.runner.processes import state_and_start
from cloudrepo.wire_acts import ObserveDevices
from test_runner import do

WORD = "token-6f0b6a51"


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A script called `odd-program`, as a kernel runs one: behind its interpreter."""
    script = tmp_path / "odd-program"
    script.write_text("import time\ntime.sleep(60)\n")
    process = subprocess.Popen((sys.executable, str(script), "--of", WORD))
    yield process
    process.kill()
    process.wait()


def seen(*names: str) -> list[dict[str, Any]]:
    return list(json.loads(do(acts.ObserveProcesses(names=names)).out))


def test_programs_are_found_by_name_with_their_words_and_start(program: subprocess.Popen[bytes]) -> None:
    # another process of the tests may have one of the same name just now
    (found,) = [one for one in seen("odd-program", "no-such-program") if one["pid"] == program.pid]
    assert found["words"][1:] == ["--of", WORD] and found["words"][0].endswith("/odd-program")
    assert (found["pid"], found["start"]) == (program.pid, state_and_start(program.pid)[1])
    assert found["state"] in "RS" and found["namespace"] == ""
    assert seen("no-such-program") == []


def test_a_process_is_ended_by_number_only_if_start_and_word_agree(program: subprocess.Popen[bytes]) -> None:
    start = state_and_start(program.pid)[1]

    def end(**changes: Any) -> str:
        fields: dict[str, Any] = {"pid_file": "", "pid": program.pid, "start": start, "token": WORD, "quit_s": 5.0}
        return do(acts.StopProcess(**{**fields, **changes})).out

    assert end(start=start - 1) == "gone" and end(token="token-other") == "gone" and end(pid=0) == "gone"
    assert program.poll() is None
    assert end() == "term"
    until = time.monotonic() + 30
    while program.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert program.poll() is not None


def test_disks_with_their_mark_their_second_name_and_their_base(tmp_path: Path) -> None:
    root = tmp_path / "own"
    disk, base = tmp_path / "vm1_img.qcow2", tmp_path / "base.img"
    base.write_text("base")
    for name, text in (
        ("vm-1", json.dumps({"disk": str(disk), "base": {"path_on_host": str(base)}})),
        ("vm-2", "{"),
        ("vm-3", json.dumps({"disk": 5, "base": "x"})),
        ("vm-4", json.dumps({"disk": str(tmp_path / "none"), "base": {"path_on_host": "relative"}})),
    ):
        (root / name).mkdir(parents=True)
        (root / name / "mark.json").write_text(text)
    (root / "other").mkdir()
    disk.write_text("content")
    disk.chmod(0o640)
    os.link(disk, root / "vm-1" / "overlay.qcow2")
    first, second, third, fourth = json.loads(do(acts.ObserveDisks(root=str(root), kept="overlay.qcow2")).out)
    assert first["disk"]["file"] == first["kept"]["file"] != first["base"]["file"]
    assert (first["disk"]["mode"], first["disk"]["kind"], first["disk"]["owner"]) == (0o640, "file", disk.owner())
    assert (second["files"]["mark.json"], second["disk"], second["kept"], second["base"]) == ("{", None, None, None)
    assert (third["disk"], third["base"]) == (None, None)
    assert (fourth["disk"], fourth["base"]) == (None, None)
    assert json.loads(do(acts.ObserveDisks(root=f"{tmp_path}/none", kept="x")).out) == []


def test_a_second_name_that_is_taken_is_content_when_that_is_said(tmp_path: Path) -> None:
    draft, path = tmp_path / "draft", tmp_path / "path"
    draft.write_text("x")
    path.write_text("theirs")
    draft.chmod(0o644)
    assert not do(acts.PublishFile(draft=str(draft), path=str(path))).accepted
    assert do(acts.PublishFile(draft=str(draft), path=str(path), mode=0o600, ok=(0, 1))).accepted
    assert path.read_text() == "theirs" and draft.stat().st_mode & 0o777 == 0o600


def test_names_that_are_no_utf8_arrive_as_text_that_can_be_printed_and_stored(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/vm-\xff\xe9\xf0\x9f\x98\x80"
    os.mkdir(odd)
    for name in (b"mark", b"mark.json", b"\xc3\xa9"):
        with open(odd + b"/" + name, "w") as file:
            file.write("\U0001f600 é")
    shown = f"{tmp_path}/vm-\\udcff\\udce9\U0001f600"
    looks: tuple[acts.Act, ...] = (
        acts.ObserveFiles(directory=str(tmp_path)),
        acts.ObserveDisks(root=str(tmp_path), kept="kept"),
        acts.ObserveMachines(root=str(tmp_path), socket="qmp", pid_file="pid"),
        acts.ObserveServers(root=str(tmp_path), prefix="vm-", files=("mark",)),
    )
    for look in looks:
        answer = do(look)
        found = json.loads(answer.out)
        json.dumps(found, ensure_ascii=False).encode()
        assert shown in (found if isinstance(found, dict) else [one["dir"] for one in found]), look
    assert json.loads(do(looks[0]).out)[shown]["kind"] == "dir"
    assert json.loads(do(looks[1]).out)[0]["files"]["mark.json"] == "\U0001f600 é"
    assert list(json.loads(do(acts.ObserveFiles(directory=shown.replace("udc", "x"))).out)) == []


def test_an_error_about_a_name_that_is_no_utf8_can_be_printed(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    os.symlink(b"\xff/none/\xff", os.fsencode(tmp_path) + b"/link")
    answer = do(acts.Remove(path=f"{tmp_path}/\udcff", within=str(tmp_path)))
    assert not answer.accepted
    assert "\\udcff" in answer.err
    answer.err.encode()


def test_devices_are_told_with_what_a_proof_on_the_wire_needs_of_them() -> None:
    here = json.loads(do(ObserveDevices()).out)[""]
    assert here["lo"] == {
        "mac": "00:00:00:00:00:00",
        "mtu": here["lo"]["mtu"],
        "flags": here["lo"]["flags"],
        "address": "127.0.0.1",
        "mask": "255.0.0.0",
        "is_tap": False,
    }
    assert here["lo"]["mtu"] >= 1500 and here["lo"]["flags"] & 0x8  # IFF_LOOPBACK
