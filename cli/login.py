"""Who is there: the login prompt, and the first password of an account that must have a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.ask import Ask, Back
from cli.screen import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator_api import OrchestratorAPI

MAX_ATTEMPTS = 5


def log_in(ask: Ask, api: Callable[[], OrchestratorAPI]) -> dict[str, Any] | None:
    """Ask for name and password until they fit.

    Args:
        ask: where answers come from.
        api: gives the façade; called after the first answers, so that the prompt does not wait for it.

    Returns:
        What the façade says of the account, or None after too many attempts.

    Raises:
        Leave: at the end of the input.
    """
    attempts = 0
    while attempts < MAX_ATTEMPTS:
        try:
            username = ask.text("Username")
            password = ask.text("Password", secret=True)
        except Back:
            plain()
            plain("Ctrl-D leaves.")
            continue
        attempts += 1
        ok, account = api().login(username, password)
        if not ok:
            plain(str(account))
            continue
        if account.get("must_change_password") and not _change_password(ask, api(), username):
            return None
        found: dict[str, Any] = account
        return found
    plain("Too many attempts.")
    return None


def _change_password(ask: Ask, api: OrchestratorAPI, username: str) -> bool:
    """Have a first password replaced; nothing else is possible before. The façade judges the new one."""
    plain(f"The password of {username} is the first one. Please choose your own.")
    while True:
        try:
            new = ask.text("New password", secret=True)
            again = ask.text("Again", secret=True)
        except Back:
            plain()
            plain("Left as it was; the next login asks again.")
            return False
        if new != again:
            plain("The two are not the same.")
            continue
        ok, message = api.set_password(username, new)
        if ok:
            plain("The password was changed.")
            return True
        plain(str(message))
