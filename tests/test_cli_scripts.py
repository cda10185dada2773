"""One-shot commands as a script meets them: bad input, no terminal, odd streams; one document, the right status."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import main
from cli import commands, documents
from cli.operation import perform
from cloudrepo.errors import CloudError, Message
from crashing import SLICE, Installation
from fakes.facade import FakeApi
from test_cli_commands import CHECKOUT
from test_cli_recovery import crash, installation, run

__all__ = ["installation"]  # the fixture

DAMAGED = "users: ["


def process(*words: str, state: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """`main.py` as a script starts it: no terminal, no input."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDREPO_")}
    environment = clean | {"CLOUDREPO_LAB_ONLY": "1", "CLOUDREPO_STATE": str(state)} | options.pop("env", {})
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(
        (sys.executable, str(CHECKOUT / "main.py"), *words),
        **(streams | options), cwd=state.parent, env=environment, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An installation whose one worker is contacted by nobody here."""
    path = tmp_path / "database.yaml"
    path.write_text("users: {}\nworkers_list: [10.0.10.1]\nslices: {}\n")
    (tmp_path / "settings.yaml").write_text("network: {node: 10.0.10.1}\n")
    return path


# ── one document, whatever becomes of the command ───────────────────────────────────────────────────────


def commands_for_programs() -> Iterator[tuple[str, ...]]:
    """Every command that has `--json`, with words for what it needs."""

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for name, one in getattr(command, "commands", {}).items():
            yield from walk(one, (*path, name))
        options = [word for one in command.params for word in one.opts]
        if "--json" in options:
            needed = [one.name for one in command.params if one.param_type_name == "argument" and one.required]
            yield (*path, *needed)

    yield from walk(typer.main.get_command(commands.tree()), ())


PROGRAMS = list(commands_for_programs())
FILES_ALONE = [
    ("topology", name, "file") for name in ("validate", "draw", "convert")
]  # no installation is needed for these


UNCONCERNED = (("events",), ("log",), ("state", "history"), ("config", "show"), ("init", "directory"))
#: What is said before the state is looked at: nobody is there to agree; that is no such word; there is no such file.
REFUSED_BEFORE = {
    ("state", "restore", "generation"): "unanswered",
    ("state", "use", "which"): "usage",
    ("topology", "plan", "file"): "system",
    ("topology", "apply"): "usage",
}


def test_the_commands_for_programs_are_found() -> None:
    names = {words[0] for words in PROGRAMS}
    expected = "deploy delete start stop resume rollback plan apply slice vm link user image state worker status exec"
    assert names >= {*expected.split(), "doctor", "drift", "events", "verify", "path", "draw", "topology"}


@pytest.mark.parametrize("words", PROGRAMS, ids=" ".join)
@pytest.mark.parametrize("trouble", ["damaged", "directory", "usage"])
def test_what_fails_leaves_one_document(
    words: tuple[str, ...], trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Also before the façade is reached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    state = tmp_path / ("none" if trouble == "directory" else "") / "database.yaml"
    if trouble != "directory":
        state.write_text(DAMAGED)
    monkeypatch.setenv("CLOUDREPO_STATE", str(state))
    status = run(*words, "--json", *(["--nonsense"] if trouble == "usage" else []))
    shown = capsys.readouterr()
    if trouble != "usage" and words in UNCONCERNED and (trouble == "damaged" or words[0] == "init"):
        assert status == 0, "these do not need what the file holds"
        return
    document = json.loads(shown.out)
    if trouble != "usage" and words in REFUSED_BEFORE:
        assert document["error"]["code"] == REFUSED_BEFORE[words]
        return
    if trouble == "damaged" and words == ("doctor", "access"):
        assert document["findings"], "it does not open the file"
        return
    assert status == (64 if trouble == "usage" else 1)
    if words in FILES_ALONE and trouble != "usage":
        assert document["error"]["code"] == "system", "the file that is named is not there"
        return
    assert (document["schema_version"], document["ok"]) == (1, False)
    assert document["error"].keys() == {"message", "code", "details", "hint"}
    assert document["error"]["code"] == ("usage" if trouble == "usage" else "state.file")
    assert document["error"]["message"] and "Traceback" not in shown.err


@pytest.mark.parametrize(("words", "asked"), [((), None), (("--all",), None), (("1000",), 1000)])
def test_verify_is_of_one_slice_or_of_all(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...], asked: int | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(installation.api, "verify", lambda slice_id=None: (False, f"asked of {slice_id}"))
    assert run("verify", *words) == 1
    assert f"asked of {asked}" in capsys.readouterr().out


def test_verify_of_one_slice_and_of_all_is_usage(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", "lab", "--all") == 64
    assert "leave one out" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("drift",), ("drift", "--fix", "--yes")])
def test_a_look_that_fails_leaves_a_document(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:  # fmt: skip
    said = Message("the bridge is gone", code="x.y", details={"a": 1}, hint="make it")
    monkeypatch.setattr(installation.api, "drift", lambda slice_id=None: (False, said))
    assert run(*words, "--json") == 1
    shown = capsys.readouterr()
    error = {"message": "the bridge is gone", "code": "x.y", "details": {"a": 1}, "hint": "make it"}
    assert json.loads(shown.out) == {"schema_version": 1, "ok": False, "command": "drift", "error": error}
    assert shown.err == "the bridge is gone\n"
    assert run(*words) == 1
    assert capsys.readouterr() == ("the bridge is gone\n", "")


def test_a_look_that_is_not_whole_says_so_in_its_document(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("drift", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] and "error" not in document
    installation.hosts["10.0.10.2"].is_up = False
    assert run("drift", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["ok"] and "10.0.10.2" in document["error"]["message"]


def test_nobody_to_ask_is_no_agreement_and_said_in_the_document(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    installation.ok("deploy_slice", "admin", SLICE)
    host = next(one for one in installation.hosts.values() if any("tap_" in name for name in one.devices))
    del host.devices[next(name for name in host.devices if name.startswith("tap_"))]
    assert run("drift", "--fix", "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "drift.refused" and "`--yes`" in error["message"]


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (CloudError("no", code="a.b"), 1, "a.b"),
        (OSError(28, "No space left on device", "/x"), 1, "system"),
    ],
)
def test_every_way_out_leaves_a_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException, status: int, code: str
) -> None:
    def end(words: object, before_write: object) -> int:
        raise raised

    monkeypatch.setattr(commands, "_run", end)
    assert run("deploy", "1", "--json") == status
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert run("deploy", "1") == status
    assert capsys.readouterr().out == ""


def test_words_of_other_programs_are_not_ours() -> None:
    wanted = [("drift", "--json"), ("state", "check", "--json"), ("lab", "status", "--json"), ("nonsense", "--json")]
    others = [
        ("lab", "exec", "x", "--json"),
        ("test", "--json"),
        ("bench", "state", "--json"),
        ("drift", "--", "--json"),
    ]
    assert all(documents.are_wanted(words) for words in wanted)
    assert not any(documents.are_wanted(words) for words in (*others, ("drift",), ()))


# ── what is given up, is given up by name ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--gone", "10.0.10.1"), "./cloud resume SLICE --gone 10.0.10.1"),
        (("--gone", "10.0.10.1", "--gone", "10.0.10.2"), "SLICE --gone 10.0.10.1 --gone 10.0.10.2"),
        (("--ended",), "./cloud resume SLICE --ended"),
        (("--list", "--ended"), "--list only looks"),
        (("1000", "--list", "--gone", "10.0.10.1"), "--list only looks"),
    ],
)
def test_giving_up_without_a_slice_is_a_usage_error(
    installation: Installation, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    crash(installation)
    assert run("resume", *words, "--json") == 64
    assert says in json.loads(capsys.readouterr().out)["error"]["message"]
    assert installation.states()[0] == "deploying"


def test_the_list_of_one_slice(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    crash(installation)
    installation.ok("create_slice", "admin", "other")
    assert run("resume", "lab", "--list", "--json") == 0
    assert [one["slice_id"] for one in json.loads(capsys.readouterr().out)["unfinished"]] == [SLICE]
    assert run("resume", "other", "--list") == 0
    assert "Nothing is unfinished." in capsys.readouterr().out
    assert run("resume", "nothing", "--list") == 1


@pytest.mark.parametrize("words", [("resume",), ("drift", "--fix", "--yes"), ("delete",), ("rollback",)])
def test_an_empty_word_does_not_mean_all(
    installation: Installation, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """`./cloud resume "$SLICE"` in a script whose variable is empty."""
    crash(installation)
    assert run(*words, "") == 64
    assert "an empty word names no slice" in capsys.readouterr().err
    assert installation.states()[0] == "deploying"


# ── Ctrl-C that comes late ──────────────────────────────────────────────────────────────────────────────


class Interrupted:
    """A façade whose operations are met by Ctrl-C at their beginning, and end as they will."""

    def __init__(self, installation: Installation, monkeypatch: pytest.MonkeyPatch, *, ok: bool) -> None:
        genuine = installation.api.resume

        def operation(username: str, slice_id: int, *, progress: Any, stop: Any, **options: Any) -> Any:
            time.sleep(0.2)  # until it is waited for
            signal.raise_signal(signal.SIGINT)  # Python hands it to the main thread
            assert stop.wait(30)
            return genuine(username, slice_id) if ok else (False, Message("stopped", code="stopped"))

        monkeypatch.setattr(installation.api, "resume", operation)
        monkeypatch.setattr(installation.api, "deploy_slice", operation)


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 130)])
def test_what_succeeds_after_a_late_ctrl_c_is_success(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ok: bool,
    status: int,
) -> None:  # fmt: skip
    crash(installation)
    Interrupted(installation, monkeypatch, ok=ok)
    assert run("resume", "1000", "--json") == status
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert (document["ok"], document["operations"][0]["ok"]) == (ok, ok)
    assert ("It was done before it could be stopped." in shown.err) is ok


def test_ctrl_c_leaves_the_slices_that_were_not_begun(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    crash(installation)
    with installation.api.db.transaction() as data:
        data["slices"]["1003"] = {**data["slices"]["1000"], "slice_id": 1003, "name": "b", "vms": [], "links": []}
    Interrupted(installation, monkeypatch, ok=True)
    assert run("resume", "--json") == 130
    document = json.loads(capsys.readouterr().out)
    assert [(one["slice_id"], one["ok"]) for one in document["operations"]] == [(1000, True)]
    assert not document["ok"] and document["error"]["message"].endswith("since you stopped it: 1003")


def test_ctrl_c_when_the_work_has_ended_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from cli import background
    from cli.screen import Screen
    from cli.screens.context import Context

    genuine, interrupts = background.Work.answer, [KeyboardInterrupt()]

    def answer(self: Any, timeout_s: float) -> Any:
        found = genuine(self, timeout_s)
        if found is not None and interrupts:
            raise interrupts.pop()
        return found

    monkeypatch.setattr(background.Work, "answer", answer)
    api = FakeApi()
    api.create_slice("ann", "one")
    ask: Any = None  # whoever asks ends the test
    result = perform(Context(api, "ann", Screen(sys.stderr), ask), "deploy", 1000)  # type: ignore[arg-type]
    assert (result.ok, result.was_stopped, interrupts) == (True, False, [])


def test_questions_of_a_command_for_programs_go_to_the_other_stream(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Interrupted(installation, monkeypatch, ok=False)
    answers = iter(["nonsense\n", "1\n"])
    monkeypatch.setattr("sys.stdin.readline", lambda: next(answers))
    assert run("deploy", "lab", "--json") == 130
    shown = capsys.readouterr()
    assert json.loads(shown.out)["operations"][0]["code"] == "stopped"
    assert "1 keep what was made" in shown.err and "Please choose 1 to 2" in shown.err


def test_leaving_is_said_and_leaves_a_document(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The input has ended, so the question what becomes of it has no answer."""
    Interrupted(installation, monkeypatch, ok=False)
    monkeypatch.setattr("sys.stdin.readline", lambda: "")
    assert run("deploy", "lab", "--json") == 130
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["code"] == "left" and "./cloud resume --list" in shown.err


# ── bad input, no terminal, odd streams ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("deploy",), 64, "Missing argument 'SLICE'"),
        (("deploy", "zz"), 1, "There is no slice zz."),
        (("stop", "99999999999999999999"), 1, "There is no slice 99999999999999999999."),
        (("rollback", "-1"), 64, "No such option"),
        (("drift", "zz"), 1, "There is no slice zz."),
        (("drift",), 1, "10.0.10.1: not contacted: only the lab is allowed here"),
        (("drift", "--fix", "--yes"), 1, "no other difference on the hosts that could be looked at"),
        (("cleanup", "--host", "zz"), 1, "is no host of this cluster"),
        (("cleanup", "--yes"), 1, "only the lab is allowed here"),
        (("cleanup", "zz"), 64, "unexpected extra argument"),
        (("console",), 64, "Missing argument 'VM'"),
        (("vnc", "zz"), 1, "There is no VM zz"),
        (("restart-policy", "zz"), 64, "Missing argument 'POLICY'"),
        (("restart-policy", "zz", "always"), 1, "There is no VM zz"),
        (("events", "-n", "x"), 64, "a whole number of 0 or more is needed; found 'x'"),
        (("log", "-n", "-1"), 64, "a whole number of 0 or more is needed; found '-1'"),
        (("exec", "vm1", "--timeout", "soon", "--", "true"), 64, "a number from 0.1 to 86400 is needed; found 'soon'"),
        (("status", "zz"), 64, "unexpected extra argument"),
        (("init",), 64, "Missing argument 'DIR'"),
        (("init", "/dev/null/x"), 1, "cannot be made into an installation"),
        (("worker", "add", "zz"), 1, "named by its IP address"),
        (("worker", "trust", "worker1"), 1, "A worker is named by its IP address"),
        (("worker", "trust", "10.0.10.1"), 1, "not contacted"),
        (("state", "restore", "99", "--yes"), 1, "there is no generation 99"),
        (("state", "restore", "backup"), 1, "Not done: the input ended where a question was asked"),
        (("state", "use", "zz"), 64, "neither `yaml` nor `journal`"),
        (("state", "use", "yaml", "--yes"), 1, "has no journal"),
        (("state", "export", "/dev/null/x"), 1, "cannot be written"),
        (("state", "rebuild"), 1, "the records are not rebuilt"),
        (("monitor", "--nonsense"), 64, "No such option"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
)
def test_bad_input_is_one_sentence_and_the_right_status(
    words: tuple[str, ...], status: int, says: str, state: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("CLOUDREPO_STATE", str(state))
    monkeypatch.setenv("CLOUDREPO_LAB_ONLY", "1")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main.main(words) == status
    shown = capsys.readouterr()
    said = " ".join((shown.out + shown.err).replace("│", " ").split())
    assert says in said and "Traceback" not in said


def test_a_host_that_shows_no_key_keeps_its_pin(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else its next contact would pin whatever stands there."""
    monkeypatch.setenv("CLOUDREPO_STATE", str(state))
    monkeypatch.setenv("CLOUDREPO_LAB_ONLY", "1")
    pins = state.parent / "known_hosts"
    lines = "10.0.10.9 ssh-ed25519 AAAA\n10.0.10.1 ssh-ed25519 BBBB\n10.0.10.1 ssh-rsa CCCC\n"
    pins.write_text(lines)
    assert main.main(["worker", "trust", "10.0.10.1", "--yes"]) == 1
    shown = capsys.readouterr()
    assert "not contacted" in shown.out + shown.err and "ssh-ed25519 SHA256:" in shown.out
    assert pins.read_text() == lines


@pytest.mark.parametrize(("words", "name"), [(("events",), "events.jsonl"), (("log",), "cloudrepo.log")])
def test_a_file_of_another_kind_is_one_sentence(words: tuple[str, ...], name: str, state: Path) -> None:
    (state.parent / name).mkdir()
    done = process(*words, state=state)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{state.parent / name}: Is a directory\n")


@pytest.mark.parametrize("words", [("events",), ("events", "--follow"), ("log",), ("state", "history")])
def test_a_folder_that_is_not_there_is_named(words: tuple[str, ...], state: Path) -> None:
    done = process(*words, state=state, env={"CLOUDREPO_STATE": f"{state.parent}/typo/database.yaml"})
    assert done.returncode == 1 and f"There is no directory {state.parent}/typo." in done.stdout


def test_streams_that_are_closed_full_or_narrow(state: Path) -> None:
    shell = f"exec {sys.executable} {CHECKOUT}/main.py"
    for line, status in (("status <&- >&- 2>&-", 0), ("drift --json >&-", 1), ("worker trust 10.0.10.1 <&-", 1)):
        done = subprocess.run(
            ("sh", "-c", f"{shell} {line}"), capture_output=True, text=True, timeout=60, check=False,
            env=os.environ | {"CLOUDREPO_STATE": str(state), "CLOUDREPO_LAB_ONLY": "1"},
        )  # fmt: skip
        assert done.returncode == status and "Traceback" not in done.stderr, (line, done.stderr)
    with open("/dev/full", "w") as full:
        for words in (("state", "check"), ("state", "check", "--json"), ("--help",)):
            done = process(*words, state=state, stdout=full)
            assert done.returncode == 1 and "No space left on device" in done.stderr and "Trace" not in done.stderr
    done = process("deploy", "señal…", state=state, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (1, "There is no slice se\\xf1al....\n")


def test_a_python_without_our_packages_is_one_sentence(state: Path) -> None:
    done = subprocess.run(
        (sys.executable, "-S", str(CHECKOUT / "main.py"), "status"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "The Python package typer is missing. `./cloud` makes an environment" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_sigterm_in_a_command_for_programs_leaves_a_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(words: object, before_write: object) -> int:
        raise SystemExit(143)

    monkeypatch.setattr(commands, "_run", end)
    with pytest.raises(SystemExit):
        run("deploy", "1", "--json")
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "terminated"
