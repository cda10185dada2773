"""Making an installation, and looking at its log."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import IO

from cli import documents
from cli.documents import NotDone
from cli.installation import DEFAULT_STATE, STATE_VARIABLE, state_folder, state_path
from cli.screen import FAINT, GOOD, Screen, plain, require_reader

POLL_S = 0.25


def make_installation(directory: Path, screen: Screen, *, as_json: bool) -> int:
    """Make a directory with a state file and a list of the settings, for its owner only.

    Args:
        directory: where.
        screen: for people.
        as_json: whether a document is written.

    Returns:
        The exit status, 0.

    Raises:
        NotDone: something stands there already, and is left as it is; or it cannot be made.
    """
    from cloudrepo.settings import settings_table
    from database import Database

    state = directory.absolute() / DEFAULT_STATE
    if state.exists():
        raise NotDone(f"{state} is there already; nothing was changed.", code="init.there")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        Database(state)
        settings = state.with_name("settings.yaml")
        if not settings.exists():
            settings.write_text(_commented(settings_table()), encoding="utf-8")
    except OSError as error:
        text = f"{directory} cannot be made into an installation: {error.strerror}"
        raise NotDone(text, code="system") from error
    screen.line((f"An installation was made in {directory}.", GOOD))
    screen.line(f"  export {STATE_VARIABLE}={state}")
    screen.line("  ./cloud worker add IP      enrols a host")
    screen.line("  ./cloud                    the menu; log in as admin, first password admin")
    screen.line((f"{settings} lists every setting with its default.", FAINT))
    if as_json:
        made = {"directory": str(state.parent), "state": str(state), "settings": str(settings)}
        documents.write({"command": "init", **made})
    return 0


def show_log(lines: int, screen: Screen, *, follow: bool, as_json: bool) -> int:
    """Print the end of the log, and what comes after it when `follow`.

    Args:
        lines: how many of the last ones.
        screen: where it is said that there is none.
        follow: go on as they come.
        as_json: each line as an object.

    Returns:
        The exit status, 0.

    Raises:
        OSError: it cannot be read.
    """
    from cloudrepo.logs import log_path

    show = _show_as_object if as_json else plain

    path = log_path(state_folder() / state_path().name)
    try:
        file: IO[str] = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        screen.line(f"There is no log yet; it will be {path}.")
        return 0
    try:
        for line in deque(file, maxlen=lines):
            show(line.rstrip("\n"))
        while follow and not require_reader():
            fresh = _begun_anew(path, file)
            for line in file:
                show(line.rstrip("\n"))
            if fresh is not None:
                file.close()
                file = fresh
                continue
            time.sleep(POLL_S)
    finally:
        file.close()
    return 0


def _show_as_object(line: str) -> None:
    from cloudrepo import logs

    documents.line({"schema_version": documents.SCHEMA_VERSION, **logs.parsed(line)})


def _begun_anew(path: Path, file: IO[str]) -> IO[str] | None:
    """The log that was begun when this one was put aside, if it was."""
    try:
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return None
        return path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _commented(table: str) -> str:
    head = "# Every setting, its default and its meaning. To change one, write it below as YAML, such as\n"
    head += "#   ssh:\n#     user: operator\n\n"
    return head + "".join(f"# {line}".rstrip() + "\n" for line in table.splitlines())
