"""What a proof on the wire costs and how it grows, and whether it ever cries wolf at random slices."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench import program, readme
from bench.deployment.report import machine
from lab.cluster import Lab
from lab.guestless import guestless
from lab.layout import Options

CHECKOUT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- verify: made by ./cloud bench verify --readme -->", "<!-- end of verify -->"
IMAGE = "cirros-0.6.2-x86_64-disk.img"
HOSTS = ("10.0.10.1", "10.0.10.2", "10.0.10.3")
SIZES = (12, 30, 60, 90)  # VMs
AT_ONCE = 10  # random slices that run together
GUESTS_WAIT_S = 120.0

Say = Callable[[str], None]
Record = dict[str, Any]


def measure(passes: int, slices: int, guests: int, seed: int, say: Say = lambda text: None) -> Record:
    """All figures: `sizes`, `random` and `guests`. Needs root."""
    with tempfile.TemporaryDirectory(prefix="cloud-bench-") as folder:
        lab = Lab(Path(folder) / "lab")
        lab.up(Options(cores=16, ram_gb=32), with_parent=os.getpid())
        try:
            parts = [("grow", [passes, *SIZES]), ("clean", [slices, seed])]
            found: Record = {}
            with guestless(lab, HOSTS):
                for name, arguments in parts:
                    found[name] = _inside(lab, Path(folder), name, arguments, say)
            found["guests"] = _inside(lab, Path(folder), "guests", [guests, seed], say) if guests else None
            return found
        finally:
            lab.down(purge=True)


def _inside(lab: Lab, folder: Path, part: str, arguments: Sequence[int], say: Say) -> Any:
    """Run a part where the orchestrator is."""
    home = folder / part
    home.mkdir()
    settings = {
        "accel": "tcg",
        "ssh": {"key": lab.environment()["CLOUDREPO_SSH_KEY"]},
        "qemu": {"stop_grace": 0},
        "flavors": {
            "cirros": {"cores": 1, "ram_gb": 0.125, "disk_gb": 1, "image": str(lab.folder.images / IMAGE)},
        },
    }
    (home / "settings.yaml").write_text(yaml.safe_dump(settings))
    env = {"PYTHONPATH": str(CHECKOUT), "CLOUDREPO_STATE": str(home / "database.yaml")}
    env["CLOUDREPO_SSH_KNOWN_HOSTS"] = str(home / "known_hosts")
    say(f"{part} {' '.join(map(str, arguments))} …")
    words = [sys.executable, "-m", "bench.verification.on_lab", part, *map(str, arguments)]
    done = lab.exec(words, env=env, timeout=3600, cwd=str(home))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def table(results: Record) -> str:
    """The figures as Markdown."""
    rows = ["| VMs | NICs | links | frames | came that must | did not that must not | seconds | target |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for one in results["grow"]:
        seconds = f"{one['seconds']:.2f} ({one['least']:.2f}-{one['most']:.2f})"
        target = "≤ 5" if one["vms"] == SIZES[0] else ""
        rows.append(
            f"| {one['vms']} | {one['nics']} | {one['links']} | {one['frames']:,} | {one['heard']:,} | "
            f"{one['not_heard']:,} | {seconds} | {target} |"
        )
    lines = ["\n".join(rows), _clean("random slices without guests", results["clean"])]
    if results["guests"] is not None:
        lines.append(_clean("random slices with guests", results["guests"]))
    return "\n\n".join(lines)


def _clean(what: str, found: Record) -> str:
    sizes = f"{found['vms']} VMs, {found['nics']} NICs, {found['links']} links, {found['runs']} runs"
    proof = f"{found['heard']:,} frames came that must, {found['not_heard']:,} did not that must not"
    answered = f"; {found['guests']} NICs' guests answered" if found.get("guests") else ""
    return f"{found['slices']} {what} ({sizes}): {found['alarms']} false alarms; {proof}{answered}."


def write_readme(results: Record, load_before: float) -> None:
    """Replace this part of the README."""
    readme.put(BEGIN, END, f"{machine(load_before)}\n\n{table(results)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the results into bench/README.md if asked to.

    Returns:
        0; 1 when there was a false alarm.
    """
    options = program.parser(
        "verify",
        __doc__,
        passes=(5, "runs of each size"),
        slices=(200, "random slices without guests"),
        guests=(10, "random slices with guests"),
        seed=(1, "of chance"),
    ).parse_args(argv)
    if not program.has_root("verify"):
        return 1
    load = os.getloadavg()[1]
    results = measure(options.passes, options.slices, options.guests, options.seed, program.say)
    print(table(results))
    if options.readme:
        write_readme(results, load)
    alarms = [*results["clean"]["texts"], *(results["guests"] or {"texts": []})["texts"]]
    for text in alarms:
        print(f"false alarm: {text}", file=sys.stderr)
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
