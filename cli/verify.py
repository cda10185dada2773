"""Proof on the wire, shown: who hears whom on all hosts, against what the records say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli import documents
from cli.documents import NotDone
from cli.screen import BAD, FAINT, GOOD, Screen
from cli.text import count

if TYPE_CHECKING:
    from cli.installation import Installation

FAILED, NOTHING, INCOMPLETE = 1, 2, 3  # exit statuses: a violation, nothing to test, something could not be shown


def show_verification(installation: Installation, words: str | None, screen: Screen, *, as_json: bool) -> int:
    """Prove, and show; one slice by its id or name, or all for None.

    Returns:
        The exit status: 0 all is as it should be, 1 a violation, 2 nothing to test, 3 not all could be shown.

    Raises:
        NotDone: nothing could be tried.
    """
    ok, found = installation.api.verify(installation.slice_id(words))
    if not ok:
        raise NotDone(found)
    if as_json:
        documents.write(found, wrong=_wrong(found))
    else:
        show_found(screen, found)
    return _status(found)


def _wrong(found: dict[str, Any]) -> dict[str, Any] | None:
    if found["violations"]:
        return documents.error(found["violations"][0]["text"], code="verify.violation")
    if found["unreachable"]:
        ip, why = next(iter(found["unreachable"].items()))
        return documents.error(f"{ip}: {why}", code="verify.unreachable")
    return None


def _status(found: dict[str, Any]) -> int:
    if found["violations"]:
        return FAILED
    if found["unreachable"] or found["unproven"]:
        return INCOMPLETE
    return 0 if found["frames"] else NOTHING


def _by_pair(violations: list[dict[str, Any]]) -> dict[tuple[str, str, bool], list[dict[str, Any]]]:
    """Those about who hears a frame, by who sent it, where, and whether it came out there."""
    pairs: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
    for one in violations:
        if one["reach"]:
            listener = f"{one['listener']} ({one['device']} on {one['host']})"
            pairs.setdefault((one["sender"], listener, one["heard"]), []).append(one)
    return pairs


def _show_hop(screen: Screen, one: dict[str, Any]) -> None:
    """Where it breaks, and what a person can type there."""
    if one["hop"]:
        screen.line("          at ", one["hop"])
    for command in one["commands"][:1]:
        screen.line((f"          {command}", FAINT))


def show_found(screen: Screen, found: dict[str, Any]) -> None:
    """What a proof found."""
    for text in dict.fromkeys(one["text"] for one in found["violations"] if not one["reach"]):
        screen.line(("violated  ", BAD), text)
        _show_hop(screen, next(one for one in found["violations"] if one["text"] == text))
    for (sender, listener, heard), ones in _by_pair(found["violations"]).items():
        verb = "reaches" if heard else "does not reach"
        kinds = ", ".join(one["kind"] for one in ones)
        screen.line(("violated  ", BAD), f"{sender} {verb} {listener}", (f"  {kinds}", FAINT))
        _show_hop(screen, ones[0])
    for text in found["unproven"]:
        screen.line(("unproven  ", FAINT), text)
    for ip, why in found["unreachable"].items():
        screen.line(("not tried ", BAD), f"{ip}: {why}")
    if not found["frames"]:
        screen.line("No slice that runs has a NIC on a wire: there is nothing to test.")
        return
    sizes = f"{count(found['nics'], 'NIC')}, {count(found['frames'], 'frame')} in {found['seconds']:.1f} s"
    proof = f"{found['heard']} heard where they must be, {found['not_heard']} not heard where they must not"
    if found["evidence"]:
        screen.line((f"evidence: {found['evidence']}", FAINT))
    screen.line(
        (f"{count(len(found['violations']), 'violation')}: {sizes}; {proof}.", GOOD if _status(found) == 0 else BAD)
    )
