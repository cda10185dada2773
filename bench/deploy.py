"""Deploy and delete a slice of twelve VMs in three ways, side by side: `./cloud bench deploy`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.deployment import report
from bench.deployment.field import Field
from bench.deployment.rounds import INSTALLATIONS, Rounds


def main(argv: Sequence[str] | None = None) -> int:
    """Measure on a lab of its own, which leaves nothing.

    Returns:
        0; a target that is missed is said, not an error.
    """
    parser = argparse.ArgumentParser(prog="./cloud bench deploy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="default: 9")
    parser.add_argument("--skip-documented", action="store_true", help="leave the slow documented sequence out")
    parser.add_argument("--readme", action="store_true", help="write the results into bench/README.md")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("The lab needs root: sudo ./cloud bench deploy", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that nothing is left then either
    load = os.getloadavg()[1]
    with tempfile.TemporaryDirectory(prefix="cloud-bench-") as folder, Field(Path(folder), INSTALLATIONS) as field:
        results = Rounds(field, lambda text: print(text, flush=True)).run(
            options.rounds, documented=not options.skip_documented
        )
    print(report.machine(load), report.table(results), sep="\n\n")
    if options.readme:
        report.write_readme(results, load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
