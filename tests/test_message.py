"""The framing: a message cut anywhere does nothing, and every way a host can refuse it has one sentence."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudrepo.errors import HostUnreachable
from cloudrepo.host import hardening, message, programs
from cloudrepo.plan import Plan, Stage, Step, WriteFile

BOOT = (sys.executable, *message.PYTHON[1:])


def creating(path: Path) -> bytes:
    step = Step(name="make", label="make a file", act=WriteFile(path=str(path), text="x"))
    plan = Plan(installation="t", stages=(Stage(name="one", steps=(step,)),))
    return message.encode("runner", plan.to_json())


def tiny(path: Path) -> bytes:
    """A message whose program is short, so that every byte position can be tried by real processes."""
    import hashlib
    import zlib

    payload = zlib.compress(f"def main(text):\n open(text, 'w')\n\0{path}".encode())
    return b"%d %s\n%s" % (len(payload), hashlib.sha256(payload).hexdigest().encode(), payload)


def test_a_message_cut_at_any_byte_does_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    whole = tiny(made)
    waiting = []
    for end in range(len(whole)):
        process = subprocess.Popen(BOOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        waiting.append((end, process, process.communicate(whole[:end])[1]))
    for end, process, words in waiting:
        assert process.returncode == 1, end
        assert message.CUT.encode() in words
        assert not made.exists(), end
    subprocess.run(BOOT, input=whole, check=True)
    assert made.exists()


def test_the_real_runner_cut_does_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    whole = creating(made)
    for end in (1, 5, len(whole) // 2, len(whole) - 1):
        assert subprocess.run(BOOT, input=whole[:end], capture_output=True).returncode == 1
        assert not made.exists()


def test_a_payload_that_is_not_the_one_announced_does_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    head, _, payload = tiny(made).partition(b"\n")
    other = head[:-1] + (b"0" if head[-1:] != b"0" else b"1")
    assert subprocess.run(BOOT, input=other + b"\n" + payload, capture_output=True).returncode == 1
    assert not made.exists()


def test_a_changed_byte_does_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    whole = bytearray(tiny(made))
    whole[-5] ^= 1
    assert subprocess.run(BOOT, input=bytes(whole), capture_output=True).returncode == 1
    assert not made.exists()


def test_control_lines_after_the_message_stay_readable(tmp_path: Path) -> None:
    import hashlib
    import zlib

    program = "def main(text):\n import os\n print(os.read(0, 100).decode(), end='')\n return 0\n\0"
    payload = zlib.compress(program.encode())
    whole = b"%d %s\n%sbeat\nstop\n" % (len(payload), hashlib.sha256(payload).hexdigest().encode(), payload)
    assert subprocess.run(BOOT, input=whole, capture_output=True, check=True).stdout == b"beat\nstop\n"


def test_the_command_is_one_constant_line_safe_in_any_shell() -> None:
    assert not set(message.BOOTSTRAP) & set("'!\n$`")
    assert message.remote_words("root")[0] == "/usr/bin/python3"
    assert message.remote_words("ubuntu")[:2] == ("sudo", "-n")
    line = shlex.join((sys.executable, *message.PYTHON[1:]))
    assert message.remote_words("ubuntu", has_helper=True) == ("sudo", "-n", message.HELPER)
    assert message.remote_words("root", has_helper=True) == (message.HELPER,)
    for shell in ("sh", "bash"):
        answer = subprocess.run((shell, "-c", line), input=b"", capture_output=True)
        assert message.CUT.encode() in answer.stderr


@pytest.mark.parametrize("name", [*programs.HELPER_PARTS, "hardening"])
def test_what_is_sent_is_python_3_8(name: str) -> None:
    ast.parse(programs.source(name), feature_version=(3, 8))


def names_of(text: str) -> set[str]:
    """What a program defines at its top."""
    found = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_the_parts_of_the_helper_do_not_hide_each_other() -> None:
    """They are one file, and so one set of names. The runner's `main` is meant to come after the relay's."""
    seen: set[str] = set()
    for part in programs.HELPER_PARTS:
        names = names_of(programs.source(part)) - {"TYPE_CHECKING"}
        assert seen & names <= {"main"}, part
        assert part in ("relay", "runner/program") or "main" not in names
        seen |= names


def test_the_helper_is_one_program_whose_text_is_its_version() -> None:
    text = programs.helper_text()
    ast.parse(text, feature_version=(3, 8))
    assert "cloudrepo." not in "".join(line for line in text.splitlines() if line.startswith(("from ", "import ")))
    assert all(programs.source(part).rstrip().splitlines()[-1] in text for part in programs.HELPER_PARTS)
    assert len(message.encode("runner", {}, has_helper=True)) < 200
    (program, start), version = programs.helper_files("/x").items(), programs.helper_version()
    assert program == (f"helper_{version}.py", text) and start[0] == "helper"
    assert start[1].startswith("#!/usr/bin/python3 -IS\n") and start[1].endswith(f"helper_main({version!r}))\n")
    assert hardening.PROGRAM.fullmatch(program[0]), "a later version finds it, and removes it"
    compiled = importlib.util.cache_from_source(program[0])
    assert hardening.PROGRAM.fullmatch(os.path.basename(compiled)) and os.path.dirname(compiled) == "__pycache__"


def run_helper(folder: Path, said: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run((sys.executable, "-IS", str(folder / "helper")), input=said, capture_output=True)


def test_what_root_must_be_for_the_helper_to_run(tmp_path: Path) -> None:
    """Without root it says so; a program in the place of a plan is refused, and so is another version."""
    for name, text in programs.helper_files(str(tmp_path)).items():
        (tmp_path / name).write_text(text)
    answer = run_helper(tmp_path, b"")
    wanted = message.CUT if os.geteuid() == 0 else "the helper is run by sudo"
    assert answer.returncode == 1 and wanted.encode() in answer.stderr
    if os.geteuid() == 0:
        whole = message.encode("runner", {"installation": "0badc0de"})
        assert json.loads(run_helper(tmp_path, whole).stdout)["code"] == "grammar"
        start = (tmp_path / "helper").read_text()
        (tmp_path / "helper").write_text(start.replace(repr(programs.helper_version()), repr("0" * 16)))
        whole = message.encode("runner", {"installation": "0badc0de"}, has_helper=True)
        assert json.loads(run_helper(tmp_path, whole).stdout)["code"] == "version"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The program of the helper; beside it what sudo starts."""
    for name, text in programs.helper_files(str(tmp_path)).items():
        (tmp_path / name).write_text(text)
    return tmp_path / f"helper_{programs.helper_version()}.py"


