"""`./cloud test`, `lint` and `bench`: the project's own checks, with the pinned tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cli.screen import plain

CHECKOUT = Path(__file__).resolve().parent.parent
EXIT_USAGE = 64

LINTERS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
)


MOST_PROCESSES = 8  # each loads everything
AGAIN = ("--last-failed", "--last-failed-no-failures=none", "--maxfail=1", "-rA")
MOST_AGAIN = 5  # more failures than that are no accident


def run_tests(words: Sequence[str]) -> int:
    """Run pytest; `words` are ours (`--quick`, `--again`, `-y`) and pytest's own.

    All tests are run by several processes at once; with words of pytest's own it is run as these say. `--again` runs
    the few that failed last time once more, one after another and nothing beside them.

    Returns:
        The exit status: 0 all passed, 1 otherwise, 130 Ctrl-C.
    """
    quick = "--quick" in words
    rest = [word for word in words if word not in ("--quick", "--again", "-y", "--yes")]
    assume_yes = len(rest) < len(words)
    if "--again" in words:
        failed = _failed_last_time()
        if not 0 < len(failed) <= MOST_AGAIN:
            plain(f"{len(failed)} tests failed: that is no accident, none is run again.")
            return 1
        for line in ("Run once more, alone:", *failed):
            plain(line)
        rest = [*AGAIN, *rest]
    if not rest:
        rest = ["-n", str(min(len(os.sched_getaffinity(0)) + 1, MOST_PROCESSES))]
    if quick:
        rest = ["-m", "not lab", *rest]
    elif not _lab_is_possible(assume_yes=assume_yes):
        return 1
    status = _run((sys.executable, "-m", "pytest", *rest))
    # pytest: 2 = interrupted, 4 = usage; the rest that is not 0 is a failure, no test at all among them
    return {0: 0, 2: 130, 4: EXIT_USAGE}.get(status, 1)


def run_linters() -> int:
    """Run all linters, also after one has failed; 0 when none has."""
    return max(_run((sys.executable, "-m", *words)) != 0 for words in LINTERS)


def run_bench(words: Sequence[str]) -> int:
    """Run `bench/NAME.py` with the words after its name; its exit status."""
    known = sorted(path.stem for path in (CHECKOUT / "bench").glob("[a-z]*.py"))
    if not words or words[0] not in known:
        plain(f"There is: {', '.join(f'./cloud bench {name}' for name in known) or 'nothing to measure yet'}.")
        return EXIT_USAGE
    return _run((sys.executable, "-m", f"bench.{words[0]}", *words[1:]))


def _failed_last_time() -> list[str]:
    """Ids of the tests that failed in the last run, by pytest's own cache."""
    try:
        return sorted(json.loads((CHECKOUT / ".pytest_cache/v/cache/lastfailed").read_text()))
    except FileNotFoundError:
        return []


def _lab_is_possible(*, assume_yes: bool) -> bool:
    from lab import packages
    from lab.errors import LabError

    if os.geteuid() != 0:
        plain("The lab's tests need root: sudo ./cloud test. Without it: ./cloud test --quick.")
        return False
    try:
        packages.ensure(packages.for_tests(), assume_yes=assume_yes, say=plain)
    except LabError as error:
        plain(str(error))
        return False
    return True


def _run(words: Sequence[str]) -> int:
    """Run a tool in the checkout on this terminal, without settings of any installation."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDREPO_")}
    for kept in ("CLOUDREPO_LAB_CACHE", "CLOUDREPO_LAB_DIR"):
        if kept in os.environ:
            environment[kept] = os.environ[kept]
    return subprocess.run(words, cwd=CHECKOUT, env=environment, check=False).returncode
