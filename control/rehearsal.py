"""What a call of the façade would change, without making it: people, workers, images, policies, and what a crash left.

Records are changed by the call's own use case, in a transaction that is taken back; hosts are looked at by what the use
case decides with. Operations on slices, VMs and links have plans of their own: `control/planning.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any

from cloudrepo import record_changes
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.validation import shown
from control import late
from control.context import Context, Record, known_slice
from control.plan_records import NOTHING, quota_of, rehearsed

OF_RECOVERY, APPLY = ("resume", "rollback"), "apply_plan"


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What was found out about a call.

    Attributes:
        about: the object it is about.
        quota: of whom it is about, afterwards; None = of nobody.
        records: how records change.
        hosts: as plans have them.
        notes: what else is good to know, in sentences.
    """

    about: str
    quota: Record | None = None
    records: list[Record] = field(default_factory=list)
    hosts: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def rehearse(
    context: Context, username: str | None, call: str, wish: Mapping[str, Any], *, at_a_shell: bool = True
) -> Record:
    """What a call would change.

    Args:
        context: the installation.
        username: who acts; None = the operator.
        call: the name of the façade's call.
        wish: its arguments by name, without who acts. A password is not needed.
        at_a_shell: see `images.add`.

    Returns:
        `kind` (the call), `about`, `differences`, `records` (each `what`, `key`, `before`, `after`), `hosts` and
        `allocations` as in other plans, `quota` of whom it is about, afterwards, or None, and `notes`. Of `resume`,
        `rollback` and `apply_plan` a plan of their slice, as `planning.plan` says.

    Raises:
        CloudError: the call would be refused, or a host that decides it does not answer.
    """
    if call in OF_RECOVERY:
        return late.recovery_plans.plan(context, str(username), call, **wish)
    if call == APPLY:
        return late.planning.checked(context, str(username), **wish)
    if call == "add_image":
        return _document(context, call, _of_new_image(context, username, at_a_shell=at_a_shell, **wish))
    work = _CALLS.get(call)
    if work is None:
        raise RefusedError(
            f"{shown(call)} cannot be rehearsed", evidence=f"there are {', '.join(CALLS)}", code="plan.kind"
        )
    return _document(context, call, work(context, username, **wish))


def _document(context: Context, call: str, found: _Found) -> Record:
    actions = sum(len(one["actions"]) for one in found.hosts)
    return {
        "kind": call,
        "about": found.about,
        "differences": len(found.records) + actions,
        "hosts": found.hosts,
        "records": found.records,
        "quota": found.quota,
        "allocations": dict(NOTHING),
        "notes": found.notes,
    }


# ---------------------------------------------------------------------------------------- records alone


def _found(context: Context, about: str, work: Callable[[Record], object], *, owner: str = "") -> _Found:
    """What some work makes of the records, and of a user's quota; they are as before."""

    def changed(data: Record) -> _Found:
        before = record_changes.objects(data)
        work(data)
        records = record_changes.between(before, record_changes.objects(data))
        return _Found(about=about, records=records, quota=quota_of(context, data, owner) if owner else None)

    return rehearsed(context, changed)


def _add_user(
    context: Context, _who: str | None, user: str, role: str = "student", quotas: Mapping[str, Any] | None = None
) -> _Found:
    return _found(
        context, f"user {user}", lambda _: late.users.add(context, user, role, _some_password(), quotas or {})
    )


def _some_password() -> str:
    """In the place of the one that is chosen when it is done."""
    return secrets.token_urlsafe(12)


def _remove_user(context: Context, _who: str | None, user: str, give_slices_to: str = "") -> _Found:
    about = f"user {user}"
    return _found(context, about, lambda _: late.users.remove(context, user, give_slices_to), owner=give_slices_to)


def _reset_password(context: Context, _who: str | None, user: str) -> _Found:
    about = f"user {user}"
    return _found(context, about, lambda _: late.users.reset_password(context, user, _some_password()), owner=user)


def _set_role(context: Context, _who: str | None, user: str, role: str) -> _Found:
    return _found(context, f"user {user}", lambda _: late.users.set_role(context, user, role), owner=user)


def _set_quota(context: Context, _who: str | None, user: str, quotas: Mapping[str, Any]) -> _Found:
    return _found(context, f"user {user}", lambda _: late.users.set_quota(context, user, quotas), owner=user)


def _set_restart_policy(context: Context, who: str | None, slice_id: int, vm_id: int, policy: str) -> _Found:
    owner = str(known_slice(context.db.data, who, slice_id)["owner"])

    def work(_data: Record) -> None:
        late.repair.set_restart_policy(context, str(who), slice_id, vm_id, policy)

    return _found(context, f"VM {vm_id}", work, owner=owner)


def _drain_worker(context: Context, _who: str | None, ip: str, undo: bool = False) -> _Found:
    return _found(context, f"worker {ip}", lambda _: late.workers.drain(context, ip, undo=undo))


# ---------------------------------------------------------------------------------------- hosts as well


def _remove_worker(context: Context, _who: str | None, ip: str, force: bool = False) -> _Found:
    vms: list[Record] = []
    found = _found(context, f"worker {ip}", lambda data: vms.extend(late.workers.take_out(data, ip, force=force)))
    views, left = late.workers.look_before_removal(context, ip, vms, force=force)
    hosts = [late.plan_parts.of_host(context, one, view, None, late.targets.everything) for one, view in views.items()]
    notes = [f"Something of ours stays on {ip}: {left}."] if left else []
    return replace(found, hosts=hosts, notes=notes)


IMAGE = "image"  # the kind of an action on a copy of an image


def _remove_image(context: Context, who: str | None, image: str) -> _Found:
    from cloudrepo.image_library import NO_COPY  # late: most rehearsals are of records alone

    found, answers = late.images.look_before_removal(context, who, image)
    hosts, notes = [], []
    for ip, answer in answers.items():
        error = str(answer) if isinstance(answer, CloudError) else ""
        actions = [{"verb": "remove", "kind": IMAGE, "name": found.file_name}] if answer == "" else []
        if actions:
            hosts.append({"host": ip, "actions": actions, "foreign": [], "seen": [], "error": ""})
        elif answer != NO_COPY:
            notes.append(f"A copy may stay on {ip}: {error or answer}.")
    before = _of_image(found.format, found.size)
    gone = {"what": f"image {found.name}", "key": "", "before": before, "after": None}
    return _Found(about=f"image {found.name}", records=[gone], hosts=hosts, notes=notes)


def _of_new_image(
    context: Context, who: str | None, image: str, path: str, format: str = "", *, at_a_shell: bool
) -> _Found:
    found = late.images.add(context, who, image, path, format, at_a_shell=at_a_shell, looks_only=True)
    told = _of_image(found["format"], found["size"]) | {
        key: found[key] for key in ("virtual_size", "sha256", "added_by")
    }
    new = {"what": f"image {found['name']}", "key": "", "before": None, "after": told}
    return _Found(about=f"image {found['name']}", records=[new])


def _of_image(format: str, size: int) -> Record:
    return {"format": format, "size": size}


_CALLS: dict[str, Callable[..., _Found]] = {
    "add_user": _add_user,
    "remove_user": _remove_user,
    "reset_password": _reset_password,
    "set_role": _set_role,
    "set_quota": _set_quota,
    "set_restart_policy": _set_restart_policy,
    "drain_worker": _drain_worker,
    "remove_worker": _remove_worker,
    "remove_image": _remove_image,
}
CALLS = (*_CALLS, "add_image", *OF_RECOVERY, APPLY)
