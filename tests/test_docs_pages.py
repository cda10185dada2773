"""The pages for students, teachers, operators and programmers: what they say to type can be typed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import orchestrator_api
from database import Database
from doc_pages import Desk, Page, understood
from menu_terminal import menu
from test_cli_schemas import schemas

PAGES = tuple(
    map(Page, ("../README.md", "for-students.md", "for-teachers.md", "for-operators.md", "api.md", "commands.md"))
)
BLOCKS = [(page, block) for page in PAGES for block in page.blocks()]
SHOWN = [(page, line) for page in PAGES for line in page.shown()]


def _name(of: object) -> str:
    return of.name if isinstance(of, Page) else str(of).splitlines()[0]


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=_name)
def test_a_block_runs_from_its_first_line_to_its_last(
    page: Page, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path, monkeypatch)
    for line in block.splitlines():
        status, promised = desk.type(line)
        assert status == promised, (line, capsys.readouterr())


@pytest.mark.parametrize(("page", "line"), SHOWN, ids=_name)
def test_what_is_shown_is_understood(page: Page, line: str) -> None:
    assert understood(line)


@pytest.mark.parametrize("block", Page("api.md").blocks("python"))
def test_a_program_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path, monkeypatch)
    monkeypatch.setattr(orchestrator_api, "build", lambda _path: desk.made.api)
    program = tmp_path / "program.py"
    program.write_text(block)
    runpy.run_path(str(program))


@pytest.mark.parametrize("block", Page("for-students.md").blocks("menu"))
def test_what_a_student_types_in_the_menu_makes_a_lab_that_runs(block: str, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    with menu(tmp_path) as terminal:
        terminal.log_in("ann")
        for line in block.splitlines():
            prompt, _, words = line.partition(": ")
            terminal.answer(f"{prompt}:", words)
        terminal.shows("Slice deployed successfully")
    (made,) = Database(tmp_path / "database.yaml").data["slices"].values()
    assert (made["name"], made["status"], len(made["vms"]), len(made["links"])) == ("my ring", "running", 5, 5)


def test_the_commands_of_the_pages_are_found() -> None:
    assert len(BLOCKS) >= 7 and len(SHOWN) >= 25
    assert {page.name for page, _line in SHOWN} >= {"for-teachers.md", "for-operators.md", "commands.md"}


def test_the_keys_that_are_listed_are_in_the_schemas() -> None:
    rows = re.findall(r"^\| (`[^|]*`(?:, `[^|]*`)*) \| `", Page("commands.md").text, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z][a-z ]*[a-z])`", row)}
    assert named & set(schemas()["commands"]) >= {"slice list", "vm add", "link set", "deploy", "exec", "config show"}
