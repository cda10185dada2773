"""Images that people add: what is no image, or names another file, is refused in a sentence and leaves nothing."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import secrets
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudrepo import image_header, image_inspection
from cloudrepo.commands import qemu_img
from cloudrepo.commands.confine import Limits, confined
from cloudrepo.errors import RefusedError
from cloudrepo.image_library import Bounds, Image, Library, name_of_file, opened, require_name
from image_tools import require

MIB = 1024**2
BOUNDS = Bounds(size=64 * MIB, virtual_size=256 * MIB, together=128 * MIB)
SECRET = "--object", "secret,id=s,data=abc"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    require("qemu-img", "qemu-io", "prlimit", "setpriv", "unshare")
    found = Library(tmp_path / "images")
    yield found
    left = {entry.name for entry in found.folder.iterdir()} if found.folder.exists() else set()
    assert {name for name in left if name.startswith(".")} <= {".lock"}, "something half-done is left"


def make(folder: Path, name: str, *words: str, size: str = "8M") -> Path:
    """A file by the real qemu-img."""
    path = folder / name
    subprocess.run(("qemu-img", "create", "-q", *words, str(path), size), check=True, cwd=folder)
    return path


def good(folder: Path, name: str = "good.qcow2") -> Path:
    path = make(folder, name, "-f", "qcow2")
    subprocess.run(("qemu-io", "-c", "write -q -P 7 0 1M", str(path)), check=True, stdout=subprocess.DEVNULL)
    return path


def add(library: Library, path: Path | str, name: str = "one", told: str = "", bounds: Bounds = BOUNDS) -> Image:
    with opened(str(path)) as number:
        return library.add(number, name, told=told, bounds=bounds, who="ann")


def refused(library: Library, path: Path | str, told: str = "", bounds: Bounds = BOUNDS) -> str:
    """The sentence; and nothing of it is in the library."""
    with pytest.raises(RefusedError) as caught:
        add(library, path, told=told, bounds=bounds)
    assert library.images() == []
    return str(caught.value)


# -- what is taken -----------------------------------------------------------------------------------------


def test_a_fit_image_is_copied_whole_with_its_digest_sizes_and_who_added_it(library: Library, tmp_path: Path) -> None:
    path = good(tmp_path)
    image = add(library, path)
    content = path.read_bytes()
    assert (image.format, image.size, image.virtual_size) == ("qcow2", len(content), 8 * MIB)
    assert (image.sha256, image.added_by) == (hashlib.sha256(content).hexdigest(), "ann")
    copy = library.path(image)
    assert copy.read_bytes() == content and copy.name == "one.qcow2"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o444 and stat.S_IMODE(library.folder.stat().st_mode) == 0o700
    assert sorted(entry.name for entry in copy.parent.iterdir()) == ["one.qcow2", "record.json"]
    assert Library(library.folder).images() == [image] == [library.require("one")]


def test_a_raw_disk_is_taken_when_it_is_said_to_be_one_and_keeps_its_holes(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "plain.img"
    with open(path, "wb") as file:
        file.truncate(48 * MIB)
        file.seek(20 * MIB)
        file.write(b"x" * 512)
    assert "say so: --format raw" in refused(library, path)
    assert "it is no qcow2" in refused(library, path, "qcow2")
    image = add(library, path, told="raw")
    assert (image.format, image.virtual_size) == ("raw", 48 * MIB)
    assert library.path(image).stat().st_blocks * 512 < 16 * MIB
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# -- what is refused ---------------------------------------------------------------------------------------


def backed(name: str, *words: str) -> Callable[[Path], Path]:
    return lambda folder: make(folder, name, "-f", "qcow2", *words)


def snapshot(folder: Path) -> Path:
    path = good(folder)
    subprocess.run(("qemu-img", "snapshot", "-c", "first", str(path)), check=True)
    return path


def cut(folder: Path) -> Path:
    path = good(folder)
    os.truncate(path, path.stat().st_size - 300_000)
    return path


def patched(offset: int, layout: str, value: int) -> Callable[[Path], Path]:
    """A real qcow2 with one field of its header set."""

    def change(folder: Path) -> Path:
        path = good(folder)
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(struct.pack(layout, value))
        return path

    return change


def written(content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "file.img"
        path.write_bytes(content)
        return path

    return write


def of_format(kind: str, *words: str) -> Callable[[Path], Path]:
    return lambda folder: make(folder, f"a.{kind}", "-f", kind, *words)


EXTENTS = b'version=1\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/shadow" 0\n'
SAID_TO_BE_RAW = ("a text", "vmdk text")
JSON_NAME = 'json:{"driver":"file","filename":"/etc/shadow"}'
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "backing file": (backed("b.qcow2", "-b", "/etc/shadow", "-F", "raw"), "it has a backing file (/etc/shadow)"),
    "json backing": (backed("j.qcow2", "-u", "-b", JSON_NAME, "-F", "raw"), f"it has a backing file ({JSON_NAME})"),
    "nbd backing": (backed("n.qcow2", "-u", "-b", "nbd:127.0.0.1:1", "-F", "raw"), "backing file (nbd:127.0.0.1:1)"),
    "data file": (backed("d.qcow2", "-o", "data_file=ext.raw"), "it keeps its data in another file (ext.raw)"),
    "raw data file": (
        backed("r.qcow2", "-o", "data_file=ext.raw,data_file_raw=on"),
        "it keeps its data in another file (ext.raw)",
    ),
    "encrypted": (
        backed("e.qcow2", *SECRET, "-o", "encrypt.format=aes,encrypt.key-secret=s"),
        "it is encrypted",
    ),
    "luks inside": (patched(32, ">I", 2), "it is encrypted"),
    "luks": (of_format("luks", *SECRET, "-o", "key-secret=s,iter-time=10"), "luks: it is encrypted"),
    "snapshots": (snapshot, "it holds 1 internal snapshots"),
    "cut": (cut, "its tables do not agree with its content"),
    "corrupt": (patched(72, ">Q", 2), "it is marked corrupt"),
    "in use": (patched(72, ">Q", 1), "it was not closed"),
    "unknown features": (patched(72, ">Q", 1 << 40), "features of qcow2 that are not known here"),
    "another version": (patched(4, ">I", 7), "qcow version 7"),
    "header too short": (patched(100, ">I", 72), "its header is damaged"),
    "no disk": (patched(24, ">Q", 0), "a guest would see no bytes"),
    "tables outside": (patched(40, ">Q", 1 << 50), "its tables do not agree with its content"),
    "tables of no sense": (patched(40, ">Q", 511), "qemu-img: Could not open"),
    "vmdk": (of_format("vmdk"), "vmdk (VMware)"),
    "vmdk extents": (of_format("vmdk", "-o", "subformat=twoGbMaxExtentFlat"), "which may name further files"),
    "vdi": (of_format("vdi"), "vdi (VirtualBox)"),
    "vpc": (of_format("vpc"), "vpc (Virtual PC)"),
    "fixed vpc": (of_format("vpc", "-o", "subformat=fixed"), "vpc (Virtual PC)"),
    "vhdx": (of_format("vhdx"), "vhdx (Hyper-V)"),
    "qed": (of_format("qed"), "qed"),
    "parallels": (of_format("parallels"), "parallels"),
    "old qcow": (of_format("qcow"), "qcow version 1"),
    "gzip": (written(b"\x1f\x8b" + bytes(1022)), "it is packed (gzip)"),
    "xz": (written(b"\xfd7zXZ\0" + bytes(1018)), "it is packed (xz)"),
    "empty": (written(b""), "it is empty"),
    "half a header": (written(b"QFI\xfb\0\0\0\3"), "it ends within its header"),
    "a text": (written(b"root:x:0:0:root:/root:/bin/sh\n"), "whole sectors of 512 bytes"),
    "vmdk text": (
        written(b'# a comment first\n\n' + EXTENTS.ljust(490)),
        "which may name further files",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_may_not_become_an_image(library: Library, tmp_path: Path, kind: str) -> None:
    build, words = REFUSED[kind]
    said = refused(library, build(tmp_path), "raw" if kind in SAID_TO_BE_RAW else "")
    assert said.startswith("this file cannot become an image: ") and words in said


@pytest.mark.parametrize("kind", ["backing file", "vmdk", "vdi", "gzip"])
def test_that_it_is_called_raw_helps_nobody(library: Library, tmp_path: Path, kind: str) -> None:
    build, words = REFUSED[kind]
    assert words in refused(library, build(tmp_path), "raw")


def test_a_qcow2_that_is_called_raw_is_refused(library: Library, tmp_path: Path) -> None:
    """A guest could write a header into a raw disk, and whoever guesses later would believe it."""
    assert "its content is qcow2, and it is said to be raw" in refused(library, good(tmp_path), "raw")


def test_nothing_that_names_a_file_reaches_qemu(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own look at the header comes first: `qemu-img info` has opened what a header names."""
    asked: list[tuple[str, ...]] = []
    genuine = image_inspection.run

    def run(words: tuple[str, ...], *numbers: int, **options: Any) -> tuple[int, str, str]:
        asked.append(words)
        return genuine(words, *numbers, **options)

    monkeypatch.setattr(image_inspection, "run", run)
    for kind in ("backing file", "json backing", "data file", "raw data file", "vmdk extents"):
        refused(library, REFUSED[kind][0](tmp_path))
    assert [words for words in asked if "qemu-img" in words] == []
    add(library, good(tmp_path))
    assert len([words for words in asked if "qemu-img" in words]) == 2


