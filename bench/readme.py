"""`bench/README.md`: each measurement has its results there, between two lines of its own."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).with_name("README.md")


def put(begin: str, end: str, text: str) -> None:
    """Replace what stands between two lines; where they are not there yet, they are added at the end."""
    head, _, rest = README.read_text(encoding="utf-8").partition(begin)
    README.write_text(f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")
