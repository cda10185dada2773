"""Disks of VMs: where they are made, that none is ever overwritten, and that only ours are removed."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cloudrepo import images
from cloudrepo.commands import qemu_img
from cloudrepo.errors import ForeignObjectError, RefusedError, StepFailed
from cloudrepo.images import BaseImage, ImageStore, OverlaySpec
from cloudrepo.naming import Mark
from cloudrepo.plan import WriteFile
from cloudrepo.transports.local import LocalHost
from image_tools import INSTALLATION, ME, CountingExecutor, local_executor, require, script

GIB = 1024**3
MIB = 1024**2
INFO = {
    "virtual-size": 117440512,
    "filename": "cirros.img",
    "cluster-size": 65536,
    "format": "qcow2",
    "actual-size": 16703488,
    "format-specific": {"type": "qcow2", "data": {"compat": "1.1", "refcount-bits": 16, "corrupt": False}},
    "dirty-flag": False,
}


# -- words and answers -------------------------------------------------------------------------------------


def test_an_overlay_names_its_base_absolutely_with_its_format_and_size() -> None:
    words = qemu_img.create_overlay("/i/web_img.qcow2", base="/i/base/b.img", base_format="qcow2", size_bytes=GIB)
    assert words == tuple(f"qemu-img create -q -f qcow2 -u -b /i/base/b.img -F qcow2 /i/web_img.qcow2 {GIB}".split())


@pytest.mark.parametrize("path", ["web.img", "json:{}", "nbd:host", "/a,b", "/a\nb", "/a\\b", "/a\0b", "", "~/x"])
def test_what_qemu_would_not_read_as_a_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError):
        qemu_img.info(path)
    with pytest.raises(ValueError):
        qemu_img.create_overlay("/x", base=path, base_format="raw", size_bytes=1)


def test_hostile_but_plain_paths_stay_one_word() -> None:
    assert qemu_img.info("/i/a b;$(rm -rf x)'\"*.img")[-1] == "/i/a b;$(rm -rf x)'\"*.img"


def test_info_of_a_plain_image() -> None:
    found = qemu_img.parse_info(json.dumps(INFO))
    assert found == qemu_img.ImageInfo(format="qcow2", virtual_size=117440512)
    assert qemu_img.refusal(found) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backing-filename": "/etc/shadow"}, "/etc/shadow"),
        ({"backing-filename": "x", "full-backing-filename": "/dev/sda"}, "/dev/sda"),
        ({"format-specific": {"type": "qcow2", "data": {"data-file": "/dev/sdb"}}}, "/dev/sdb"),
        ({"format-specific": {"type": "qcow2", "data": {"corrupt": True}}}, "corrupt"),
        ({"format-specific": {"type": "qcow2", "data": {"encrypt": {"format": "luks"}}}}, "encrypted"),
        ({"encrypted": True}, "encrypted"),
        ({"format": "vmdk"}, "vmdk"),
        ({"virtual-size": 0}, "empty"),
    ],
)
def test_an_image_that_brings_other_files_or_is_damaged_is_refused(change: dict[str, Any], words: str) -> None:
    assert words in qemu_img.refusal(qemu_img.parse_info(json.dumps(INFO | change)))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"format": "raw"}', '{"format": "raw", "virtual-size": "x"}']
)
def test_an_answer_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        qemu_img.parse_info(text)


@pytest.mark.parametrize(
    ("disk_gb", "base", "expected"),
    [(1, 0, GIB), (2.2, 0, 2253 * MIB), (1, 3 * GIB, 3 * GIB), (0.5, 117440512, 512 * MIB), (1, GIB + 1, GIB + MIB)],
)
def test_the_flavors_disk_size_is_applied_and_never_cuts_the_base(disk_gb: float, base: int, expected: int) -> None:
    assert qemu_img.overlay_size(disk_gb, base) == expected


@given(st.floats(0.001, 4096), st.integers(1, 1 << 44))
def test_a_disk_is_never_smaller_than_asked(disk_gb: float, base: int) -> None:
    size = qemu_img.overlay_size(disk_gb, base)
    assert size >= base and size >= disk_gb * GIB - 1
    assert size % MIB == 0 and size < max(base, disk_gb * GIB) + MIB


# -- paths and marks ---------------------------------------------------------------------------------------


def test_the_documented_form_is_resolved_with_the_hosts_home() -> None:
    assert images.resolve("~/vm_images/web_img.qcow2", "/home/ubuntu") == "/home/ubuntu/vm_images/web_img.qcow2"
    assert images.resolve("~", "/root") == "/root"
    assert images.resolve("/srv/images/", "/root") == "/srv/images"


@pytest.mark.parametrize("path", ["vm_images", "~root/x", "~/../x", "/a/../b", "", "~/a,b", "$HOME/x"])
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(RefusedError):
        images.resolve(path, "/home/ubuntu")


def test_the_documented_name_comes_first() -> None:
    names = list(itertools.islice(images.file_names(1000, 1001, "web"), 4))
    assert names == ["web_img.qcow2", "1000_web_img.qcow2", "1000_1001_web_img.qcow2", "1000_web_2_img.qcow2"]


@pytest.mark.parametrize(
    "path",
    ["/i/../etc/x_img.qcow2", "/i/a/b_img.qcow2", "/etc/passwd", "/i/base/x_img.qcow2", "/i/web.qcow2", "", "/i/"],
)
def test_only_what_can_be_a_disk_is_ever_removed(path: str) -> None:
    with pytest.raises(RefusedError):
        images.require_disk_path(ImageStore(base_dir="/i", installation=INSTALLATION), path)


def test_a_mark_file_says_all_that_a_record_needs_and_is_read_back() -> None:
    spec = a_spec(
        BaseImage(path_on_host="/i/base/b", sha256="00", virtual_size=1, format="raw"), record={"name": "w'x"}
    )
    found = images.parse_mark_file(images.mark_text(spec, disk="/i/web_img.qcow2"), "/i/.c/vm-1001")
    assert found is not None
    assert (found.mark, found.disk, found.base) == (spec.mark, "/i/web_img.qcow2", "/i/base/b")
    assert (found.record, found.directory) == ({"name": "w'x"}, "/i/.c/vm-1001")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mark": null}', '{"mark": "other/1"}', '{"disk": "/x"}'])
def test_a_text_that_is_no_mark_of_ours_is_nothing(text: str) -> None:
    assert images.parse_mark_file(text) is None


def test_before_it_is_published_a_mark_names_no_disk() -> None:
    spec = a_spec(BaseImage(path_on_host="/b", sha256="0", virtual_size=1, format="raw"))
    store = ImageStore(base_dir="/i", installation=INSTALLATION)
    steps = images.overlay_steps(store, spec, "/i/web_img.qcow2")
    names = [step.name for step in steps]
    marks = {step.name: images.parse_mark_file(step.act.text) for step in steps if isinstance(step.act, WriteFile)}
    assert [mark.disk if mark else None for mark in marks.values()] == ["", "/i/web_img.qcow2"]
    assert names.index("disk1001:intent") < names.index("disk1001:publish") < names.index("disk1001:mark")
    assert {step.vm_id for step in steps} == {1001}


# -- on a host ---------------------------------------------------------------------------------------------


def a_spec(base: BaseImage, *, vm_id: int | str = 1001, size: int = 64 * MIB, **fields: Any) -> OverlaySpec:
    number = vm_id if isinstance(vm_id, int) else None
    return OverlaySpec(
        key=vm_id, mark=Mark(INSTALLATION, "1000", number, "disk"), base=base, size_bytes=size, user=ME, **fields
    )


class Host:
    """A pretended host with an image folder and a base image."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "vm_images"
        (self.folder / "base").mkdir(parents=True)
        base = self.folder / "base" / "0000-cirros.img"
        subprocess.run(("qemu-img", "create", "-q", "-f", "qcow2", str(base), "32M"), check=True)
        self.base = BaseImage(path_on_host=str(base), sha256="0" * 64, virtual_size=32 * MIB, format="qcow2")
        self.store = ImageStore(base_dir=str(self.folder), installation=INSTALLATION, owner=ME)
        self.executor: CountingExecutor = local_executor(w1=LocalHost(home=str(home)))
        self.numbers = itertools.count(1)

    def create(self, name: str = "web", *, vm_id: int | str = 1001, **options: Any) -> str:
        return images.create_overlay(
            self.executor, "w1", self.store, a_spec(options.pop("base", self.base), vm_id=vm_id),
            names=images.file_names(1000, vm_id if isinstance(vm_id, int) else None, name),
            operation=self.number, **options,
        )  # fmt: skip

    def delete(self, path: str) -> bool:
        return images.delete_overlay(self.executor, "w1", self.store, path, operation=self.number)

    def number(self, above: int = 0) -> int:
        return next(number for number in self.numbers if number > above)

    def files(self) -> list[str]:
        """All files below the image folder but those of the lock."""
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if not path.is_dir())
        return sorted(str(path) for path in found if path.name not in ("lock", "fences"))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    require("qemu-img")
    yield Host(tmp_path)


