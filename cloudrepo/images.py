"""Disks of VMs on a host: where they are, whose they are, and the steps that make and remove one.

A disk is a qcow2 overlay on a read-only base image. Its documented path is `~/vm_images/{vm_name}_img.qcow2`;
beside it, in a directory of ours, a mark file says whose it is and what it was made from::

    ~/vm_images/web_img.qcow2                               the overlay, owned by the account QEMU runs as
    ~/vm_images/.cloudrepo-1a2b3c4d/vm-1001/mark.json        whose it is
    ~/vm_images/.cloudrepo-1a2b3c4d/vm-1001/overlay.qcow2    the overlay's second name, by which it is known again
    ~/vm_images/base/0123456789abcdef-cirros.img            the base, named by its content (`base_images`)

An overlay is made under our own directory and then published with a hard link, which never replaces a file;
only after that the mark names it. So what a mark names as `disk` was made by us, whenever a message ended.
"""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, field, replace
from typing import Any

from cloudrepo import remembrance
from cloudrepo.commands import qemu_img
from cloudrepo.errors import CloudError, ForeignObjectError, HostError, RefusedError, StepFailed
from cloudrepo.host import json_text
from cloudrepo.hosts import Executor, NextOperation, run_fenced
from cloudrepo.late_dataclass import dataclass
from cloudrepo.naming import DRAFT, Mark, parse_mark
from cloudrepo.plan import (
    MakeDir,
    ObserveFiles,
    ObserveServers,
    Plan,
    PlanResult,
    PublishFile,
    ReadFile,
    Remove,
    RequireFile,
    Run,
    Stage,
    Step,
    StepResult,
    WriteFile,
)
from cloudrepo.resources import KEPT

log = logging.getLogger(__name__)

MARK_FILE = "mark.json"
SUFFIX = "_img.qcow2"
PUBLISHED = '^ "disk": '  # grep(1): the line of a mark file that only a published disk has; see `mark_text`
DIRECTORY_PREFIX = "vm-"
MANUAL_PREFIX = "manual-"  # disks that were made by a call without a VM id


@dataclass(frozen=True, kw_only=True)
class ImageStore:
    """Where one installation keeps images on one host.

    Attributes:
        base_dir: the image folder, absolute on the host.
        installation: eight hex digits.
        owner: account that owns what guests must not change; another than root only without root.
    """

    base_dir: str
    installation: str
    owner: str = "root"

    def __post_init__(self) -> None:
        qemu_img.require_plain_path(self.base_dir)

    @property
    def root(self) -> str:
        """Our own directory in the image folder; it survives a reboot."""
        return f"{self.base_dir}/.cloudrepo-{self.installation}"

    @property
    def bases(self) -> str:
        """Where base images are, shared by all installations since their names are their contents."""
        return f"{self.base_dir}/base"

    @property
    def uploads(self) -> str:
        """Where a copy is until it has been checked; the login account may write here."""
        return f"{self.root}/upload"

    def directory(self, key: int | str) -> str:
        """A disk's own directory: `vm-1001`, or `manual-…` for one without a VM id."""
        return f"{self.root}/{DIRECTORY_PREFIX}{key}" if isinstance(key, int) else f"{self.root}/{MANUAL_PREFIX}{key}"


@dataclass(frozen=True, kw_only=True)
class BaseImage:
    """A checked, read-only base image on a host. Sizes in bytes.

    Attributes:
        path_on_host: absolute; never changes its content.
        format: `qcow2` or `raw`.
        virtual_size: what a guest sees.
        source: `manager`, or the path on the worker it was taken from because the manager had none.
    """

    path_on_host: str
    sha256: str
    virtual_size: int
    format: str
    size: int = 0
    source: str = "manager"


