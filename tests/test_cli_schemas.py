"""What commands write for programs: each document of each command against its published schema."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer

from cli import assembly, commands
from cli.installation import STATE_VARIABLE
from crashing import SLICE, Installation
from lab.cli import app as lab_app
from test_cli_commands import CHECKOUT
from test_cli_recovery import crash, installation, run
from test_cli_scripts import PROGRAMS

__all__ = ["installation"]  # the fixture

SCHEMAS = CHECKOUT / "docs" / "schemas" / "commands.json"


Validator = jsonschema.Draft202012Validator


@functools.cache
def schemas() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SCHEMAS.read_text())
    Validator.check_schema({"$schema": found["$schema"], "$defs": {**found["$defs"], **found["commands"]}})
    return found


@functools.cache
def validator(command: str) -> jsonschema.Draft202012Validator:
    """Holds documents against the schema of one command."""
    of = schemas()
    chosen = {"$schema": of["$schema"], "$defs": of["$defs"], **of["commands"][command]}
    return Validator(chosen, format_checker=jsonschema.FormatChecker())


def document(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What was written: one document that its schema allows."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    problems = list(validator(command).iter_errors(found))
    texts = [f"{list(one.absolute_path)}: {one.message}" for one in problems]
    assert not problems, (command, jsonschema.exceptions.best_match(problems), texts, json.dumps(found)[:2000])
    return found


#: Commands without a document, and why.
NO_DOCUMENT = {
    "menu": "a person's",
    "console": "a person's: the guest's own bytes, both ways",
    "monitor": "a service; `events --follow --json` has what it does",
    "demo": "a show for a person",
    "test": "its words are pytest's",
    "bench": "its words are the bench's",
    "lint": "other programs, whose output is handed on",
    "lab exec": "its words are another program's",
    "lab host": "its words are another program's",
    "completion": "a script for a shell",
    "topology schema": "it is a document of its own: the JSON schema of topology files",
}


def every_command() -> Iterator[tuple[str, Any]]:
    """Each command by its name, those of the lab too; a group that does something by itself is one."""

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        below = getattr(command, "commands", None)
        if path and (below is None or command.invoke_without_command):
            yield " ".join(path), command
        for name, one in (below or {}).items():
            if (*path, name) != ("lab",):
                yield from walk(one, (*path, name))

    yield from walk(assembly.whole(commands.tree()), ())
    yield from walk(typer.main.get_command(lab_app), ("lab",))


def test_every_command_has_a_document_and_a_schema_or_a_reason() -> None:
    found = {name: [word for one in command.params for word in one.opts] for name, command in every_command()}
    assert {name for name, options in found.items() if "--json" not in options} == set(NO_DOCUMENT)
    assert found.keys() - set(NO_DOCUMENT) == set(schemas()["commands"])
    assert len(found) > 60 and all(" ".join(words).startswith(tuple(found)) for words in PROGRAMS)


def test_json_by_the_variable_is_json_of_every_command() -> None:
    """Else an error would come as a document, and the answer not."""
    for name, command in every_command():
        for one in command.params:
            if "--json" in one.opts:
                assert one.envvar == "CLOUDREPO_JSON", name


#: In this order, on slice `lab` of two VMs and a link: command, further words, exit status.
STORY: tuple[tuple[str, str, int], ...] = (
    ("status", "--no-wait", 0),
    ("slice list", "", 0),
    ("slice show", "lab", 0),
    ("slice show", "nowhere", 1),
    ("vm list", "", 0),
    ("vm list", "lab --as admin", 0),
    ("vm show", "vm1", 0),
    ("vm show", "lab/vm1", 0),
    ("vm show", "vm9", 1),
    ("link list", "lab", 0),
    ("slice create", "two --dry-run", 2),
    ("slice create", "two --as student", 0),
    ("vm add", "two web --dry-run", 2),
    ("vm add", "two web --interfaces 2 --internet", 0),
    ("vm add", "two web", 1),
    ("vm add", "two db", 0),
    ("link add", "two web:eth1 db:eth1 --dry-run", 2),
    ("link add", "two web:eth1 db:eth1 --no-dhcp", 0),
    ("link set", "two 1 --spoofing allowed --dry-run", 2),
    ("link set", "two 1 --spoofing allowed", 0),
    ("link set", "two 1 --spoofing allowed --dry-run", 0),
    ("link remove", "two 1 --dry-run", 2),
    ("link remove", "two 1", 0),
    ("link remove", "two 1 --dry-run", 1),
    ("state export", "", 0),
    ("vm remove", "db --dry-run", 2),
    ("vm remove", "db", 0),
    ("slice list", "--as student", 0),
    ("deploy", "lab --dry-run", 2),
    ("plan", "lab", 2),
    ("deploy", "lab", 0),
    ("deploy", "lab", 1),
    ("link remove", "lab 1 --dry-run", 2),
    ("link set", "lab 1 --no-dhcp --dry-run", 2),
    ("vm stop", "vm2 --dry-run", 2),
    ("vm stop", "vm2", 0),
    ("vm start", "vm2 --dry-run", 2),
    ("vm start", "vm2", 0),
    ("drift", "", 0),
    ("drift", "--fix --yes", 0),
    ("status", "--no-wait", 0),
    ("restart-policy", "vm1 always", 0),
    ("restart-policy", "1001 default", 0),
    ("restart-policy", "vm1 sometimes", 1),
    ("cleanup", "--dry-run", 2),
    ("stop", "lab --dry-run", 2),
    ("stop", "lab", 0),
    ("plan", "lab --action delete", 2),
    ("start", "lab", 0),
    ("resume", "--list", 0),
    ("resume", "", 0),
    ("rollback", "lab", 1),
    ("delete", "lab", 0),
    ("slice remove", "two --dry-run", 2),
    ("slice remove", "two", 0),
    ("cleanup", "", 0),
    ("config show", "ssh", 0),
    ("user list", "", 0),
    ("user add", "ann --generate --vms 2", 0),
    ("user quota", "ann --cores 4", 0),
    ("user role", "ann instructor", 0),
    ("user passwd", "ann --generate", 0),
    ("user remove", "ann", 0),
    ("user remove", "ann", 1),
    ("image list", "", 0),
    ("image remove", "nothing", 1),
    ("state check", "", 0),
    ("state history", "", 0),
    ("state rebuild", "--force", 1),
    ("worker drain", "10.0.10.1", 0),
    ("worker list", "", 0),
    ("worker drain", "10.0.10.1 --undo", 0),
    ("worker drain", "10.9.9.9", 1),
    ("worker remove", "10.9.9.9 --yes", 1),
    ("verify", "", 2),
)


def test_documents_are_as_their_schemas_say_from_design_to_delete(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, words, status in STORY:
        given = [*command.split(), *words.split()]
        assert run(*given, "--json") == status, (given, capsys.readouterr())
        found = document(command, capsys)
        assert found["ok"] == (status in (0, 2)) or command in ("status",), found


@pytest.mark.parametrize("words", PROGRAMS, ids=" ".join)
def test_a_document_of_a_failure_is_as_its_schema_says(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each command: a word too many."""
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "database.yaml"))
    assert run(*words, "--json", "--no-such-option") == 64
    command = next(name for name in schemas()["commands"] if " ".join(words).startswith(name) and _ends(name, words))
    assert document(command, capsys)["error"]["code"] == "usage"


def _ends(name: str, words: tuple[str, ...]) -> bool:
    return list(words[: len(name.split())]) == name.split()


def test_what_is_unfinished_is_as_its_schema_says(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    crash(installation)
    assert run("resume", "--list", "--json") == 0
    (one,) = document("resume", capsys)["unfinished"]
    assert one["slice_id"] == SLICE


def test_an_event_is_as_its_schema_says(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("deploy", "lab") == 0
    capsys.readouterr()
    assert run("events", "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3
    for line in lines:
        validator("events").validate(json.loads(line))


def test_a_schema_refuses_a_document_with_another_key() -> None:
    """Or none of the tests above could fail."""
    good = {"schema_version": 1, "ok": True, "command": "vm", "slice_id": 1, "vm_id": 2, "name": "a", "message": "x"}
    validator("vm stop").validate(good)
    for bad in (good | {"more": 1}, good | {"vm_id": "2"}, {key: good[key] for key in good if key != "vm_id"}):
        with pytest.raises(jsonschema.ValidationError):
            validator("vm stop").validate(bad)
