"""What every one-shot command does around its call: the installation, who is told what, the document at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from cli import documents
from cli.documents import NotDone
from cli.installation import Installation
from cli.options import QUIET_KEY
from cli.screen import Piece, QuietScreen, Screen

if TYPE_CHECKING:
    from cli.ask import Ask
    from orchestrator_api import OrchestratorAPI


def is_quiet(context: typer.Context) -> bool:
    """Whether `--quiet` was given to the command."""
    return bool(context.find_root().meta.get(QUIET_KEY))


def talk(context: typer.Context, *, as_json: bool = False) -> Screen:
    """Where a command says what it did: stdout; stderr beside a document; nowhere but for errors with `--quiet`."""
    if is_quiet(context):
        return QuietScreen(sys.stderr)
    return Screen(sys.stderr if as_json else None)


def questions(*, aside: bool = False) -> Ask:
    """Who asks a person; aside = on stderr, where stdout is for a program."""
    from cli.ask import Ask
    from cli.keyboard import TerminalKeyboard, ask_aside

    return ask_aside(sys.stderr) if aside else Ask(TerminalKeyboard())


class Work:
    """One command under way.

    Args:
        context: typer's.
        name: what the document says as `command`.
        as_json: whether a document is wanted.
        reminds: whether it says what is left of processes that ended.

    Attributes:
        installation: the one it is about.
        screen: where it says what it does.
    """

    def __init__(self, context: typer.Context, name: str, *, as_json: bool, reminds: bool = True) -> None:
        from cli.recovery import remind

        self.name = name
        self.as_json = as_json
        self.is_quiet = is_quiet(context)
        self.screen = talk(context, as_json=as_json)
        self.installation = Installation.open(context.find_root().obj)
        if reminds and not self.is_quiet:
            remind(self.installation)

    @property
    def api(self) -> OrchestratorAPI:
        """The façade."""
        return self.installation.api

    def done(self, answer: tuple[bool, Any]) -> Any:
        """The payload of a call.

        Raises:
            NotDone: it was refused or failed.
        """
        ok, payload = answer
        if not ok:
            raise NotDone(payload)
        return payload

    def table(
        self, headings: Sequence[str], rows: Sequence[Sequence[Piece]], ids: Sequence[object], *, none: str
    ) -> None:
        """A list: as a table; as one id a line with `--quiet`; not at all where a document says it.

        Args:
            headings: of the columns.
            rows: of the table.
            ids: one a row.
            none: what is said when there are no rows.
        """
        self.ids(*ids)
        if self.as_json:
            return
        if rows:
            self.screen.table(headings, rows)
        else:
            self.screen.line(none)

    def ids(self, *ids: object) -> None:
        """With `--quiet`, what a script goes on with: one a line."""
        if self.is_quiet and not self.as_json:
            for one in ids:
                sys.stdout.write(f"{one}\n")
            sys.stdout.flush()

    def end(self, document: Mapping[str, Any]) -> int:
        """Write the document where one is wanted; the exit status."""
        if self.as_json:
            documents.write({"command": self.name, **document})
        return 0


class SliceWork(Work):
    """A command on one slice.

    Args:
        context: typer's.
        name: what the document says as `command`.
        words: the slice's id or name.
        user: who acts; empty = its owner.
        as_json: whether a document is wanted.

    Raises:
        NotDone: there is no such slice, or several are called that.
    """

    def __init__(self, context: typer.Context, name: str, words: str, user: str, *, as_json: bool) -> None:
        super().__init__(context, name, as_json=as_json)
        record = self.installation.one_slice(words, user)
        self.slice_id = int(record["slice_id"])
        self.acting = user or str(record["owner"])

    def view(self) -> dict[str, Any]:
        """The slice as the façade shows it."""
        view: dict[str, Any] = self.done(self.api.get_slice(self.acting, self.slice_id))
        return view

    def end(self, document: Mapping[str, Any]) -> int:
        """As of any command, with the slice's id."""
        return super().end({"slice_id": self.slice_id, **document})
