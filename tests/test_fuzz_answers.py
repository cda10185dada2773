"""Whatever a host answers, a parser reads it or says that it cannot, and nothing else comes out of it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies as st

from cloudrepo import base_image_plans, base_image_removal, guest_agent, host_report, images, probe, worker_facts
from cloudrepo.accelerator import Proof
from cloudrepo.errors import CloudError, HostError
from cloudrepo.host import json_text
from cloudrepo.known_hosts import KnownHosts
from cloudrepo.plan import StepResult
from cloudrepo.verification import sightings as wire_sightings
from fuzzing import changed, changed_json, fuzz, plain_words, texts, values
from test_golden import GOLDEN, Loader, _frozen
from test_probe import answers as probe_answers
from worlds import NODE, host

UNDERSTOOD_OR_NOT = json_text.NOT_UNDERSTOOD


def seeds() -> dict[str, list[tuple[str, dict[str, Any], list[Any]]]]:
    """By parser, real answers from the golden cases: which argument is the text, and all arguments."""
    found: dict[str, list[tuple[str, dict[str, Any], list[Any]]]] = {}
    for path in sorted(GOLDEN.glob("*.parse_*.yaml")):
        for case in yaml.load(path.read_text(), Loader):  # noqa: S506 - a SafeLoader
            given_ = case.get("input", {})
            if isinstance(given_, Mapping):
                key = next((name for name, one in given_.items() if isinstance(one, str)), None)
                if key is not None:
                    found.setdefault(path.stem, []).append((given_[key], dict(given_) | {"": key}, []))
            elif given_ and isinstance(given_[0], str):
                found.setdefault(path.stem, []).append((given_[0], {}, [_frozen(one) for one in given_]))
    return found


SEEDS = seeds()


def test_every_parser_of_a_text_is_fuzzed() -> None:
    assert {"commands.ovs.parse_ports", "commands.openflow.parse_dump", "worker_facts.parse_memory"} <= set(SEEDS)
    assert len(SEEDS) >= 15


@pytest.mark.parametrize("name", SEEDS)
@fuzz(40)
@given(data=st.data())
def test_a_parser_reads_an_answer_or_does_not_understand_it(name: str, data: st.DataObject) -> None:
    module, _, function = name.rpartition(".")
    call = getattr(importlib.import_module(f"cloudrepo.{module}"), function)
    text, named, positional = data.draw(st.sampled_from(SEEDS[name]))
    text = data.draw(changed(text))
    try:
        if named:
            call(**{key: one for key, one in named.items() if key and key != named[""]}, **{named[""]: text})
        else:
            call(text, *positional[1:])
    except UNDERSTOOD_OR_NOT:
        pass


# -- JSON itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"a":' * 200_000, "NaN", "-Infinity", "[1e999]", "1" * 5000, "", "{", '"\\ud83d', "\x00", "[1,]"],
)
def test_json_that_is_none(text: str) -> None:
    for one in (text, text.encode("utf-8", "replace")):
        with pytest.raises(ValueError):
            json_text.loads(one)


def test_half_a_character_is_written_out() -> None:
    for text in ('["\\ud83d", {"\\uDC00": 1}]', b'["\\ud83d", {"\\uDC00": 1}]'):
        assert json_text.loads(text) == ["\\ud83d", {"\\udc00": 1}]
    assert json_text.loads('["\ud83d"]') == ["\\ud83d"]
    assert json_text.loads('"\\ud83d\\ude00"') == "\U0001f600"


@fuzz(100)
@given(text=st.one_of(texts, st.binary(max_size=60)))
def test_json_gives_values_that_can_be_stored_or_value_errors(text: str | bytes) -> None:
    try:
        value = json_text.loads(text)
    except ValueError:
        return
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


# -- whole looks at hosts ----------------------------------------------------------------------------------


def results(answers: Mapping[str, str]) -> dict[str, StepResult]:
    return {name: StepResult(name=name, label=name, status=0, out=out) for name, out in answers.items()}


def garbled(data: st.DataObject, answers: Mapping[str, StepResult]) -> dict[str, StepResult]:
    """The answers with one or two of them changed, missing or not accepted."""
    found = dict(answers)
    for name in data.draw(st.lists(st.sampled_from(sorted(found)), min_size=1, max_size=2, unique=True)):
        kind = data.draw(st.integers(0, 6))
        if kind == 0:
            del found[name]
        elif kind == 1:
            text = data.draw(texts)
            found[name] = StepResult(name=name, label=name, status=1, err=text, out=text, accepted=False)
        else:
            found[name] = StepResult(name=name, label=name, status=0, out=data.draw(changed(found[name].out)))
    return found


MACHINE = {
    "dir": "/run/cloudrepo-0a1b2c3d/vm-1001", "mark": "cloudrepo/0a1b2c3d/1000/1001/eth0.eth1\nabc", "pid": 7,
    "alive": True, "status": "running", "process_state": "S", "start_time": 5, "uuid": None,
}  # fmt: skip
PROCESS = {
    "pid": 7,
    "start": 3,
    "state": "S",
    "words": ["qemu-system-x86_64", "-uuid", "x", "-m", "512"],
    "namespace": "",
}
FILE = {"size": 5, "mtime_ns": 1, "mode": 420, "uid": 0, "owner": "root", "file": "1:2", "kind": "file"}
MARK = {
    "mark": "cloudrepo/0a1b2c3d/1000/1001/disk", "disk": "/home/ubuntu/vm_images/a_img.qcow2", "uuid": "x",
    "base": {"path_on_host": "/home/ubuntu/vm_images/base/x"}, "record": {"vm_id": 1001, "links": [], "slice": {}},
}  # fmt: skip
DISK = {
    "dir": "/home/ubuntu/vm_images/.cloudrepo-0a1b2c3d/vm-1001", "files": {"mark.json": json.dumps(MARK)}, "disk": FILE,
    "kept": FILE, "base": FILE,
}  # fmt: skip
SERVER = {
    "dir": "/run/cloudrepo-0a1b2c3d/dhcp-100", "pid": 9, "alive": True,
    "files": {"mark": "cloudrepo/0a1b2c3d/1000/-/100", "dnsmasq.conf": "interface=x", "hosts": ""},
}  # fmt: skip
LOOK = {
    **{"machines": [MACHINE], "disks": [DISK], "processes": [PROCESS], "servers": [SERVER]},
    "namespaces": {"dhcp-100": {"status": 0, "out": "[]", "err": ""}},
}


@fuzz(300)
@given(data=st.data())
def test_a_look_at_a_host_is_read_or_its_error(data: st.DataObject) -> None:
    try:
        state = probe.read(host(NODE), garbled(data, probe_answers(**LOOK)))
    except HostError as error:
        assert "\x1b" not in ascii(error)
        return
    str(state)


@fuzz(100)
@given(data=st.data())
def test_a_report_is_read_or_its_error(data: st.DataObject) -> None:
    answers = {
        "boot": "abc", "processors": "cpu  100 0 0 300 0 0 0 0 0 0\n", "memory": "MemTotal: 4 kB\nMemAvailable: 1 kB\n",
        "space": "size avail\n10 5\n", "machines": json.dumps([MACHINE]), "servers": json.dumps([SERVER]),
        "flows": "",
    }  # fmt: skip
    asked = {step.name for step in host_report.questions(host(NODE)).observe}
    try:
        report = host_report.read(host(NODE), garbled(data, {**results(dict.fromkeys(asked, "")), **results(answers)}))
    except CloudError:
        return
    for machine in report.machines.values():
        assert machine.pid is None or type(machine.pid) is int
        assert machine.status is None or isinstance(machine.status, str)
    str(report)


@fuzz(100)
@given(data=st.data())
def test_a_worker_is_recorded_whatever_it_says_it_is(data: st.DataObject) -> None:
    question = worker_facts.Question(installation="0a1b2c3d", base_dir="/home/ubuntu/vm_images", is_network_node=True)
    captured = Path(GOLDEN / "captured" / "ovs-ports.txt").read_text()
    answers = {
        "cores": "4", "memory": "MemTotal:  4194304 kB\n", "space": "1B-blocks Avail\n500000000000 5\n", "boot": "abc",
        "kernel": "6.1", "python": "Python 3.11.2", "rights": "0", "groups": "ubuntu kvm", "bridge": captured,
        "devices": json.dumps({"/dev/kvm": FILE}), "folders": json.dumps({"/home/ubuntu": FILE | {"kind": "dir"}}),
        **dict.fromkeys(("qemu", "qemu-img", "ip", "ovs", "dnsmasq", "iptables"), "version 1.2.3"),
    }  # fmt: skip
    facts = worker_facts.read(question, garbled(data, results(answers)))
    record = worker_facts.record("10.0.10.1", question, facts, Proof(accelerator="tcg", reason="", boot_id=""))
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    for key in ("max_cores", "max_ram_gb", "max_disk_gb"):
        assert 0 <= record[key] < 10**12


STORE = images.ImageStore(base_dir="/home/ubuntu/vm_images", installation="0a1b2c3d")
BASE = f"{STORE.bases}/{'ab' * 8}-x.img"
IMAGE = images.BaseImage(path_on_host=BASE, sha256="ab" * 32, virtual_size=9, format="qcow2", size=5)


@fuzz(150)
@given(data=st.data())
def test_a_look_at_base_images_is_read_or_not_understood(data: st.DataObject) -> None:
    record = base_image_plans.record_text(IMAGE, None, "0a1b2c3d")
    answers = {
        "files": json.dumps({"/a/x.img": FILE, STORE.base_dir: FILE | {"kind": "dir"}}), "login": "1000 ubuntu",
        "bases": json.dumps({BASE: FILE}), "space": "1B-blocks Avail\n1000 500\n", "record": record,
        "content": json.dumps({"sha256": "ab" * 32, "size": 5}), "file": json.dumps({"/a/x.img": FILE}),
        "info": json.dumps({"format": "qcow2", "virtual-size": 5, "format-specific": {"data": {"corrupt": False}}}),
    }  # fmt: skip
    found = garbled(data, results(answers))
    try:
        look = base_image_plans.read_look(STORE, "x.img", "ab" * 32, ("/a/x.img",), found)
        assert look.trusted is None or look.trusted.path_on_host == BASE
        assert plain_words(look.user) and all(plain_words(source.path) for source in look.sources)
        assert look.free is None or 0 <= look.free < 2**63
        assert 0 <= look.cut_size < 2**63
    except UNDERSTOOD_OR_NOT:
        pass
    seen = base_image_plans.read_inspection("/a/x.img", found)
    base_image_plans.unfit(seen)


@fuzz(100)
@given(data=st.data())
def test_what_says_who_uses_a_base_image_is_read_or_its_error(data: st.DataObject) -> None:
    rows = json.dumps([{"dir": DISK["dir"], "files": DISK["files"], "pid": None, "alive": False}])
    answers = results({"files": json.dumps({BASE: FILE}), f"disks:{STORE.root}:vm-": rows})
    found = garbled(data, answers)
    for read in (
        lambda: base_image_removal._facts("h", found.get("files")),
        lambda: base_image_removal._why_used("h", BASE, {k: one for k, one in found.items() if k != "files"}),
        lambda: images.parse_disks({"disks": found.get(f"disks:{STORE.root}:vm-", answers["files"])} | found),
    ):
        try:
            read()
        except (HostError, *UNDERSTOOD_OR_NOT):
            pass


@fuzz(100)
@given(text=st.one_of(changed_json(json.dumps(MARK)), texts))
def test_a_mark_file_is_read_or_is_none_of_ours(text: str) -> None:
    mark = images.parse_mark_file(text, "/d")
    assert mark is None or mark.mark.installation
    record = base_image_plans.read_record(text)
    assert record is None or isinstance(record.image.path_on_host, str)


FRAME = "ffffffffffff5254000003e90800450000140001000040000000c0a80001c0a80002"


@fuzz(80)
@given(data=st.data())
def test_what_was_heard_on_the_wire_is_read_or_not_understood(data: st.DataObject) -> None:
    report = {"heard": [["tap_1001_eth0", 7, 1, FRAME]], "answers": [["tap_1001_eth0", -1, 0, FRAME]]}
    try:
        wire_sightings.read("10.0.10.1", data.draw(changed(json.dumps(report))), wire_sightings.Heard())
    except ValueError:
        pass


def test_a_namespace_whose_answer_is_none_is_the_hosts_error() -> None:
    for out in ("[]", "{", "[1]", '[{"ifname": 7}]'):
        held = {"vlan400": {"status": 0, "out": out, "err": ""}}
        with pytest.raises(HostError, match="cannot be understood"):
            probe.read(host(NODE), probe_answers(namespaces=held))


# -- files and guests --------------------------------------------------------------------------------------


@fuzz(100)
@given(lines=st.lists(st.one_of(texts, st.just("10.0.10.1 ssh-ed25519 AAAA"), st.just("10.0.10.1 ssh-rsa !!"))))
def test_pins_are_read_from_any_file(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "known_hosts"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape" if _is_escaped(lines) else "replace"))
    pins = KnownHosts(path).pins("10.0.10.1")
    assert all(isinstance(key, bytes) for key in pins.values())


def _is_escaped(lines: list[str]) -> bool:
    try:
        "\n".join(lines).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


class Guest:
    """A serial port behind which a guest says what it likes."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def send(self, data: bytes) -> None: ...

    def receive(self, timeout_s: float) -> bytes | None:
        return self.pieces.pop(0) if self.pieces else None


@fuzz(100)
@given(data=st.data())
def test_a_guest_answers_or_is_silent(data: st.DataObject) -> None:
    said = [
        json.dumps({"return": data.draw(st.one_of(values, st.just({"pid": 5}), st.just({"exited": True})))})
        if data.draw(st.booleans())
        else data.draw(texts)
        for _ in range(data.draw(st.integers(0, 5)))
    ]
    guest = Guest(b"\xff" + b'{"return": 1}\n', *(f"{one}\n".encode("utf-8", "replace") for one in said))
    agent = guest_agent.GuestAgent(guest)
    for act in (lambda: agent.wait(0.0), lambda: agent.run(("true",), timeout_s=0.0)):
        try:
            act()
        except CloudError:
            pass
