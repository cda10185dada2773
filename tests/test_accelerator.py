"""The accelerator is proved by a guest that ends QEMU with a status of our choice."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from cloudrepo import accelerator
from cloudrepo.accelerator import Proof
from cloudrepo.plan import PlanResult, StepResult
from cloudrepo.transports.local import LocalHost
from image_tools import INSTALLATION, local_executor, require, script


def prove(tmp_path: Path, body: str, **options: str) -> tuple[Proof, list[Path]]:
    """What is proved on a host whose QEMU is this script, and what is left there."""
    script(tmp_path / "bin", "qemu-system-x86_64", body)
    run = tmp_path / "run"
    run.mkdir()
    executor = local_executor(w1=LocalHost(path_prefix=(str(tmp_path / "bin"),)))
    plan = accelerator.proof_plan(INSTALLATION, parent=str(run))
    proof = accelerator.read_proof(executor.run_plan("w1", plan), boot_id="b1", **options)
    return proof, list(run.iterdir())


def test_the_agreed_status_proves_kvm_and_nothing_stays(tmp_path: Path) -> None:
    proof, left = prove(tmp_path, f'echo "$@" > {tmp_path}/words; exit 33')
    assert proof == Proof(accelerator="kvm", reason="KVM ran a guest", boot_id="b1")
    assert left == []
    words = (tmp_path / "words").read_text()
    assert "-accel kvm -cpu host" in words
    assert "-device isa-debug-exit,iobase=0xf4,iosize=1" in words


def test_an_abort_means_emulation_with_qemus_last_words(tmp_path: Path) -> None:
    proof, left = prove(tmp_path, "echo first >&2; echo 'error: failed to set MSR 0x345 to 0x2000' >&2; kill -ABRT $$")
    assert proof.accelerator == "tcg"
    assert "ended by signal 6: error: failed to set MSR 0x345" in proof.reason and "first" not in proof.reason
    assert left == []


@pytest.mark.parametrize("status", [0, 1, 3, 32, 34, 255])
def test_any_other_status_means_emulation(tmp_path: Path, status: int) -> None:
    proof, _ = prove(tmp_path, f"exit {status}")
    assert proof.accelerator == "tcg"
    assert f"status {status}" in proof.reason


def test_a_guest_that_spins_is_ended_after_the_deadline(tmp_path: Path) -> None:
    began = time.monotonic()
    proof, left = prove(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    assert 2.9 < time.monotonic() - began < 6
    assert proof.accelerator == "tcg" and "in 3 s" in proof.reason
    assert left == []
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_closed_device_names_the_account_and_the_remedy(tmp_path: Path) -> None:
    words = "Could not access KVM kernel module: Permission denied"
    proof, _ = prove(tmp_path, f"echo '{words}' >&2; exit 1", user="lab-qemu")
    assert "sudo usermod -aG kvm lab-qemu" in proof.reason


def test_without_an_answer_nothing_is_proved() -> None:
    lost = PlanResult(host="w1", aborted="connection lost")
    assert accelerator.read_proof(lost, boot_id="b").accelerator == "tcg"
    disk = StepResult(name="disk", label="write a disk", status=1, err="No space left on device", accepted=False)
    full = accelerator.read_proof(PlanResult(host="w1", steps={"disk": disk}, failed=disk), boot_id="b")
    assert full.accelerator == "tcg" and "No space left" in full.reason


def test_the_setting_and_a_missing_device_need_no_guest() -> None:
    by_setting = accelerator.without_proof(setting="tcg", has_device=True, boot_id="b")
    assert by_setting is not None and by_setting.accelerator == "tcg"
    without = accelerator.without_proof(setting="auto", has_device=False, boot_id="b")
    assert without is not None and "/dev/kvm" in without.reason
    assert accelerator.without_proof(setting="auto", has_device=True, boot_id="b") is None


def test_the_sector_is_bootable_and_ends_a_real_qemu(tmp_path: Path) -> None:
    require("qemu-system-x86_64")
    assert len(accelerator.BOOT_SECTOR) == 512 and accelerator.BOOT_SECTOR[510:] == b"\x55\xaa"
    executor = local_executor(w1=LocalHost())
    plan = accelerator.proof_plan(INSTALLATION, accelerator="tcg", parent=str(tmp_path))
    for _ in range(3):  # a machine that is busy for 3 s proves nothing against the sector
        result = executor.run_plan("w1", plan)
        if result.steps["boot"].status != accelerator.OUT_OF_TIME:
            break
    assert result.steps["boot"].status == accelerator.WORKS == 33, result.steps["boot"]
    assert list(tmp_path.iterdir()) == []


def test_without_its_code_the_sector_proves_nothing(tmp_path: Path) -> None:
    require("qemu-system-x86_64")
    disk = tmp_path / "disk"
    disk.write_bytes(accelerator.BOOT_SECTOR.replace(b"\xe6\xf4", b"\xeb\xfe", 1))  # a jump to itself
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(accelerator.command(str(disk), "tcg"), timeout=2, check=False)
