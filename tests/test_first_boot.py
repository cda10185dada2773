"""What a guest is told at its first boot: what people may give, the seed's files, its volume, and its way to a host."""

from __future__ import annotations

import base64
import io
import struct
import time
from pathlib import Path
from typing import Any

import pycdlib
import pytest
import yaml

from cloudrepo import first_boot, remembrance, seed_image
from cloudrepo.aspects import aspects
from cloudrepo.commands import qemu
from cloudrepo.diff import Change
from cloudrepo.errors import RefusedError
from cloudrepo.mark_records import kept
from cloudrepo.naming import machine_uuid
from cloudrepo.plan import Run
from cloudrepo.resources import HostFacts, Machine
from cloudrepo.settings import Settings
from cloudrepo.stages import StageBuilder
from crashing import Installation
from fakes.orchestrator import orchestrator
from test_cli_recovery import installation, run
from vm_launcher import vm_resources
from worlds import OURS, WORKER, host, vm

__all__ = ["installation"]  # the fixture

FACTS = HostFacts(datapath="system", has_bridge=True, uplinks=("trunk0",))
UUID = machine_uuid(OURS, 1001)
RUN = f"/run/cloudrepo-{OURS}/vm-1001"


def public_key(kind: str = "ssh-ed25519", comment: str = "ann@home") -> str:
    blob = base64.b64encode(struct.pack(">I", len(kind)) + kind.encode() + bytes(36)).decode()
    return f"{kind} {blob} {comment}".rstrip()


KEY = public_key()
SCRIPT = "ip link set eth1 up\nprintf '%s\\n' \"$HOME\" ü\t# : - {\n"


def told(name: str = "web_1", **wish: Any) -> dict[str, Any]:
    return vm(1001) | {"name": name, "first_boot": first_boot.checked(**wish)}


def files(record: dict[str, Any]) -> dict[str, str]:
    seed = first_boot.of(record, UUID)
    assert seed is not None
    return dict(seed.files)


# ── the files ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_files_say_name_keys_users_script_and_nics() -> None:
    found = files(told(users=["ann", "bob"], ssh_keys=[f" {KEY}\n"], start_script=SCRIPT))
    assert list(found) == ["meta-data", "user-data", "network-config"]
    assert yaml.safe_load(found["meta-data"]) == {"instance-id": UUID, "local-hostname": "web-1", "public-keys": [KEY]}
    assert found["user-data"].startswith("#cloud-config\n")
    user_data = yaml.safe_load(found["user-data"])
    assert user_data["hostname"] == "web-1" and user_data["users"][0] == "default"
    assert [(one["name"], one["ssh_authorized_keys"]) for one in user_data["users"][1:]] == [
        ("ann", [KEY]),
        ("bob", [KEY]),
    ]
    (script,) = user_data["write_files"]
    assert base64.b64decode(script["content"]).decode() == f"#!/bin/sh\n{SCRIPT}"
    assert (script["path"], script["permissions"]) == ("/var/lib/cloud/scripts/per-boot/start-script", "0755")
    nics = yaml.safe_load(found["network-config"])["ethernets"]
    assert {name: (nic["match"]["macaddress"], nic["set-name"], nic["dhcp4"]) for name, nic in nics.items()} == {
        "eth0": ("52:54:00:03:e9:00", "eth0", True),
        "eth1": ("52:54:00:03:e9:01", "eth1", True),
    }


def test_only_what_is_wanted_is_said() -> None:
    found = files(told(ssh_keys=[KEY]))
    assert set(yaml.safe_load(found["user-data"])) == {"hostname", "manage_etc_hosts"}
    assert "public-keys" not in files(told(users=["ann"]))["meta-data"]


@pytest.mark.parametrize("name", ["no", "on", "y", "null", "true", "e1"])
def test_a_name_that_yaml_would_read_otherwise_is_a_name(name: str) -> None:
    found = files(told(name, users=["yes"]))
    assert yaml.safe_load(found["meta-data"])["local-hostname"] == name
    assert yaml.safe_load(found["user-data"])["hostname"] == name
    assert yaml.safe_load(found["user-data"])["users"][1]["name"] == "yes"