@dataclass(frozen=True, kw_only=True)
class OverlaySpec:
    """One disk to make.

    Attributes:
        key: VM id, or any plain word for a disk without one.
        mark: whose it is.
        uuid: the machine's.
        size_bytes: what the guest sees; see `qemu_img.overlay_size`.
        user: account QEMU runs as.
        record: what is needed to rebuild the VM's record; plain values.
    """

    key: int | str
    mark: Mark
    base: BaseImage
    size_bytes: int
    user: str
    uuid: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DiskMark:
    """A disk's mark file, read. `disk` is empty until the overlay was published; then `candidate` says where to."""

    mark: Mark
    disk: str
    uuid: str = ""
    base: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    directory: str = ""
    candidate: str = ""


# -- paths -----------------------------------------------------------------------------------------------


def resolve(path: str, home: str) -> str:
    """The absolute form of a path on a host: `~` and `~/…` are below `home`.

    Raises:
        RefusedError: it is relative, has `..` in it, or QEMU would read it as something else than a path.
    """
    text = home + path[1:] if path == "~" or path.startswith("~/") else path
    try:
        qemu_img.require_plain_path(text)
    except ValueError as error:
        raise RefusedError(
            f"{path!r} cannot be used as a path on a host", evidence=str(error), code="images.path"
        ) from error
    if ".." in text.split("/"):
        raise RefusedError(f"{path!r} cannot be used as a path on a host", evidence="it leads upwards (..)")
    return text.rstrip("/") or "/"


def file_names(slice_id: int | str, vm_id: int | None, vm_name: str) -> Iterator[str]:
    """File names for a disk, the documented one first; the caller takes the first that is free."""
    yield f"{vm_name}{SUFFIX}"
    yield f"{slice_id}_{vm_name}{SUFFIX}"
    if vm_id is not None:
        yield f"{slice_id}_{vm_id}_{vm_name}{SUFFIX}"
    for number in range(2, 100):
        yield f"{slice_id}_{vm_name}_{number}{SUFFIX}"


def require_disk_path(store: ImageStore, path: str) -> str:
    """The path, if a disk of a VM may be there: directly in the image folder, with the documented ending.

    Raises:
        RefusedError: anything else; nothing else is ever removed.
    """
    folder, _, name = path.rpartition("/")
    if folder != store.base_dir or not name.endswith(SUFFIX):
        raise RefusedError(
            f"{path} is not the disk of a VM", evidence=f"disks are {store.base_dir}/*{SUFFIX}", code="images.path"
        )
    return path


# -- the mark file ---------------------------------------------------------------------------------------


def mark_text(spec: OverlaySpec, *, disk: str = "", candidate: str = "") -> str:
    """The text of a mark file. Before the overlay is published it has a `candidate` instead of a `disk`."""
    return remembrance.text(
        mark=spec.mark, uuid=spec.uuid, base=asdict(spec.base), record=spec.record, disk=disk, candidate=candidate
    )


def parse_mark_file(text: str, directory: str = "") -> DiskMark | None:
    """Read a mark file; None when it is none of ours, or was not written to its end."""
    try:
        fields = json_text.loads(text)
        mark = parse_mark(fields["mark"])
        if mark is None:
            return None
        return DiskMark(
            mark=mark,
            disk=str(fields.get("disk", "")),
            uuid=str(fields.get("uuid", "")),
            base=str(fields.get("base", {}).get("path_on_host", "")),
            record=dict(fields.get("record", {})),
            directory=directory,
            candidate=str(fields.get("candidate", "")),
        )
    except json_text.NOT_UNDERSTOOD:
        return None


def observe_disks(store: ImageStore) -> tuple[Step, Step]:
    """The questions to which `parse_disks` reads the answers: every disk of this installation on a host."""
    return (
        Step(
            name="disks",
            label="look at the disks of VMs",
            act=ObserveServers(root=store.root, prefix=DIRECTORY_PREFIX, files=(MARK_FILE,)),
        ),
        Step(
            name="manual-disks",
            label="look at disks without a VM",
            act=ObserveServers(root=store.root, prefix=MANUAL_PREFIX, files=(MARK_FILE,)),
        ),
    )


