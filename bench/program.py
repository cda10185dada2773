"""What every measurement of `./cloud bench` has alike: options, where it says how far it is, its need of root."""

from __future__ import annotations

import argparse
import os
import sys


def parser(name: str, description: str | None, **numbers: tuple[int, str]) -> argparse.ArgumentParser:
    """The options of `./cloud bench NAME`.

    Args:
        name: the measurement's.
        description: what it measures.
        numbers: options with a number: by name, the default and what it says.
    """
    made = argparse.ArgumentParser(prog=f"./cloud bench {name}", description=description)
    for option, (default, meaning) in numbers.items():
        made.add_argument(f"--{option}", type=int, default=default, help=f"{meaning}; default: {default}")
    made.add_argument("--readme", action="store_true", help="write the results into bench/README.md")
    return made


def say(text: str) -> None:
    """How far it is: on the standard error, the results alone go to the standard output."""
    print(text, file=sys.stderr, flush=True)


def has_root(name: str) -> bool:
    """Whether a lab can be made; else that is said."""
    if os.geteuid() == 0:
        return True
    say(f"The lab needs root: sudo ./cloud bench {name}")
    return False
