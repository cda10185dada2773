"""The menu in a pane of a tmux of its own: its own server on its own socket, without anybody's settings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect

from menu_process import PASSWORD
from menu_terminal import CHOOSE, HERE, PATIENCE_S, Terminal

TMUX = shutil.which("tmux")
#: What a program sends to a terminal, if it can be read on it: then one of the two did not understand the other.
PATHS = ("State:", "Log:")  # lines with paths of any length, left whole to be copied
STRAY = re.compile(r"\^\[|\x1b|\[\??\d+(?:;\d+)*[A-Za-z]|\d+;\d+R")
POLL_S = 0.02


class Pane:
    """A menu in tmux. It is looked at by `capture-pane`, and typed to by `send-keys`."""

    def __init__(self, folder: Path, words: tuple[str, ...], environment: dict[str, str]) -> None:
        self._folder = folder
        self._words = words
        self._environment = environment

    def tmux(self, *words: str) -> str:
        """A command of tmux: what it answers."""
        done = subprocess.run(
            (*self._words, *words),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"tmux {words}: {done.stderr}"
        return done.stdout

    # -- looking -----------------------------------------------------------------------------------------

    @property
    def lines(self) -> list[str]:
        """The lines of the pane as they stand."""
        return self.tmux("capture-pane", "-p").split("\n")[: self.size[1]]

    @property
    def text(self) -> str:
        """The pane as one text."""
        return "\n".join(self.lines)

    @property
    def past(self) -> str:
        """What has left the pane at its top, and the pane; a line that went on in the next is one."""
        return self.tmux("capture-pane", "-p", "-J", "-S", "-")

    @property
    def sent(self) -> str:
        """As `past`, with colours and the like as tmux would send them on."""
        return self.tmux("capture-pane", "-p", "-e", "-S", "-")

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        columns, rows = self.tmux("display-message", "-p", "#{pane_width} #{pane_height}").split()
        return int(columns), int(rows)

    def is_of_size(self, columns: int, rows: int) -> bool:
        """Whether it has so many columns and rows."""
        return self.size == (columns, rows)

    @property
    def prompt(self) -> str:
        """The line with the cursor."""
        row = int(self.tmux("display-message", "-p", "#{cursor_y}"))
        return self.lines[row].rstrip()

    def until(self, found: Callable[[], bool], what: str) -> None:
        """Wait until `found()` holds; AssertionError with the pane when it does not."""
        end = time.monotonic() + PATIENCE_S
        pause = POLL_S
        while not found():
            assert time.monotonic() < end, f"{what} was not shown:\n{self.text}"
            time.sleep(pause)
            pause = min(2 * pause, 0.1)

    def shows(self, words: str) -> None:
        """Wait until the pane shows words."""
        self.until(lambda: words in self.text, repr(words))

    def matches(self, pattern: str) -> None:
        """Wait until the pane has a line like this."""
        self.until(lambda: re.search(pattern, self.text) is not None, pattern)

    def asks(self, prompt: str) -> None:
        """Wait until this is asked, and nothing is typed yet."""
        self.until(lambda: self.prompt.startswith(prompt.rstrip()), f"the question {prompt!r}")

    def is_tidy(self, status: str = "") -> None:
        """Nothing stands beyond the right edge, nothing is shown that was meant for the terminal, all through the past.

        Args:
            status: what the last line of the pane begins with; empty = it has none.
        """
        columns, _rows = self.size
        if status:
            self.until(lambda: self.lines[-1].startswith(status), "the status on the last line")
        past = self.past
        lines = [line.rstrip() for line in past.splitlines() if not line.startswith(PATHS)]
        longest = max(lines, key=len)
        assert len(longest) <= columns, longest
        assert not STRAY.search(past), STRAY.search(past)

    # -- typing ------------------------------------------------------------------------------------------

    def keys(self, *names: str) -> None:
        """Press keys by their names, such as `Escape`, `C-c`, `Down`."""
        self.tmux("send-keys", *names)

    def types(self, words: str) -> None:
        """Type words as they are."""
        self.tmux("send-keys", "-l", words)

    def answer(self, prompt: str, words: str) -> None:
        """Wait for a question, type, press Enter."""
        self.asks(prompt)
        if words:
            self.types(words)
        self.keys("Enter")
        self.until(lambda: not self.prompt.startswith(prompt.rstrip()) or words not in self.prompt, "the next question")

    def choose(self, words: str) -> None:
        """Choose an entry of the menu."""
        self.answer(CHOOSE, words)

    def log_in(self, user: str) -> None:
        """Log in, and wait for the menu."""
        self.answer("Username:", user)
        self.asks("Password:")
        self.types(PASSWORD)
        self.keys("Enter")
        self.asks(CHOOSE)

    def ends(self) -> int:
        """Wait for the end of the menu; its exit status."""
        self.until(lambda: self.tmux("display-message", "-p", "#{pane_dead}").strip() == "1", "the end")
        return int((self._folder / "ended").read_text())  # tmux 3.3a does not always notice with which it was

    # -- people who look at it ---------------------------------------------------------------------------

    @contextmanager
    def client(self, columns: int, rows: int) -> Iterator[Terminal]:
        """Somebody who attaches from a terminal of some size; the pane takes that size."""
        environment = self._environment | {"TERM": "xterm-256color"}
        child: pexpect.spawn[bytes] = pexpect.spawn(
            self._words[0], [*self._words[1:], "attach-session"], env=environment, dimensions=(rows, columns)
        )
        child.delaybeforesend = None
        try:
            yield Terminal(child, columns, rows)
        finally:
            child.close(force=True)


@contextmanager
def pane(
    folder: Path, *, term: str, columns: int = 80, rows: int = 24, variables: dict[str, str] | None = None
) -> Iterator[Pane]:
    """The menu in a tmux, on the installation in `folder`, which is made where there is none.

    Args:
        folder: of the installation.
        term: what tmux says of itself in TERM.
        columns, rows: of the pane.
        variables: more for the menu's environment.
    """
    assert TMUX is not None, "tmux is missing; `sudo ./cloud test` installs it"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDREPO_", "TMUX"))}
    for name in ("NO_COLOR", "COLUMNS", "LINES", "COLORTERM"):
        environment.pop(name, None)
    environment |= {"LANG": "C.UTF-8", "PYTHONPATH": f"{HERE.parent}:{HERE}"} | (variables or {})
    with tempfile.TemporaryDirectory(prefix="tmux-") as sockets:  # a socket's path has to be short
        environment["TMUX_TMPDIR"] = sockets
        words = (TMUX, "-L", "menu", "-f", "/dev/null")
        options = (
            ("default-terminal", term),
            ("status", "off"),
            ("remain-on-exit", "on"),
            ("remain-on-exit-format", ""),
        )
        begin = ["start-server"]
        for name, value in options:
            begin += [";", "set-option", "-g", name, value]
        begin += [";", "new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", str(folder)]
        begin += [sys.executable, str(HERE / "menu_process.py"), str(folder), "ann", "student"]
        found = Pane(folder, words, environment)
        found.tmux(*begin)
        try:
            yield found
        finally:
            found.tmux("kill-server")