def parse_disks(observed: Mapping[str, StepResult]) -> tuple[DiskMark, ...]:
    """All disks that carry a readable mark.

    Raises:
        ValueError: an answer is missing or is not what the runner gives.
    """
    found = []
    for name in ("disks", "manual-disks"):
        answer = observed.get(name)
        if answer is None or not answer.accepted:
            raise ValueError(f"no answer about {name}: {answer.err if answer else 'none'}")
        for row in json_text.loads(answer.out or "[]"):
            mark = parse_mark_file(row["files"].get(MARK_FILE) or "", row["dir"])
            if mark is not None:
                found.append(mark)
    return tuple(found)


# -- making and removing one -----------------------------------------------------------------------------


def overlay_steps(store: ImageStore, spec: OverlaySpec, path: str) -> tuple[Step, ...]:
    """The steps that make one disk at `path`, in one lane, so that many can be made side by side.

    The step `…:fresh` fails when this key has a disk already, `…:base` when the base image is gone, and
    `…:publish` when there is a file at `path`.
    """
    directory = store.directory(spec.key)
    draft = f"{directory}/{DRAFT}"
    lane, disk = f"disk{spec.key}", f"disk {path.rsplit('/', 1)[-1]}"
    vm_id = spec.key if isinstance(spec.key, int) else None
    words = qemu_img.create_overlay(
        draft, base=spec.base.path_on_host, base_format=spec.base.format, size_bytes=spec.size_bytes
    )
    mark_file, user = f"{directory}/{MARK_FILE}", spec.user or store.owner
    intent = WriteFile(path=mark_file, text=mark_text(spec, candidate=path))
    final = WriteFile(path=mark_file, text=mark_text(spec, disk=require_disk_path(store, path)), durable=True)
    acts = {
        "fresh": (f"see that {disk} is new", Run(words=("grep", "-q", PUBLISHED, "--", mark_file), ok=(1, 2))),
        "base": (f"look for the base image of {disk}", RequireFile(path=spec.base.path_on_host)),
        "dir": (f"make a directory for {disk}", MakeDir(path=directory)),
        "intent": (f"announce {disk}", intent),
        "create": (f"create {disk}", Run(words=words)),
        "publish": (f"publish {disk}", PublishFile(draft=draft, path=path, user=user)),
        "mark": (f"mark {disk}", final),
        "keep": (f"keep {disk} known", PublishFile(draft=draft, path=f"{directory}/{KEPT}", user=user)),
        "tidy": (f"tidy up after {disk}", Remove(path=draft, within=store.root)),
    }
    return tuple(Step(name=f"{lane}:{name}", label=label, act=act, vm_id=vm_id) for name, (label, act) in acts.items())


def overlay_plan(store: ImageStore, spec: OverlaySpec, path: str, *, operation: int) -> Plan:
    """One message that makes one disk. If it fails, its observation says whether `path` was taken."""
    look = Step(name="path", label="look at the path", act=ObserveFiles(paths=(path,)))
    note = ReadFile(path=f"{store.directory(spec.key)}/{MARK_FILE}")
    mark = Step(name="mark", label="look at the mark", act=note)
    return _message(store, (spec.mark.scope,), overlay_steps(store, spec, path), operation, look, mark)


def _message(store: ImageStore, scopes: Sequence[str], steps: Sequence[Step], operation: int, *observe: Step) -> Plan:
    return Plan(
        installation=store.installation,
        operation=operation,
        scopes=tuple(scopes),
        fence_dir=store.root,
        stages=(Stage(name="disks", steps=tuple(steps)),),
        observe=observe,
    )


