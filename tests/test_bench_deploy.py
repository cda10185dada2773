"""What the bench compares this project with: the slice, the floor's scripts, the documented sequence."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench import readme
from bench.deployment import documented, floor, report
from bench.deployment.rounds import AT_A_TIME, Results
from bench.deployment.slice import HOSTS, NETWORK_NODE, guests, vlans


def test_the_slice_is_twelve_guests_in_a_line() -> None:
    ends = [nic.vlan for guest in guests() for nic in guest.nics]
    assert [len(guests(host)) for host in HOSTS] == [4, 4, 4]
    assert len(vlans()) == 12 and ends.count(400) == 12 and ends.count(None) == 2
    assert all(ends.count(vlan.number) == 2 for vlan in vlans()[:-1])


def test_the_documented_sequence_has_its_284_commands() -> None:
    commands = documented.commands("/base")
    assert len(commands) == 284
    assert sum("tuntap" in line for _, line in commands) == 34, "a TAP for each NIC that has a VLAN"


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("stage", floor.STAGES)
def test_the_floors_scripts_are_shell(stage: str, host: str) -> None:
    text = floor.script(stage, host, base="/base", at_a_time=2)
    done = subprocess.run(("bash", "-n"), input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_network_node_has_vlans() -> None:
    for host in HOSTS:
        text = floor.data(host, base="/base", at_a_time=1)
        assert ("VLANS=''" in text) is (host != NETWORK_NODE)
        assert text.partition("GUESTS='")[2].partition("'")[0].count("\n") == 3


def results(ours: float) -> Results:
    """Samples in which the floor takes 1 to 4 s, best with one QEMU at a time."""
    found = Results(messages={"deploy": dict.fromkeys(HOSTS, 2)}, peak_mib=50, rounds=1)
    for row in ("deploy", "all"):
        found.samples[f"product.{row}"] = [ours]
        for count in AT_A_TIME:
            found.samples[f"floor.{row}.{count}"] = [float(count)]
    for row in ("delete", "ping"):
        found.samples |= {f"product.{row}": [ours], f"floor.{row}": [1.0]}
    found.samples |= {"product.deploy.parallel": [ours], "prompt": [0.2]}
    return found


@pytest.mark.parametrize(("ours", "missed"), [(1.0, 0), (1.22, 1), (1.3, 3), (1.5, 4)])
def test_the_table_says_which_targets_are_missed(ours: float, missed: int) -> None:
    assert report.table(results(ours)).count("**no**") == missed


def test_the_results_replace_the_ones_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    monkeypatch.setattr(readme, "README", page)
    report.write_readme(results(1.0), 0.0)
    once = page.read_text()
    assert once.startswith("before\n") and once.endswith("\nafter\n") and "\nold\n" not in once
    assert (report.BEGIN in readme.README.read_text()) and "up.sh" in once
    report.write_readme(results(1.0), 0.0)
    assert page.read_text().count(report.BEGIN) == 1
