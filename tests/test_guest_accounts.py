"""As whom guests run: an account for all, or a number for each VM, and what the helper makes of such numbers."""

from __future__ import annotations

import dataclasses
import os
import pwd
from typing import Any

import pytest

from cloudrepo import guest_accounts, worker_facts
from cloudrepo.errors import RefusedError
from cloudrepo.host import hardening
from cloudrepo.host.judge import NotAllowed, judge_step
from cloudrepo.host.runner.accounts import groups_of, ids_of
from cloudrepo.host.runner.words import run_words
from cloudrepo.naming import tap_name
from cloudrepo.plan import Act, MakeDir, PublishFile, Run, Spawn, Step
from cloudrepo.resources import HostFacts, Machine, Tap
from cloudrepo.settings import Settings
from fakes.bounds import HOME, bounds_for
from vm_launcher import vm_resources
from worlds import OURS, WORKER, host, vm

FIRST = 2013265920
HELPER = Settings.of({"host.privilege": "helper"})
BOUNDS = bounds_for(OURS, uids=[FIRST, guest_accounts.COUNT])
RUN = f"/run/cloudrepo-{OURS}"
STORE = f"{HOME}/vm_images/.cloudrepo-{OURS}"


def test_each_vm_has_a_number_where_workers_were_prepared_and_no_account_is_named() -> None:
    assert guest_accounts.first_uid(HELPER) == FIRST
    assert guest_accounts.first_uid(Settings.of({})) == 0
    named = Settings.of({"host.privilege": "helper", "qemu.user": "guests"})
    assert guest_accounts.first_uid(named) == 0
    assert guest_accounts.guests_user(HELPER, "ubuntu") == str(FIRST)
    assert guest_accounts.guests_user(named, "ubuntu") == "guests"
    assert guest_accounts.guests_user(Settings.of({}), "ubuntu") == "ubuntu"


def test_numbers_end_below_where_programs_read_them_as_negative() -> None:
    assert int(guest_accounts.uid_of(FIRST, guest_accounts.COUNT - 1)) == 2**31 - 1
    with pytest.raises(RefusedError, match="can have no account number") as refusal:
        guest_accounts.uid_of(FIRST, guest_accounts.COUNT)
    assert refusal.value.code == "qemu.uid" and "qemu.user" in refusal.value.remedy


def test_a_vm_its_taps_and_nothing_of_another_have_its_number() -> None:
    facts = HostFacts(datapath="system", has_bridge=True, uplinks=("trunk0",))
    place = dataclasses.replace(host(WORKER), first_uid=FIRST)
    users = {}
    for vm_id in (1001, 1002):
        made = vm_resources("1000", vm(vm_id, (100, None)), place, facts, HELPER, disk="/d/x", accelerator="tcg")
        users[vm_id] = {one.user for one in made if isinstance(one, Tap)}
        users[vm_id] |= {one.spec.user for one in made if isinstance(one, Machine) and one.spec}
    assert users == {1001: {str(FIRST + 1001)}, 1002: {str(FIRST + 1002)}}


def test_a_number_is_asked_no_groups_for_and_is_no_missing_account() -> None:
    question = worker_facts.Question(installation=OURS, base_dir="/d", user=str(FIRST))
    assert "groups" not in {step.name for step in worker_facts.probe(question).observe}
    facts = worker_facts.read(question, {})
    assert question.has_user(facts) and not any("no account" in text for text in worker_facts.problems(question, facts))
    other = dataclasses.replace(question, user="guests")
    assert any("no account guests" in text for text in worker_facts.problems(other, worker_facts.read(other, {})))


# ── the helper ──────────────────────────────────────────────────────────────────────────────────────────


def judged(act: Act) -> Any:
    step = Step(name="n", label="l", act=act)
    return judge_step({"name": step.name, "label": step.label, **act.to_json()}, BOUNDS)