def test_a_script_with_an_interpreter_of_its_own_keeps_it() -> None:
    found = yaml.safe_load(files(told(start_script="#!/usr/bin/perl\nprint 1"))["user-data"])
    assert base64.b64decode(found["write_files"][0]["content"]) == b"#!/usr/bin/perl\nprint 1\n"


@pytest.mark.parametrize(
    ("given", "user_data"),
    [
        ("#cloud-config\npackages: [tcpdump]\n", "#cloud-config\npackages: [tcpdump]\n"),
        ("#cloud-config \r\nruncmd: [ls]", "#cloud-config \nruncmd: [ls]\n"),
        ("#!/bin/bash\ntrue\n", "#!/bin/bash\ntrue\n"),
        ("#cloud-config\n", "#cloud-config\n"),
        ({"packages": ["tcpdump"]}, "#cloud-config\npackages:\n- tcpdump\n"),
    ],
)
def test_a_document_of_ones_own_is_the_user_data_and_keys_go_beside_it(given: Any, user_data: str) -> None:
    found = files(told(cloud_init=given, ssh_keys=[KEY]))
    assert found["user-data"] == user_data
    assert yaml.safe_load(found["meta-data"])["public-keys"] == [KEY]


def test_a_vm_that_wants_nothing_has_no_seed() -> None:
    assert first_boot.checked(users=[], ssh_keys=(), start_script="", cloud_init={}) == {}
    assert first_boot.checked(users=None, ssh_keys=None, start_script=None, cloud_init=None) == {}
    assert first_boot.of(vm(1001), UUID) is None and first_boot.of(told(), UUID) is None


