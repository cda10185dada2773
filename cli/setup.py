"""Making an installation, and looking at its log."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import IO

from cli.installation import DEFAULT_STATE, STATE_VARIABLE, state_folder, state_path
from cli.screen import FAINT, GOOD, Screen, plain, require_reader

POLL_S = 0.25


def make_installation(directory: Path, screen: Screen) -> bool:
    """Make a directory with a state file and a list of the settings, for its owner only.

    Returns:
        False when something stands there already; it is left as it is.
    """
    from cloudrepo.settings import settings_table
    from database import Database

    state = directory.absolute() / DEFAULT_STATE
    if state.exists():
        screen.complain(f"{state} is there already; nothing was changed.")
        return False
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        Database(state)
        settings = state.with_name("settings.yaml")
        if not settings.exists():
            settings.write_text(_commented(settings_table()), encoding="utf-8")
    except OSError as error:
        screen.complain(f"{directory} cannot be made into an installation: {error.strerror}")
        return False
    screen.line((f"An installation was made in {directory}.", GOOD))
    screen.line(f"  export {STATE_VARIABLE}={state}")
    screen.line("  ./cloud worker add IP      enrols a host")
    screen.line("  ./cloud                    the menu; log in as admin, first password admin")
    screen.line((f"{settings} lists every setting with its default.", FAINT))
    return True


def show_log(lines: int, *, follow: bool) -> bool:
    """Print the end of the log, and what comes after it when `follow`."""
    from cloudrepo.logs import log_path

    path = log_path(state_folder() / state_path().name)
    try:
        file: IO[str] = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        plain(f"There is no log yet; it will be {path}.")
        return True
    try:
        for line in deque(file, maxlen=lines):
            plain(line.rstrip("\n"))
        while follow and not require_reader():
            fresh = _begun_anew(path, file)
            _print_rest(file)
            if fresh is not None:
                file.close()
                file = fresh
                continue
            time.sleep(POLL_S)
    finally:
        file.close()
    return True


def _begun_anew(path: Path, file: IO[str]) -> IO[str] | None:
    """The log that was begun when this one was put aside, if it was."""
    try:
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return None
        return path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _print_rest(file: IO[str]) -> None:
    for line in file:
        plain(line.rstrip("\n"))


def _commented(table: str) -> str:
    head = "# Every setting, its default and its meaning. To change one, write it below as YAML, such as\n"
    head += "#   ssh:\n#     user: operator\n\n"
    return head + "".join(f"# {line}".rstrip() + "\n" for line in table.splitlines())
