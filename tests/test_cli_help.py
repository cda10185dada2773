"""Help that begins with examples which work, options that are variables too, completion of names, and `config show`."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cli import assembly, commands, completion, examples, help
from cli.installation import STATE_VARIABLE
from cloudrepo.setting_values import env_name
from cloudrepo.settings import rows
from crashing import Installation
from lab.cli import app as lab_app
from test_cli_commands import CHECKOUT
from test_cli_recovery import installation, run

__all__ = ["installation"]  # the fixture

OF_OTHERS = ("test", "bench", "lab")  # their words are other programs'


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that name it."""
    for name, one in getattr(command, "commands", {}).items():
        yield from leaves(one, (*path, name))
    if path and getattr(command, "invoke_without_command", True) and path[0] not in OF_OTHERS:
        yield path, command


EVERY = dict(leaves(assembly.whole(commands.tree())))


def test_every_command_has_examples_and_no_example_is_of_none() -> None:
    assert {" ".join(path) for path in EVERY} == set(examples.EXAMPLES) - {""}


def test_what_is_said_to_be_in_another_module_is_there() -> None:
    """Or `./cloud WORD` would load a module that has no such command, and say that there is none."""
    found = {module: tuple(assembly.names(importlib.import_module(module).app)) for module in commands.BESIDE}
    assert found == commands.BESIDE
    everything = [name for module in commands.BESIDE.values() for name in module] + list(commands.GROUPS)
    assert len(everything) == len(set(everything))
    for word in (*everything, "status"):
        assert assembly.place(commands.tree([word]), [word])[1] == [word]
    assert assembly.names(commands.tree(["status"])) == assembly.names(commands.app)
    assert set(assembly.names(commands.tree(["stauts"]))) == {*assembly.names(commands.app), *everything}


@pytest.mark.parametrize("line", [line for lines in examples.EXAMPLES.values() for line in lines])
def test_an_example_is_a_command_line_that_is_understood(line: str) -> None:
    words = shlex.split(line)
    if words[0] == "lab":
        command, path, rest = typer.main.get_command(lab_app), [words[1]], words[1:]
    else:
        command, path, rest = assembly.chosen(commands.tree(), words)
    assert path, f"{line} names no command"
    with command.make_context("cloud", list(rest)):
        pass  # or it raises what is wrong with it


@pytest.mark.parametrize("words", [("vm", "add"), ("vm",), ("doctor",), ()], ids=" ".join)
def test_help_begins_with_examples(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words, "--help") == 0
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert first == "Examples:" and second == f"  ./cloud {examples.of(words)[0]}"
    assert any("Usage: cloud" in line for line in rest)


