"""`./cloud doctor` without a word: the hosts, shown; and set right after a yes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from cli import documents
from cli.documents import NotDone
from cli.findings import first_wrong, show_findings, status_of
from cli.screen import FAINT, GOOD, STRONG, Screen
from cli.text import count
from cloudrepo.doctor import vlans

if TYPE_CHECKING:
    from cli.ask import Ask
    from orchestrator_api import OrchestratorAPI

DIFFERENCES = 2  # the exit status of a dry run that found something to set right
Fixes = list[dict[str, str]]


class Look:
    """One look at the hosts.

    Args:
        api: the façade.
        screen: where a person reads.
        hosts: what concerns these; empty = all.
        wanted: frames are sent in these VLANs, as switches write them; "" = a choice.
        as_json: one document goes to standard output, and all else to `screen`.

    Raises:
        typer.BadParameter: `wanted` names no VLANs.
    """

    def __init__(
        self, api: OrchestratorAPI, screen: Screen, hosts: Sequence[str], wanted: str, *, as_json: bool
    ) -> None:
        try:
            self.vlans = vlans.parse(wanted) if wanted else ()
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--vlans") from error
        self.api = api
        self.screen = screen
        self.hosts = hosts
        self.as_json = as_json

    def show(self) -> int:
        """Look at the hosts, and show what was found.

        Returns:
            The exit status: 0 nothing is wrong, 1 something is, 3 a warning, or something could not be seen.

        Raises:
            NotDone: nothing could be looked at.
        """
        found = self._done(self.api.doctor(self.hosts, self.vlans))
        if not self.as_json:
            self._show(found)
        return self._end(found)

    def fix(self, ask: Ask, *, assume_yes: bool, dry_run: bool) -> int:
        """Look, show what would be done, ask, set right, look again; and ask again of what shows only then.

        Returns:
            The exit status: as `show`; 2 for a dry run that found something to set right.

        Raises:
            NotDone: nothing could be looked at, or it was not agreed to.
        """
        found = self._done(self.api.doctor(self.hosts, self.vlans))
        self._show(found)
        told: Fixes = []
        changed: Fixes = []
        failed: Fixes = []
        while fixes := [one for one in found["fixes"] if one not in told]:
            self._show_plan(fixes)
            if dry_run:
                self._write(found)
                return DIFFERENCES
            if not assume_yes and not _is_agreed(ask, len(fixes)):
                if not told:
                    raise NotDone("Nothing was changed. `--yes` sets it right without a question.", code="unanswered")
                break
            told += fixes
            found = self._done(self.api.doctor_fix(self.hosts, self.vlans, fixes))
            changed += found["changed"]
            failed += found["failed"]
            self._show_done(found)
        else:
            if not told:
                self.screen.line("Nothing of it is ours to set right.")
        more = {} if dry_run else {"changed": changed, "failed": failed}
        return self._end({**found, **more})

    # -- pieces ------------------------------------------------------------------------------------------

    def _done(self, answer: tuple[bool, Any]) -> dict[str, Any]:
        ok, found = answer
        if not ok:
            raise NotDone(found)
        return dict(found)

    def _show(self, found: dict[str, Any]) -> None:
        show_findings(self.screen, found["findings"])
        self.screen.line((f"{count(len(found['hosts']), 'host')}, {found['seconds']:.1f} s", FAINT))

    def _show_plan(self, fixes: Fixes) -> None:
        self.screen.line(("To be set right:", STRONG))
        for one in fixes:
            self.screen.line(f"  {one['host']}  {one['text']}")

    def _show_done(self, found: dict[str, Any]) -> None:
        for one in found["changed"]:
            self.screen.line((f"{one['host']}: {one['text']}", GOOD))
        for one in found["failed"]:
            self.screen.complain(one["text"])
        self._show(found)

    def _end(self, found: dict[str, Any]) -> int:
        self._write(found, wrong=first_wrong(found["findings"]))
        return status_of(found["findings"])

    def _write(self, found: dict[str, Any], wrong: dict[str, Any] | None = None) -> None:
        if self.as_json:
            documents.write({"command": "doctor", **found}, wrong=wrong)


def _is_agreed(ask: Ask, number: int) -> bool:
    return sys.stdin.isatty() and ask.yes(f"Set {count(number, 'thing')} right", default=False)
