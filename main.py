"""The entry point: the menu when called bare, `menu` for people without a shell, a one-shot command otherwise.

Imports are late on purpose: a login prompt is on screen before SSH, graphs and command parsing are read.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from database import Database

#: Objects made since the last collection; Python's own 700 has it collect all the time while modules are loaded, which
#: is a tenth of a command's start, and finds nothing.
COLLECT_AFTER = 50_000

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what `arguments` (default: the command line) ask for.

    Returns:
        The exit status: 0 done, 1 failed, 64 usage, 130 Ctrl-C, 143 SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:  # else this is a call, not a process
        _make_streams_safe()
    _end_orderly_on_sigterm()
    try:
        return _answered(words)
    finally:
        _close_databases()


def _make_streams_safe() -> None:
    """Standard streams that are there, and take every character.

    A number that a script closed would go to the next file that is opened, such as the state; and a terminal or
    pipe that knows few characters must not end an operation.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            while os.open(os.devnull, os.O_RDWR) < number:
                pass  # lower ones are free as well
            stream = open(number, mode, closefd=False)  # noqa: SIM115 - as long as the process lives
            setattr(sys, name, stream)
        if mode == "w":
            stream.reconfigure(encoding=_letters_of(stream), errors="backslashreplace")


def _letters_of(stream: TextIO) -> str | None:
    """The encoding of a terminal of which somebody said that it shows no UTF-8; None = as it is."""
    if not stream.isatty():
        return None
    from cli.letters import environment_at_start, is_ascii_wanted

    return "ascii" if is_ascii_wanted(environment_at_start()) else None


def _end_orderly_on_sigterm() -> None:
    """SIGTERM ends as an exception in the main thread: monitors stop, databases close."""

    def end(signum: int, frame: object) -> None:
        raise SystemExit(EXIT_TERMINATED)

    if threading.current_thread() is threading.main_thread():  # else this is a call, not a process
        signal.signal(signal.SIGTERM, end)


def _close_databases() -> None:
    """Bring what this process wrote into its state file.

    Where that does not go, it is said, and no more: what the command did is in the journal, which the next start reads,
    and its document, which is written by now, says that it was done. The exit status says the same.
    """
    database = sys.modules.get("database")
    if database is None:
        return
    from cloudrepo.errors import CloudError

    try:
        database.close_all()
    except CloudError as error:
        _complain(error)


def _complain(error: Exception | str) -> None:
    from cli.text import clean_lines

    print(*clean_lines(error), sep="\n", file=sys.stderr)


def _answered(words: list[str]) -> int:
    from cloudrepo.errors import CloudError

    try:
        return _dispatch(words)
    except KeyboardInterrupt:  # Ctrl-C ends this process and touches no host
        print(file=sys.stderr)
        return EXIT_INTERRUPTED
    except CloudError as error:
        _complain(error)
        return EXIT_FAILED
    except BrokenPipeError:  # the reader of a pipe has left, such as `| head`
        sys.stderr.close()
        return EXIT_FAILED
    except OSError as error:  # a file or the standard output: full, of another kind, not ours
        from cli.text import system_words

        _complain(system_words(error))
        return EXIT_FAILED
    except ModuleNotFoundError as error:
        packages = "`./cloud` makes an environment that has it; in one of your own: pip install -r requirements.txt"
        print(f"The Python package {error.name} is missing. {packages}", file=sys.stderr)
        return EXIT_FAILED


def back_up(database: Database) -> None:
    """Keep the state as it was at the start; a file that did not parse never gets this far.

    Where nothing may be written, whoever only reads is not held up: the first change says it.
    """
    from cloudrepo.errors import StateFileError
    from cloudrepo.stores import files

    try:
        database.backup()
    except StateFileError as error:
        if not files.may_not_write(error):
            raise


def _dispatch(words: list[str]) -> int:
    if words == ["--version"]:
        from cloudrepo import __version__

        print(f"Cloud Repositorio {__version__}")
        return EXIT_DONE
    if not words:
        from cli.installation import enter_lab_if_up
        from cli.menu import open_menu

        status = enter_lab_if_up(words)
        return open_menu(back_up) if status is None else status
    if words[0] == "menu" and len(words) in (1, 3) and words[1:2] in ([], ["--state"]):  # the login does not wait
        from cli.boundary import enter

        return enter(words[2] if words[1:] else "", back_up)
    from cli.commands import run

    return run(words, back_up)


def _run() -> NoReturn:
    """The process: `main`, and its end.

    A thread that still waits for a host is not waited for. Python would throw it out wherever it is as soon as it
    moves; inside a library written in Rust or C++, that aborts the process ("FATAL: exception not rethrown").
    """
    gc.set_threshold(COLLECT_AFTER, 10, 10)
    try:
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else EXIT_FAILED
    if threading.active_count() == 1:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # its reader has left; or it was closed since that was known
            status = status or EXIT_FAILED
    os._exit(status)


if __name__ == "__main__":
    _run()
