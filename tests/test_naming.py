from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from cloudrepo.naming import MAX_LINK_NAME, Mark, machine_uuid, parse_mark, require_device, tap_name

INSTALLATIONS = st.text("0123456789abcdef", min_size=8, max_size=8)


@given(
    installation=INSTALLATIONS,
    scope=st.sampled_from(["1000", "shared", "manual"]),
    vm_id=st.none() | st.integers(0, 10**9),
    detail=st.from_regex(r"[a-z0-9_.:-]{0,40}", fullmatch=True),
)
def test_a_mark_is_read_back_as_it_was_written(installation: str, scope: str, vm_id: int | None, detail: str) -> None:
    mark = Mark(installation, scope, vm_id, detail)
    assert parse_mark(str(mark)) == mark


@pytest.mark.parametrize(
    "parts",
    [
        ("ab12cd3", "1000"),
        ("AB12CD34", "1000"),
        ("ab12cd34", "a b"),
        ("ab12cd34", ""),
        ("ab12cd34", "../x"),
        ("ab12cd34", "1000", -1),
        ("ab12cd34", "1000", 1001, 'eth0",owner="x'),
        ("ab12cd34", "1000", 1001, "eth0 x"),
        ("ab12cd34", "1000", 1001, "$(reboot)"),
        ("ab12cd34", "1000", 1001, "eth0\n"),
        ("ab12cd34", "1000", 1001, "ñ"),
    ],
)
def test_a_mark_that_could_not_be_read_back_is_not_made(parts: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="not a mark"):
        Mark(*parts)  # type: ignore[arg-type]


@given(st.text())
def test_any_text_is_a_mark_or_none_and_never_an_error(text: str) -> None:
    mark = parse_mark(text)
    assert mark is None or str(mark) == text


@given(vm_id=st.integers(0, 10**12), index=st.integers(0, 255))
def test_every_tap_has_a_name_linux_takes(vm_id: int, index: int) -> None:
    name = tap_name(vm_id, f"eth{index}")
    assert len(name) <= MAX_LINK_NAME and require_device(name) == name
    assert name == tap_name(vm_id, f"eth{index}")
    if len(f"tap_{vm_id}_eth{index}") <= 15:
        assert name == f"tap_{vm_id}_eth{index}"
    else:
        assert name.startswith("tap_h"), "never the name of another VM, which has digits there"


def test_two_taps_and_two_machines_never_share_a_name() -> None:
    names = {tap_name(vm_id, f"eth{index}") for vm_id in range(10**6, 10**6 + 500) for index in range(16)}
    assert len(names) == 500 * 16
    assert machine_uuid("ab12cd34", 1001) != machine_uuid("ab12cd34", 1010)
    assert machine_uuid("ab12cd34", 1001) != machine_uuid("0000beef", 1001)
