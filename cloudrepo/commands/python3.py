"""`python3`: what a host's interpreter does for us where no tool of its own will."""

from __future__ import annotations

_WRITE = "import base64, sys; open(sys.argv[1], 'xb').write(base64.b64decode(sys.stdin.read()))"


def write_binary(path: str) -> tuple[str, ...]:
    """Write a file that is not there yet; its content is no text, so it comes as base64 on stdin."""
    return ("python3", "-c", _WRITE, path)
