"""A base image whose content changed on a host: replaced where no disk is on it, at whatever moment it is cut."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.base_image_removal import DiskOn
from cloudrepo.errors import HostUnreachable, RefusedError
from cloudrepo.plan import Plan, PlanResult
from image_tools import ME, CountingExecutor
from test_base_images import Site, digest, no_documented_folder, site

__all__ = ["no_documented_folder", "site"]  # the fixtures
THEIRS = "0000beef"


def damage(path: str) -> None:
    """Another byte, and nothing else that could be seen."""
    was = os.stat(path)
    content = bytearray(Path(path).read_bytes())
    content[-1] ^= 1
    os.chmod(path, 0o644)
    Path(path).write_bytes(content)
    os.chmod(path, 0o444)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


def replace(site: Site) -> str:
    return site.images.replace("w1", str(site.manager), "~/vm_images").path_on_host


def disk_on(site: Site, path: str, installation: str = THEIRS, text: str | None = None) -> Path:
    """The mark of a disk on a base image."""
    folder = site.folder() / f".cloudrepo-{installation}" / "vm-7"
    folder.mkdir(parents=True)
    mark = {
        "mark": f"cloudrepo/{installation}/1000/7/disk",
        "name": "x",
        "disk": f"{folder}/d",
        "base": {"path_on_host": path},
    }
    (folder / "mark.json").write_text(json.dumps(mark) if text is None else text)
    return folder


def test_a_damaged_copy_is_trusted_by_what_can_be_seen_and_replaced_all_the_same(site: Site) -> None:
    path = site.ensure().path_on_host
    damage(path)
    site.images = site.fresh()
    assert site.ensure().path_on_host == path and digest(path) != digest(site.manager), "nobody can see it from afar"
    assert replace(site) == path
    assert digest(path) == digest(site.manager) and os.stat(path).st_mode & 0o777 == 0o444
    assert site.drafts() == [] and len(os.listdir(site.folder() / "base")) == 2
    site.images = site.fresh()
    assert site.ensure().path_on_host == path and len(site.executor.sent) == 2


def test_who_has_it_open_keeps_what_was_there(site: Site) -> None:
    path = site.ensure().path_on_host
    damage(path)
    with open(path, "rb") as file:
        before = file.read()
        replace(site)
        file.seek(0)
        assert file.read() == before != Path(path).read_bytes()


@pytest.mark.parametrize("text", [None, "{"])
def test_a_copy_that_a_disk_is_on_or_may_be_on_stays(site: Site, text: str | None) -> None:
    path = site.ensure().path_on_host
    damage(path)
    folder, damaged = disk_on(site, path, text=text), digest(path)
    (disk,) = site.images.disks_on("w1", "~/vm_images", path)
    known = DiskOn(directory=str(folder), installation=THEIRS, vm_id=7)
    assert disk == (known if text is None else DiskOn(directory=str(folder), installation=THEIRS, is_unread=True))
    with pytest.raises(RefusedError, match="disks are on it"):
        replace(site)
    assert digest(path) == damaged
    (folder / "mark.json").unlink()
    assert site.images.disks_on("w1", "~/vm_images", path) == []
    assert digest(replace(site)) == digest(site.manager)


def test_the_record_of_whoever_brought_it_stays(site: Site) -> None:
    path = site.ensure().path_on_host
    record = Path(f"{path}.json")
    fields = json.loads(record.read_text())
    record.write_text(json.dumps(fields | {"installation": THEIRS}))
    damage(path)
    replace(site)
    assert json.loads(record.read_text())["installation"] == THEIRS and digest(path) == digest(site.manager)
    record.write_text(json.dumps(fields | {"image": fields["image"] | {"size": 1}}))
    damage(path)
    replace(site)
    assert json.loads(record.read_text()) == fields, "one that says something else is of no use"


class Dying(CountingExecutor):
    """The process ends when the host has done its message of this number."""

    def __init__(self, at: int, **options: Any) -> None:
        super().__init__(**options)
        self.left = at
        self.is_under_way = False

    def _message(self, send: Any) -> Any:
        if self.is_under_way:  # a part of a copy
            return send()
        self.left -= 1
        self.is_under_way = True
        answer = send()
        self.is_under_way = False
        if self.left == 0:
            raise HostUnreachable("w1", "killed")
        return answer

    def run_plan(self, host: str, plan: Plan, **options: Any) -> PlanResult:
        made: PlanResult = self._message(lambda: super(Dying, self).run_plan(host, plan, **options))
        return made

    def upload(self, host: str, local_path: Any, remote_path: str, **options: Any) -> Any:
        return self._message(lambda: super(Dying, self).upload(host, local_path, remote_path, **options))


def test_whenever_it_dies_there_is_a_whole_copy_and_the_next_attempt_goes_on(site: Site) -> None:
    path = site.ensure().path_on_host
    whole = digest(site.manager)
    damage(path)
    damaged, found = digest(path), []
    for at in range(1, 30):
        site.images = site.fresh()
        site.images.executor = Dying(at, transport=site.executor.transport, remote_user=ME)
        try:
            replace(site)
        except HostUnreachable:
            found.append(digest(path))
            assert len(os.listdir(site.folder() / "base")) == 2
        else:
            break
    assert len(found) >= 6 and found == [damaged] * (len(found) - 1) + [whole], "only the last message changes it"
    assert digest(path) == whole and site.drafts() == []