def compiling(program: Path) -> str:
    words = (sys.executable, "-IS", "-c", hardening.COMPILE, str(program))
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_what_sudo_starts_writes_nothing(installed: Path) -> None:
    """Its caller sets its limits: what it wrote could be cut, and would be cut for all who come after."""
    before = sorted(installed.parent.iterdir())
    assert run_helper(installed.parent, b"").returncode == 1
    assert sorted(installed.parent.iterdir()) == before


def test_the_program_is_compiled_once_and_anew_when_it_is_damaged(installed: Path) -> None:
    said = run_helper(installed.parent, b"").stderr
    compiled = Path(compiling(installed))
    assert hardening.PROGRAM.fullmatch(compiled.name) and [compiled] == list(compiled.parent.iterdir())
    whole = compiled.read_bytes()
    assert compiling(installed) == "", "it was done"
    for damaged in (b"", whole[:16], whole[:4096], whole[:-1], whole[:4096] + bytes(4096), bytes(len(whole))):
        compiled.write_bytes(damaged)
        assert compiling(installed) == str(compiled)
        assert run_helper(installed.parent, b"").stderr == said
    compiled.unlink()
    assert compiling(installed) == str(compiled)


def test_what_was_compiled_is_what_runs_as_long_as_the_text_is_the_same(installed: Path) -> None:
    compiled = Path(compiling(installed))
    known = compiled.read_bytes()
    assert b"helper is run by sudo" in known
    compiled.write_bytes(known.replace(b"helper is run by sudo", b"HELPER IS RUN BY SUDO"))
    marked = installed.read_text().replace("def helper_main(", "HELPER = 'IS'\n\n\ndef helper_main(")
    text = (
        f"import sys; sys.path.append({str(installed.parent)!r}); import {installed.stem} as it\n"
        "print(hasattr(it, 'HELPER'), 'RUN BY' in repr(it.helper_main.__code__.co_consts))\n"
    )
    words = (sys.executable, "-c", text)
    assert subprocess.run(words, capture_output=True, text=True).stdout == "False True\n"
    installed.write_text(marked)
    assert subprocess.run(words, capture_output=True, text=True).stdout == "True False\n"


@pytest.mark.parametrize("damage", [bytes.__len__, lambda whole: 4096])
def test_a_damaged_helper_says_to_harden_again(installed: Path, damage: Callable[[bytes], int]) -> None:
    compiled = Path(compiling(installed))
    whole = compiled.read_bytes()
    compiled.write_bytes(whole[: damage(whole) - 1])
    said = run_helper(installed.parent, b"").stderr.decode()
    error = message.diagnose("10.0.10.1", 1, said)
    assert error.code == "host.helper" and "`./cloud worker harden 10.0.10.1`" in error.remedy


@pytest.mark.parametrize(
    ("status", "words", "code"),
    [
        (1, "sudo: a password is required", "host.sudo"),
        (1, "sudo: a terminal is required to read the password", "host.sudo"),
        (1, "ubuntu is not in the sudoers file.", "host.sudo"),
        (1, "sudo: /usr/bin/python3: command not found", "host.python"),
        (127, "bash: line 1: /usr/bin/python3: No such file or directory", "host.python"),
        (127, "sh: 1: sudo: not found", "host.sudo"),
        (127, "", "host.python"),
        (1, "ModuleNotFoundError: No module named 'helper_0123456789abcdef'", "host.helper"),
        (1, f"{message.TOO_OLD}, this host has 3.6.8", "host.python"),
        (1, message.CUT, "host.cut"),
        (3, "what", "host.runner"),
    ],
)
def test_every_refusal_has_one_sentence_and_a_remedy(status: int, words: str, code: str) -> None:
    error = message.diagnose("10.0.10.1", status, words)
    assert error.code == code
    assert error.remedy
    assert str(error).startswith("10.0.10.1: ")


def test_an_end_without_a_status_is_a_lost_connection() -> None:
    assert isinstance(message.diagnose("h", None, ""), HostUnreachable)
