from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cloudrepo import validation
from cloudrepo.errors import RefusedError

HUGE = pytest.param(10**5000, id="5001 digits")  # more than Python prints
HOSTILE = [
    *("", " ", "a b", "a'b", 'a"b', "$(reboot)", "`x`", "a;b", "../../etc", "a/b", "a\nb", "vm1\n", "a\x00b", "-rf"),
    *("é", "vm\u202e", "\uff11", "a" * 200, "a.b", "1vm", "_vm", "a,b", "a=b", "a%b", None, 5, 5.0, True, ["a"], b"vm"),
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_vm_names_are_refused_in_one_line(value: Any) -> None:
    with pytest.raises(RefusedError) as caught:
        validation.vm_name(value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["a", "vm1", "web-01", "DB_2", "a" * 31])
def test_good_vm_names(value: str) -> None:
    assert validation.vm_name(value) == value


@given(st.text())
def test_whatever_passes_as_a_vm_name_is_harmless(value: str) -> None:
    try:
        name = validation.vm_name(value)
    except RefusedError as error:
        assert str(error).isprintable()
    else:
        assert re.fullmatch("[A-Za-z][A-Za-z0-9_-]{0,30}", name)
        assert re.fullmatch("[a-z]([a-z0-9-]*[a-z0-9])?", validation.host_name(name))


@given(st.text())
def test_whatever_passes_as_a_slice_name_is_one_printable_line(value: str) -> None:
    try:
        name = validation.slice_name(value)
    except RefusedError as error:
        assert str(error).isprintable()
    else:
        assert 1 <= len(name) <= 64
        assert name.isprintable()
        assert not name.isdecimal()
        assert validation.slice_name(name) == name


@pytest.mark.parametrize("value", ["my-slice", "Práctica 3, grupo B", "$(not run)", " trimmed "])
def test_slice_names_are_labels(value: str) -> None:
    assert validation.slice_name(value) == value.strip()


@pytest.mark.parametrize("value", ["", "   ", "1000", "a\nb", "a\x1b[31m", "x" * 65, None, 7, "\u202eabc"])
def test_bad_slice_names(value: Any) -> None:
    with pytest.raises(RefusedError):
        validation.slice_name(value)


def test_equal_looking_slice_names_are_equal() -> None:
    assert validation.slice_name("re\u0301seau") == validation.slice_name("r\u00e9seau")


def test_names_are_unique_within_the_slice_also_as_host_names() -> None:
    record = {"slice_id": 1000, "vms": [{"name": "web_1"}]}
    assert validation.unused_vm_name(record, "web2") == "web2"
    for name in ("web_1", "web-1", "WEB_1"):
        with pytest.raises(RefusedError, match="slice 1000 already has"):
            validation.unused_vm_name(record, name)


@pytest.mark.parametrize("value", [-1, 16, 10**9, HUGE, 1.0, 1.5, "1", None, True, float("nan")])
def test_bad_counts(value: Any) -> None:
    with pytest.raises(RefusedError) as caught:
        validation.data_interfaces_count(value)
    assert "0 to 15" in str(caught.value)


@pytest.mark.parametrize("value", [0, 1, 15])
def test_good_counts(value: int) -> None:
    assert validation.data_interfaces_count(value) == value


@pytest.mark.parametrize(("value", "number"), [(1000, 1000), ("1000", 1000), (" 7 ", 7), (0, 0)])
def test_good_ids(value: Any, number: int) -> None:
    assert validation.identifier(value) == number


@pytest.mark.parametrize(
    "value",
    [-1, 1.0, "x", "1000x", "", "-1", "१", None, True, [], HUGE, "9" * 5000],
)
def test_bad_ids(value: Any) -> None:
    with pytest.raises(RefusedError, match="slice id cannot be"):
        validation.identifier(value, "slice id")


@pytest.mark.parametrize("value", ["eth0", "eth1", "eth16"])
def test_good_interfaces(value: str) -> None:
    assert validation.interface_name(value) == value


@pytest.mark.parametrize("value", ["eth", "eth01", "eth-1", "ens3", "eth1 ", "eth1\n", "eth9999", 1, None])
def test_bad_interfaces(value: Any) -> None:
    with pytest.raises(RefusedError):
        validation.interface_name(value)


@pytest.mark.parametrize("check", [validation.topology_type, validation.username])
@pytest.mark.parametrize("value", ["", "a b", "../x", "a\n", "é", "x" * 40, None, 3])
def test_bad_labels(check: Callable[[Any], str], value: Any) -> None:
    with pytest.raises(RefusedError):
        check(value)


def test_good_labels() -> None:
    assert validation.topology_type("star") == "star"
    assert validation.username("ann.b") == "ann.b"
    assert validation.truth(True, "internet_enabled") is True
    with pytest.raises(RefusedError, match="internet_enabled cannot be 'yes'"):
        validation.truth("yes", "internet_enabled")