def remove_steps(store: ImageStore, mark: DiskMark) -> tuple[Step, ...]:
    """The steps that remove a disk that `mark` says is ours, and then its directory.

    Raises:
        RefusedError: the mark is of another installation, or names a path where no disk of a VM may be.
    """
    if mark.mark.installation != store.installation:
        raise RefusedError(f"{mark.disk} belongs to the installation {mark.mark.installation}", code="images.foreign")
    lane = f"disk{mark.directory.rsplit('/', 1)[-1]}"
    forget = Remove(path=mark.directory, within=store.root, tree=True)
    steps = [Step(name=f"{lane}:forget", label=f"remove {mark.directory}", act=forget, vm_id=mark.mark.vm_id)]
    disk = mark.disk or mark.candidate
    if disk:
        draft = "" if mark.disk else f"{mark.directory}/{DRAFT}"
        overlay = Remove(path=require_disk_path(store, disk), within=store.base_dir, same_as=draft)
        steps.insert(0, Step(name=f"{lane}:remove", label=f"remove disk {disk}", act=overlay, vm_id=mark.mark.vm_id))
    return tuple(steps)


class BaseImageGone(StepFailed):
    """The base image is not where it was: it must be brought again."""

    code = "images.base_gone"


def create_overlay(
    executor: Executor,
    host: str,
    store: ImageStore,
    spec: OverlaySpec,
    *,
    names: Sequence[str] | Iterator[str],
    operation: NextOperation,
    taken: Sequence[str] = (),
) -> str:
    """Make one disk under the first free name: one message, and one more for each name that was not free.

    Asked again for a VM id whose disk was made, because the answer was lost, it gives that disk. A key that is no
    VM id gets another disk at each call.

    Args:
        executor: who talks to hosts.
        host: the worker.
        store: where its images are.
        spec: what is to be made.
        names: file names to try, in order; see `file_names`.
        operation: gives the next operation number, one for each message.
        taken: absolute paths that are known to be in use.

    Returns:
        The disk's absolute path on the host.

    Raises:
        BaseImageGone: the base image is not there.
        StepFailed: a step was refused; what was begun has been removed.
        HostError: the host could not be asked. Its mark, if it got so far, lets a later clean-up find it.
    """
    if isinstance(spec.key, str):
        spec = replace(spec, key=f"{spec.key}-{secrets.token_hex(4)}")
    for name in names:
        path = f"{store.base_dir}/{name}"
        if path in taken:
            continue
        result = run_fenced(executor, host, _maker(store, spec, path), operation)
        if result.ok:
            return path
        if _ended_at(result, "fresh"):
            made = _made_before(host, spec, result)
            run_fenced(executor, host, functools.partial(_finishing, store, spec, made), operation)
            return made
        if not _is_taken(result):
            _discard(executor, host, store, spec, path, operation)
            raise _overlay_error(host, path, result)
        log.info("%s: %s is in use; trying the next name", host, path)
    _discard(executor, host, store, spec, "", operation)
    raise HostError(host, "no file name is free for the disk", evidence=f"in {store.base_dir}", code="images.names")


def _maker(store: ImageStore, spec: OverlaySpec, path: str) -> Callable[[int], Plan]:
    return lambda number: overlay_plan(store, spec, path, operation=number)


def _is_taken(result: PlanResult) -> bool:
    """Whether a plan ended because something has the name. The host is asked, not the words of `ln`."""
    answer = result.observed.get("path")
    if not _ended_at(result, "publish") or answer is None or not answer.accepted:
        return False
    try:
        return any(json_text.loads(answer.out or "{}").values())
    except json_text.NOT_UNDERSTOOD:
        return False  # the host said no sense; what it did is told by the step


def _ended_at(result: PlanResult, step: str) -> bool:
    return result.failed is not None and result.failed.name.endswith(f":{step}")


def _made_before(host: str, spec: OverlaySpec, result: PlanResult) -> str:
    """The disk that this key has, if it is the one that is wanted. It is left as it is in any case."""
    answer = result.observed.get("mark")
    found = parse_mark_file(answer.out) if answer is not None else None
    if found is not None and (found.mark, found.uuid) == (spec.mark, spec.uuid) and _is_of_same(found, spec):
        log.info("%s: %s was made before", host, found.disk)
        return found.disk
    raise ForeignObjectError(
        host,
        f"the disk {spec.key} is there already and belongs to something else",
        evidence=f"its mark is {found.mark}, disk {found.disk}" if found else "its mark cannot be read",
        remedy="Remove what it belongs to first, or try again under another number",
    )


