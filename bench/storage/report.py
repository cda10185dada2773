"""The results as Markdown: the generated part of `bench/README.md` on the state."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench import readme

BEGIN, END = "<!-- results: made by ./cloud bench state --readme -->", "<!-- end of the results on the state -->"
LARGE, MIDDLE = 10_000, 1000
Results = Mapping[int, Mapping[str, Any]]


def page(results: Results, menus: Sequence[Mapping[str, float]], load_before: float) -> str:
    """The machine, the targets, and how the figures grow."""
    return "\n\n".join([_machine(load_before), _targets(results, menus), "How it grows:", _growth(results)])


def _targets(results: Results, menus: Sequence[Mapping[str, float]]) -> str:
    large = results[LARGE]
    commits, fsyncs = large["commit"]["commits"], large["commit"]["fsyncs"]
    over = _at(commits, 50) - _at(fsyncs, 50)
    fold, loads = large["fold"], large["loads"]
    peak = max(max(one["peak_mib"] for one in loads), fold["peak_mib"])
    beside = f"bare fsync of as many bytes {_ms(_at(fsyncs, 50))} (99 %: {_ms(_at(fsyncs, 99))})"
    rows = [
        ("10,000 VMs: commit, median over a bare fsync", _ms(over), beside, "≤ 1 ms", over <= 0.001),
        ("10,000 VMs: commit, 99 %", _ms(_at(commits, 99)), beside, "≤ 10 ms", _at(commits, 99) <= 0.01),
        _pause("in the process that folds", fold["pause_s"]),
        _pause("in another process", fold["other_pause_s"]),
        _load("10,000", [one["load_s"] for one in loads], 3.5, f"{large['file_bytes'] / 1e6:.1f} MB of YAML"),
        _load("1,000", [one["load_s"] for one in results[MIDDLE]["loads"]], 0.5, "without the start of Python"),
        ("10,000 VMs: peak memory", f"{peak:.0f} MiB", "load, commits and folds", "≤ 300 MB", peak * 1.048576 <= 300),
        (
            "10,000 VMs: dumped again when one slice changed",
            f"{fold['dumped_alone_bytes']:,} bytes",
            f"of a file of {fold['file_bytes']:,}",
            "",
            None,
        ),
        (
            f"{len(menus)} menus on 1,000 VMs: memory together",
            f"{sum(one['pss_mib'] for one in menus):.0f} MiB",
            f"{median(one['rss_mib'] for one in menus):.0f} MiB each when what they share is counted in each",
            "",
            None,
        ),
    ]
    lines = ["| what | measured | beside it | target | met |", "|---|---|---|---|---|"]
    for what, value, note, target, is_met in rows:
        met = {True: "yes", False: "**no**", None: ""}[is_met]
        lines.append(f"| {what} | {value} | {note} | {target} | {met} |")
    return "\n".join(lines)


def _pause(where: str, seconds: float) -> tuple[str, str, str, str, bool]:
    title = f"10,000 VMs: longest commit while the YAML is folded, {where}"
    return (title, _ms(seconds), "writing every 4 ms in both", "≤ 50 ms", seconds <= 0.05)


def _load(size: str, seconds: Sequence[float], target: float, note: str) -> tuple[str, str, str, str, bool]:
    value = f"{median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"
    return (f"{size} VMs: load", value, note, f"≤ {target} s", median(seconds) <= target)


def _growth(results: Results) -> str:
    lines = [
        "| VMs | file | load | peak memory | commit, median (99 %) | bare fsync | fold | longest pause |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size, found in results.items():
        commit, fold = found["commit"], found["fold"]
        cells: Iterable[str] = (
            f"{size:,}",
            f"{found['file_bytes'] / 1e6:.2f} MB",
            f"{median(one['load_s'] for one in found['loads']):.3f} s",
            f"{fold['peak_mib']:.0f} MiB",
            f"{_ms(_at(commit['commits'], 50))} ({_ms(_at(commit['commits'], 99))})",
            _ms(_at(commit["fsyncs"], 50)),
            _ms(median(fold["fold_s"])),
            _ms(max(fold["pause_s"], fold["other_pause_s"])),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _at(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _machine(load_before: float) -> str:
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu[1] if cpu else 'unknown'}), "
        f"{int(memory[1]) // 1024 if memory else 0} MiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}.\n"
        f"Load average {load_before:.1f} before and {os.getloadavg()[1]:.1f} at the end (alone it begins near 0)."
    )


def write_readme(text: str) -> None:
    """Put the results between their marks."""
    readme.put(BEGIN, END, text)
