"""Whether the disks of VMs are all there, as hosts see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cloudrepo.errors import CloudError, HostError, RefusedError
from cloudrepo.host import json_text
from cloudrepo.plan import ObserveFiles, Plan, Step
from cloudrepo.probe import Host
from cloudrepo.resources import Disk, HostState
from control.context import Context


def require_disks(context: Context, slice_id: int, vms: Iterable[Mapping[str, Any]]) -> None:
    """Refuse to keep VMs of which a disk is gone. All their workers are asked, and must answer.

    Raises:
        RefusedError: a disk is gone.
        HostError: a worker did not answer.
    """
    by_worker: dict[str, list[Mapping[str, Any]]] = {}
    for vm in vms:
        by_worker.setdefault(vm["worker_ip"], []).append(vm)
    answers = context.site.executor.gather({ip: _question(context, ip, those) for ip, those in by_worker.items()})
    for answer in answers.values():
        if isinstance(answer, CloudError):
            raise answer
        for vm in answer:
            raise RefusedError(
                f"what was begun on slice {slice_id} cannot be rolled back",
                evidence=f"the disk of VM {vm['vm_id']} ({vm['name']}) is gone",
                remedy=f"`./cloud resume {slice_id}` finishes it",
                code="recovery.disk",
            )


def _question(context: Context, ip: str, vms: list[Mapping[str, Any]]) -> Callable[[], list[Mapping[str, Any]]]:
    return lambda: _missing(context, ip, vms)


def _missing(context: Context, ip: str, vms: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The VMs of one worker without a disk: no mark names one, or the file it names is not there."""
    host: Host = context.site.host(ip)
    state = context.site.reconciler.observe([host])[ip]
    if isinstance(state, CloudError):
        raise state
    paths = {vm["vm_id"]: _path(state, vm["vm_id"]) for vm in vms}
    look = Step(name="disks", label="look at disks", act=ObserveFiles(paths=tuple(filter(None, paths.values()))))
    plan = Plan(installation=context.site.installation, observe=(look,))
    answer = context.site.executor.run_plan(ip, plan).observed["disks"]
    if not answer.accepted:
        raise HostError(ip, "could not look at disks", evidence=answer.err)
    try:
        files = json_text.loads(answer.out or "{}")
        return [vm for vm in vms if files.get(paths[vm["vm_id"]]) is None]
    except json_text.NOT_UNDERSTOOD as error:
        raise HostError(ip, "could not look at disks", evidence=repr(error)[:200]) from error


def _path(state: HostState, vm_id: int) -> str:
    disk = state.get((Disk.KIND, str(vm_id)))
    return disk.path if isinstance(disk, Disk) else ""
