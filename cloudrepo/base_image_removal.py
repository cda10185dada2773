"""Copies of base images on workers, and how one goes away again: only one that we brought, and that no disk is on.

Installations share base images. So before one goes, the marks of all installations' disks there are read; it is then
taken out of its place, and the marks are read once more. A disk that was begun meanwhile has either found no base
image (it is brought again) or is among these marks, and the copy goes back to its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cloudrepo import base_image_plans as plans
from cloudrepo.errors import HostError, StepFailed
from cloudrepo.host import json_text
from cloudrepo.hosts import Executor
from cloudrepo.image_library import NO_COPY, REMOVED
from cloudrepo.images import DIRECTORY_PREFIX, MANUAL_PREFIX, MARK_FILE, ImageStore, parse_mark_file
from cloudrepo.late_dataclass import dataclass
from cloudrepo.plan import (
    ObserveFiles,
    ObserveServers,
    Plan,
    PlanResult,
    ReadFile,
    Remove,
    Run,
    Stage,
    Step,
    StepResult,
)


@dataclass(frozen=True, kw_only=True)
class DiskOn:
    """A disk that is on a base image, or may be.

    Attributes:
        directory: of the disk, on the host.
        installation: whose it is.
        vm_id: which VM's; None = of none, or not known.
        is_unread: its mark cannot be read, so nobody knows what it is on.
    """

    directory: str
    installation: str
    vm_id: int | None = None
    is_unread: bool = False


_INSTALLATION = re.compile(r"\.cloudrepo-([0-9a-f]{8})\Z")


def copies(executor: Executor, host: str, store: ImageStore) -> frozenset[str]:
    """The paths of all base images on a host.

    Raises:
        HostError: it does not answer, or not as a host does.
    """
    look = Step(name="bases", label="look at base images", act=ObserveFiles(directory=store.bases))
    answer = executor.run_plan(host, Plan(installation=store.installation, observe=(look,))).observed.get("bases")
    return frozenset(_facts(host, answer))


def disks_on(executor: Executor, host: str, store: ImageStore, path: str) -> list[DiskOn]:
    """The disks of all installations on a host that are on a base image, or may be.

    Raises:
        HostError: it does not answer, or not as a host does.
    """
    entries = _facts(host, executor.run_plan(host, _look(store, path)).observed.get("files"))
    return _disks_on(host, path, executor.run_plan(host, _ask_disks(store, _roots(store, entries))).observed)


def why_stays(executor: Executor, host: str, store: ImageStore, sha256: str, name: str) -> str:
    """Look whether the copy of an image can be removed from a host, and remove nothing.

    Returns:
        Empty where it can be, `none` where there is no copy, or why it stays, in words.

    Raises:
        HostError: the host does not answer.
    """
    return _look_first(executor, host, store, plans.base_path(store, sha256, name))[0]


def _look_first(executor: Executor, host: str, store: ImageStore, path: str) -> tuple[str, tuple[str, ...]]:
    """See `why_stays`; and the directories of all installations there."""
    seen = executor.run_plan(host, _look(store, path)).observed
    entries = _facts(host, seen.get("files"))
    if not entries.get(path):
        return NO_COPY, ()
    record = plans.read_record(seen["record"].out) if "record" in seen else None
    if record is None or record.installation != store.installation:
        whose = f"the installation {record.installation}" if record and record.installation else "nobody known here"
        return f"{path} stays: {whose} brought it", ()
    roots = _roots(store, entries)
    why = _why_used(host, path, executor.run_plan(host, _ask_disks(store, roots)).observed)
    return (f"{path} stays: {why}" if why else ""), roots


def remove(executor: Executor, host: str, store: ImageStore, sha256: str, name: str) -> str:
    """Remove the copy of an image from a host, if we brought it and no disk there is on it.

    Args:
        executor: who talks to hosts.
        host: the worker.
        store: where its images are.
        sha256: of the image.
        name: the file's name on the manager.

    Returns:
        `removed`, `none` when there was no copy, or why it stays, in words.

    Raises:
        HostError: the host does not answer, or did not do a step.
    """
    path = plans.base_path(store, sha256, name)
    why, roots = _look_first(executor, host, store, path)
    return why or _take_away(executor, host, store, sha256, path, roots)


def _take_away(executor: Executor, host: str, store: ImageStore, sha256: str, path: str, roots: Iterable[str]) -> str:
    hidden = plans.removed_path(store, sha256)
    hide = Run(words=("mv", "-f", "-T", "--", path, hidden))
    result = executor.run_plan(host, _ask_disks(store, roots, Step(name="hide", label=f"take {path} away", act=hide)))
    _require(host, result)
    why = _why_used(host, path, result.observed)
    if why:
        back = Run(words=("mv", "-f", "-T", "--", hidden, path))
        _require(host, executor.run_plan(host, _change(store, Step(name="back", label=f"put {path} back", act=back))))
        return f"{path} stays: {why}"
    record = Remove(path=f"{path}.json", within=store.bases)
    steps = (
        Step(name="record", label=f"remove the record of {path}", act=record),
        Step(name="remove", label=f"remove {path}", act=Remove(path=hidden, within=store.root)),
    )
    _require(host, executor.run_plan(host, _change(store, *steps)))
    return REMOVED


# -- messages --------------------------------------------------------------------------------------------


def _look(store: ImageStore, path: str) -> Plan:
    acts = {
        "files": ObserveFiles(paths=(path,), directory=store.base_dir),
        "record": ReadFile(path=f"{path}.json"),
    }
    steps = tuple(Step(name=name, label="look at a base image", act=act) for name, act in acts.items())
    return Plan(installation=store.installation, observe=steps)


def _ask_disks(store: ImageStore, roots: Iterable[str], *steps: Step) -> Plan:
    """Ask for the marks of all disks below these directories, after the steps."""
    observe = tuple(
        Step(
            name=f"disks:{root}:{prefix}",
            label="look at the disks of VMs",
            act=ObserveServers(root=root, prefix=prefix, files=(MARK_FILE,)),
        )
        for root in roots
        for prefix in (DIRECTORY_PREFIX, MANUAL_PREFIX)
    )
    stages = (Stage(name="remove", steps=steps),) if steps else ()
    return Plan(installation=store.installation, stages=stages, observe=observe)


def _change(store: ImageStore, *steps: Step) -> Plan:
    return Plan(installation=store.installation, stages=(Stage(name="remove", steps=steps),))


def _roots(store: ImageStore, entries: Mapping[str, object]) -> tuple[str, ...]:
    """The directories of all installations in the image folder."""
    folder = f"{store.base_dir}/"
    names = [path.removeprefix(folder) for path in entries if path.startswith(folder)]
    return tuple(f"{folder}{name}" for name in sorted(names) if _INSTALLATION.match(name))


# -- answers ---------------------------------------------------------------------------------------------


def _facts(host: str, answer: StepResult | None) -> Mapping[str, object]:
    try:
        if answer is None or not answer.accepted:
            raise ValueError(answer.err if answer else "no answer")
        found = json_text.loads(answer.out)
        if not isinstance(found, dict):
            raise ValueError("no facts of files")
        return found
    except ValueError as error:
        raise HostError(host, "could not look at the base images", evidence=str(error)[:200]) from error


def _why_used(host: str, path: str, observed: Mapping[str, StepResult]) -> str:
    """Which disk is on this base image, or may be; empty when none is."""
    for disk in _disks_on(host, path, observed):
        if disk.is_unread:
            return f"a disk in {disk.directory} has a mark that cannot be read, and may be on it"
        whose = f"VM {disk.vm_id}" if disk.vm_id is not None else "a disk without a VM"
        return f"{whose} of the installation {disk.installation} is on it"
    return ""


def _disks_on(host: str, path: str, observed: Mapping[str, StepResult]) -> list[DiskOn]:
    found = []
    for name, answer in observed.items():
        try:
            if not answer.accepted:
                raise ValueError(answer.err)
            rows = [(str(row["dir"]), row["files"][MARK_FILE]) for row in json_text.loads(answer.out or "[]")]
        except json_text.NOT_UNDERSTOOD as error:
            raise HostError(host, "could not look at the disks of VMs", evidence=str(error)[:200]) from error
        installation = name.split(":")[1].rpartition("-")[2]
        for directory, text in rows:
            mark = parse_mark_file(text or "", directory)
            if mark is None and text:
                found.append(DiskOn(directory=directory, installation=installation, is_unread=True))
            if mark is not None and mark.base == path:
                found.append(DiskOn(directory=directory, installation=installation, vm_id=mark.mark.vm_id))
    return found


def _require(host: str, result: PlanResult) -> None:
    if not result.ok:
        failed = result.failed
        what = f"could not {failed.label}" if failed else "a base image was not removed"
        words = (failed.err or failed.out).strip()[-300:] if failed else result.aborted
        raise StepFailed(host, what, evidence=words)