def test_every_command_stands_in_the_help_once_with_its_first_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    named = [name for names in help.SUBJECTS.values() for name in names]
    assert sorted(named) == sorted(assembly.names(commands.tree()))
    assert run("--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name in named:
        assert f" {name} " in shown
    assert "drift Compare every object on every host with the records; status 2 when they differ." in shown
    assert "…" not in shown and "..." not in shown.replace("[ARGS]...", ""), "nothing is cut off"


def test_no_words_are_answered_by_the_help_and_wrong_ones_by_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("vm") == 64
    out, err = capsys.readouterr()
    assert out.startswith("Examples:\n  ./cloud vm add lab web\n") and "\nCommands:\n  add     Add a VM" in out
    assert err == ""
    assert run("vm", "add", "--nonsense") == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: cloud vm add ") and "\n\nError: No such option: --nonsense" in err


# ── variables ───────────────────────────────────────────────────────────────────────────────────────────


def variables() -> Iterator[tuple[str, str, str]]:
    """Each option of each command: command, option, variable."""
    for path, command in EVERY.items():
        for one in command.params:
            if one.param_type_name == "option" and not one.hidden:
                yield " ".join(path), one.opts[0], one.envvar


def test_every_option_is_a_variable_too_and_none_is_a_settings() -> None:
    settings = {env_name(row.key) for row in rows()}
    groups = {row.key.partition(".")[0] for row in rows()}
    by_variable: dict[str, set[str]] = {}
    for command, option, variable in variables():
        assert variable and variable.startswith("CLOUDREPO_"), (command, option)
        assert variable not in settings, (command, option, variable)
        # or reading the settings would refuse it as a setting that does not exist
        assert variable.removeprefix("CLOUDREPO_").partition("_")[0].lower() not in groups, (command, variable)
        by_variable.setdefault(variable, set()).add(option if not variable.startswith("CLOUDREPO_CMD_") else command)
    assert {variable: found for variable, found in by_variable.items() if len(found) > 1} == {}
    assert by_variable["CLOUDREPO_STATE"] == {"--state"} and "CLOUDREPO_QUIET" in by_variable


def test_every_command_has_state_and_quiet() -> None:
    for path, command in EVERY.items():
        options = {word for one in command.params for word in one.opts}
        assert {"--state", "--quiet"} <= options or path in (("menu",), ("doctor", "access")), path


def test_variables_say_what_options_say(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLOUDREPO_JSON", "1")
    assert run("slice", "list") == 0
    assert json.loads(capsys.readouterr().out)["slices"][0]["name"] == "lab"
    assert run("slice", "list", "--nonsense") == 64
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"
    monkeypatch.setenv("CLOUDREPO_AS", "student")
    assert run("slice", "create", "two") == 0
    assert json.loads(capsys.readouterr().out)["slice"]["owner"] == "student"
    assert run("deploy", "1000") == 1
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "Not authorized"
    assert run("deploy", "1000", "--as", "admin", "--dry-run") == 2
    capsys.readouterr()
    monkeypatch.setenv("CLOUDREPO_JSON", "0")
    monkeypatch.setenv("CLOUDREPO_CMD_VM_ADD_INTERFACES", "3")
    monkeypatch.setenv("CLOUDREPO_QUIET", "true")
    assert run("vm", "add", "two", "web") == 0
    assert capsys.readouterr() == ("1004\n", "")
    record = installation.api.db.get_slice(1003)
    assert record is not None and len(record["vms"][0]["interfaces"]) == 4


def test_the_state_file_on_the_command_line_counts_more_than_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        assert run("init", str(tmp_path / name)) == 0
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "one" / "database.yaml"))
    other = str(tmp_path / "two" / "database.yaml")
    for words in (("--state", other), (f"--state={other}",)):
        capsys.readouterr()
        assert run("slice", "create", "lab", *words, "--json") == 0
        assert json.loads(capsys.readouterr().out)["ok"]
        assert os.environ[STATE_VARIABLE] == str(tmp_path / "one" / "database.yaml")
    assert run("slice", "list", "-q") == 0
    assert capsys.readouterr().out == ""
    assert run("--state", other, "slice", "list", "-q") == 0
    assert capsys.readouterr().out == "1000\n1001\n"
    assert run("slice", "list", "--state", str(tmp_path / "nowhere" / "x.yaml")) == 1


# ── names, ids, and what a script goes on with ──────────────────────────────────────────────────────────