# ── what people may give ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"users": ["root"]}, "cannot be named 'root'"),
        ({"users": ["Ann"]}, "cannot be named 'Ann'"),
        ({"users": ["ann\n- name: eve"]}, "cannot be named"),
        ({"users": ["ann", "ann"]}, "the user ann is named twice"),
        ({"users": "ann"}, "Give a list"),
        ({"users": [f"u{number}" for number in range(17)]}, "17 users are too many"),
        ({"ssh_keys": [5]}, "no public SSH key"),
        ({"ssh_keys": ["ssh-ed25519 AAAA"]}, "no public SSH key"),
        ({"ssh_keys": [KEY.replace("ssh-ed25519", "ssh-rsa", 1)]}, "no public SSH key"),
        ({"ssh_keys": [f'command="sh" {KEY}']}, "without options"),
        ({"ssh_keys": [public_key(comment='a"b')]}, "without options before it and quotes"),
        ({"ssh_keys": [f"{KEY}\n{KEY}"]}, "no public SSH key"),
        ({"ssh_keys": [public_key(comment="x" * 5000)]}, "no public SSH key"),
        ({"ssh_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl"]}, "that is a private key"),
        ({"ssh_keys": [KEY] * 33}, "33 SSH keys are too many"),
        ({"start_script": 5}, "a start script cannot be 5"),
        ({"start_script": "a\0b"}, "a start script holds '\\x00'"),
        ({"start_script": "\udc80"}, "a start script holds"),
        ({"start_script": "ü" * 8193}, "a start script of 16386 bytes is too long"),
        ({"cloud_init": "packages: [x]\n"}, "cannot begin with 'packages: [x]'"),
        ({"cloud_init": "#cloud-configuration\n"}, "cannot begin with"),
        ({"cloud_init": "#include\nhttp://x/\n"}, "Its first line is `#cloud-config`"),
        ({"cloud_init": "#cloud-config\na: [\n"}, "no YAML: line 3"),
        ({"cloud_init": "#cloud-config\na: 1\na: 2\n"}, "a is there twice"),
        ({"cloud_init": "#cloud-config\n- a\n"}, "It is a mapping"),
        ({"cloud_init": "#cloud-config\n" + "a" * 16384}, "is too long"),
        ({"cloud_init": {"a": object()}}, "YAML cannot write"),
        ({"cloud_init": ["a"]}, "cannot be ['a']"),
        ({"cloud_init": "#!/bin/sh\n", "start_script": "ls"}, "and start script besides"),
        ({"cloud_init": "#!/bin/sh\n", "users": ["a"], "start_script": "ls"}, "and users and start script besides"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(wish: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        first_boot.checked(**wish)
    message = f"{caught.value.message()} {caught.value.remedy}"
    assert words in message and message.isprintable()


@pytest.mark.parametrize("value", ["x", {"shell": "x"}, {"users": ["root"]}, {"ssh_keys": "x"}, [1]])
def test_a_record_written_by_hand_is_held_to_the_same(value: Any) -> None:
    with pytest.raises(RefusedError):
        first_boot.of(vm(1001) | {"first_boot": value}, UUID)


# ── the volume ──────────────────────────────────────────────────────────────────────────────────────────


def read(volume: bytes) -> dict[str, str]:
    """What pycdlib reads of a volume, by long name."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(volume))
    found = {}
    for child in iso.list_children(joliet_path="/"):
        name = child.file_identifier().decode("utf-16_be")
        if child.is_file():
            text = io.BytesIO()
            iso.get_file_from_iso_fp(text, joliet_path=f"/{name}")
            found[name] = text.getvalue().decode()
    iso.close()
    return found


def test_the_volume_holds_the_files_and_is_the_same_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = first_boot.of(told(users=["ann"], ssh_keys=[KEY], start_script=SCRIPT * 200), UUID)
    assert seed is not None
    volume = seed_image.volume(seed)
    assert volume[16 * 2048 + 40 :].startswith(b"cidata ") and len(volume) % 2048 == 0
    assert read(volume) == dict(seed.files)
    genuine = time.time()
    monkeypatch.setattr(time, "time", lambda: genuine + 40_000_000)
    assert seed_image.volume(seed) == volume


def test_another_content_has_another_name() -> None:
    names = {first_boot.of(told(users=[user]), UUID).name for user in ("ann", "bob")}  # type: ignore[union-attr]
    names |= {first_boot.of(told(users=["ann"]), "another").name}  # type: ignore[union-attr]
    assert len(names) == 3 and all(name.startswith("seed-") and name.endswith(".iso") for name in names)


# ── its way to a host ───────────────────────────────────────────────────────────────────────────────────


def machine(record: dict[str, Any]) -> Machine:
    made = vm_resources("1000", record, host(WORKER), FACTS, Settings.of({}), disk="/d/x_img.qcow2", accelerator="tcg")
    return next(one for one in made if isinstance(one, Machine))


def test_the_seed_is_written_by_qemus_account_before_the_start_and_attached_read_only() -> None:
    wanted = machine(told(ssh_keys=[KEY]))
    assert wanted.spec is not None and wanted.spec.seed is not None
    seed = wanted.spec.seed
    stages = StageBuilder(host(WORKER), FACTS).build([Change(wanted=wanted)])
    steps = [step for stage in stages for step in stage.steps]
    assert [step.name for step in steps] == ["vm1001:dir", "vm1001:mark", "vm1001:seed", "vm1001:start", "vm1001:run"]
    act = steps[2].act
    assert isinstance(act, Run) and act.user == "ubuntu" and act.words[-1] == f"{RUN}/{seed.name}"
    assert read(base64.b64decode(act.stdin)) == dict(seed.files)
    words = qemu.command(wanted, RUN)
    drives = [words[at + 1] for at, word in enumerate(words) if word == "-drive"]
    assert drives[1:] == [f"file={RUN}/{seed.name},format=raw,if=virtio,readonly=on"]


def test_a_vm_without_one_is_started_as_documented() -> None:
    wanted = machine(vm(1001))
    steps = [
        step.name for one in StageBuilder(host(WORKER), FACTS).build([Change(wanted=wanted)]) for step in one.steps
    ]
    assert "vm1001:seed" not in steps
    assert qemu.command(wanted, RUN).count("-drive") == 1


def test_a_machine_that_runs_with_another_seed_differs() -> None:
    def seen(record: dict[str, Any]) -> Machine:
        wanted = machine(record)
        started = qemu.parse_command(qemu.command(wanted, RUN))
        plugged = wanted.spec.plugged if wanted.spec is not None else None
        return Machine(
            vm_id=1001, uuid=UUID, mark=wanted.mark, wiring=started.wiring, plugged=plugged, pid=5, status="running"
        )

    one, another, none = told(users=["ann"]), told(users=["bob"]), vm(1001) | {"name": "web_1"}
    assert aspects(machine(one), seen(one)) == () and aspects(machine(none), seen(none)) == ()
    for wanted, found in ((one, another), (one, none), (none, one)):
        assert [each.what for each in aspects(machine(wanted), seen(found))] == ["seed"]


def test_the_facade_takes_it_keeps_it_and_does_not_tell_it(tmp_path: Path) -> None:
    api = orchestrator(tmp_path)
    slice_id = api.create_slice("admin", "lab")[1]["slice_id"]
    done, plain = api.add_vm_to_slice("admin", slice_id, "plain", "cirros", 1)
    done, made = api.add_vm_to_slice(
        "admin",
        slice_id,
        "web",
        "cirros",
        1,
        first_boot={"users": ["eve"], "ssh_keys": [KEY], "start_script": "echo secret-word"},
    )
    assert done and set(made) == set(plain), made
    plain_record, record = (api.db.get_slice(slice_id) or {})["vms"]
    assert record["first_boot"] == {"users": ["eve"], "ssh_keys": [KEY], "start_script": "echo secret-word\n"}
    assert "first_boot" not in plain_record
    assert "secret-word" not in (tmp_path / "events.jsonl").read_text()
    done, why = api.add_vm_to_slice("admin", slice_id, "bad", "cirros", 1, first_boot={"cloud_init": "x"})
    assert not done and "cannot begin with 'x'" in why
    done, why = api.add_vm_to_slice("admin", slice_id, "bad", "cirros", 1, first_boot={"shell": "x"})
    assert not done and "a mapping with the keys users, ssh_keys, start_script, cloud_init" in why
    assert len((api.db.get_slice(slice_id) or {})["vms"]) == 2
    assert api.deploy_slice("admin", slice_id)[0]
    fake: Any = api.executor
    sent = [step.name for _, plan in fake.plans for step in plan.steps if step.name.endswith(":seed")]
    assert sent == [f"vm{record['vm_id']}:seed"], "one VM has a seed, the other is as documented"


def test_the_command_reads_files(
    installation: Installation, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, text in (("keys", f"# of the class\n{KEY}\n\n{public_key(comment='')}\n"), ("run.sh", "ls\n")):
        (tmp_path / name).write_text(text)
    (tmp_path / "private").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n")
    (tmp_path / "none").write_text("# nothing\n")
    (tmp_path / "odd").write_bytes(b"\xff")

    def add(name: str, *words: str) -> tuple[int, str]:
        status = run("vm", "add", "two", name, *words)
        told = capsys.readouterr()
        return status, told.out + told.err

    assert run("slice", "create", "two") == 0
    keys, script = str(tmp_path / "keys"), str(tmp_path / "run.sh")
    assert add("web", "--guest-user", "ann", "--ssh-key", keys, "--start-script", script)[0] == 0
    assert add("plain")[0] == 0
    record = next(one for one in installation.api.db.list_slices() if one["name"] == "two")
    wish = {"users": ["ann"], "ssh_keys": [KEY, public_key(comment="")], "start_script": "ls\n"}
    assert [vm.get("first_boot") for vm in record["vms"]] == [wish, None]
    for words, said in (
        (("--ssh-key", str(tmp_path / "private")), "that is a private key"),
        (("--ssh-key", str(tmp_path / "none")), "There is no key in"),
        (("--start-script", str(tmp_path / "odd")), "is not UTF-8 text"),
        (("--cloud-init", str(tmp_path / "away")), "away"),
        (("--cloud-init", keys), "cannot begin with '# of the class'"),
        (("--cloud-init", keys, "--dry-run"), "cannot begin with '# of the class'"),
    ):
        status, told = add("bad", *words)
        assert status == 1 and said in told, told
    record = next(one for one in installation.api.db.list_slices() if one["name"] == "two")
    assert len(record["vms"]) == 2


def test_a_disks_mark_file_keeps_it_for_a_rebuild_and_another_one_is_refused() -> None:
    record = {"slice_id": 1000, "owner": "ann", "name": "lab", "links": []}
    said = remembrance.remembered(record, told(users=["ann"], ssh_keys=[KEY]))
    assert kept(said, 1000, 1001).vm["first_boot"] == {"users": ["ann"], "ssh_keys": [KEY]}
    with pytest.raises(ValueError, match="first_boot"):
        kept({**said, "first_boot": {"users": ["root"]}}, 1000, 1001)
    assert "first_boot" not in remembrance.remembered(record, vm(1001))
