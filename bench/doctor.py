"""What a look before a class costs: with some VLANs, as usual, and with every VLAN there is."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bench import program, readme
from bench.deployment.report import machine
from bench.verify import CHECKOUT, HOSTS, IMAGE, Say
from lab.cluster import Lab
from lab.layout import Options

BEGIN, END = "<!-- doctor: made by ./cloud bench doctor --readme -->", "<!-- end of doctor -->"
#: What is asked, and in how many seconds it is to be answered.
ROWS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("some of each kind, the default", (), 10),
    ("all", ("--vlans", "100-4094"), 60),
)


def measure(passes: int, say: Say = lambda text: None) -> list[dict[str, Any]]:
    """The rows, each with the VLANs that were tried and the seconds of all passes. Needs root."""
    with tempfile.TemporaryDirectory(prefix="cloud-bench-") as folder:
        lab = Lab(Path(folder) / "lab")
        lab.up(Options(), with_parent=os.getpid())
        try:
            settings = {
                "accel": "tcg",
                "ssh": {"key": lab.environment()["CLOUDREPO_SSH_KEY"]},
                "flavors": {
                    "cirros": {"cores": 1, "ram_gb": 0.125, "disk_gb": 1, "image": str(lab.folder.images / IMAGE)},
                },
            }
            Path(folder, "settings.yaml").write_text(yaml.safe_dump(settings))
            _doctor(lab, Path(folder), "--fix", "--yes")
            return [_row(lab, Path(folder), row, passes, say) for row in ROWS]
        finally:
            lab.down(purge=True)


def _row(lab: Lab, folder: Path, row: tuple[str, tuple[str, ...], int], passes: int, say: Say) -> dict[str, Any]:
    what, words, target = row
    say(f"doctor {' '.join(words)} …")
    found = [_doctor(lab, folder, *words) for _ in range(passes)]
    for one in found:
        wrong = [each["text"] for each in one["findings"] if each["level"] != "ok"]
        assert not wrong, wrong
    return {"what": what, "vlans": found[0]["vlans"], "target": target, "seconds": [one["seconds"] for one in found]}


def _doctor(lab: Lab, folder: Path, *words: str) -> dict[str, Any]:
    env = {"CLOUDREPO_STATE": str(folder / "database.yaml"), "CLOUDREPO_SSH_KNOWN_HOSTS": str(folder / "known_hosts")}
    given = [sys.executable, str(CHECKOUT / "main.py"), "doctor", *words, "--json"]
    done = lab.exec(given, env=env, timeout=600, cwd=str(folder))
    assert done.stdout.startswith("{"), done.stderr
    return dict(json.loads(done.stdout))


def table(results: Sequence[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    rows = [f"| VLANs, between {len(HOSTS)} hosts | tried | seconds | target |", "|---|---|---|---|"]
    for one in results:
        seconds = one["seconds"]
        told = f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"
        tried = one["vlans"] if len(one["vlans"]) < 40 else f"{one['vlans'][:37]}…"
        rows.append(f"| {one['what']} | {tried} | {told} | ≤ {one['target']} |")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the results into bench/README.md if asked to.

    Returns:
        0.
    """
    options = program.parser("doctor", __doc__, passes=(3, "looks of each kind")).parse_args(argv)
    if not program.has_root("doctor"):
        return 1
    load = os.getloadavg()[1]
    results = measure(options.passes, program.say)
    print(table(results))
    if options.readme:
        readme.put(BEGIN, END, f"{machine(load)}\n\n{table(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
