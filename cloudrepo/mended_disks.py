"""The steps that set a disk right: its mark file, its name, its owner and mode; never its content. Pure."""

from __future__ import annotations

from cloudrepo import remembrance
from cloudrepo.images import MARK_FILE
from cloudrepo.naming import machine_uuid
from cloudrepo.plan import PublishFile, Step, WriteFile
from cloudrepo.resources import Disk, Resource


def mend_disk(installation: str, disk: Disk, seen: Resource | None) -> list[Step]:
    """What is to be done about a disk that is there; images make disks, so of one that is not there nothing.

    Args:
        installation: ours.
        disk: as it should be.
        seen: as it is.
    """
    if not isinstance(seen, Disk):
        return []
    lane, words = f"disk{disk.vm_id}", f"disk of VM {disk.vm_id}"
    text = remembrance.text(
        mark=disk.mark,
        uuid=machine_uuid(installation, disk.vm_id),
        base=disk.base,
        record=disk.record,
        disk=disk.path,
    )
    note = WriteFile(path=f"{disk.directory}/{MARK_FILE}", text=text, durable=True)
    steps = [Step(name=f"{lane}:mark", label=f"mark {words}", act=note, vm_id=disk.vm_id)]
    is_right = (seen.file, seen.owner, seen.mode, seen.is_marked) == ("there", disk.owner, disk.mode, True)
    first, second = (disk.kept, disk.path) if seen.is_kept else (disk.path, disk.kept)
    if not (is_right and seen.is_kept) and disk.file == "there":
        act = PublishFile(draft=first, path=second, user=disk.owner, mode=disk.mode or 0o600, ok=(0, 1))
        steps.append(Step(name=f"{lane}:mend", label=f"mend {words}", act=act, vm_id=disk.vm_id))
    return steps
