"""What a look of the monitor costs, on three lab hosts with 12 VMs and over 1,000 simulated workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench import program, readme
from bench.deployment.report import machine
from lab.cluster import Lab
from lab.layout import Options

CHECKOUT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- monitor: made by ./cloud bench monitor --readme -->", "<!-- end of monitor -->"
IMAGE = "cirros-0.6.2-x86_64-disk.img"
INTERVAL_S = 15.0
SIMULATED = ((100, 10), (1000, 10))  # workers, VMs on each


def measure(passes: int, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """All figures: `lab`, or None without root, and `simulated`, a list."""
    say(f"{passes} looks at simulated workers …")
    simulated = [_simulated(workers, vms, max(3, passes // 4)) for workers, vms in SIMULATED]
    if os.geteuid() != 0:
        return {"lab": None, "simulated": simulated}
    say(f"{passes} looks at three hosts with 12 VMs …")
    with tempfile.TemporaryDirectory(prefix="cloud-bench-") as folder:
        return {"lab": _on_lab(Path(folder), passes), "simulated": simulated}


def _simulated(workers: int, vms: int, passes: int) -> dict[str, Any]:
    words = (sys.executable, "-m", "bench.monitoring.simulated", str(workers), str(vms), str(passes))
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _on_lab(folder: Path, passes: int) -> dict[str, Any]:
    lab = Lab(folder / "lab")
    lab.up(Options(), with_parent=os.getpid())
    try:
        image = str(lab.folder.images / IMAGE)
        settings = {
            "ssh": {"key": lab.environment()["CLOUDREPO_SSH_KEY"]},
            "flavors": {"cirros": {"cores": 1, "ram_gb": 0.125, "disk_gb": 1, "image": image}},
        }
        home = folder / "installation"
        home.mkdir()
        (home / "settings.yaml").write_text(yaml.safe_dump(settings))
        env = {"PYTHONPATH": str(CHECKOUT), "CLOUDREPO_STATE": str(home / "database.yaml")}
        env["CLOUDREPO_SSH_KNOWN_HOSTS"] = str(home / "known_hosts")
        words = [sys.executable, "-m", "bench.monitoring.on_lab", str(passes)]
        done = lab.exec(words, env=env, timeout=600, cwd=str(home))
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found
    finally:
        lab.down(purge=True)


def table(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rows = [
        "| hosts | VMs | a look takes | orchestrator's CPU | a host's CPU | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for found in [results["lab"], *results["simulated"]]:
        if found is None:
            continue
        hosts = f"{found['hosts']} of the lab" if "hosts" in found else f"{found['workers']:,} simulated"
        share = f"{1000 * found['cpu_s']:.0f} ms, {100 * found['cpu_s'] / INTERVAL_S:.2g} % of a core"
        theirs = "" if "host_cpu_s" not in found else (
            f"{1000 * found['host_cpu_s']:.0f} ms (most {1000 * found['host_cpu_most_s']:.0f}), "
            f"{100 * found['host_cpu_s'] / INTERVAL_S:.2g} % of a core"
        )  # fmt: skip
        wall = f"{1000 * found['wall_s']:.0f} ms (most {1000 * found['wall_most_s']:.0f})"
        rows.append(f"| {hosts} | {found['vms']:,} | {wall} | {share} | {theirs} | {found['peak_mib']:.0f} MiB |")
    return "\n".join(rows)


def write_readme(results: dict[str, Any], passes: int, load_before: float) -> None:
    """Replace the monitor's part of the README."""
    readme.put(BEGIN, END, f"{machine(load_before)}\n\n{passes} looks, medians.\n\n{table(results)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the results into bench/README.md if asked to.

    Returns:
        0.
    """
    options = program.parser("monitor", __doc__, passes=(40, "looks at the lab")).parse_args(argv)
    load = os.getloadavg()[1]
    results = measure(options.passes, program.say)
    if results["lab"] is None:
        print("The lab needs root; measured without it.", file=sys.stderr)
    print(table(results))
    if options.readme:
        write_readme(results, options.passes, load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
