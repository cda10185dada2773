"""Deploy and delete a slice of twelve VMs in three ways, side by side: `./cloud bench deploy`."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import program
from bench.deployment import report
from bench.deployment.field import Field
from bench.deployment.rounds import INSTALLATIONS, Rounds


def main(argv: Sequence[str] | None = None) -> int:
    """Measure on a lab of its own, which leaves nothing.

    Returns:
        0; a target that is missed is said, not an error.
    """
    parser = program.parser("deploy", __doc__, rounds=(9, "samples of each way"))
    parser.add_argument("--skip-documented", action="store_true", help="leave the slow documented sequence out")
    options = parser.parse_args(argv)
    if not program.has_root("deploy"):
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