def test_one_message_makes_a_private_overlay_of_the_wanted_size(host: Host) -> None:
    path = host.create()
    assert path == f"{host.folder}/web_img.qcow2"
    assert len(host.executor.plans) == 1
    answer = subprocess.run(("qemu-img", "info", "--output=json", path), check=True, capture_output=True, text=True)
    found = qemu_img.parse_info(answer.stdout)
    assert (found.format, found.virtual_size, found.backing_file) == ("qcow2", 64 * MIB, host.base.path_on_host)
    assert os.stat(path).st_mode & 0o777 == 0o600
    own = ".cloudrepo-0a1b2c3d/vm-1001"
    assert host.files() == [f"{own}/mark.json", f"{own}/overlay.qcow2", "base/0000-cirros.img", "web_img.qcow2"]
    assert Path(path).samefile(host.folder / own / "overlay.qcow2"), "one file with two names"


def test_a_name_in_use_is_left_alone_and_the_next_is_taken(host: Host) -> None:
    stranger = host.folder / "web_img.qcow2"
    stranger.write_text("another's disk")
    (host.folder / "1000_web_img.qcow2").symlink_to("/nowhere")
    path = host.create()
    assert path.endswith("/1000_1001_web_img.qcow2")
    assert stranger.read_text() == "another's disk"
    assert len(host.executor.plans) == 3
    assert len([name for name in host.files() if name.endswith("mark.json")]) == 1


