"""Added images from the façade to a worker with real files: who may, what is used, what is removed and what is not."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.ask import Ask
from cli.screen import Screen
from cloudrepo import base_image_removal, base_images
from cloudrepo.base_images import BaseImages
from cloudrepo.errors import HostUnreachable
from cloudrepo.images import ImageStore
from cloudrepo.plan import Run
from cloudrepo.transports.local import LocalHost
from control.authority import Session
from crashing import Installation
from deployment_api import QCOWManager
from fakes.facade import FakeApi
from fakes.orchestrator import HOSTS, give_image, orchestrator
from image_tools import ME, CountingExecutor, local_executor, require
from orchestrator_api import OrchestratorAPI
from test_cli_menu import LOGIN, Script, converse
from test_cli_recovery import installation, run

__all__ = ["installation"]

MIB = 1024**2
IP = HOSTS[0]


class Room:
    """A façade whose workers have real image folders on this machine; all else on them is pretended."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.inbox = root / "inbox"
        self.inbox.mkdir()
        images = {"inbox": str(self.inbox), **settings}
        (root / "settings.yaml").write_text(yaml.safe_dump({"images": images, "qemu": {"user": ME}}))
        self.api: OrchestratorAPI = orchestrator(root)
        for ip in HOSTS:
            (root / ip).mkdir()
        self.executor: CountingExecutor = local_executor(**{ip: LocalHost(home=str(root / ip)) for ip in HOSTS})
        manager = QCOWManager(self.executor, site=replace(self.api.site, executor=self.executor))
        manager.bases = self.bases()
        self.api.deployment_api.qcow_manager = manager
        with self.api.db.transaction() as data:
            for name, role in (("ann", "student"), ("bob", "student"), ("ines", "instructor")):
                data["users"][name] = {"username": name, "password_hash": "", "quota_vms": 9, "role": role}

    def bases(self, installation: str = "") -> BaseImages:
        return BaseImages(self.executor, installation or self.api.db.installation, self.root / "cache", owner=ME)

    def file(self, name: str = "focal.qcow2", size: str = "64M") -> Path:
        path = self.root / name
        subprocess.run(("qemu-img", "create", "-q", "-f", "qcow2", str(path), size), check=True)
        return path

    def add(self, name: str = "focal", who: str | None = None, **options: Any) -> dict[str, Any]:
        image: dict[str, Any] = self.ok("add_image", who, name, str(self.file()), **options)
        return image

    def vm(self, image: str = "focal", owner: str = "ann", name: str = "web") -> dict[str, Any]:
        made = self.ok("create_slice", owner, f"of {owner}")
        vm: dict[str, Any] = self.ok("add_vm_to_slice", owner, made["slice_id"], name, "cirros", 1, image=image)
        return vm | {"slice_id": made["slice_id"]}

    def ok(self, call: str, *args: Any, **options: Any) -> Any:
        done, payload = getattr(self.api, call)(*args, **options)
        assert done, payload
        return payload

    def no(self, call: str, *args: Any, **options: Any) -> Any:
        done, payload = getattr(self.api, call)(*args, **options)
        assert not done, payload
        return payload

    def copies(self, ip: str = IP) -> list[str]:
        folder = self.root / ip / "vm_images" / "base"
        return sorted(os.listdir(folder)) if folder.exists() else []


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    require("qemu-img", "prlimit", "setpriv", "unshare")
    monkeypatch.setattr(base_images, "DOCUMENTED_FOLDER", str(tmp_path / "documented"))
    yield Room(tmp_path)


def asked(room: Room) -> list[tuple[str, ...]]:
    """The questions about images that workers were asked."""
    steps = [step for _ip, plan in room.executor.plans for step in plan.observe if step.name == "info"]
    return [step.act.words for step in steps if isinstance(step.act, Run)]


# -- from a file to a disk ---------------------------------------------------------------------------------


