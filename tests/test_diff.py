from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from cloudrepo.diff import Change, Difference, difference
from cloudrepo.errors import ForeignObjectError
from cloudrepo.naming import UNFINISHED, Mark
from cloudrepo.resources import Firewall, HostState, Machine, MachineSpec, Port, Resource, Tap
from worlds import OURS, mark

EVERYTHING = lambda one: True  # noqa: E731 - a scope
PORT = Port(device="tap_1001_eth0", tag=100, mark=mark(1000, 1001, "eth0"))
TAP = Tap(device="tap_1001_eth0", user="ubuntu", mark=mark(1000, 1001, "eth0"))


def between(wanted: list[Resource], seen: list[Resource], scope: object = 1000) -> Difference:
    speaks_for = EVERYTHING if scope is EVERYTHING else lambda one: one.scope == str(scope)
    return difference(wanted, HostState(seen), installation=OURS, scope=speaks_for)


def said(what: Difference) -> list[str]:
    return [str(change) for change in what.changes]


def test_the_three_verbs_and_silence() -> None:
    assert said(between([PORT], [])) == ["add port tap_1001_eth0"]
    assert said(between([], [PORT])) == ["remove port tap_1001_eth0"]
    assert said(between([PORT], [replace(PORT, tag=7)])) == ["change port tap_1001_eth0"]
    assert between([PORT], [PORT]) == Difference()
    with pytest.raises(ValueError, match="without an object"):
        _ = Change().resource


def test_a_tap_and_its_port_share_a_name_and_are_two_things() -> None:
    assert said(between([TAP, PORT], [TAP])) == ["add port tap_1001_eth0"]
    added = said(between([TAP, PORT], [PORT]))
    assert added == ["add TAP tap_1001_eth0", "change port tap_1001_eth0"], "a port holds the TAP that went"


def test_changes_in_the_order_of_the_wish_then_removals_in_the_order_seen() -> None:
    other = [Port(device=name, tag=1, mark=mark()) for name in "abcd"]
    assert said(between([other[3], other[0]], [other[2], other[1]])) == [
        *("add port d", "add port a", "remove port c", "remove port b")
    ]


@pytest.mark.parametrize(
    "whose",
    [None, mark(1000, installation="0000beef"), mark(1100), mark("shared"), mark("manual")],
    ids=["nobody", "another installation", "another slice", "shared", "by hand"],
)
def test_what_is_not_the_callers_is_never_changed(whose: Mark | None) -> None:
    theirs = replace(PORT, mark=whose, tag=7)
    assert between([], [theirs]).changes == ()
    refused = between([PORT], [theirs])
    assert refused.changes == () and refused.foreign == (Change(wanted=PORT, seen=theirs),)
    with pytest.raises(ForeignObjectError, match="port tap_1001_eth0 is there and is not ours") as error:
        refused.refuse_foreign("10.0.10.3")
    assert error.value.host == "10.0.10.3" and error.value.remedy


def test_no_foreign_object_no_refusal() -> None:
    between([PORT], []).refuse_foreign("10.0.10.3")


def test_a_scope_of_everything_removes_all_of_this_installation_and_nothing_else() -> None:
    seen: list[Resource] = [
        Port(device="a", tag=1, mark=mark(1000)),
        Port(device="b", tag=1, mark=mark("shared")),
        Port(device="c", tag=1, mark=mark(1000, installation="0000beef")),
        Port(device="d", tag=1, mark=None),
    ]
    assert said(between([], seen, EVERYTHING)) == ["remove port a", "remove port b"]


def test_an_unfinished_object_is_taken_over() -> None:
    machine = Machine(vm_id=1001, uuid="u", mark=mark(1000, 1001, "eth0"))
    half = replace(machine, uuid="", is_running=False, mark=Mark(OURS, UNFINISHED, 1001))
    assert said(between([machine], [half])) == ["change VM 1001"]


def test_a_machine_is_compared_by_what_is_seen_of_it() -> None:
    spec = MachineSpec(
        vm_name="vm1", cores=1, ram_mib=512, disk="/d", vnc_bind="::1", vnc_port=5901, nics=(), accelerator="tcg",
        vnet_hdr=True, user="ubuntu",
    )  # fmt: skip
    wanted = Machine(vm_id=1001, uuid="u", mark=mark(1000, 1001), spec=spec)
    assert between([wanted], [replace(wanted, spec=None, pid=7, status="running", plugged=())]).changes == ()
    for other in ({"is_running": False}, {"uuid": "v"}, {"mark": mark(1000, 1001, "eth0")}):
        assert len(between([wanted], [replace(wanted, spec=None, plugged=(), **other)]).changes) == 1


def firewall(*rules: tuple[str, tuple[str, ...]]) -> Firewall:
    return Firewall(vlan_id=400, rules=rules, mark=mark(1000))


A, B = ("filter", ("-A", "CR-F", "-j", "A")), ("filter", ("-A", "CR-F", "-j", "B"))
C = ("filter", ("-A", "CR-I", "-j", "C"))


def test_the_order_of_rules_counts_within_a_chain_and_not_between_chains() -> None:
    assert between([firewall(A, B, C)], [firewall(C, A, B)]).changes == ()
    assert len(between([firewall(A, B, C)], [firewall(B, A, C)]).changes) == 1
    assert len(between([firewall(A, B)], [firewall(A)]).changes) == 1
    assert len(between([firewall(A)], [firewall(A, A)]).changes) == 1


NAMES = st.sampled_from(["a", "b", "c", "d"])
MARKS = st.sampled_from([None, mark(1000), mark(1100), mark(1000, installation="0000beef")])
PORTS = st.builds(lambda name, tag, whose: Port(device=name, tag=tag, mark=whose), NAMES, st.integers(1, 3), MARKS)


@given(wanted=st.lists(PORTS), seen=st.lists(PORTS))
def test_a_model_host_that_takes_the_changes_has_what_was_wanted(wanted: list[Port], seen: list[Port]) -> None:
    wishes = {port.key: replace(port, mark=mark(1000)) for port in wanted}
    before = HostState(seen)
    what = between(list(wishes.values()), list(before.values()))
    after = dict(before)
    for change in what.changes:
        if change.wanted is None:
            del after[change.resource.key]
        else:
            after[change.resource.key] = change.wanted
    refused = {change.resource.key for change in what.foreign}
    for key, wish in wishes.items():
        assert after[key] == (before[key] if key in refused else wish)
    for key, found in before.items():
        if found.mark != mark(1000):
            assert after[key] == found, "foreign marks and other scopes are as they were"
        elif key not in wishes:
            assert key not in after
    again = between(list(wishes.values()), list(after.values()))
    assert again.changes == () and {change.resource.key for change in again.foreign} == refused