def test_names_known_to_be_taken_cost_no_message(host: Host) -> None:
    path = host.create(taken=[f"{host.folder}/web_img.qcow2"])
    assert path.endswith("/1000_web_img.qcow2") and len(host.executor.plans) == 1


def test_without_its_base_nothing_is_made(host: Host) -> None:
    gone = BaseImage(path_on_host=f"{host.folder}/base/gone.img", sha256="1", virtual_size=1, format="qcow2")
    with pytest.raises(images.BaseImageGone):
        host.create(base=gone)
    assert host.files() == ["base/0000-cirros.img"]


def test_a_failed_step_leaves_nothing_and_tells_the_tools_words(host: Host, tmp_path: Path) -> None:
    script(tmp_path / "bin", "qemu-img", "echo 'qemu-img: /x: No space left on device' >&2; exit 1")
    host.executor = local_executor(w1=LocalHost(home=str(host.home), path_prefix=(str(tmp_path / "bin"),)))
    with pytest.raises(StepFailed, match="No space left on device"):
        host.create()
    assert host.files() == ["base/0000-cirros.img"]


def test_our_disk_is_removed_and_removing_it_again_is_content(host: Host) -> None:
    path = host.create()
    host.create("db", vm_id=1002)
    assert host.delete(path) is True
    assert host.delete(path) is False
    assert [name for name in host.files() if "web" in name or "1001" in name] == []
    assert f"{host.folder}/db_img.qcow2" in map(str, host.folder.iterdir())


