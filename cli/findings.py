"""Findings of the doctor, as a person sees them, and the exit status they make."""

from __future__ import annotations

from typing import Any

from cli import documents
from cli.screen import BAD, FAINT, GOOD, Piece, Screen
from cloudrepo.doctor.findings import Level

WRONG, INCOMPLETE = 1, 3  # exit statuses: something is wrong; a warning, or something could not be seen

_LOOKS: dict[Level, Piece] = {
    Level.OK: ("ok       ", GOOD),
    Level.UNKNOWN: ("unseen   ", FAINT),
    Level.WARNING: ("warning  ", BAD),
    Level.WRONG: ("wrong    ", BAD),
}


def first_wrong(findings: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first finding that is wrong, as a document has an error."""
    wrong = [documents.error(one["text"], code=one["code"]) for one in findings if one["level"] == "wrong"]
    return next(iter(wrong), None)


def status_of(findings: list[dict[str, Any]]) -> int:
    """The exit status: 0 nothing is wrong, 1 something is, 3 a warning, or something could not be seen."""
    worst = max((Level[one["level"].upper()] for one in findings), default=Level.OK)
    return {Level.OK: 0, Level.WRONG: WRONG}.get(worst, INCOMPLETE)


def show_findings(screen: Screen, findings: list[dict[str, Any]]) -> None:
    """The worst last, where a person's eyes are."""
    for finding in sorted(findings, key=lambda one: Level[one["level"].upper()]):
        evidence: list[Piece] = [(f"  ({finding['evidence']})", FAINT)] if finding["evidence"] else []
        screen.line(_LOOKS[Level[finding["level"].upper()]], finding["text"], *evidence)
        for line in finding["remedy"].splitlines():
            screen.line(f"           {line}")