def test_quiet_says_ids_and_errors_alone(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    for words, out in (
        (("slice", "create", "two"), "1003\n"),
        (("vm", "add", "two", "a"), "1004\n"),
        (("vm", "add", "two", "b"), "1005\n"),
        (("link", "add", "two", "a:eth1", "b:eth1"), "1\n"),
        (("vm", "list"), "1001\n1002\n1004\n1005\n"),
        (("vm", "list", "two"), "1004\n1005\n"),
        (("slice", "list"), "1000\n1003\n"),
        (("deploy", "two"), "1003\n"),
        (("status", "--no-wait"), "1000\n1003\n"),
        (("user", "list"), "admin\nstudent\n"),
        (("drift",), ""),
    ):
        assert run(*words, "--quiet") == 0, words
        assert capsys.readouterr() == (out, ""), words
    assert run("deploy", "nothing", "-q") == 1
    assert capsys.readouterr() == ("", "There is no slice nothing.\n")


def test_a_name_of_two_lists_both_and_does_nothing(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    installation.ok("create_slice", "student", "lab")
    installation.ok("add_vm_to_slice", "student", 1003, "vm1", "cirros", 1)
    before = installation.record()
    assert run("slice", "remove", "lab", "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "slice.many" and "1000 is admin's (design); 1003 is student's (design)" in error["message"]
    assert [one["slice_id"] for one in error["details"]["found"]] == [1000, 1003]
    assert run("vm", "remove", "vm1", "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "vm.many" and [one["vm_id"] for one in error["details"]["found"]] == [1001, 1004]
    for words in (("console", "vm1"), ("exec", "vm1", "--", "true"), ("path", "vm1:eth1", "vm2:eth1")):
        assert run(*words) == 1
        assert "Several VMs are called vm1: 1001, 1004" in capsys.readouterr().out
    assert installation.record() == before
    assert run("vm", "show", "vm1", "--as", "student", "--json") == 0, "of several with one name one's own is meant"
    assert json.loads(capsys.readouterr().out)["vm"]["vm_id"] == 1004
    assert run("vm", "show", "1000/vm1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["vm"]["vm_id"] == 1001


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("deploy", "labb"), "There is no slice labb. The nearest is lab."),
        (("vm", "show", "vm7"), "There is no VM vm7. The nearest is vm"),
        (("vm", "show", "lab/vm"), "There is no VM lab/vm. The nearest is vm"),
        (("vm", "show", "other/vm1"), "There is no VM other/vm1.\n"),
        (("deploy", "nothing"), "There is no slice nothing.\n"),
        (("link", "remove", "two", "1"), "there is no link 1 in slice 1003: it has none"),
    ],
)
def test_a_name_that_is_not_there_is_told_the_nearest(
    installation: Installation, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    installation.ok("create_slice", "admin", "two")
    assert run(*words) == 1
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("lab/vm1:eth1", "vm2:eth1"), ("1001:eth1", "1002:eth1")),
        (("1001:eth1", "gateway"), ("1001:eth1", "gateway")),
        (("vm1:eth1", "1000/vm2:eth1"), ("1001:eth1", "1002:eth1")),
        (("other/vm2:eth1", "vm2:eth1"), ("1004:eth1", "1004:eth1")),
        (("vm1:eth1", "other/vm2:eth1"), ("1001:eth1", "1004:eth1")),
    ],
)
def test_both_ends_of_a_way_are_named_as_all_vms_are(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], asked: tuple[str, ...]
) -> None:
    """Of a name that two slices have, that of the slice is meant where the way begins."""
    installation.ok("create_slice", "admin", "other")
    installation.ok("add_vm_to_slice", "admin", 1003, "vm2", "cirros", 1)
    told: list[Any] = []

    def path(*given: Any) -> tuple[bool, str]:
        told.append(given)
        return False, "no"

    monkeypatch.setattr(installation.api, "path", path)
    assert run("path", *words) == 1
    assert told == [("admin", *asked)]


@pytest.mark.parametrize("words", [("status", "--no-wait"), ("slice", "list"), ("deploy", "lab"), ("state", "check")])
def test_a_state_file_of_a_newer_version_is_refused_untouched(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "database.yaml"
    path.write_text("schema_version: 99\nusers: {}\nworkers_list: []\nslices: {}\n...\n")
    monkeypatch.setenv(STATE_VARIABLE, str(path))
    before = path.read_bytes()
    assert run(*words, "--json") == 1
    assert "newer version" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert path.read_bytes() == before and [one.name for one in tmp_path.glob("*.backup")] == []


# ── completion ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("sli", ["slice"]),
        ("slice ", ["create", "list", "remove", "show"]),
        ("deploy ", ["1003", "lab"]),
        ("deploy l", ["lab"]),
        ("deploy lab ", []),
        ("console ", ["vm1", "vm2"]),
        ("link add lab v", ["vm1:eth0", "vm1:eth1", "vm2:eth0", "vm2:eth1"]),
        ("link add lab vm1:eth1 vm2:e", ["vm2:eth0", "vm2:eth1"]),
        ("link remove lab ", ["1"]),
        ("slice list --as ", ["admin", "student"]),
        ("slice list --as s", ["student"]),
        ("vm add lab x --flavor ", ["cirros", "ubuntu"]),
        ("restart-policy vm1 on", ["on-failure"]),
        ("worker trust 10.0.10.2", ["10.0.10.2"]),
        ("deploy lab --dr", ["--dry-run"]),
        ("exec vm1 -- ", []),
        ("nonsense ", []),
    ],
)
def test_commands_options_and_names_are_completed(installation: Installation, line: str, found: list[str]) -> None:
    """A slice whose name needs quotes is offered by its id."""
    installation.ok("create_slice", "admin", "net lab; rm")
    words = line.split(" ")
    assert completion.candidates(commands.tree(), words) == found


