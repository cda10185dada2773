"""What is wrong with a host by what it did: ran a guest, read its images, wrote to its disk. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudrepo.doctor import images
from cloudrepo.doctor.findings import Finding, Level
from cloudrepo.doctor.images import Copy
from cloudrepo.late_dataclass import dataclass

GIB = 1024**3
MEASURED = 16 << 20  # bytes that are written to the disk
SLOWEST_MB_S = 10.0  # a class that starts its machines writes that much on each host
LEAST_FREE = GIB  # beside base images that are still to come


@dataclass(frozen=True, kw_only=True)
class Proofs:
    """What one host did.

    Attributes:
        ip: its address.
        setting: of `accel`.
        accelerator: `kvm` or `tcg`: what ran a guest; "" = nothing did, None = it was not tried.
        reason: why KVM, or no accelerator at all, did.
        images: copies of base images.
        folder: the image folder.
        free: bytes on its disk; None = not known.
        mb_s: megabytes a second that its disk takes; None = could not be measured.
        trouble: why not.
    """

    ip: str
    setting: str
    accelerator: str | None
    reason: str = ""
    images: Sequence[Copy] = ()
    folder: str = ""
    free: int | None = None
    mb_s: float | None = None
    trouble: str = ""


def judge(proofs: Proofs) -> list[Finding]:
    """What is wrong; a word where nothing is."""
    found = [*_accelerator(proofs), *_disk(proofs), *images.judge(proofs.ip, proofs.images)]
    if not found:
        said = f"{proofs.ip}: guests run by {proofs.accelerator}" if proofs.accelerator else f"{proofs.ip}:"
        speed = f", {proofs.mb_s:.0f} MB/s" if proofs.mb_s is not None else ""
        text = f"{said}, {len(proofs.images)} base images, {(proofs.free or 0) / GIB:.0f} GB free{speed}"
        found.append(Finding(code="hosts.proofs", level=Level.OK, text=text, hosts=(proofs.ip,)))
    return found


def _accelerator(proofs: Proofs) -> Iterator[Finding]:
    if proofs.accelerator == "":
        yield Finding(
            code="hosts.accelerator",
            level=Level.WRONG,
            text=f"{proofs.ip}: no guest runs",
            evidence=proofs.reason,
            remedy=f"Try it on {proofs.ip}: `qemu-system-x86_64 -nographic -accel tcg -m 16`",
            hosts=(proofs.ip,),
        )
    elif proofs.accelerator == "tcg" and proofs.setting != "tcg":
        yield Finding(
            code="hosts.accelerator",
            level=Level.WRONG if proofs.setting == "kvm" else Level.WARNING,
            text=f"{proofs.ip}: guests are emulated, which is some ten times slower",
            evidence=proofs.reason,
            remedy="Switch virtualisation on in the host's firmware, or nested virtualisation where it is a guest "
            "itself, and load it: `sudo modprobe kvm_intel` or `kvm_amd`. Where emulation is meant, set accel to tcg",
            hosts=(proofs.ip,),
        )


def _disk(proofs: Proofs) -> Iterator[Finding]:
    coming = sum(image.size for image in proofs.images if image.state == "missing")
    if proofs.free is not None and proofs.free < LEAST_FREE + coming:
        needed = f", and {coming / GIB:.1f} GB of base images are to come" if coming else ""
        yield Finding(
            code="hosts.disk.space",
            level=Level.WRONG,
            text=f"{proofs.ip}: the disk of {proofs.folder} is full",
            evidence=f"{proofs.free / GIB:.2f} GB free{needed}",
            remedy=f"On {proofs.ip} see what fills it: `sudo du -xh --max-depth=2 {proofs.folder} | sort -h`; delete "
            "slices that nobody needs, or set images.base_dir to a larger disk",
            hosts=(proofs.ip,),
        )
    elif proofs.mb_s is None:
        yield Finding(
            code="hosts.disk.speed",
            level=Level.UNKNOWN,
            text=f"{proofs.ip}: how fast its disk is could not be measured",
            evidence=proofs.trouble,
            remedy=f"Measure it on {proofs.ip}, and remove the file: `sudo dd if=/dev/zero of={proofs.folder}/x bs=1M "
            "count=64 conv=fdatasync`",
            hosts=(proofs.ip,),
        )
    elif proofs.mb_s < SLOWEST_MB_S:
        yield Finding(
            code="hosts.disk.speed",
            level=Level.WARNING,
            text=f"{proofs.ip}: the disk of {proofs.folder} is slow",
            evidence=f"{proofs.mb_s:.1f} MB/s, {SLOWEST_MB_S:.0f} or more are needed",
            remedy="See what else uses it: `sudo iostat -x 1`, and whether it fails: `sudo dmesg | grep -i error`; "
            "or set images.base_dir to a faster disk",
            hosts=(proofs.ip,),
        )
