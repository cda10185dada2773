"""What `./cloud exec` runs in a guest, by whatever way, and what becomes of it."""

from __future__ import annotations

#: words, status, what goes to the standard output, what to the standard error
PROGRAMS = [
    (("true",), 0, "", ""),
    (("false",), 1, "", ""),
    (("sh", "-c", "echo out; echo err >&2; exit 127"), 127, "out\n", "err\n"),
    (("sh", "-c", "exit 130"), 130, "", ""),
    (("sh", "-c", "kill -INT $$"), 130, "", ""),
    (("echo", "$HOME; rm", "it's", "--json", "--help"), 0, "$HOME; rm it's --json --help\n", ""),
]
