"""Base images: content decides, a partial copy is never trusted, a cut copy is resumed, nothing is overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudrepo import base_image_plans, base_images, checksums
from cloudrepo.base_images import BaseImages
from cloudrepo.checksums import Checksums
from cloudrepo.commands import coreutils
from cloudrepo.errors import CloudError, HostError, HostUnreachable, RefusedError, StepFailed
from cloudrepo.images import BaseImage, ImageStore
from cloudrepo.plan import StepResult
from cloudrepo.transports.local import LocalFiles, LocalHost
from image_tools import INSTALLATION, ME, CountingExecutor, local_executor, require

MIB = 1024**2
SIZE = 3 * MIB


class Site:
    """A manager with an image, and pretended workers with homes."""

    def __init__(self, root: Path, *names: str) -> None:
        self.root = root
        self.manager = root / "manager" / "cirros.img"
        self.manager.parent.mkdir()
        subprocess.run(("qemu-img", "create", "-q", "-f", "qcow2", str(self.manager), "64M"), check=True)
        subprocess.run(
            ("qemu-io", "-c", f"write -q -P 7 0 {SIZE}", str(self.manager)), check=True, stdout=subprocess.DEVNULL
        )
        # Here worker and manager share one disk. What everybody may write is never taken from a worker.
        self.manager.chmod(0o666)
        hosts = {}
        for name in names or ("w1",):
            (root / name).mkdir()
            hosts[name] = LocalHost(home=str(root / name))
        self.executor: CountingExecutor = local_executor(**hosts)
        self.images = self.fresh()

    def fresh(self) -> BaseImages:
        """What another process would have: nothing in memory."""
        return BaseImages(self.executor, INSTALLATION, self.root / "cache", owner=ME)

    def ensure(self, host: str = "w1", **options: Any) -> BaseImage:
        return self.images.ensure(host, str(self.manager), **options)

    def folder(self, host: str = "w1") -> Path:
        return self.root / host / "vm_images"

    def put(self, content: bytes, name: str = "cirros.img", mode: int = 0o644) -> Path:
        """A file put on the worker by hand."""
        self.folder().mkdir(exist_ok=True)
        path = self.folder() / name
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def drafts(self, host: str = "w1") -> list[Path]:
        return list((self.folder(host) / f".cloudrepo-{INSTALLATION}" / "upload").iterdir())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    require("qemu-img", "qemu-io")
    yield Site(tmp_path)


@pytest.fixture(autouse=True)
def no_documented_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented folder is this machine's own here; the tests stay out of it."""
    monkeypatch.setattr(base_images, "DOCUMENTED_FOLDER", str(tmp_path / "documented"))


def digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# -- from the manager --------------------------------------------------------------------------------------


def test_the_managers_image_is_installed_under_its_content_and_read_only(site: Site) -> None:
    image = site.ensure()
    sha256 = digest(site.manager)
    assert image.path_on_host == f"{site.folder()}/base/{sha256[:16]}-cirros.img"
    assert (image.sha256, image.format, image.virtual_size) == (sha256, "qcow2", 64 * MIB)
    assert (image.source, image.size) == ("manager", site.manager.stat().st_size)
    assert digest(image.path_on_host) == sha256
    assert os.stat(image.path_on_host).st_mode & 0o777 == 0o444
    assert site.drafts() == []


def test_a_second_call_asks_nothing_and_a_second_process_asks_once(site: Site) -> None:
    image = site.ensure()
    count = len(site.executor.plans)
    assert site.ensure() == image
    assert len(site.executor.plans) == count
    site.images = site.fresh()
    assert site.ensure() == image
    assert len(site.executor.plans) == count + 1 and len(site.executor.sent) == 1


def test_a_partial_file_under_the_bases_name_is_not_trusted(site: Site) -> None:
    path = f"{site.folder()}/base/{digest(site.manager)[:16]}-cirros.img"
    os.makedirs(os.path.dirname(path))
    Path(path).write_bytes(site.manager.read_bytes()[:-1000])
    assert digest(site.ensure().path_on_host) == digest(site.manager)


def test_same_size_other_content_is_not_trusted_either(site: Site) -> None:
    path = Path(site.ensure().path_on_host)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(damaged)
    path.chmod(0o444)
    site.images = site.fresh()
    assert digest(site.ensure().path_on_host) == digest(site.manager)
    assert len(site.executor.sent) == 2


