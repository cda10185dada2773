"""What `--help` begins with: command lines that work, by the words that name a command."""

from __future__ import annotations

from collections.abc import Sequence

from cli.screen import plain

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": ("", "slice create lab", "vm add lab web", "deploy lab", "status --json"),
}
MOST = 6


def of(path: Sequence[str]) -> list[str]:
    """The examples of a command, or of all in a group, as words after `./cloud`."""
    name = " ".join(path)
    own = list(EXAMPLES.get(name, ()))
    below = [lines[0] for key, lines in EXAMPLES.items() if key.startswith(f"{name} ")]
    return own or below[:MOST]


def show(path: Sequence[str]) -> None:
    """Print the examples of a command."""
    lines = of(path)
    if lines:
        plain("Examples:")
        for words in lines:
            plain(f"  ./cloud {words}".rstrip())