def of_vm(uid: str) -> list[Act]:
    """What is done for VM 1001 under a number."""
    log = f"{RUN}/vm-1001/qemu.log"
    words = (
        *(
            "qemu-system-x86_64",
            "-S",
            "-nodefaults",
            "-no-user-config",
            "-uuid",
            "0" * 8 + "-0000" * 3 + "-" + "0" * 12,
        ),
        *("-sandbox", "on,obsolete=deny,resourcecontrol=deny"),
        *("-netdev", "tap,id=eth0,ifname=tap_1001_eth0,script=no,downscript=no"),
    )
    pid = f"{RUN}/vm-1001/pid"
    return [
        MakeDir(path=f"{RUN}/vm-1001", mode=0o700, user=uid),
        PublishFile(draft=f"{STORE}/vm-1001/disk.qcow2", path=f"{HOME}/vm_images/a_img.qcow2", user=uid, mode=0o600),
        Run(words=("ip", "-batch", "-"), stdin=f"tuntap add dev tap_1001_eth0 mode tap user {uid}\n"),
        Run(words=("tail", "-c", "9", "--", log), user=uid),
        Spawn(words=words, log=log, user=uid, pid_file=pid),
    ]


@pytest.mark.parametrize("index", range(5))
def test_the_helper_takes_a_number_for_its_own_vm_only(index: int) -> None:
    assert judged(of_vm(str(FIRST + 1001))[index])
    for other in (FIRST + 1002, FIRST, FIRST - 1, FIRST + guest_accounts.COUNT, 10000, 0):
        with pytest.raises(NotAllowed):
            judged(of_vm(str(other))[index])


def test_a_tap_with_a_short_name_is_known_by_its_digest() -> None:
    long, text = tap_name(1234567, "eth10"), "tuntap add dev {} mode tap user {}\n"
    assert long.startswith("tap_h")
    assert judged(Run(words=("ip", "-batch", "-"), stdin=text.format(long, FIRST + 1234567)))
    with pytest.raises(NotAllowed):
        judged(Run(words=("ip", "-batch", "-"), stdin=text.format(long, FIRST + 1234568)))


def test_without_numbers_the_helper_takes_none() -> None:
    act = of_vm(str(FIRST + 1001))[0]
    with pytest.raises(NotAllowed):
        judge_step({"name": "n", "label": "l", **act.to_json()}, bounds_for(OURS))


# ── on a host ───────────────────────────────────────────────────────────────────────────────────────────


def test_who_is_a_number_alone_is_in_no_group_but_that_of_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids_of("2013266921") == (2013266921, 2013266921)
    kvm = os.stat_result((0o020660, 1, 1, 1, 0, 108, 0, 0, 0, 0))
    monkeypatch.setattr(os, "stat", lambda path: kvm)
    assert groups_of("2013266921", 2013266921) == [108]
    for closed in (0o020600, 0o020666 & ~0o020, 0o100660):
        monkeypatch.setattr(os, "stat", lambda path, mode=closed: os.stat_result((mode, *kvm[1:])))
        assert groups_of("2013266921", 2013266921) == [], oct(closed)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another account")
def test_a_program_runs_under_a_number() -> None:
    words = ["python3", "-c", "import os; print(os.getresuid(), os.getresgid(), os.getgroups())"]
    status, out, err = run_words(words, user="2013266921")
    groups = groups_of("2013266921", 2013266921)
    assert (status, err) == (0, "") and out.strip() == f"{(2013266921,) * 3} {(2013266921,) * 3} {groups}"


def harden(**bounds: Any) -> hardening.Hardening:
    one = hardening.Hardening.__new__(hardening.Hardening)
    one.asked = {"bounds": {"uids": [FIRST, guest_accounts.COUNT], **bounds}}
    return one


def test_a_range_that_is_somebodys_is_not_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    harden().require_numbers()
    somebody = pwd.struct_passwd(("joe", "x", FIRST + 7, 1, "", "/", "/bin/sh"))
    monkeypatch.setattr("pwd.getpwall", lambda: [somebody])
    with pytest.raises(hardening.Refused, match=f"{FIRST + 7} is taken by the account joe: set qemu.first_uid"):
        harden().require_numbers()
    harden(uids=[FIRST - guest_accounts.COUNT, guest_accounts.COUNT]).require_numbers()
    harden(uids=[]).require_numbers()