def _is_of_same(found: DiskMark, spec: OverlaySpec) -> bool:
    """Whether both remember the same VM: after an older state file was put back, its number may be given again."""
    return all(found.record.get(key) == spec.record.get(key) for key in ("name", "owner"))


def _overlay_error(host: str, path: str, result: PlanResult) -> CloudError:
    failed = result.failed
    if failed is None:
        return HostError(host, f"the disk {path} was not made", evidence=result.aborted)
    kind = BaseImageGone if failed.name.endswith(":base") else StepFailed
    return kind(host, f"could not {failed.label}", evidence=_words(failed), details={"path": path, "step": failed.name})


def _words(answer: StepResult) -> str:
    return (answer.err or answer.out).strip()[-500:] or f"status {answer.status}"


def _discard(
    executor: Executor, host: str, store: ImageStore, spec: OverlaySpec, path: str, operation: NextOperation
) -> None:
    """Remove what an attempt left: its directory, and what it may have published."""
    mark = DiskMark(mark=spec.mark, disk="", directory=store.directory(spec.key), candidate=path)
    try:
        run_fenced(executor, host, lambda number: _removal(store, (mark,), number), operation)
    except CloudError as error:  # the first failure is what the person must hear
        log.warning("%s: left for the next clean-up: %s (%s)", host, mark.directory, error)


def _removal(store: ImageStore, marks: Sequence[DiskMark], operation: int) -> Plan:
    steps = [step for mark in marks for step in remove_steps(store, mark)]
    return _message(store, sorted({mark.mark.scope for mark in marks}), steps, operation)


def _finishing(store: ImageStore, spec: OverlaySpec, path: str, operation: int) -> Plan:
    """The last steps for a disk that is marked, and whose maker may have died before them."""
    directory = store.directory(spec.key)
    keep = PublishFile(draft=path, path=f"{directory}/{KEPT}", user=spec.user or store.owner)
    tidy = Remove(path=f"{directory}/{DRAFT}", within=store.root)
    steps = [Step(name=act.ACT, label=f"finish disk {spec.key}", act=act) for act in (keep, tidy)]
    return _message(store, (spec.mark.scope,), steps, operation)


def delete_overlay(executor: Executor, host: str, store: ImageStore, path: str, *, operation: NextOperation) -> bool:
    """Remove the disk at `path`, if a mark on the host says it is ours. Content when it is not there.

    Returns:
        Whether something was removed.

    Raises:
        RefusedError: no disk of a VM can be at this path.
        ForeignObjectError: there is a file, and no mark of ours names it.
        HostError: the host did not answer, or refused a step.
    """
    require_disk_path(store, path)
    look = Step(name="path", label="look at the disk", act=ObserveFiles(paths=(path,)))
    plan = Plan(installation=store.installation, observe=(*observe_disks(store), look))
    observed = executor.run_plan(host, plan).observed
    try:
        marks = [mark for mark in parse_disks(observed) if mark.disk == path]
        exists = json_text.loads(observed["path"].out).get(path) is not None
    except json_text.NOT_UNDERSTOOD as error:
        raise HostError(host, f"could not look at the disk {path}", evidence=str(error)) from error
    if not marks:
        if not exists:
            return False
        raise ForeignObjectError(
            host, f"{path} is not removed: no mark of ours names it", remedy="Remove it by hand if it is not needed"
        )
    result = run_fenced(executor, host, lambda number: _removal(store, marks, number), operation)
    if not result.ok:
        failed = result.failed
        raise StepFailed(host, f"could not remove {path}", evidence=_words(failed) if failed else result.aborted)
    return True
