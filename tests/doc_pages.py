"""Pages for people: blocks marked `bash` are run on hosts in memory, lines that are only shown are understood."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli import assembly, commands
from cli.installation import Installation as Opened
from cloudrepo.settings import Settings
from crashing import Installation
from test_cli_commands import CHECKOUT
from test_cli_recovery import run

OTHERWISE = re.compile(r" \|\| test \$\? = (\d+)$")


@dataclass(frozen=True)
class Page:
    """One page of docs/."""

    name: str

    @property
    def text(self) -> str:
        """What is in it."""
        return (CHECKOUT / "docs" / self.name).read_text(encoding="utf-8")

    def blocks(self, language: str = "bash") -> list[str]:
        """Its blocks in a language."""
        return re.findall(rf"^```{language}\n(.*?)^```", self.text, flags=re.MULTILINE | re.DOTALL)

    def shown(self) -> list[str]:
        """The commands that are only shown, without `./cloud`, redirections and remarks."""
        return re.findall(r"^    \./cloud (.*?)(?: +#.*| [<>] \S+| \| source)?$", self.text, flags=re.MULTILINE)


class Desk:
    """Where somebody types the commands of a page: an installation in memory, and the examples beside it.

    Args:
        folder: the working directory.
        patch: of the test.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.made = Installation(folder)
        shutil.copytree(CHECKOUT / "examples", folder / "examples")
        patch.setattr(Opened, "open", self._opened)
        patch.chdir(folder)

    def _opened(self, before_write: Any) -> Opened:
        return Opened(self.made.state, self.made.api.db, Settings.of({}), self.made.api)

    def type(self, line: str) -> tuple[int, int]:
        """Run one line of a page; its exit status, and the one that the page promises."""
        other = OTHERWISE.search(line)
        words = shlex.split(OTHERWISE.sub("", line))
        assert words[0] == "./cloud", line
        more = ["--no-wait"] if words[1:] == ["status"] else []  # nobody is there to be asked
        return run(*words[1:], *more), int(other[1]) if other else 0


def understood(line: str) -> list[str]:
    """The path of the command that a shown line means, such as `["vm", "add"]`.

    Raises:
        typer.BadParameter: its words do not fit.
    """
    command, path, rest = assembly.chosen(commands.tree(), shlex.split(line))
    with command.make_context("cloud", rest):
        return list(path)