def test_a_disk_without_our_mark_is_not_removed(host: Host) -> None:
    stranger = host.folder / "web_img.qcow2"
    stranger.write_text("another's disk")
    with pytest.raises(ForeignObjectError, match="no mark of ours"):
        host.delete(str(stranger))
    assert stranger.exists()


def test_another_installations_disk_is_not_removed(host: Host) -> None:
    path = host.create()
    host.store = ImageStore(base_dir=str(host.folder), installation="ffffffff", owner=ME)
    with pytest.raises(ForeignObjectError):
        host.delete(path)
    assert Path(path).exists()


def test_a_mark_of_another_installation_makes_no_steps(host: Host) -> None:
    mark = images.DiskMark(mark=Mark("ffffffff", "1000", 1001), disk=f"{host.folder}/web_img.qcow2", directory="/x")
    with pytest.raises(RefusedError):
        images.remove_steps(host.store, mark)


def test_a_disk_without_a_vm_is_made_found_and_removed(host: Host) -> None:
    path = host.create("solo", vm_id="3f2a")
    assert any(name.startswith(".cloudrepo-0a1b2c3d/manual-3f2a-") for name in host.files())
    assert host.delete(path) is True


def test_a_later_operation_of_another_thread_does_not_stop_this_one(host: Host) -> None:
    host.numbers = itertools.count(7)
    host.create("db", vm_id=1002)
    host.numbers = itertools.chain([3, 4], itertools.count(8))  # type: ignore[assignment]
    assert host.create().endswith("/web_img.qcow2")


def test_asked_again_for_a_vm_the_disk_that_was_made_is_given_and_untouched(host: Host) -> None:
    path = host.create()
    Path(path).write_bytes(b"a guest's data")
    assert host.create() == path
    assert Path(path).read_bytes() == b"a guest's data"
    assert host.delete(path) is True and host.files() == ["base/0000-cirros.img"]


def test_a_vm_id_that_belongs_to_another_slice_is_refused(host: Host) -> None:
    path = host.create()
    other = replace(a_spec(host.base), mark=Mark(INSTALLATION, "2000", 1001, "disk"))
    with pytest.raises(ForeignObjectError, match="belongs to something else"):
        images.create_overlay(host.executor, "w1", host.store, other, names=["db_img.qcow2"], operation=host.number)
    assert host.delete(path) is True


def test_a_vm_id_that_was_given_again_does_not_get_the_earlier_vms_disk(host: Host) -> None:
    def make(name: str) -> str:
        spec = a_spec(host.base, record={"name": name, "owner": "ann"})
        return images.create_overlay(host.executor, "w1", host.store, spec, names=[name], operation=host.number)

    path = make("web_img.qcow2")
    Path(path).write_bytes(b"an earlier guest's data")
    assert make("web_img.qcow2") == path
    with pytest.raises(ForeignObjectError, match="belongs to something else"):
        make("db_img.qcow2")
    assert Path(path).read_bytes() == b"an earlier guest's data"


def test_a_number_that_is_too_low_since_the_counter_was_set_back_is_tried_again_above_what_the_host_saw(
    host: Host,
) -> None:
    host.numbers = itertools.count(5000)
    host.create()
    host.numbers = itertools.count(1)
    before = len(host.executor.plans)
    host.create("db", vm_id=1002)
    assert [plan.operation for _, plan in host.executor.plans[before:]] == [1, 5001]


def test_two_disks_without_a_vm_of_one_name_are_two_and_both_are_removed(host: Host) -> None:
    first, second = host.create("solo", vm_id="solo"), host.create("solo", vm_id="solo")
    assert first != second
    assert host.delete(first) is True and Path(second).exists()
    assert host.delete(second) is True and host.files() == ["base/0000-cirros.img"]


def test_an_attempt_that_was_cut_is_begun_anew(host: Host) -> None:
    directory = Path(host.store.directory(1001))
    directory.mkdir(parents=True)
    (directory / "disk.qcow2").write_text("half a disk")
    spec = a_spec(host.base, record={"disk": 1})
    (directory / "mark.json").write_text(images.mark_text(spec, candidate=f"{host.folder}/web_img.qcow2"))
    assert host.create() == f"{host.folder}/web_img.qcow2"
