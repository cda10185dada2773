"""The bench of the state measures what it says."""

from __future__ import annotations

from pathlib import Path

from bench.storage import client, made, report
from cloudrepo.invariants import violations
from database import Database


def test_the_state_that_is_measured_is_a_possible_one(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    made.write(path, 200)
    data = Database(path).data
    assert (len(data["slices"]), sum(len(one["vms"]) for one in data["slices"].values())) == (20, 200)
    assert sum(len(one["links"]) for one in data["slices"].values()) == 80
    assert violations(data) == []


def test_commits_and_bare_fsyncs_are_of_the_same_size(tmp_path: Path) -> None:
    path = tmp_path / "database.yaml"
    made.write(path, 40)
    found = client.commit(path, 5)
    assert len(found["commits"]) == len(found["fsyncs"]) == 5
    assert (tmp_path / "bare").stat().st_size == sum(found["bytes"])


def test_a_page_says_what_was_missed() -> None:
    size = {
        "file_bytes": 8_000_000,
        "loads": [{"load_s": 4.0, "peak_mib": 100}],
        "commit": {"commits": [0.001] * 100, "fsyncs": [0.0005] * 100},
        "fold": {"fold_s": [0.1], "pause_s": 0.02, "other_pause_s": 0.06, "file_bytes": 8, "dumped_alone_bytes": 7},
    }
    size["fold"]["peak_mib"] = 100  # type: ignore[index]
    lines = report.page({1000: size, 10_000: size}, [{"pss_mib": 1, "rss_mib": 2}], 0.0).splitlines()
    assert [line.split("|")[1].strip() for line in lines if "**no**" in line] == [
        "10,000 VMs: longest commit while the YAML is folded, in another process",
        "10,000 VMs: load",
        "1,000 VMs: load",
    ]
