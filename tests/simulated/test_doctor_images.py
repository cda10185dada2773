"""`doctor` and the images that people added, on simulated hosts: where they must be, what they must be, and `--fix`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control import host_doctor, host_proofs
from simulated.tools.qemu_img import Header, write_header
from simulated.world import HOSTS, MIB, World, install

NAME = "focal"
TEXT = "spoilt"


class Room:
    """A world with one VM on an added image, and all images where they must be."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.api = install(world, folder / "image")
        self.file = self._add_image()
        self.slice_id = self.ok("create_slice", "admin", "lab")["slice_id"]
        self.vm = self.ok("add_vm_to_slice", "admin", self.slice_id, "web", "cirros", 1, image=NAME)
        self.ip = str(self.vm["worker_ip"])
        self.words = f"VM {self.vm['vm_id']} (lab/web)"
        assert self.ok("doctor_fix")["failed"] == [] == self.findings()

    def _add_image(self) -> Path:
        """As the library keeps one."""
        folder = self.api.context.library.folder / NAME
        folder.mkdir(parents=True)
        file = folder / f"{NAME}.qcow2"
        write_header(file, Header(size=32 * MIB))
        record = {
            "name": NAME, "format": "qcow2", "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "size": file.stat().st_size, "virtual_size": 32 * MIB, "added_by": "admin",
            "added": "2026-01-02T03:04:05+00:00",
        }  # fmt: skip
        (folder / "record.json").write_text(json.dumps(record))
        return file

    def ok(self, call: str, *args: Any, **options: Any) -> Any:
        done, payload = getattr(self.api, call)(*args, **options)
        assert done, payload
        return payload

    def look(self) -> tuple[list[dict[str, Any]], list[str]]:
        """What is not as it should be with images, and what `--fix` would do about it."""
        found = self.ok("doctor")
        wrong = [one for one in found["findings"] if one["code"].startswith("hosts.image")]
        return wrong, [one["text"] for one in found["fixes"] if str(one["text"]).startswith("copy ")]

    def findings(self) -> list[dict[str, Any]]:
        return self.look()[0]

    def copy(self, ip: str = "") -> Path:
        """Of the added image on a host, in our own files."""
        (name,) = [name for name, address in HOSTS.items() if address == (ip or self.ip)]
        (folder,) = (self.world.directory / name / "root").glob("home/*/vm_images/base")
        digest = hashlib.sha256(self.original).hexdigest()
        return folder / f"{digest[:16]}-{NAME}.qcow2"

    @property
    def original(self) -> bytes:
        """What was added."""
        path = self.world.directory / "original"
        write_header(path, Header(size=32 * MIB))
        return path.read_bytes()

    def elsewhere(self) -> str:
        """A host without a VM on it."""
        return next(ip for ip in HOSTS.values() if ip != self.ip)


def spoil(path: Path) -> None:
    path.chmod(0o644)
    path.write_text(TEXT)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    monkeypatch.setattr(host_doctor, "_our_address", lambda host, port: "127.0.0.1")  # these are on no network
    monkeypatch.setattr(host_proofs, "MEASURED", 4096)
    monkeypatch.setattr(host_proofs, "_guest", lambda context, ip, facts: ("tcg", ""))  # nor do guests run on them
    with World(shortcut=True) as world:
        made = Room(world, tmp_path)
        yield made
        made.api.executor.close()
        made.api.db.close()


def test_a_copy_is_missed_where_a_vm_is_on_it_and_nowhere_else(room: Room) -> None:
    assert not room.copy(room.elsewhere()).exists(), "nobody asked for it there"
    room.copy().unlink()
    ((one,), fixes) = room.look()
    assert (one["code"], one["level"], one["hosts"]) == ("hosts.image.missing.used", "wrong", [room.ip])
    assert f"the added image {NAME} is not there, and these are on it: {room.words}" in one["text"]
    assert "`./cloud doctor --fix` copies it" in one["remedy"] and fixes == [f"copy {room.file}"]
    fixed = room.ok("doctor_fix")
    assert [(one["host"], one["text"]) for one in fixed["changed"]] == [(room.ip, f"copied {room.file}")]
    assert room.copy().read_bytes() == room.original and room.look() == ([], [])


def test_a_copy_without_a_vm_is_not_missed_but_must_be_right(room: Room) -> None:
    room.ok("delete_slice", "admin", room.slice_id)
    spoil(room.copy())
    ((one,), fixes) = room.look()
    assert (one["code"], one["level"], one["hosts"]) == ("hosts.image.damaged", "wrong", [room.ip])
    assert one["evidence"].endswith(room.copy().name)
    assert fixes == [f"copy {room.file} again, in place of the damaged copy"]
    assert room.ok("doctor_fix")["failed"] == [] and room.copy().read_bytes() == room.original
    room.copy().unlink()
    assert room.look() == ([], [])


def test_a_damaged_copy_that_a_disk_is_on_is_left_with_its_remedy(room: Room) -> None:
    spoil(room.copy())
    ((one,), fixes) = room.look()
    assert (one["code"], fixes) == ("hosts.image.damaged.used", []) and room.words in one["text"]
    assert room.ok("doctor_fix")["changed"] == [] and room.copy().read_text() == TEXT


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_of_this_machine_that_is_not_what_was_inspected_is_brought_to_nobody(room: Room, is_there: bool) -> None:
    """Date and length are as they were: a disk that fails changes neither."""
    room.copy().unlink()
    before = os.stat(room.file)
    content = room.original[:-1] + b"x"
    room.file.unlink()
    if is_there:
        room.file.write_bytes(content)
        os.utime(room.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    (here, there), fixes = room.look()
    assert (here["code"], here["hosts"]) == ("hosts.image.changed" if is_there else "hosts.image.source", [])
    digest = hashlib.sha256(room.original).hexdigest()
    assert f"begins with {digest[:16]} back at {room.file}" in here["remedy"] and room.words in here["remedy"]
    assert (hashlib.sha256(content).hexdigest() in here["evidence"]) is is_there
    assert there["code"] == "hosts.image.missing.used" and fixes == []
    assert there["remedy"].startswith("when the one of this machine is set right, `./cloud doctor --fix`")
    assert room.ok("doctor_fix")["changed"] == [] and not room.copy().exists()
    room.file.write_bytes(room.original)
    assert len(room.ok("doctor_fix")["changed"]) == 1 and room.look() == ([], [])


def test_a_vm_on_an_image_that_is_not_in_the_library_is_named(room: Room) -> None:
    record = room.file.with_name("record.json")
    text = record.read_text()
    record.write_text("{")
    (one,) = room.findings()
    assert one["code"] == "hosts.image.unknown" and one["text"].endswith(room.words)
    assert "cannot be read" in one["evidence"] and one["remedy"].startswith(f"Put {room.file.parent} back")
    record.write_text(text)
    aside = room.file.parent.rename(room.world.installation / "aside")
    (one,) = room.findings()
    assert one["evidence"] == f"there is no {room.file.parent}"
    assert f"`./cloud image add FILE --name {NAME}`" in one["remedy"]
    aside.rename(room.file.parent)
    assert room.findings() == []


def test_a_flavor_made_of_an_added_image_is_one_image(room: Room) -> None:
    """Told of once a host, and missed on all of them."""
    flavors: Any = room.api.settings.flavors
    flavors["own"] = {**flavors["cirros"], "image": str(room.file)}
    found, fixes = room.look()
    words = f"the base image of own, the added image {NAME}, is not there"
    assert len(found) == len(fixes) == 2 and all(words in one["text"] for one in found)
    assert room.ok("doctor_fix")["failed"] == [] and room.look() == ([], [])