def test_a_vm_gets_its_disk_on_the_image_it_chose_with_the_format_that_was_found(room: Room) -> None:
    image = room.add()
    assert (image["added_by"], image["slices"], image["workers"]) == ("operator", [], None)
    vm = room.vm()
    assert vm["disk_gb"] == 1 and vm["worker_ip"] == IP
    disk = room.root / IP / "vm_images" / "web_img.qcow2"
    info = json.loads(subprocess.check_output(("qemu-img", "info", "--output=json", str(disk))))
    name = f"{image['sha256'][:16]}-focal.qcow2"
    assert info["full-backing-filename"].endswith(f"/base/{name}") and info["backing-filename-format"] == "qcow2"
    assert room.copies() == [name, f"{name}.json"]
    assert [words[words.index("-f") + 1] for words in asked(room)] == ["qcow2"]
    record = room.api.db.get_slice(vm["slice_id"])
    assert record is not None and record["vms"][0]["image"] == "focal"
    assert room.ok("get_slice", "ann", vm["slice_id"])["vms"][0]["image"] == "focal"
    mark = json.loads(next((room.root / IP / "vm_images").glob(".cloudrepo-*/vm-*/mark.json")).read_text())
    assert mark["record"]["image"] == "focal"  # a rebuilt state knows it


def test_a_raw_image_is_never_guessed_on_a_worker(room: Room) -> None:
    path = room.root / "plain.img"
    path.write_bytes(bytes(MIB))
    room.ok("add_image", None, "plain", str(path), format="raw")
    room.vm("plain")
    assert [words[words.index("-f") + 1] for words in asked(room)] == ["raw"]


def test_a_larger_image_counts_against_quota_and_room(room: Room) -> None:
    room.ok("add_image", None, "large", str(room.file("large.qcow2", "7G")))
    room.ok("set_quota", None, "ann", {"disk_gb": 6})
    made = room.ok("create_slice", "ann", "one")
    assert room.no("add_vm_to_slice", "ann", made["slice_id"], "web", "cirros", 1, image="large") == "Quota exceeded"
    room.ok("set_quota", None, "ann", {"disk_gb": 8})
    assert room.ok("add_vm_to_slice", "ann", made["slice_id"], "web", "cirros", 1, image="large")["disk_gb"] == 7


@pytest.mark.parametrize("image", ["none", "../focal", "", 7, [], None])
def test_an_image_that_is_none_is_refused_and_reserves_nothing(room: Room, image: Any) -> None:
    made = room.ok("create_slice", "ann", "one")
    if image in ("", None, []):
        return  # means the flavor's own
    answer = room.no("add_vm_to_slice", "ann", made["slice_id"], "web", "cirros", 1, image=image)
    assert answer.code == "images.unknown" and answer.startswith("there is no image")
    record = room.api.db.get_slice(made["slice_id"])
    assert record is not None and record["vms"] == []


def test_an_image_that_is_not_what_was_inspected_is_used_by_nobody(room: Room) -> None:
    room.add()
    path = room.api.context.library.folder / "focal" / "focal.qcow2"
    os.chmod(path, 0o644)
    subprocess.run(("qemu-img", "rebase", "-u", "-b", "/etc/shadow", "-F", "raw", str(path)), check=True)
    made = room.ok("create_slice", "ann", "one")
    answer = room.no("add_vm_to_slice", "ann", made["slice_id"], "web", "cirros", 1, image="focal")
    assert answer.code == "images.changed" and "it is not what was inspected" in answer
    path.unlink()
    answer = room.no("add_vm_to_slice", "ann", made["slice_id"], "web", "cirros", 1, image="focal")
    assert answer.code == "images.changed" and "it is gone" in answer
    assert room.copies() == []


def test_a_file_on_a_worker_never_stands_in_for_an_added_image(room: Room) -> None:
    room.add()
    folder = room.root / IP / "vm_images"
    folder.mkdir()
    (folder / "focal.qcow2").write_bytes(room.file("other.qcow2").read_bytes())
    (room.api.context.library.folder / "focal" / "focal.qcow2").unlink()
    made = room.ok("create_slice", "ann", "one")
    assert (
        room.no("add_vm_to_slice", "ann", made["slice_id"], "web", "cirros", 1, image="focal").code == "images.changed"
    )


# -- who may -----------------------------------------------------------------------------------------------


