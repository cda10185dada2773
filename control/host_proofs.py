"""What `./cloud doctor` has a host do: run a guest, read its base images, write to its disk. Nothing of it stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudrepo import accelerator
from cloudrepo.accelerator import Accelerator
from cloudrepo.base_image_removal import DiskOn
from cloudrepo.doctor.host_facts import HostFacts
from cloudrepo.doctor.images import Copy
from cloudrepo.doctor.proofs import MEASURED, Proofs
from cloudrepo.host import json_text
from cloudrepo.images import ImageStore
from cloudrepo.plan import Checksum, MeasureDisk, Plan, Step, StepResult
from cloudrepo.state import all_slices
from control.context import Context
from control.host_images import WantedImage

EMULATED_S = 20.0  # longest wait for a guest of one sector: a busy host takes its time
SLOWEST_DISK = 10_000_000  # bytes a second, for deadlines


def prove(context: Context, ip: str, facts: HostFacts, images: Sequence[WantedImage]) -> Proofs:
    """Have a host do it.

    Raises:
        HostError: it does not answer any more.
    """
    ran, reason = _guest(context, ip, facts)
    speed = MeasureDisk(path=facts.question.base_dir, size=MEASURED, timeout_s=60)
    plan = Plan(installation=context.site.installation, observe=(Step(name="s", label="measure the disk", act=speed),))
    answer = context.site.executor.run_plan(ip, plan).observed.get("s")
    mb_s, trouble = _speed(answer)
    return Proofs(
        ip=ip,
        setting=context.settings.accel,
        accelerator=ran,
        reason=reason,
        images=[copy for one in images if (copy := _copy(context, ip, facts, one)) is not None],
        folder=facts.question.base_dir,
        free=facts.worker.free_bytes,
        mb_s=mb_s,
        trouble=trouble,
    )


def _guest(context: Context, ip: str, facts: HostFacts) -> tuple[str | None, str]:
    """What ran a guest there, and why not KVM."""
    setting, worker = context.settings.accel, facts.worker
    if "qemu" in worker.missing or not worker.user_groups:
        return None, ""  # told of elsewhere
    proof = accelerator.without_proof(setting=setting, has_device=worker.has_kvm, boot_id=worker.boot_id)
    reason = proof.reason if proof is not None else ""
    if proof is None:
        works, reason = _boots(context, ip, facts, "kvm", accelerator.DEADLINE_S)
        if works:
            return "kvm", ""
    works, trouble = _boots(context, ip, facts, "tcg", EMULATED_S)
    return ("tcg", reason) if works else ("", trouble)


def _boots(context: Context, ip: str, facts: HostFacts, kind: Accelerator, deadline_s: float) -> tuple[bool, str]:
    user, question = facts.question.user, facts.question
    plan = accelerator.proof_plan(question.installation, user=user, accelerator=kind, deadline_s=deadline_s)
    result = context.site.executor.run_plan(ip, plan)
    boot = result.steps.get("boot")
    works = boot is not None and boot.status == accelerator.WORKS
    return works, "" if works else accelerator.read_proof(result, boot_id="", user=user).reason


def _speed(answer: StepResult | None) -> tuple[float | None, str]:
    if answer is None or not answer.accepted:
        return None, answer.err.strip()[-300:] if answer is not None else "no answer"
    try:
        told: Any = json_text.loads(answer.out)
        return float(told["bytes"]) / 1e6 / max(float(told["seconds"]), 1e-6), ""
    except json_text.NOT_UNDERSTOOD as error:
        return None, repr(error)


def _copy(context: Context, ip: str, facts: HostFacts, image: WantedImage) -> Copy | None:
    """What has become of an image's copy on a host: its content is read. None = it is not there, nor has to be."""
    place = place_on_host(context, facts, image)
    act = Checksum(path=place, timeout_s=60 + image.size / SLOWEST_DISK)
    plan = Plan(installation=context.site.installation, observe=(Step(name="c", label=f"read {place}", act=act),))
    answer = context.site.executor.run_plan(ip, plan).observed.get("c")
    state = "missing"
    if answer is not None and answer.status == 0:
        state = "ready" if f'"{image.sha256}"' in answer.out else "damaged"
    if state == "missing" and not image.must_be_on(ip):
        return None
    users = _users(context, ip, facts, place) if state != "ready" else ()
    return Copy(what=image.what, size=image.size, state=state, place=place, users=users, can_be_brought=image.is_here)


def _users(context: Context, ip: str, facts: HostFacts, place: str) -> tuple[str, ...]:
    """Whose disks are on a base image, of all installations."""
    disks = context.deployment.qcow_manager.bases.disks_on(ip, facts.question.base_dir, place)
    data = context.db.data
    names = {vm["vm_id"]: f"{record['name']}/{vm['name']}" for record in all_slices(data) for vm in record["vms"]}
    return tuple(sorted(_named(disk, names, context.site.installation) for disk in disks))


def _named(disk: DiskOn, names: Mapping[int, str], installation: str) -> str:
    if disk.is_unread or disk.vm_id is None:
        return f"the disk in {disk.directory}"
    if disk.installation != installation:
        return f"VM {disk.vm_id} of the installation {disk.installation}"
    return f"VM {disk.vm_id} ({names[disk.vm_id]})" if disk.vm_id in names else f"VM {disk.vm_id}"


def place_on_host(context: Context, facts: HostFacts, image: WantedImage) -> str:
    """Where an image's copy is on a host, or would be."""
    return image.place(ImageStore(base_dir=facts.question.base_dir, installation=context.site.installation))