def test_completion_makes_no_file_and_says_nothing_of_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "database.yaml"))
    assert run("__complete", "deploy", "") == 0
    (tmp_path / "database.yaml").write_text("users: [")
    assert run("__complete", "deploy", "") == 0
    assert capsys.readouterr() == ("", "")
    assert [one.name for one in tmp_path.iterdir() if "lock" not in one.name] == ["database.yaml"]


BASH = """
eval "$(./cloud completion bash)"
COMP_LINE=$1 COMP_POINT=${#1}
_cloud_complete
printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_bash_completes_what_stands_before_the_cursor(installation: Installation, tmp_path: Path) -> None:
    """With a stand-in for the program that says what it was asked: the rest is tested above."""
    cloud = tmp_path / "cloud"
    answer = f'printf "%s\\n" web:eth1 web:eth2 "$#:$*" >>{tmp_path}/asked; printf "%s\\n" web:eth1 web:eth2'
    genuine = f'PYTHONPATH={CHECKOUT} exec {CHECKOUT}/cloud "$@"'
    cloud.write_text(f"#!/bin/bash\nif [[ $1 == __complete ]]; then {answer}; else {genuine}; fi\n")
    cloud.chmod(0o755)

    def completed(line: str) -> list[str]:
        words = ("bash", "--norc", "-c", BASH, "bash", line)
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == ""
        return done.stdout.splitlines()

    assert completed("./cloud link add lab we") == ["web:eth1", "web:eth2"]
    assert completed("./cloud link add lab web:e") == ["eth1", "eth2"], "bash takes the colon for the end of a word"
    completed("./cloud deploy ")
    asked = [line for line in (tmp_path / "asked").read_text().splitlines() if "complete" in line]
    assert asked == ["5:__complete link add lab we", "5:__complete link add lab web:e", "3:__complete deploy "]


@pytest.mark.parametrize("shell", completion.SCRIPTS)
def test_each_shells_script_asks_for_the_words(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("completion", shell) == 0
    assert " __complete " in capsys.readouterr().out
    assert run("completion", "tcsh") == 64


# ── config show ─────────────────────────────────────────────────────────────────────────────────────────


def test_who_gave_each_setting_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.yaml").write_text("ssh: {user: ann, port: 2222}\n")
    monkeypatch.setenv("CLOUDREPO_SSH_PORT", "2223")
    state = str(tmp_path / "database.yaml")
    assert run("config", "show", "--state", state, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    by_key = {one["key"]: (one["value"], one["origin"], one["where"]) for one in document["settings"]}
    assert by_key["ssh.user"] == ("ann", "file", f"{tmp_path / 'settings.yaml'} line 1")
    assert by_key["ssh.port"] == (2223, "environment", "CLOUDREPO_SSH_PORT")
    assert by_key["ssh.host_keys"] == ("accept-new", "default", "")
    assert set(by_key) == {row.key for row in rows()}
    assert {one["key"]: one["origin"] for one in document["options"]} == {
        "--state": "flag",
        "--json": "flag",
        "--quiet": "default",
    }
    monkeypatch.setenv(STATE_VARIABLE, state)
    assert run("config", "show", "ssh", "--origin") == 0
    shown = capsys.readouterr().out
    assert "ssh.port: 2223  (CLOUDREPO_SSH_PORT)" in shown and "ssh.host_keys: accept-new  (default)" in shown
    assert "vnc." not in shown
    assert run("config", "show", "nonsense", "--json") == 1
    assert not (tmp_path / "database.yaml").exists()
