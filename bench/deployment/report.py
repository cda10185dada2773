"""The results as Markdown: the generated part of `bench/README.md`."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench import readme
from bench.deployment import documented, floor
from bench.deployment.rounds import Results
from bench.deployment.slice import NETWORK_NODE

BEGIN, END = "<!-- results: made by ./cloud bench deploy --readme -->", "<!-- end of results -->"
SCRIPTS = ("disks.sh", "up.sh", "down.sh", "qmp.pl")
NEWLINE = "\n"


def table(results: Results) -> str:
    """The rows with their targets."""
    rows = [*_ratios(results), *_single(results)]
    lines = ["| what | this project | beside it | ratio or value | target | met |", "|---|---|---|---|---|---|"]
    return NEWLINE.join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _ratios(results: Results) -> Iterator[tuple[str, ...]]:
    for title, row, target in (("`deploy_slice` alone", "deploy", 1.25), ("from `create_slice` on", "all", 1.4)):
        best = results.best(row)
        yield _ratio(results, title, f"product.{row}", f"floor.{row}.{best}", target, f", {best} QEMUs at a time")
    yield _ratio(results, "`delete_slice`", "product.delete", "floor.delete", 1.25)
    yield _ratio(results, "last guest answers ping", "product.ping", "floor.ping", 1.2)
    name = "product.deploy.parallel"
    ratio = results.median("product.deploy") / results.median(name)
    beside = f"`deploy.order: parallel` {_spread(results, name)}"
    yield ("the documented order, the default", _spread(results, "product.deploy"), beside, f"{ratio:.2f}", "≤ 1.1", _met(ratio <= 1.1))  # fmt: skip  # noqa: E501


def _single(results: Results) -> Iterator[tuple[str, ...]]:
    if "documented.all" in results.samples:
        ratio = results.median("documented.all") / results.median("product.all")
        beside = f"documented sequence {results.median('documented.all'):.1f} s"
        yield ("the documented sequence, once", _spread(results, "product.all"), beside, f"{ratio:.0f}", "≥ 22", _met(ratio >= 22))  # fmt: skip  # noqa: E501
    prompt = results.median("prompt")
    yield ("login prompt", _spread(results, "prompt"), "", f"{prompt:.2f} s", "≤ 0.4 s", _met(prompt <= 0.4))
    peak = results.peak_mib
    yield ("peak memory", f"{peak:.0f} MiB", "", f"{peak:.0f} MiB", "≤ 120 MiB", _met(peak <= 120))
    counts = sorted(set(results.messages["deploy"].values()))
    shown = ", ".join(map(str, counts))
    yield ("messages (round trips) a host in a deploy", shown, "", shown, "2", _met(counts == [2]))


def _ratio(results: Results, title: str, ours: str, theirs: str, target: float, note: str = "") -> tuple[str, ...]:
    ratio = results.median(ours) / results.median(theirs)
    beside = f"floor {_spread(results, theirs)}{note}"
    return (title, _spread(results, ours), beside, f"{ratio:.2f}", f"≤ {target}", _met(ratio <= target))


def _spread(results: Results, name: str) -> str:
    found = results.samples[name]
    return f"{results.median(name):.2f} s ({min(found):.2f}-{max(found):.2f})"


def _met(is_met: bool) -> str:
    return "yes" if is_met else "**no**"


def machine(load_before: float) -> str:
    """The machine, its tools, and how busy it was."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    versions = [_first_line(*words) for words in (("qemu-system-x86_64", "--version"), ("ovs-vsctl", "--version"))]
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu[1] if cpu else 'unknown'}), "
        f"{int(memory[1]) // 1024 if memory else 0} MiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {', '.join(versions)}, guests emulated (TCG).",
        f"Load average {load_before:.1f} before and {os.getloadavg()[1]:.1f} at the end "
        "(a run alone begins near 0; with more, other programs shared the cores and only the ratios say much).",
    ]
    return NEWLINE.join(lines)


def _first_line(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.partition(NEWLINE)[0]


def write_readme(results: Results, load_before: float) -> None:
    """Replace the generated part of the README."""
    lines = [
        machine(load_before),
        "",
        f"{results.rounds} rounds, medians (least-most).",
        "",
        table(results),
        "",
        "The floor, by QEMUs at a time: " + ", ".join(_floor_medians(results)) + ".",
        "",
        "### The floor's scripts",
        "",
        "The data of the network node; a worker has no `VLANS`:",
        *_fenced(
            "sh", floor.data(NETWORK_NODE, base="/home/ubuntu/vm_images/base/….img", at_a_time=2).partition("QMP=")[0]
        ),
        *(line for name in SCRIPTS for line in (f"`{name}`:", *_fenced("sh", (floor.SCRIPTS / name).read_text()))),
        f"### The documented sequence ({len(documented.commands('BASE'))} commands), its first ones",
        "",
        *_fenced("", NEWLINE.join(f"{host}: {line}" for host, line in documented.commands("BASE")[22:37])),
    ]
    readme.put(BEGIN, END, NEWLINE.join(lines))


def _floor_medians(results: Results) -> Iterator[str]:
    for count in range(1, 5):
        yield f"{count}: {results.median(f'floor.deploy.{count}'):.2f} s"


def _fenced(language: str, text: str) -> list[str]:
    return [f"```{language}", text.rstrip(), "```", ""]
