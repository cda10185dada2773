"""`./cloud menu`: the menu of people who get no shell here, as a ForceCommand of sshd or by a rule of sudo.

They are strangers to the account it runs as. What they bring along (variables, a working directory, a command for
the other side) counts for nothing, and no key leads out of the menu. docs/access.md says it for operators.
"""

from __future__ import annotations

import os
import pwd
import re
import resource
import signal
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from cli.installation import DEFAULT_STATE, STATE_VARIABLE, BeforeWrite
from cloudrepo.errors import CloudError, StateFileError

EXIT_USAGE = 64
DEFAULT_FOLDER = "cluster"  # in the account's home, where README makes it
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What is taken of the caller's environment, if it is a plain word: how his terminal draws, and who and where he is.
KEPT = ("TERM", "COLORTERM", "NO_COLOR", "SSH_CONNECTION", "SUDO_USER")
_PLAIN = re.compile(r"[A-Za-z0-9 ._:%+-]{0,200}\Z")


def enter(state: str, before_write: BeforeWrite) -> int:
    """Open the menu on an installation, for somebody who may do nothing else here.

    Args:
        state: its state file, absolute; empty = `cluster/database.yaml` in the home of the account this runs as.
        before_write: called before anything writes it.

    Returns:
        The exit status: the menu's, or 64 when a command was sent or there is no terminal.

    Raises:
        CloudError: there is no such state file, or it cannot be used.
    """
    refusal = why_not(os.environ, is_terminal=sys.stdin.isatty() and sys.stdout.isatty())
    if refusal:
        print(refusal, file=sys.stderr)
        return EXIT_USAGE
    account = pwd.getpwuid(os.geteuid())
    path = state_file(state, account.pw_dir)
    clear_environment(os.environ, account, path)
    close_ways_out()

    from cli.menu import open_menu

    return open_menu(before_write, may_decide=False)


def why_not(environ: Mapping[str, str], *, is_terminal: bool) -> str:
    """Why nothing is opened: a command was sent along, or there is no terminal; else an empty text."""
    if environ.get("SSH_ORIGINAL_COMMAND"):
        return "This account opens the menu only: no commands and no file transfer. Log in without a command."
    if not is_terminal:
        return "This opens the menu only, and that needs a terminal: log in without a command, or with `ssh -t`."
    return ""


def state_file(named: str, home: str) -> Path:
    """The state file that is meant, which must be there: one that were made now would let the shipped users in.

    Raises:
        CloudError: it is relative, or not there.
    """
    path = Path(named) if named else Path(home, DEFAULT_FOLDER, DEFAULT_STATE)
    if not path.is_absolute():
        raise CloudError(
            f"the state file {named} is not named from the root on",
            evidence="the working directory is the caller's",
            remedy="Write its whole path: --state /…/database.yaml",
            code="state.relative",
        )
    if not path.is_file():
        raise StateFileError(
            f"there is no state file {path}",
            remedy="`./cloud init DIR` makes one, `./cloud menu --state FILE` names it; `./cloud` alone opens the menu "
            f"on what {STATE_VARIABLE} or the working directory says",
        )
    return path


def clear_environment(environ: MutableMapping[str, str], account: pwd.struct_passwd, state: Path) -> None:
    """Leave nothing in `environ` but what this account and this command line say, and a few plain words."""
    kept = {name: environ[name] for name in KEPT if _PLAIN.match(environ.get(name, "\0"))}
    environ.clear()
    environ.update(kept)
    environ.update(
        {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "HOME": account.pw_dir,
            "USER": account.pw_name,
            "LOGNAME": account.pw_name,
            STATE_VARIABLE: str(state),
        }
    )


def close_ways_out() -> None:
    r"""Neither Ctrl-Z nor Ctrl-\ does anything, no memory is written to a file, no relative path is the caller's.

    A menu that is stopped would hold its locks against all others.
    """
    for number in (signal.SIGTSTP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    os.chdir("/")