def test_a_format_that_only_qemu_knows_is_no_raw_disk_and_opens_nothing(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were our own look blind: QEMU follows a list of extents, as nobody and away from everything."""
    monkeypatch.setattr(image_header, "_refuse_others", lambda head, tail: None)
    path = written(EXTENTS.ljust(512))(tmp_path)
    assert refused(library, path, "raw").endswith("Could not open '/etc/shadow': Permission denied")
    assert "qemu-img takes it for vdi, and it is raw" in refused(library, of_format("vdi")(tmp_path), "raw")


def test_an_extension_that_names_a_data_file_is_enough(library: Library, tmp_path: Path) -> None:
    """Also where the feature bit is off and QEMU of today looks away."""
    path = make(tmp_path, "d.qcow2", "-f", "qcow2", "-o", "data_file=ext.raw")
    with open(path, "r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", 0))
    assert "it keeps its data in another file (ext.raw)" in refused(library, path)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (Bounds(size=MIB, virtual_size=256 * MIB, together=128 * MIB), "images.max_gb"),
        (Bounds(size=64 * MIB, virtual_size=MIB, together=128 * MIB), "images.max_virtual_gb"),
        (Bounds(size=64 * MIB, virtual_size=256 * MIB, together=MIB), "images.store_gb"),
    ],
)
def test_what_is_too_large_names_the_setting(library: Library, tmp_path: Path, bounds: Bounds, words: str) -> None:
    said = refused(library, good(tmp_path), bounds=bounds)
    assert said.startswith("this image is too large") and words in said


def test_a_huge_sparse_file_is_refused_before_a_byte_is_read(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.img"
    path.touch()
    os.truncate(path, 1 << 42)
    monkeypatch.setattr(os, "pread", lambda *words: pytest.fail("it was read"))
    assert "4096.00 GiB" in refused(library, path, "raw")


def test_a_disk_without_room_is_said_before_a_byte_is_read(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = good(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=MIB))
    assert "there is no room for this image" in refused(library, path)


def test_only_a_regular_file_is_opened(library: Library, tmp_path: Path) -> None:
    target = good(tmp_path)
    link, pipe, listening = tmp_path / "link", tmp_path / "pipe", tmp_path / "socket"
    link.symlink_to(target)
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        cases: list[tuple[Path | str, str]] = [
            (link, "it is a symbolic link. Name the file itself"),
            (pipe, "it is a pipe"),
            (tmp_path, "it is a directory"),
            ("/dev/zero", "it is a device"),
            (listening, "it is a socket or a device"),
            (tmp_path / "none", "No such file or directory"),
            (target / "x", "Not a directory"),
            ("a\0b", "cannot be read"),
            ("x" * 5000, "File name too long"),
        ]
        for path, words in cases:
            assert words in refused(library, path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", ".", "", "a\0b"])
def test_the_inbox_is_left_by_no_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "secret").write_text("x")
    with pytest.raises(RefusedError, match="no file of the inbox"), opened(name, str(tmp_path / "inbox")):
        pass


def test_a_second_name_of_somebody_elses_file_is_no_file_of_the_inbox(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("x")
    os.link(secret, inbox / "mine")
    (inbox / "link").symlink_to(secret)
    for name, words in (("mine", "a second name"), ("link", "a symbolic link")):
        with pytest.raises(RefusedError, match=words), opened(name, str(inbox)):
            pass


# -- what changes meanwhile --------------------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_copied_is_refused(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, genuine = good(tmp_path), os.pread

    def read(number: int, count: int, offset: int) -> bytes:
        found = genuine(number, count, offset)
        with open(path, "r+b") as file:
            file.write(b"changed")
        return found

    monkeypatch.setattr(os, "pread", read)
    assert "this file changed while it was copied" in refused(library, path)
    monkeypatch.setattr(os, "pread", lambda *words: b"")
    assert "this file changed while it was copied" in refused(library, path)


def test_what_becomes_of_the_file_after_the_copy_does_not_matter(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the copy that is looked at, and kept."""
    path = good(tmp_path)
    evil = make(tmp_path, "evil.qcow2", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw")
    content, genuine = path.read_bytes(), image_inspection.inspect

    def inspect(number: int, told: str = "") -> image_header.Header:
        path.write_bytes(evil.read_bytes())
        return genuine(number, told)

    monkeypatch.setattr(image_inspection, "inspect", inspect)
    image = add(library, path)
    assert library.path(image).read_bytes() == content and image.sha256 == hashlib.sha256(content).hexdigest()


# -- names, crowds, crashes --------------------------------------------------------------------------------


def test_names() -> None:
    assert [name_of_file(path) for path in ("/srv/focal.qcow2", "a.IMG", "x.tar.gz", "b")] == [
        "focal", "a", "x.tar.gz", "b",
    ]  # fmt: skip
    assert require_name("ubuntu-24.04_x") == "ubuntu-24.04_x"
    for bad in ("", ".adding-x", "-x", "a b", "a/b", "..", "é", "a\n", "x" * 41, None, 7, "a\x1b[2J"):
        with pytest.raises(RefusedError, match="an image cannot be named"):
            require_name(bad)


def test_a_taken_name_is_refused_also_in_another_case(library: Library, tmp_path: Path) -> None:
    path = good(tmp_path)
    add(library, path, "Focal")
    for name in ("Focal", "focal"):
        with pytest.raises(RefusedError, match="there is an image Focal already"):
            add(library, path, name)
    assert [image.name for image in library.images()] == ["Focal"]


def test_of_many_that_add_the_same_name_one_has_it(library: Library, tmp_path: Path) -> None:
    path, outcomes = good(tmp_path), list[str]()

    def attempt(number: int) -> None:
        try:
            outcomes.append(add(library, path, "one").name)
        except RefusedError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["images.taken"] * 5 + ["one"]


def _die_while_adding(folder: str, path: str) -> None:
    image_inspection.inspect = lambda number, told="": os._exit(9)
    add(Library(Path(folder)), path)


def test_what_a_process_that_died_left_is_removed_and_a_live_ones_is_not(library: Library, tmp_path: Path) -> None:
    path = good(tmp_path)
    process = multiprocessing.get_context("fork").Process(
        target=_die_while_adding, args=(str(library.folder), str(path))
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    (dead,) = library.folder.glob(".adding-*")
    with library._draft() as live:
        assert not dead.exists() and live.exists()
        add(library, path)
        assert live.exists()


def test_a_record_that_cannot_be_read_is_no_image_and_stops_nothing(library: Library, tmp_path: Path) -> None:
    image = add(library, good(tmp_path))
    record = library.folder / "one" / "record.json"
    fields = json.loads(record.read_text())
    for text in (
        "",
        "{",
        "[" * 100_000,
        "[]",
        json.dumps(fields | {"name": "other"}),
        json.dumps(fields | {"format": "vmdk"}),
    ):
        record.write_text(text)
        assert library.images() == [] and library.find("one") is None
    record.write_text(json.dumps(fields))
    assert library.images() == [image]
    with pytest.raises(RefusedError, match="there is no image 'two': there are one"):
        library.require("two")


def test_one_that_is_hidden_is_gone_at_once_and_twice_is_said(library: Library, tmp_path: Path) -> None:
    image = add(library, good(tmp_path))
    hidden = library.hide(image)
    assert library.images() == []
    with pytest.raises(RefusedError, match="it was just removed"):
        library.hide(image)
    library.discard(hidden)
    assert add(library, good(tmp_path)).name == "one"


# -- the confined process ----------------------------------------------------------------------------------

PROBE = """
import os, resource, socket
print(os.getuid(), os.getgid(), os.getgroups())
print([resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CPU, resource.RLIMIT_CORE)])
print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "NoNewPrivs"))])
print(sorted(name for _, name in socket.if_nameindex()))
"""


def test_a_confined_process_has_no_rights_and_is_alone(library: Library) -> None:
    is_root, has_namespaces = os.geteuid() == 0, image_inspection._has_namespaces()
    assert has_namespaces or not is_root, "root can make a network namespace here"
    words = confined((sys.executable, "-c", PROBE), limits=Limits(), is_root=is_root, has_namespaces=has_namespaces)
    status, out, err = image_inspection.run(words)
    assert (status, err) == (0, "")
    who, limits, rights, network = out.splitlines()
    assert who == "65534 65534 []" or not is_root
    assert (limits, rights) == ("[0, 30, 0]", "['0000000000000000', '1']")
    assert network == "['lo']" or not has_namespaces


@pytest.mark.parametrize("code", ["while True: pass", "x = bytearray(2 << 30)"])
def test_a_confined_process_that_takes_too_much_ends(library: Library, code: str) -> None:
    words = (sys.executable, "-c", code)
    is_root = os.geteuid() == 0
    assert image_inspection.run(confined(words, limits=Limits(seconds=1), is_root=is_root, has_namespaces=False))[0]


def test_a_confined_process_writes_no_byte_where_everybody_may(library: Library) -> None:
    path = Path(f"/dev/shm/{secrets.token_hex(8)}")
    code = f"import os; os.write(os.open({str(path)!r}, os.O_CREAT | os.O_WRONLY), b'x')"
    words = confined((sys.executable, "-c", code), limits=Limits(), is_root=os.geteuid() == 0, has_namespaces=False)
    try:
        status, _out, err = image_inspection.run(words)
        assert status != 0 and "File too large" in err and path.stat().st_size == 0
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("code", ["print('x' * 9_000_000)", "import time; time.sleep(600)"])
def test_a_confined_process_that_says_too_much_or_nothing_is_ended(code: str) -> None:
    assert image_inspection.run((sys.executable, "-c", code), longest_s=3.0)[0] == -9


def test_a_missing_tool_is_said_with_the_packages(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = good(tmp_path)
    monkeypatch.setattr(qemu_img, "BINARY", "no-such-qemu-img")
    assert "apt-get install qemu-utils util-linux" in refused(library, path)
