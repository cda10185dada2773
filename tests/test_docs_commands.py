"""The commands in docs/commands.md: what is in its blocks runs, what is only shown is at least understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from cli import assembly, commands
from cli.installation import Installation as Opened
from cloudrepo.settings import Settings
from crashing import Installation
from test_cli_commands import CHECKOUT
from test_cli_recovery import run
from test_cli_schemas import schemas

TEXT = (CHECKOUT / "docs" / "commands.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
OTHERWISE = re.compile(r" \|\| test \$\? = (\d+)$")
SHOWN = re.findall(r"^    \./cloud (exec .*?)(?: < .*)?$", TEXT, flags=re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs_from_its_first_line_to_its_last(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Installation(tmp_path)

    def opened(before_write: Any) -> Opened:
        return Opened(made.state, made.api.db, Settings.of({}), made.api)

    monkeypatch.setattr(Opened, "open", opened)
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        other = OTHERWISE.search(line)
        words = shlex.split(OTHERWISE.sub("", line))
        assert words[0] == "./cloud"
        more = ["--no-wait"] if words[1:] == ["status"] else []  # nobody is there to be asked
        status = run(*words[1:], *more)
        assert status == (int(other[1]) if other else 0), (line, capsys.readouterr())


@pytest.mark.parametrize("line", SHOWN)
def test_what_is_shown_is_understood(line: str) -> None:
    command, path, rest = assembly.chosen(commands.app, shlex.split(line))
    assert path == ["exec"]
    with command.make_context("cloud", rest) as context:
        assert context.params["command"]


def test_blocks_and_lines_are_found_and_the_keys_that_are_listed_are_in_the_schemas() -> None:
    assert len(BLOCKS) >= 2 and len(SHOWN) == 3
    rows = re.findall(r"^\| (`[^|]*`(?:, `[^|]*`)*) \| `", TEXT, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z][a-z ]*[a-z])`", row)}
    assert named & set(schemas()["commands"]) >= {"slice list", "vm add", "link set", "deploy", "exec", "config show"}