def test_students_add_images_where_the_setting_lets_them(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    closed, opened = Room(tmp_path / "a"), Room(tmp_path / "b", students=True)
    assert closed.no("add_image", "ann", "mine", str(closed.file())).code == "images.students"
    assert opened.ok("add_image", "ann", "mine", str(opened.file()))["added_by"] == "ann"
    assert closed.ok("add_image", "ines", "hers", str(closed.file()))["added_by"] == "ines"


def test_who_is_logged_in_adds_from_the_inbox_only(room: Room) -> None:
    """Else the menu, which runs as the account that owns key and state, would read them for anybody."""
    secret = room.root / "secret.img"
    secret.write_bytes(bytes(512))
    (room.inbox / "link").symlink_to(secret)
    for who in ("ines", "admin"):
        room.api.session = Session(who)
        with room.api.db.transaction() as data:
            data["users"][who].pop("must_change_password", None)
        for path in (str(secret), "../secret.img", "link", "/etc/shadow"):
            answer = room.no("add_image", who, "x", path, format="raw")
            assert answer.code in ("images.inbox", "images.file"), answer
        room.file().rename(room.inbox / "focal.qcow2")
        assert room.ok("add_image", who, f"of-{who}", "focal.qcow2")["added_by"] == who
    room.api.session = Session()


def test_the_inbox_is_shown_to_who_may_add_from_it(tmp_path: Path) -> None:
    """What is no plain file, or has a second name, is not offered."""
    for is_open in (False, True):
        (tmp_path / str(is_open)).mkdir()
        room = Room(tmp_path / str(is_open), students=is_open)
        (room.inbox / "link").symlink_to("/etc/shadow")
        (room.inbox / "folder").mkdir()
        os.link(room.file(), room.inbox / "second name")
        (room.inbox / "focal.img").write_bytes(bytes(512))
        offered = [{"file": "focal.img", "bytes": 512}]
        for who, expected in (("ines", offered), ("ann", offered if is_open else None)):
            assert room.ok("list_images", who)["inbox"] == expected, (who, is_open)
        room.inbox.rename(tmp_path / f"gone {is_open}")
        assert room.ok("list_images", "ines")["inbox"] == []


def test_without_an_inbox_nothing_is_added_in_the_menu(tmp_path: Path) -> None:
    room = Room(tmp_path, inbox="")
    room.api.session = Session("ines")
    assert room.ok("list_images", "ines")["inbox"] is None
    answer = room.no("add_image", "ines", "x", "focal.qcow2")
    assert answer.code == "images.inbox" and "./cloud image add FILE" in answer


def test_a_student_sees_that_others_use_an_image_and_not_who(room: Room) -> None:
    room.add()
    room.vm(owner="ann")
    room.vm(owner="bob")
    (seen,) = room.ok("list_images", "ann")["images"]
    assert ([one["name"] for one in seen["slices"]], seen["others"]) == (["of ann"], 1)
    (all_,) = room.ok("list_images", None)["images"]
    assert ([one["name"] for one in all_["slices"]], all_["others"]) == (["of ann", "of bob"], 0)


@pytest.mark.parametrize("format", ["vmdk", "QCOW2", 7])
def test_a_format_that_is_none_is_refused(room: Room, format: Any) -> None:
    assert room.no("add_image", None, "x", str(room.file()), format=format).code == "images.format"


def test_a_disk_that_fails_is_said_and_leaves_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device", "/x")

    path = room.file()
    monkeypatch.setattr(os, "pwrite", full)
    answer = room.no("add_image", None, "x", str(path))
    assert answer.code == "images.disk" and "No space left on device" in answer
    assert {entry.name for entry in room.api.context.library.folder.iterdir()} == {".lock"}


# -- looking and removing ----------------------------------------------------------------------------------


def test_the_list_names_workers_with_a_copy_and_those_that_do_not_answer(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.add()
    room.vm()
    genuine = BaseImages.copies

    def copies(self: BaseImages, host: str, base_dir: str) -> frozenset[str]:
        if host == HOSTS[2]:
            raise HostUnreachable(host, "no answer")
        return genuine(self, host, base_dir)

    monkeypatch.setattr(BaseImages, "copies", copies)
    answer = room.ok("list_images", None, look=True)
    assert answer["images"][0]["workers"] == [IP]
    assert list(answer["unreachable"]) == [HOSTS[2]]
    assert answer["images"][0]["slices"][0]["vms"]


def test_an_image_in_use_stays_and_says_by_whom(room: Room) -> None:
    room.add(who="ines")
    vm = room.vm(owner="ann")
    answer = room.no("remove_image", "ines", "focal")
    assert answer.code == "images.used" and f"slice {vm['slice_id']} (of ann)" in answer
    assert room.ok("list_images", None)["images"] and len(room.copies()) == 2


def test_an_image_of_a_flavor_stays(room: Room) -> None:
    path = give_image(room.api, "plain", "ines")
    flavors = {"own": {"cores": 1, "ram_gb": 1, "disk_gb": 1, "image": str(path)}}
    (room.root / "settings.yaml").write_text(yaml.safe_dump({"flavors": flavors}))
    again = orchestrator(room.root)
    done, answer = again.remove_image(None, "plain")
    assert not done and "flavor own" in answer and path.exists()


def forget(room: Room, vm: dict[str, Any]) -> None:
    """The VM goes, and its disk on the worker with it."""
    room.api.deployment_api.qcow_manager.remove(vm["worker_ip"], vm["qcow_image"])
    with room.api.db.transaction() as data:
        data["slices"][str(vm["slice_id"])]["vms"] = []


def test_an_image_goes_and_its_copies_on_workers_go_with_it(room: Room) -> None:
    room.add()
    forget(room, room.vm())
    forget(room, room.vm(name="db"))  # on the next worker
    assert len(room.copies(HOSTS[1])) == 2
    plan = room.ok("rehearse", None, "remove_image", {"image": "focal"})
    going = [{"verb": "remove", "kind": "image", "name": "focal.qcow2"}]
    assert [(one["host"], one["actions"]) for one in plan["hosts"]] == [(ip, going) for ip in HOSTS[:2]]
    assert (plan["notes"], plan["differences"], len(room.copies())) == ([], 3, 2)
    answer = room.ok("remove_image", None, "focal")
    assert answer == {"name": "focal", "removed_from": [*HOSTS[:2]], "left": {}}
    assert room.copies() == room.copies(HOSTS[1]) == []
    uploads = list((room.root / IP / "vm_images").glob(".cloudrepo-*/upload/*"))
    assert uploads == [] and room.ok("list_images", None)["images"] == []
    assert room.no("remove_image", None, "focal").code == "images.unknown"
    room.add()  # the same content again: nothing remembers that it was there
    room.vm(name="again")
    assert any(room.copies(ip) for ip in HOSTS)


def test_a_copy_that_another_installations_disk_is_on_stays(room: Room) -> None:
    image = room.add()
    vm = room.vm()
    forget(room, vm)
    path = room.root / IP / "vm_images" / "base" / f"{image['sha256'][:16]}-focal.qcow2"
    directory = room.root / IP / "vm_images" / ".cloudrepo-ffffffff" / "vm-7"
    directory.mkdir(parents=True)
    mark = {"mark": "cloudrepo/ffffffff/1000/7/disk", "disk": "/x_img.qcow2", "base": {"path_on_host": str(path)}}
    (directory / "mark.json").write_text(json.dumps(mark))
    plan = room.ok("rehearse", None, "remove_image", {"image": "focal"})
    assert plan["hosts"] == [] and "VM 7 of the installation ffffffff is on it" in plan["notes"][0]
    answer = room.ok("remove_image", None, "focal")
    assert answer["removed_from"] == [] and "VM 7 of the installation ffffffff is on it" in answer["left"][IP]
    assert path.exists()


def remove(room: Room, image: dict[str, Any], installation: str = "") -> str:
    return room.bases(installation).remove(IP, "~/vm_images", image["sha256"], "focal.qcow2")


def stays(room: Room, image: dict[str, Any], installation: str = "") -> str:
    """Why a copy stays; a look says the same."""
    why = room.bases(installation).why_stays(IP, "~/vm_images", image["sha256"], "focal.qcow2")
    assert remove(room, image, installation) == why
    return why


def test_a_copy_that_another_installation_brought_stays(room: Room) -> None:
    image = room.add()
    forget(room, room.vm())
    assert f"the installation {room.api.db.installation} brought it" in stays(room, image, "ffffffff")
    record = next((room.root / IP / "vm_images" / "base").glob("*.json"))
    for text in ("{", json.dumps({**json.loads(record.read_text()), "installation": ""})):
        record.write_text(text)
        assert "nobody known here brought it" in stays(room, image)
    assert len(room.copies()) == 2


def test_a_mark_that_cannot_be_read_keeps_the_copy(room: Room) -> None:
    image = room.add()
    forget(room, room.vm())
    directory = room.root / IP / "vm_images" / ".cloudrepo-ffffffff" / "manual-x"
    directory.mkdir(parents=True)
    (directory / "mark.json").write_text("{")
    assert "a mark that cannot be read" in stays(room, image)
    assert len(room.copies()) == 2


def test_a_disk_that_is_made_while_its_base_goes_keeps_it(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks are read once more when the copy is out of its place; then it goes back there."""
    image = room.add()
    vm = room.vm()
    genuine, calls = base_image_removal._why_used, list[str]()

    def late(host: str, path: str, observed: Any) -> str:
        calls.append(path)
        return "" if len(calls) == 1 else genuine(host, path, observed)

    monkeypatch.setattr(base_image_removal, "_why_used", late)
    assert f"VM {vm['vm_id']} of the installation" in remove(room, image)
    assert len(calls) == 2 and len(room.copies()) == 2
    assert hashlib.sha256(Path(calls[0]).read_bytes()).hexdigest() == image["sha256"]
    store = ImageStore(base_dir=str(room.root / IP / "vm_images"), installation=room.api.db.installation)
    assert list(Path(store.uploads).iterdir()) == []


def test_a_worker_that_does_not_answer_keeps_its_copy_and_is_named(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.add()
    forget(room, room.vm())
    genuine = BaseImages.remove

    def removal(self: BaseImages, host: str, *words: str) -> str:
        if host == IP:
            raise HostUnreachable(host, "no answer")
        return genuine(self, host, *words)

    monkeypatch.setattr(BaseImages, "remove", removal)
    answer = room.ok("remove_image", None, "focal")
    assert "no answer" in answer["left"][IP] and room.ok("list_images", None)["images"] == []


# -- at the shell, in the menu -----------------------------------------------------------------------------


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_command_from_first_to_last(
    installation: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "focal.qcow2"
    subprocess.run(("qemu-img", "create", "-q", "-f", "qcow2", str(path), "64M"), check=True)
    assert run("image", "list") == 0 and "No image has been added." in capsys.readouterr().out
    assert run("image", "add", str(path)) == 0
    assert "Image focal was added: qcow2, 0.19 MiB, a disk of 0.06 GiB." in capsys.readouterr().out
    assert run("image", "add", str(path), "--json") == 1
    assert document(capsys)["error"]["code"] == "images.taken"
    assert run("image", "add", str(path), "--name", "second", "--json") == 0
    assert document(capsys)["image"]["name"] == "second"
    assert run("image", "list", "--json") == 0
    assert [image["name"] for image in document(capsys)["images"]] == ["focal", "second"]
    assert run("image", "list") == 0
    assert "no worker" in capsys.readouterr().out
    assert run("image", "remove", "second") == 0
    assert "Image second was removed." in capsys.readouterr().out
    assert run("image", "remove", "focal", "--json") == 0
    found = document(capsys)
    assert (found["image"], found["left"]) == ("focal", {})
    assert run("image", "remove", "focal") == 1 and "there is no image 'focal'" in capsys.readouterr().out
    assert run("image", "remove", "") == 64


@pytest.mark.parametrize(
    ("answers", "image"), [(("1",), ""), (("2",), "focal"), (("focal",), "focal"), (("9", "2"), "focal")]
)
def test_the_menu_offers_the_images_where_a_vm_is_added(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[str, ...], image: str
) -> None:
    api = FakeApi()
    api.create_slice("ann", "one")
    api.images = [{"name": "focal", "format": "qcow2", "size": MIB, "virtual_size": 1 << 31, "added_by": "ines"}]
    shown, _keyboard, _status = converse(monkeypatch, api, *LOGIN, "3", "1000", "web", "1", *answers, "2", "n", "0")
    assert api.calls[-1] == ("add_vm", 1000, "web", "cirros", 2, False, image)
    assert "  2. focal (qcow2, 1.00 MiB, a disk of 2.00 GiB, added by ines)" in shown


def test_the_menu_shows_adds_and_removes_images(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    from cli.screens.context import Context
    from cli.screens.images import images_menu

    room.api.session = Session("ines")

    def choose(*answers: str) -> str:
        stream = io.StringIO()
        images_menu(Context(room.api, "ines", Screen(stream, width=160), Ask(Script(*answers)), role="instructor"))
        return stream.getvalue()

    assert "No image has been added." in choose("3")
    assert "The inbox is empty: put a file there first." in choose("1")
    room.file().rename(room.inbox / "focal.qcow2")
    assert "Image focal was added: qcow2" in choose("1", "", "", "n"), "the only file is what Enter means"
    assert "is no file of the inbox" in choose("1", "/etc/shadow", "x", "y")
    shown = choose("2", "focal", "n")
    assert "ines" in shown and "Nothing was removed." in shown
    assert "Image focal was removed." in choose("2", "focal", "y")
    assert "There is none to remove." in choose("2")
