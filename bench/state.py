"""What the state file costs as it grows, each figure in a process of its own: `./cloud bench state`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import monitor, program
from bench.storage import made, report

SIZES = (100, 1000, 10_000)
MENUS, MENU_VMS = 30, 1000
CHECKOUT = Path(__file__).resolve().parent.parent


def main(argv: Sequence[str] | None = None) -> int:
    """Measure in a folder of its own, which is removed.

    Returns:
        0; a target that is missed is said, not an error.
    """
    parser = program.parser(
        "state",
        __doc__,
        commits=(1000, "changes that are timed"),
        folds=(15, "folds that are timed"),
        loads=(5, "starts that are timed"),
        looks=(40, "of the monitor at the lab, 0 = none"),
    )
    parser.add_argument("--folder", type=Path, help="where the files are made, on the disk that is meant")
    options = parser.parse_args(argv)
    load = os.getloadavg()[1]
    with tempfile.TemporaryDirectory(prefix="cloud-bench-", dir=options.folder) as folder:
        results = {size: _of_size(Path(folder), size, options) for size in SIZES}
        menus = _menus(Path(folder) / f"load-{MENU_VMS}" / "database.yaml")
    text = report.page(results, menus, load)
    print(text)
    if options.readme:
        report.write_readme(text)
    if options.looks:
        looks = monitor.measure(options.looks)
        print(monitor.table(looks))
        if options.readme:
            monitor.write_readme(looks, options.looks, load)
    return 0


def _of_size(folder: Path, size: int, options: argparse.Namespace) -> dict[str, Any]:
    print(f"{size} VMs …", file=sys.stderr, flush=True)
    paths = {what: folder / f"{what}-{size}" / "database.yaml" for what in ("load", "commit", "fold")}
    for path in paths.values():
        path.parent.mkdir()
        made.write(path, size)
    return {
        "file_bytes": paths["load"].stat().st_size,
        "loads": [_measure("load", paths["load"]) for _ in range(options.loads)],
        "commit": _measure("commit", paths["commit"], options.commits),
        "fold": _measure("fold", paths["fold"], options.folds),
    }


def _words(what: str, path: Path, *numbers: int) -> tuple[str, ...]:
    return (sys.executable, "-m", "bench.storage.client", what, str(path), *map(str, numbers))


def _measure(what: str, path: Path, *numbers: int) -> dict[str, Any]:
    done = subprocess.run(_words(what, path, *numbers), cwd=CHECKOUT, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _menus(path: Path) -> list[dict[str, Any]]:
    """Menus that are open at once; what each holds."""
    print(f"{MENUS} menus …", file=sys.stderr, flush=True)
    menus = [
        subprocess.Popen(_words("menu", path), cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(MENUS)
    ]
    for menu in menus:
        assert menu.stdout is not None
        assert menu.stdout.readline() == "ready\n"
    found = []
    for menu in menus:  # one after the other is asked while all are there
        assert menu.stdin is not None
        assert menu.stdout is not None
        menu.stdin.write("\n")
        menu.stdin.flush()
        found.append(json.loads(menu.stdout.readline()))
    for menu in menus:
        assert menu.stdin is not None
        menu.stdin.close()
        menu.wait(60)
    return found


if __name__ == "__main__":
    sys.exit(main())
