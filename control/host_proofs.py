"""What `./cloud doctor` has a host do: run a guest, read its base images, write to its disk. Nothing of it stays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from cloudrepo import accelerator, base_image_plans
from cloudrepo.accelerator import Accelerator
from cloudrepo.base_image_removal import DiskOn
from cloudrepo.doctor.host_facts import HostFacts
from cloudrepo.doctor.proofs import MEASURED, Image, Proofs
from cloudrepo.host import json_text
from cloudrepo.images import ImageStore
from cloudrepo.plan import Checksum, MeasureDisk, Plan, Step, StepResult
from cloudrepo.state import all_slices
from control.context import Context

EMULATED_S = 20.0  # longest wait for a guest of one sector: a busy host takes its time
SLOWEST_DISK = 10_000_000  # bytes a second, for deadlines


def wanted_images(context: Context) -> dict[str, list[str]]:
    """Images on this machine by the flavors that are made of them: path → flavors."""
    found: dict[str, list[str]] = {}
    for name, flavor in context.settings.flavors.items():
        found.setdefault(os.path.expanduser(str(flavor["image"])), []).append(name)
    return found


def prove(context: Context, ip: str, facts: HostFacts, images: Mapping[str, Sequence[str]]) -> Proofs:
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
        images=[_image(context, ip, facts, path, flavors) for path, flavors in images.items()],
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


def _image(context: Context, ip: str, facts: HostFacts, path: str, flavors: Sequence[str]) -> Image:
    """What has become of an image's copy on a host: its content is read."""
    digest, place = place_on_host(context, facts, path)
    size = os.path.getsize(path)
    act = Checksum(path=place, timeout_s=60 + size / SLOWEST_DISK)
    plan = Plan(installation=context.site.installation, observe=(Step(name="c", label=f"read {place}", act=act),))
    answer = context.site.executor.run_plan(ip, plan).observed.get("c")
    state = "missing"
    if answer is not None and answer.status == 0:
        state = "ready" if f'"{digest}"' in answer.out else "damaged"
    users = _users(context, ip, facts, place) if state == "damaged" else ()
    return Image(path=path, flavors=flavors, size=size, state=state, place=place, users=users)


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


def place_on_host(context: Context, facts: HostFacts, path: str) -> tuple[str, str]:
    """The digest of an image of this machine, and where its copy is on a host.

    Raises:
        RefusedError: it cannot be read.
    """
    store = ImageStore(base_dir=facts.question.base_dir, installation=context.site.installation)
    digest = context.deployment.qcow_manager.bases.digest(path)
    return digest, base_image_plans.base_path(store, digest, os.path.basename(path))