def test_a_base_that_lost_its_record_is_read_again_and_not_sent_again(site: Site) -> None:
    path = site.ensure().path_on_host
    os.remove(path + ".json")
    site.images = site.fresh()
    assert site.ensure().path_on_host == path
    assert len(site.executor.sent) == 1 and os.path.exists(path + ".json")


def test_a_new_image_of_the_same_name_leaves_the_old_one(site: Site) -> None:
    old = site.ensure()
    subprocess.run(("qemu-io", "-c", "write -q -P 9 0 64k", str(site.manager)), check=True, stdout=subprocess.DEVNULL)
    new = site.ensure()
    assert new.path_on_host != old.path_on_host
    assert digest(old.path_on_host) == old.sha256 and digest(new.path_on_host) == new.sha256


def test_a_cut_at_60_percent_is_resumed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    size = site.manager.stat().st_size
    genuine = LocalFiles.write

    def cut(self: LocalFiles, path: str, offset: int, blocks: Iterator[bytes]) -> None:
        data = b"".join(blocks)
        genuine(self, path, offset, iter((data[: size * 6 // 10],)))
        raise HostUnreachable("w1", "the connection was lost")

    monkeypatch.setattr(LocalFiles, "write", cut)
    with pytest.raises(HostUnreachable):
        site.ensure()
    assert not list((site.folder() / "base").glob("*")) if (site.folder() / "base").exists() else True
    monkeypatch.setattr(LocalFiles, "write", genuine)
    site.images = site.fresh()
    assert digest(site.ensure().path_on_host) == digest(site.manager)
    assert site.executor.sent == [size - size * 6 // 10]
    assert site.executor.sent[0] <= size * 0.45


def test_a_copy_that_arrives_changed_is_sent_once_more_and_then_refused(site: Site) -> None:
    arrivals = []

    class Changing(CountingExecutor):
        def upload(self, host: str, local_path: Any, remote_path: str, **options: Any) -> Any:
            arrivals.append(options["resume"])
            Path(remote_path).write_bytes(b"something else")

    site.images.executor = Changing(transport=site.executor.transport, remote_user=ME)
    with pytest.raises(StepFailed, match="another content"):
        site.ensure()
    assert arrivals == [True, False]
    assert site.drafts() == [] and not (site.folder() / "base").exists()


def test_a_file_of_the_worker_with_the_same_content_is_used_instead_of_sending(site: Site) -> None:
    site.put(site.manager.read_bytes())
    image = site.ensure()
    assert site.executor.sent == [] and image.source == "manager"
    (site.folder() / "cirros.img").write_bytes(b"changed later")
    assert digest(image.path_on_host) == image.sha256


def test_a_file_of_the_worker_with_the_same_size_only_is_not_used(site: Site) -> None:
    site.put(b"\0" * site.manager.stat().st_size)
    assert digest(site.ensure().path_on_host) == digest(site.manager)
    assert len(site.executor.sent) == 1 and site.drafts() == []


# -- from the worker ---------------------------------------------------------------------------------------


def test_without_a_managers_file_the_workers_is_used_and_that_is_said(site: Site) -> None:
    path = site.put(site.manager.read_bytes())
    site.manager.unlink()
    image = site.ensure()
    assert image.source == str(path) and image.sha256 == digest(path)
    site.images = site.fresh()
    count = len(site.executor.plans)
    assert site.ensure() == image
    assert len(site.executor.plans) == count + 1


def test_a_changed_file_of_the_worker_becomes_another_base(site: Site) -> None:
    path = site.put(site.manager.read_bytes())
    site.manager.unlink()
    old = site.ensure()
    subprocess.run(("qemu-io", "-c", "write -q -P 9 0 64k", str(path)), check=True, stdout=subprocess.DEVNULL)
    site.images = site.fresh()
    new = site.ensure()
    assert new.sha256 == digest(path) != old.sha256 and digest(old.path_on_host) == old.sha256


def test_a_base_taken_from_the_worker_outlives_the_file_it_came_from(site: Site) -> None:
    path = site.put(site.manager.read_bytes())
    site.manager.unlink()
    image = site.ensure()
    path.unlink()
    site.images = site.fresh()
    assert site.ensure() == image


def test_the_documented_absolute_path_on_the_worker_is_accepted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    there = site.root / "elsewhere" / "cirros.img"
    there.parent.mkdir()
    shutil.move(site.manager, there)
    there.chmod(0o644)
    # one machine plays both parts: the manager looks at a path that only the worker has
    images = site.images
    monkeypatch.setattr(images, "_of_manager", lambda path: ("", ""))
    assert images.ensure("w1", str(there)).source == str(there)


@pytest.mark.parametrize("change", ["cut", "backing", "link", "empty", "writable", "vmdk"])
def test_an_unsound_file_of_the_worker_is_refused_with_the_reason(site: Site, change: str) -> None:
    content = site.manager.read_bytes()
    path = site.put(content)
    if change == "cut":
        path.write_bytes(content[: len(content) * 6 // 10])
    elif change == "backing":
        path.unlink()
        words = ("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(site.manager), "-F", "qcow2", str(path))
        subprocess.run(words, check=True)
    elif change == "link":
        path.unlink()
        path.symlink_to(site.manager)
    elif change == "empty":
        path.write_bytes(b"")
    elif change == "writable":
        path.chmod(0o666)
    else:
        subprocess.run(("qemu-img", "create", "-q", "-f", "vmdk", str(path), "1M"), check=True)
    site.manager.rename(site.manager.with_name("away"))
    said = {
        "cut": "was cut or is damaged",
        "backing": "has a backing file",
        "link": "not a regular file",
        "empty": "is empty",
        "writable": "written by everybody",
        "vmdk": "vmdk",
    }[change]
    with pytest.raises(RefusedError, match=said):
        site.ensure()
    assert not list(site.folder().glob("base/*-cirros.img"))


@pytest.mark.parametrize(("uid", "is_taken"), [(0, True), (1000, True), (1001, False)])
def test_a_file_of_a_third_account_is_not_taken(uid: int, is_taken: bool) -> None:
    store = ImageStore(base_dir="/h/vm_images", installation=INSTALLATION)
    facts = {"size": 9, "mtime_ns": 5, "mode": 0o644, "uid": uid, "kind": "file"}
    texts = {"files": json.dumps({"/tmp/x.img": facts}), "bases": "{}", "login": "1000 ubuntu\n", "space": ""}
    answers = {name: StepResult(name=name, label=name, status=0, out=text) for name, text in texts.items()}
    look = base_image_plans.read_look(store, "x.img", "", ("/tmp/x.img",), answers)
    assert [source.path for source in look.sources] == ["/tmp/x.img"] * is_taken
    assert is_taken or "belongs to user number 1001" in look.refused[0]


def test_when_neither_side_has_it_both_places_and_the_remedy_are_said(site: Site) -> None:
    site.manager.unlink()
    with pytest.raises(RefusedError) as caught:
        site.ensure()
    text = str(caught.value)
    assert f"neither the manager has {site.manager}" in text and f"{site.folder()}/cirros.img" in text
    assert f"Put the image at {site.manager} on the manager" in text
    assert not site.folder().exists() or site.drafts() == []


# -- the rest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o666])  # taken on the spot, or sent
def test_a_managers_file_that_brings_other_files_is_refused(site: Site, mode: int) -> None:
    overlay = site.manager.with_name("overlay.qcow2")
    words = ("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(site.manager), "-F", "qcow2", str(overlay))
    subprocess.run(words, check=True)
    overlay.chmod(mode)
    with pytest.raises(RefusedError, match="backing file"):
        site.images.ensure("w1", str(overlay))
    assert site.drafts() == [] and len(site.executor.sent) == (mode == 0o666)


@pytest.mark.parametrize("kind", ["directory", "unreadable"])
def test_a_managers_file_that_cannot_be_read_is_one_sentence(site: Site, kind: str) -> None:
    if kind == "directory":
        with pytest.raises(RefusedError, match="not a regular file"):
            site.images.ensure("w1", str(site.manager.parent))
        return
    if os.geteuid() == 0:
        site.images._checksums.of = _denied  # type: ignore[method-assign]
    site.manager.chmod(0)
    with pytest.raises(RefusedError, match="cannot be read"):
        site.ensure()


def _denied(path: str) -> str:
    raise PermissionError(13, "Permission denied", path)


def test_a_full_disk_is_refused_before_anything_is_sent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    full = coreutils.DiskSpace(size=10**9, free=site.manager.stat().st_size)
    monkeypatch.setattr(coreutils, "parse_disk_space", lambda text: full)
    with pytest.raises(RefusedError, match="no room for the base image"):
        site.ensure()
    assert site.executor.sent == []


def test_an_image_folder_that_is_there_keeps_its_mode(site: Site) -> None:
    site.folder().mkdir(mode=0o751)
    site.folder().chmod(0o751)
    site.ensure()
    assert site.folder().stat().st_mode & 0o777 == 0o751


def test_a_hostile_file_name_is_only_a_name(site: Site) -> None:
    hostile = site.manager.with_name("a b;$(touch x)'\n.img")
    shutil.copy(site.manager, hostile)
    image = site.images.ensure("w1", str(hostile))
    assert os.path.basename(image.path_on_host).partition("-")[2] == "a_b___touch_x___.img"
    assert digest(image.path_on_host) == digest(hostile)


def test_hosts_in_parallel_and_one_that_is_down_is_its_own_error(tmp_path: Path) -> None:
    require("qemu-img", "qemu-io")
    site = Site(tmp_path, "w1", "w2", "w3")
    answers = site.images.ensure_everywhere(["w1", "w2", "gone", "w3"], str(site.manager))
    assert isinstance(answers["gone"], HostError)
    installed = [answer.path_on_host for answer in answers.values() if not isinstance(answer, CloudError)]
    assert [digest(path) for path in installed] == [digest(site.manager)] * 3
    assert len(site.executor.sent) == 3


def test_many_threads_and_processes_send_one_copy_to_one_host(site: Site) -> None:
    processes = [site.images, site.fresh(), site.fresh()]
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda images=images: answers.append(images.ensure("w1", str(site.manager)).sha256))
        for images in processes * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [digest(site.manager)] * 9 and len(site.executor.sent) == 1


# -- checksums of this machine -----------------------------------------------------------------------------


def test_a_file_is_hashed_once_for_each_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    genuine = checksums._sha256

    def counted(path: str) -> str:
        hashed.append(path)
        return genuine(path)

    monkeypatch.setattr(checksums, "_sha256", counted)
    file = tmp_path / "image"
    file.write_bytes(b"one")
    sums = Checksums(tmp_path / "cache")
    assert {sums.of(str(file)) for _ in range(12)} == {hashlib.sha256(b"one").hexdigest()}
    assert Checksums(tmp_path / "cache").of(str(file)) == hashlib.sha256(b"one").hexdigest()
    assert len(hashed) == 1
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert sums.of(str(file)) == hashlib.sha256(b"two").hexdigest()
    assert len(hashed) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_a_damaged_cache_is_no_cache(tmp_path: Path, text: str) -> None:
    (tmp_path / "checksums.json").write_text(text)
    file = tmp_path / "image"
    file.write_bytes(b"one")
    assert Checksums(tmp_path).of(str(file)) == hashlib.sha256(b"one").hexdigest()
    assert json.loads((tmp_path / "checksums.json").read_text())


# -- words and answers -------------------------------------------------------------------------------------


def test_room_is_asked_at_a_path_and_all_its_parents() -> None:
    assert coreutils.disk_space("/home/u/vm images") == (
        *("df", "-B1", "--output=size,avail", "--"),
        *("/home/u/vm images", "/home/u", "/home", "/"),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("   1B-blocks        Avail\n 52521566208  11534336\n  1  2\n", (52521566208, 11534336)),
        ("1B-blocks Avail\n", None),
        ("", None),
    ],
)
def test_the_nearest_existing_path_answers_first(text: str, expected: tuple[int, int] | None) -> None:
    found = coreutils.parse_disk_space(text)
    assert (found and (found.size, found.free)) == expected


@pytest.mark.parametrize("text", ["h\n1\n", "h\na b\n", "h\n1 2 3\n"])
def test_a_row_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        coreutils.parse_disk_space(text)


def test_an_owner_has_a_number_and_a_name() -> None:
    assert coreutils.owner("/home/u") == ("stat", "--format=%u %U", "--", "/home/u")
    assert coreutils.parse_owner("1000 ubuntu\n") == (1000, "ubuntu")
