"""How long one-shot commands take from Enter to the end, the script `./cloud` included: `./cloud bench commands`."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import program, readme
from bench.deployment.report import machine
from bench.storage import made
from cloudrepo.stores import files
from cloudrepo.stores.inspection import rendered

CHECKOUT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- commands: made by ./cloud bench commands --readme -->", "<!-- end of commands -->"
SMALL, CLASS = 10, 1000  # VMs
ON_TERMINAL = " (terminal)"  # of 80 columns, where there are colours; all others write to a pipe
#: Command, VMs in the state, target in seconds. Nobody is asked: there are no hosts.
ROWS: tuple[tuple[str, int, float | None], ...] = (
    ("--version", SMALL, 0.3),
    ("--help", SMALL, 0.3),
    ("deploy --help", SMALL, 0.3),
    ("slice list", SMALL, 0.3),
    (f"slice list{ON_TERMINAL}", SMALL, 0.3),
    ("slice list --json", SMALL, 0.3),
    ("vm list", SMALL, 0.3),
    ("vm show 1001", SMALL, 0.3),
    ("link list 1000 --json", SMALL, 0.3),
    ("user list", SMALL, 0.3),
    ("image list", SMALL, 0.3),
    ("events", SMALL, 0.3),
    ("config show", SMALL, 0.3),
    ("state check", SMALL, 0.3),
    ("topology validate examples/two-hosts.cloud.yml", SMALL, 0.3),
    ("status --no-wait", SMALL, 0.3),
    (f"status --no-wait{ON_TERMINAL}", SMALL, 0.3),
    ("__complete vm ", SMALL, 0.3),
    ("__complete deploy ", SMALL, 0.3),
    ("deploy 1000 --dry-run", SMALL, 0.3),
    ("user quota student --vms 7 --dry-run", SMALL, 0.3),
    ("status --no-wait", CLASS, 1.0),
    (f"status --no-wait{ON_TERMINAL}", CLASS, 1.0),
    ("status --no-wait --json", CLASS, 1.0),
    ("slice list --json", CLASS, None),
    ("user quota student --vms 7 --dry-run", CLASS, None),
    ("__complete console ", CLASS, None),
)
#: Exit statuses other than 0: a dry run of something; one whose hosts cannot be looked at, which it says at once.
STATUSES = {"user quota student --vms 7 --dry-run": 2, "deploy 1000 --dry-run": 1}


@dataclass(frozen=True)
class Measured:
    """One command: how often it was run is how many figures there are.

    Attributes:
        command: its words.
        vms: in the state.
        target_s: what it may take, or None.
        wall_s: from start to end.
        cpu_s: what the process used of the processor.
    """

    command: str
    vms: int
    target_s: float | None
    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]


def measure(folder: Path, rounds: int) -> list[Measured]:
    """All rows; the first run of each is not counted, so that files are in memory as they are in a working day."""
    states = {}
    for vms in (SMALL, CLASS):
        states[vms] = folder / str(vms) / "database.yaml"
        states[vms].parent.mkdir()
        _write(states[vms], vms)
    found = []
    for command, vms, target in ROWS:
        print(f"{command} with {vms} VMs …", file=sys.stderr, flush=True)
        figures = [_run(command, states[vms]) for _ in range(rounds + 1)][1:]
        found.append(Measured(command, vms, target, *zip(*figures, strict=True)))
    return found


def _write(path: Path, vms: int) -> None:
    """A state of that size, whose first slice is still a design: there is something to deploy."""
    data = made.state(vms)
    for record in (data["slices"]["1000"], *data["slices"]["1000"]["vms"]):
        record["status"] = "design"
    files.replace(path, rendered(data, 1), None)


def _run(command: str, state: Path) -> tuple[float, float]:
    words = (str(CHECKOUT / "cloud"), *command.removesuffix(ON_TERMINAL).split(" "))
    kept = ("CLOUDREPO_VENV", "CLOUDREPO_PYTHON")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDREPO_") or name in kept}
    clean.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start compiles everything anew
    environment = clean | {"CLOUDREPO_STATE": str(state), "CLOUDREPO_LAB_ONLY": "1"}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "80"} if command.endswith(ON_TERMINAL) else {}
    ours, its = os.openpty() if command.endswith(ON_TERMINAL) else os.pipe()
    began = time.monotonic()
    process = subprocess.Popen(words, cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, stdout=its, stderr=its)
    os.close(its)
    said = _all_of(ours)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - began
    assert process.returncode == STATUSES.get(command, 0), (command, said.decode())
    return wall, used.ru_utime + used.ru_stime


def _all_of(descriptor: int) -> bytes:
    """What comes until its other side is closed, which a terminal tells by an error; then it is closed too."""
    said = b""
    with contextlib.suppress(OSError):
        while part := os.read(descriptor, 1 << 16):
            said += part
    os.close(descriptor)
    return said


def table(rows: Sequence[Measured]) -> str:
    """The figures as Markdown."""
    lines = ["| command | VMs | takes, median (least) | of the processor | target | met |", "|---|---|---|---|---|---|"]
    for one in rows:
        wall, cpu = statistics.median(one.wall_s), statistics.median(one.cpu_s)
        target, met = "", ""
        if one.target_s is not None:
            target, met = f"≤ {one.target_s:g} s", "yes" if wall <= one.target_s else "**no**"
        took = f"{wall:.2f} s ({min(one.wall_s):.2f})"
        lines.append(f"| `{one.command.strip()}` | {one.vms:,} | {took} | {cpu:.2f} s | {target} | {met} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure in a folder of its own, which is removed.

    Returns:
        0; a target that is missed is said, not an error.
    """
    options = program.parser("commands", __doc__, rounds=(15, "runs of each")).parse_args(argv)
    load = os.getloadavg()[1]
    with tempfile.TemporaryDirectory(prefix="cloud-bench-") as folder:
        text = table(measure(Path(folder), options.rounds))
    print(text)
    if options.readme:
        readme.put(BEGIN, END, f"{machine(load)}\n\n{options.rounds} runs of each.\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
