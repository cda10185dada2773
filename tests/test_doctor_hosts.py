"""`doctor` on hosts: which frames are sent, and what is made of what hosts say. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from cloudrepo.commands import ovs
from cloudrepo.doctor import hosts, images, proofs, trial, trunk, vlans
from cloudrepo.doctor.findings import Finding, Level
from cloudrepo.doctor.host_facts import Clock, HostFacts, read_clock
from cloudrepo.doctor.images import Copy
from cloudrepo.doctor.proofs import GIB, Proofs
from cloudrepo.doctor.trial import Heard, Kind, Sent, Trial, Uplink
from cloudrepo.errors import HostKeyError, HostUnreachable, RefusedError
from cloudrepo.host.message import diagnose
from cloudrepo.plan import StepResult
from cloudrepo.resources import Port as BridgePort
from cloudrepo.verification.ground import Device, Ground, Port
from cloudrepo.verification.sightings import Offer
from cloudrepo.worker_facts import Question, WorkerFacts

A, B, C = "10.0.10.1", "10.0.10.2", "10.0.10.3"
IPS = (A, B, C)
TRIAL = Trial(
    run=b"12345678",
    uplinks=tuple(Uplink(host=ip, device="eth1", mac=f"02:00:00:00:00:0{ip[-1]}", mtu=1500) for ip in IPS),
    vlans=(100, 101, 105, 106, 200),
    quiet=frozenset({101}),
    asked=frozenset({100, 106}),
)


# ── which VLANs ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("numbers", "words"), [((), ""), ((7,), "7"), ((7, 8, 9, 11), "7-9,11"), ((4094, 1, 2), "1-2,4094")]
)
def test_vlans_are_written_as_switches_write_them(numbers: tuple[int, ...], words: str) -> None:
    assert vlans.text(numbers) == words
    if words:
        assert vlans.parse(words) == tuple(sorted(numbers))


@pytest.mark.parametrize("words", ["", "x", "0", "4095", "9-7", "1-", "-3", "1,,2", "1-4095", "²"])
def test_what_is_no_vlan_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match="VLAN"):
        vlans.parse(words)


def test_those_in_use_and_the_next_ones_are_tried_and_the_ends_of_the_rest() -> None:
    pool = [vlan for vlan in range(100, 4095) if vlan != 999]
    choice = vlans.choose(pool, in_use={400, 3000}, upcoming=500)
    assert {400, 3000, 100, 4094, *range(500, 564)} <= set(choice.vlans) and 999 not in choice.vlans
    assert len(choice.vlans) < 140
    assert choice.words == f"VLANs 400,500-563,3000 and 64 others, {len(choice.vlans)} of 3994"
    assert vlans.choose(range(100, 110), in_use={400}, upcoming=100).words == "VLANs 100-109,400, 11 of 11"
    assert vlans.choose(pool, in_use={400}, upcoming=100, wanted=(7, 8)).vlans == (7, 8)


# ── between hosts ───────────────────────────────────────────────────────────────────────────────────────


def everything(but: Any = lambda sent, to: False) -> Heard:
    """What hosts hear when nothing is lost but this."""
    return Heard(
        tagged={
            (sent, to)
            for ip in IPS
            for sent in TRIAL.sent(ip)
            if sent.kind is not Kind.DHCP
            for to in IPS
            if to != ip and not but(sent, to)
        }
    )


def said(heard: Heard, **more: Any) -> list[tuple[str, str]]:
    return [(one.code, one.text) for one in trunk.judge(TRIAL, heard, "VLANs 100-200", **more)]


def test_nothing_lost_is_said_with_what_was_tried() -> None:
    (found,) = trunk.judge(TRIAL, everything(), "VLANs 100-200, 5 of 9")
    assert found.level is Level.OK and found.text.endswith(": VLANs 100-200, 5 of 9")


@pytest.mark.parametrize(
    ("lost", "words", "about"),
    [
        (set(permutations(IPS, 2)), "between all hosts", IPS),
        ({(B, A), (B, C)}, f"from {B}", (B,)),
        ({(A, B), (C, B)}, f"to {B}", (B,)),
        ({(A, B), (C, B), (B, A), (B, C)}, f"between {B} and all others", (B,)),
        ({(A, C)}, f"from {A} to {C}", (A, C)),
        ({(A, C), (C, A)}, f"between {A} and {C}", (A, C)),
    ],
)
def test_a_lost_vlan_is_named_with_where(lost: set[tuple[str, str]], words: str, about: tuple[str, ...]) -> None:
    heard = everything(lambda sent, to: sent.vlan in (105, 106) and (sent.host, to) in lost)
    (found,) = trunk.judge(TRIAL, heard, "")
    assert found.text == f"frames in VLANs 105-106 are lost {words}"
    assert found.hosts == about and "switchport trunk allowed vlan add 105-106" in found.remedy


def test_two_faults_are_two_findings() -> None:
    heard = everything(lambda sent, to: (sent.vlan == 105) or (sent.vlan == 200 and to == C))
    assert said(heard) == [
        ("hosts.vlan", "frames in VLAN 105 are lost between all hosts"),
        ("hosts.vlan", f"frames in VLAN 200 are lost to {C}"),
    ]


def test_a_port_that_takes_the_tag_off_is_told_of() -> None:
    heard = everything(lambda sent, to: to == B)
    heard.changed = {(Sent(Kind.SMALL, A, 100), B)}
    (found,) = trunk.judge(TRIAL, heard, "")
    assert found.text == f"frames in any VLAN are lost to {B}" and "access port" in found.evidence
    assert found.remedy.startswith("Join the uplinks by one switch")


@pytest.mark.parametrize(
    ("kind", "code", "level"),
    [(Kind.FULL, "hosts.mtu", Level.WRONG), (Kind.CONTROL, "hosts.control", Level.WARNING)],
)
def test_what_is_lost_where_short_frames_pass_is_told_of(kind: Kind, code: str, level: Level) -> None:
    """One VLAN of several is enough to see that it passes; where none passes, that is another finding."""
    (found,) = trunk.judge(TRIAL, everything(lambda sent, to: sent.kind is kind and to == C), "")
    assert (found.code, found.level, found.hosts) == (code, level, (C,))
    in_one = everything(lambda sent, to: sent.kind is kind and sent.vlan == TRIAL.middle[0])
    assert [one.level for one in trunk.judge(TRIAL, in_one, "")] == [Level.OK]
    nothing = said(everything(lambda sent, to: to == C))
    assert nothing == [("hosts.vlan", f"frames in any VLAN are lost to {C}")]


def test_a_host_whose_own_device_is_narrow_is_not_told_of_twice() -> None:
    narrow = replace(TRIAL, uplinks=tuple(replace(one, mtu=1400 if one.host == B else 1500) for one in TRIAL.uplinks))
    assert not [sent for sent in narrow.sent(B) if sent.kind is Kind.FULL]
    heard = everything(lambda sent, to: sent.kind is Kind.FULL and B in (sent.host, to))
    assert [one.level for one in trunk.judge(narrow, heard, "")] == [Level.OK]
    assert not [(sent, to) for sent, to in trial.missed(narrow, heard) if sent.kind is Kind.FULL]


def test_other_frames_than_short_ones_stay_out_of_the_vlans_of_guests() -> None:
    assert 101 not in TRIAL.middle and len(TRIAL.middle) == 3
    assert {sent.vlan for sent in TRIAL.sent(A) if sent.kind is Kind.DHCP} == {100, 106}
    assert not [sent for sent in TRIAL.sent(C) if sent.kind is Kind.DHCP], "two hosts ask"


def test_a_frame_is_known_again_as_hosts_report_it() -> None:
    heard = Heard()
    rows = []
    for ip in IPS:
        for sent, (device, frame) in zip(TRIAL.sent(ip), TRIAL.frames(ip), strict=True):
            assert TRIAL.what(TRIAL.number(sent)) == sent and len(frame) <= 1518
            rows.append([device, TRIAL.number(sent), 0, frame[:42].hex()])
    untagged = bytes.fromhex(str(rows[0][3]))
    rows[0][3] = (untagged[:12] + untagged[16:]).hex()
    trial.read(TRIAL, B, json.dumps({"heard": rows, "answers": []}), heard)
    first = next(TRIAL.sent(A))
    assert heard.changed == {(first, B)}
    assert {(sent, B) for ip in (A, C) for sent in TRIAL.sent(ip)} == heard.tagged | heard.changed, "not its own"
    with pytest.raises(ValueError, match="no list of frames"):
        trial.read(TRIAL, B, '{"heard": [[1]]}', heard)


def test_a_second_dhcp_server_is_named_and_our_own_is_not() -> None:
    heard = everything()
    mac, own = "02:11:22:33:44:55", "02:00:00:00:00:99"
    for vlan, source in ((100, mac), (106, mac), (100, own)):
        offer = Offer(ear=(A, "eth1"), number=0, is_sent=False, mac=source, address="10.7.0.9", server="10.7.0.1")
        heard.offers.setdefault(vlan, []).append(offer)
    (found,) = trunk.judge(TRIAL, heard, "", own=(own,))
    assert found.text == "a DHCP server that is not ours answers on VLANs 100,106"
    assert found.evidence == f"10.7.0.1 at {mac}" and "address 0211.2233.4455" in found.remedy and found.hosts == ()
    where = trunk.by_mac([(B, "rogue", "rogue0", mac)])
    (found,) = trunk.judge(TRIAL, heard, "", own=(own,), devices=where)
    assert "10.0.10.2 rogue0 in namespace rogue" in found.remedy and found.hosts == (B,)


# ── of itself ───────────────────────────────────────────────────────────────────────────────────────────

BRIDGE = ovs.Bridge(
    name="br-int", datapath="system", ports=(BridgePort(device="eth1", tag=None, mark=None),), errors={}
)
WORKER = WorkerFacts(
    cores=4, ram_mib=8192, disk_bytes=1 << 40, free_bytes=1 << 39, boot_id="b", kernel="6", python="3.11.2",
    qemu_version="7.2.0", ovs_version="3.1.0", has_kvm=True, has_tun=True, bridge=BRIDGE, bridge_error="",
    missing=(), user_groups=("kvm",), closed=(), ran_as_root=True,
)  # fmt: skip
DEVICE = Device(mac="02:00:00:00:00:01", mtu=1500, is_up=True, has_carrier=True)
PORT = Port(name="eth1", number=1, tag=None)
SOUND = HostFacts(
    ip=A,
    question=Question(installation="ab12cd34", base_dir="/home/ubuntu/vm_images"),
    worker=WORKER,
    ground=Ground(bridge="br-int", ports={"eth1": PORT}, devices={"": {"eth1": DEVICE}}),
    clock=Clock(ahead_s=0.1, within_s=0.1),
    sshd={"maxsessions": ("10",), "maxstartups": ("10:30:100",)},
)


def with_device(**more: Any) -> HostFacts:
    assert SOUND.ground is not None
    return replace(SOUND, ground=replace(SOUND.ground, devices={"": {"eth1": replace(DEVICE, **more)}}))


def judged(facts: HostFacts) -> list[Finding]:
    return hosts.judge(facts, (100, 105))


def test_a_sound_host_has_one_word() -> None:
    (found,) = judged(SOUND)
    assert found.level is Level.OK and "QEMU 7.2.0" in found.text and found.hosts == (A,)


@pytest.mark.parametrize(
    ("facts", "code", "says", "remedy"),
    [
        (replace(SOUND, worker=replace(WORKER, bridge=None)), "hosts.bridge", "br-int is missing", "add-br br-int"),
        (replace(SOUND, worker=replace(WORKER, missing=("qemu",))), "hosts.program", "qemu-system-x86_64 is missing",
         "apt-get install qemu-system-x86"),
        (replace(SOUND, worker=replace(WORKER, ran_as_root=False)), "hosts.privilege", "as root", "sudo"),
        (replace(SOUND, worker=replace(WORKER, user_groups=())), "hosts.account", "no account ubuntu", "qemu.user"),
        (replace(SOUND, worker=replace(WORKER, qemu_version="4.1.9")), "hosts.version", "QEMU is too old", "Debian 11"),
        (replace(SOUND, worker=replace(WORKER, ovs_version="2.9")), "hosts.version", "Open vSwitch is too old",
         "Debian 11"),
        (with_device(mtu=1400), "hosts.mtu", "1500 bytes", "ip link set dev eth1 mtu 1500"),
        (with_device(is_up=False), "hosts.uplink.down", "switched off", "ip link set dev eth1 up"),
        (with_device(has_carrier=False), "hosts.uplink.carrier", "no carrier", "cable"),
        (replace(SOUND, sshd={"maxsessions": ("1",), "maxstartups": ("10:30:100",)}), "hosts.sshd.maxsessions",
         "too little", "`MaxSessions 10`"),
        (replace(SOUND, sshd={"maxsessions": ("10",), "maxstartups": ("3:30:100",)}), "hosts.sshd.maxstartups",
         "too little", "`MaxStartups 10:30:100`"),
        (replace(SOUND, sshd=None, sshd_error="no sshd"), "hosts.sshd", "does not say", "sshd -T"),
    ],
)  # fmt: skip
def test_each_fault_of_a_host_is_one_finding_with_its_remedy(
    facts: HostFacts, code: str, says: str, remedy: str
) -> None:
    (found,) = judged(facts)
    assert (found.code, found.hosts) == (code, (A,)) and found.level is not Level.OK
    assert found.text.startswith(f"{A}: ") and says in found.text and remedy in found.remedy


def test_a_trunk_that_leaves_out_what_is_needed_is_told_of() -> None:
    assert SOUND.ground is not None

    def trunks(*numbers: int) -> list[Finding]:
        port = replace(PORT, trunks=numbers)
        return judged(replace(SOUND, ground=replace(SOUND.ground, ports={"eth1": port})))  # type: ignore[type-var]

    assert [one.level for one in trunks(100, 105, 7)] == [Level.OK]
    (found,) = trunks(100, 7)
    assert (found.code, found.evidence) == ("hosts.trunks", "its trunks are 7,100") and "VLANs 105" in found.text


def test_a_lonely_host_needs_no_uplink() -> None:
    bare = replace(SOUND, worker=replace(WORKER, bridge=replace(BRIDGE, ports=())))
    assert [one.code for one in judged(bare)] == ["hosts.uplink"]
    assert [one.level for one in hosts.judge(bare, (), is_alone=True)] == [Level.OK]


@pytest.mark.parametrize(
    ("error", "code", "remedy"),
    [
        (HostUnreachable(A, "no answer", remedy="check the cable"), "hosts.ssh", "check the cable"),
        (HostKeyError(A, "another key", remedy="./cloud worker trust"), "hosts.key", "trust"),
        (diagnose(A, 1, "sudo: a password is required"), "hosts.privilege",
         "echo 'ubuntu ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ubuntu"),
        (diagnose(A, 127, "python3: command not found"), "hosts.program", "apt-get install python3"),
        (HostUnreachable(A, "no answer"), "hosts.ssh", "ssh ubuntu@10.0.10.1"),
    ],
)  # fmt: skip
def test_a_host_that_cannot_be_asked_is_told_of_with_the_reason(error: Any, code: str, remedy: str) -> None:
    found = hosts.unasked(A, error, "ubuntu")
    assert (found.code, found.level, found.hosts) == (code, Level.WRONG, (A,)) and remedy in found.remedy


# ── clocks ──────────────────────────────────────────────────────────────────────────────────────────────


def clocks(*ahead: float | None) -> list[str]:
    facts = [
        replace(SOUND, ip=ip, clock=None if by is None else Clock(ahead_s=by, within_s=0.2))
        for ip, by in zip(IPS, ahead, strict=True)
    ]
    return [one.text for one in hosts.clocks(facts)]


def test_a_clock_that_is_off_is_told_of_and_whose_it_is() -> None:
    assert clocks(0, 4.9, -4.9) == []
    assert clocks(0, 90, 0) == [f"{B}: its clock is 90 s ahead of that of this machine"]
    assert clocks(0, 0, -600) == [f"{C}: its clock is 600 s behind that of this machine"]
    assert clocks(90, 91, 92) == ["the clock of this machine is 91 s behind that of all hosts"]
    assert clocks(90, -90, 90)[0].startswith(f"{A}: "), "they do not agree with each other either"
    assert clocks(None, 0, 0) == [f"{A}: it does not say what time it is"]


def test_a_slow_answer_is_no_wrong_clock() -> None:
    def told(text: str) -> Clock | None:
        return read_clock(StepResult(name="clock", label="", status=0, out=text), 1000.0, 1020.0)

    slow = told("1018.500000000\n")
    assert slow == Clock(ahead_s=8.5, within_s=10.0)
    assert hosts.clocks([replace(SOUND, clock=slow)]) == []
    assert told("yesterday") is None and told("") is None and told("nan") is None


# ── what it did ─────────────────────────────────────────────────────────────────────────────────────────

PROVEN = Proofs(
    ip=A,
    setting="auto",
    accelerator="kvm",
    images=(Copy(what="the base image of cirros", size=1 << 30, state="ready", place="/v/base/x"),),
    folder="/v",
    free=100 << 30,
    mb_s=200.0,
)


def image(state: str, *users: str) -> Proofs:
    return replace(PROVEN, images=(replace(PROVEN.images[0], state=state, users=users),))


def test_a_host_that_did_all_of_it_has_one_word() -> None:
    (found,) = proofs.judge(PROVEN)
    assert found.level is Level.OK and "guests run by kvm, 1 base images, 100 GB free, 200 MB/s" in found.text


@pytest.mark.parametrize(
    ("proven", "code", "level"),
    [
        (replace(PROVEN, accelerator="tcg", reason="no /dev/kvm"), "hosts.accelerator", Level.WARNING),
        (replace(PROVEN, accelerator="tcg", setting="kvm"), "hosts.accelerator", Level.WRONG),
        (replace(PROVEN, accelerator=""), "hosts.accelerator", Level.WRONG),
        (replace(PROVEN, free=GIB - 1), "hosts.disk.space", Level.WRONG),
        (replace(PROVEN, free=0, mb_s=None), "hosts.disk.space", Level.WRONG),
        (replace(PROVEN, mb_s=9.9), "hosts.disk.speed", Level.WARNING),
        (replace(PROVEN, mb_s=None, trouble="no"), "hosts.disk.speed", Level.UNKNOWN),
        (image("missing"), "hosts.image.missing", Level.WARNING),
        (image("missing", "VM 7 (lab/web)"), "hosts.image.missing.used", Level.WRONG),
        (image("damaged"), "hosts.image.damaged", Level.WRONG),
        (image("damaged", "VM 7 (lab/web)"), "hosts.image.damaged.used", Level.WRONG),
    ],
)
def test_what_a_host_did_not_do_is_one_finding_with_its_remedy(proven: Proofs, code: str, level: Level) -> None:
    (found,) = proofs.judge(proven)
    assert (found.code, found.level, found.hosts) == (code, level, (A,)) and found.remedy


def test_emulation_that_was_asked_for_is_right_and_room_is_kept_for_images_that_are_to_come() -> None:
    assert [one.level for one in proofs.judge(replace(PROVEN, accelerator="tcg", setting="tcg"))] == [Level.OK]
    codes = [one.code for one in proofs.judge(replace(image("missing"), free=2 * GIB - 1))]
    assert codes == ["hosts.disk.space", "hosts.image.missing"]
    (found,) = images.not_here({"/tmp/y.img": ["ubuntu", "big"]})
    assert "ubuntu, big" in found.text and "/tmp/y.img" in found.remedy


def test_what_this_machine_lacks_of_added_images_is_told_with_what_a_person_can_do() -> None:
    vms = ["VM 7 (lab/web)"]
    kept = [images.gone("focal", "/s/focal.raw", "ab" * 32, vms), images.gone("focal", "/s/focal.raw", "ab" * 32, ())]
    assert all("SHA-256 begins with abababababababab back at /s/focal.raw" in one.remedy for one in kept)
    assert "VM 7 (lab/web)" in kept[0].remedy and "image remove" not in kept[0].remedy, (
        "it is refused while one is on it"
    )
    assert "`./cloud image remove focal`" in kept[1].remedy
    unread = images.unread("the added image focal", "/s/focal.raw", PermissionError(13, "Permission denied"))
    assert (unread.level, unread.evidence) == (Level.WRONG, "/s/focal.raw: Permission denied")
    refused = RefusedError("the base image /x cannot be read", evidence="Permission denied")
    assert images.unread("the base image of cirros", "/x", refused).evidence == "/x: Permission denied"


def test_a_copy_that_cannot_be_brought_is_not_promised() -> None:
    copy = replace(PROVEN.images[0], state="missing", can_be_brought=False)
    (found,) = images.judge(A, [copy])
    assert found.remedy.startswith("when the one of this machine is set right")
