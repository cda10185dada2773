"""Whether KVM runs guests on a host: proved by booting one, not read from a device node.

`/dev/kvm` may exist and open while QEMU aborts, or spins at the guest's first instruction. The proof is
a disk of one sector that tells QEMU to end with a status of our choice. It takes about 50 ms where KVM works.
"""

from __future__ import annotations

import base64
import secrets
from typing import Literal

from cloudrepo.commands import python3, qemu
from cloudrepo.guest_accounts import is_number
from cloudrepo.late_dataclass import dataclass
from cloudrepo.plan import MakeDir, Plan, PlanResult, Remove, Run, Stage, Step, StepResult

Accelerator = Literal["kvm", "tcg"]

DEADLINE_S = 3.0
OUT_OF_TIME = 124
EXIT_PORT = 0xF4
EXIT_VALUE = 0x10
#: isa-debug-exit ends QEMU with (value << 1) | 1.
WORKS = EXIT_VALUE << 1 | 1

#: 16-bit code at 0000:7c00: mov al,10h; out 0f4h,al; hlt. Then the signature a BIOS looks for.
BOOT_SECTOR = bytes([0xB0, EXIT_VALUE, 0xE6, EXIT_PORT, 0xF4]).ljust(510, b"\0") + b"\x55\xaa"


_NO_DEVICE = (
    "there is no /dev/kvm: virtualisation is off in the firmware, or this machine is itself a guest without "
    "nested virtualisation"
)
_BY_SETTING = "the setting accel is tcg"
#: Reasons for emulation that no guest was booted for.
REASONS_WITHOUT_PROOF = (_NO_DEVICE, _BY_SETTING)


@dataclass(frozen=True, kw_only=True)
class Proof:
    """How guests run on a host, and why. `boot_id`: the boot of the host it was proved in."""

    accelerator: Accelerator
    reason: str
    boot_id: str


def command(disk: str, accelerator: Accelerator) -> tuple[str, ...]:
    """Boot `disk` with the accelerator and the processor the guests will have."""
    processor = ("-accel", "kvm", "-cpu", "host") if accelerator == "kvm" else ("-accel", "tcg")
    return (
        *(qemu.BINARY, "-nodefaults", "-no-user-config", "-display", "none", "-m", "16"),
        *processor,
        *("-drive", f"file={disk},format=raw,if=ide"),
        *("-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1"),
    )


def proof_plan(
    installation: str,
    *,
    user: str = "",
    accelerator: Accelerator = "kvm",
    parent: str = "/run",
    token: str = "",
    deadline_s: float = DEADLINE_S,
) -> Plan:
    """Boot the sector once; nothing stays. Read only in the sense that no lock is needed.

    Args:
        installation: ours.
        user: the account the guests will run as: it may lack what root has.
        accelerator: what is to be proved.
        parent: where the disk lives for the moment.
        token: makes the directory unlike that of another process; made here when empty.
        deadline_s: longest wait for the guest.
    """
    directory = f"{parent}/cloudrepo-proof-{token or secrets.token_hex(6)}"
    disk = f"{directory}/disk"
    sector = base64.b64encode(BOOT_SECTOR).decode()
    steps = (
        Step(name="dir", label="make a directory for the proof", act=MakeDir(path=directory, user=user)),
        Step(
            name="disk",
            label="write a disk of one sector",
            act=Run(words=python3.write_binary(disk), stdin=sector, user=user),
        ),
        Step(
            name="boot",
            label=f"boot it with {accelerator}",
            act=Run(words=command(disk, accelerator), ok=(WORKS,), user=user, timeout_s=deadline_s),
        ),
    )
    tidy = Step(name="tidy", label="remove the proof's directory", act=Remove(path=directory, within=parent, tree=True))
    return Plan(installation=installation, stages=(Stage(name="proof", steps=steps),), observe=(tidy,))


def read_proof(result: PlanResult, *, boot_id: str, user: str = "") -> Proof:
    """What the answer of `proof_plan` proves. Anything but the agreed status means emulation."""
    boot = result.steps.get("boot")
    if boot is not None and boot.status == WORKS:
        return Proof(accelerator="kvm", reason="KVM ran a guest", boot_id=boot_id)
    failed = boot or result.failed
    reason = _why(failed, user) if failed else f"the proof did not run: {result.aborted or 'no answer'}"
    return Proof(accelerator="tcg", reason=reason, boot_id=boot_id)


def _why(answer: StepResult, user: str) -> str:
    if answer.name != "boot":
        return f"the proof did not run: {answer.label}: {_last_line(answer.err)}"
    if answer.status == OUT_OF_TIME:
        return f"KVM is there, but a guest did not get past its first instructions in {DEADLINE_S:.0f} s"
    words = _last_line(answer.err) or "it said nothing"
    if "Permission denied" in answer.err and is_number(user):
        return f"no group may use /dev/kvm ({words}); allow it with: sudo chgrp kvm /dev/kvm; sudo chmod 660 /dev/kvm"
    if "Permission denied" in answer.err and user:
        return f"{user} may not use /dev/kvm ({words}); allow it with: sudo usermod -aG kvm {user}"
    end = f"was ended by signal {-answer.status}" if answer.status < 0 else f"ended with status {answer.status}"
    return f"KVM is there, but QEMU {end}: {words}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def without_proof(*, setting: str, has_device: bool, boot_id: str) -> Proof | None:
    """The answer where no guest need be booted: emulation is asked for, or there is no KVM at all."""
    if setting == "tcg":
        return Proof(accelerator="tcg", reason=_BY_SETTING, boot_id=boot_id)
    if not has_device:
        return Proof(accelerator="tcg", reason=_NO_DEVICE, boot_id=boot_id)
    return None
