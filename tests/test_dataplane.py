"""What is tried on the data plane: the plan is pure, and a guest that cannot try never counts as a success."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cloudrepo import dataplane
from cloudrepo.guest_agent import GuestAgent, GuestRefused, GuestResult, GuestSilent

ADDRESSES = {
    1: {"eth0": "10.60.7.101", "eth1": "192.168.100.10"},
    2: {"eth1": "192.168.100.11", "eth2": "192.168.101.10"},
    3: {"eth1": "192.168.101.11"},
}


def interface(name: str, vlan: int | None = None, link: int | None = None) -> dict[str, Any]:
    return {"name": name, "vlan_id": vlan, "link_id": link}


LINE = {
    "vms": [
        {"vm_id": 1, "name": "a", "interfaces": [interface("eth0", 400), interface("eth1", 100, 1)]},
        {
            "vm_id": 2,
            "name": "b",
            "interfaces": [interface("eth0"), interface("eth1", 100, 1), interface("eth2", 101, 2)],
        },
        {"vm_id": 3, "name": "c", "interfaces": [interface("eth0"), interface("eth1", 101, 2)]},
    ],
    "links": [
        {"link_id": 1, "vm1_id": 1, "vm1_interface": "eth1", "vm2_id": 2, "vm2_interface": "eth1"},
        {"link_id": 2, "vm1_id": 2, "vm1_interface": "eth2", "vm2_id": 3, "vm2_interface": "eth1"},
    ],
}  # fmt: skip


def planned() -> tuple[dataplane.Check, ...]:
    return dataplane.plan(LINE, ADDRESSES, url="http://203.0.113.1/", hosts=["10.0.10.1"])


def test_every_link_is_pinged_and_carries_three_megabytes() -> None:
    checks = [check for check in planned() if check.subject == "link"]
    assert [(check.title, check.guest, check.receiver, check.reaches) for check in checks] == [
        ("link 1: a to b, ping", 1, None, True),
        ("link 1: a to b, 3 MB over TCP", 1, 2, True),
        ("link 2: b to c, ping", 2, None, True),
        ("link 2: b to c, 3 MB over TCP", 2, 3, True),
    ]
    assert checks[0].words == ("ping", "-c", "2", "-W", "3", "-I", "eth1", "192.168.100.11")
    assert checks[1].words[-3:] == ("192.168.100.11", "6001", "3145728")


def test_only_the_pair_without_a_link_is_tried_apart() -> None:
    checks = [check for check in planned() if check.subject == "apart"]
    assert [(check.guest, check.words[-1], check.words[0]) for check in checks] == [
        (1, "192.168.101.11", "arping"),
        (1, "192.168.101.11", "ping"),
    ]
    assert not any(check.reaches for check in checks)


def test_the_page_is_expected_where_there_is_internet_only() -> None:
    checks = [check for check in planned() if check.subject == "internet"]
    assert [(check.guest, check.reaches) for check in checks] == [(1, True), (2, False), (3, False)]


def test_management_and_every_gateway_are_tried_from_each_guest() -> None:
    checks = [check for check in planned() if check.subject == "management"]
    assert [(check.guest, check.words[3]) for check in checks] == [
        (1, "10.0.10.1"), (1, "10.60.7.1"), (1, "192.168.100.1"),
        (2, "10.0.10.1"), (2, "192.168.100.1"), (2, "192.168.101.1"),
        (3, "10.0.10.1"), (3, "192.168.101.1"),
    ]  # fmt: skip


def test_addresses_are_read_from_iproute() -> None:
    text = (
        "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever\n"
        "2: eth0    inet 10.60.7.101/24 scope global eth0\\       valid_lft forever preferred_lft forever\n"
    )
    assert dataplane.read_addresses(text) == {"eth0": "10.60.7.101"}
    assert dataplane.read_addresses("") == {}


class FakeGuest(GuestAgent):
    """Answers `run` by a function."""

    def __init__(self, answer: Callable[[tuple[str, ...]], GuestResult]) -> None:
        self._answer = answer

    def run(self, words: Any, *, stdin: str | bytes = "", timeout_s: float = 30.0) -> GuestResult:
        return self._answer(tuple(words))


def status(code: int, out: str = "") -> FakeGuest:
    return FakeGuest(lambda words: GuestResult(code, out.encode()))


def silent(words: tuple[str, ...]) -> GuestResult:
    raise GuestSilent("it hangs")


@pytest.mark.parametrize(
    ("guest", "reaches", "passed"),
    [
        (status(0), True, True), (status(1), True, False), (status(1), False, True), (status(0), False, False),
        (FakeGuest(silent), True, False), (FakeGuest(silent), False, False),
    ],
)  # fmt: skip
def test_a_verdict(guest: FakeGuest, reaches: bool, passed: bool) -> None:
    check = dataplane.Check(subject="apart", title="x", guest=1, words=("ping",), reaches=reaches)
    assert [verdict.passed for verdict in dataplane.run([check], {1: guest})] == [passed]


@pytest.mark.parametrize(
    ("sums", "passed"), [("aa  -\naa  -\n", True), ("aa  -\nbb  -\n", False), ("aa  -\n", False), ("", False)]
)
def test_a_transfer_arrives_when_both_checksums_are_equal(sums: str, passed: bool) -> None:
    check = next(check for check in planned() if check.receiver is not None)
    verdicts = dataplane.run([check], {1: status(0, sums), 2: status(0)})
    assert [verdict.passed for verdict in verdicts] == [passed]


# -- the guest agent -----------------------------------------------------------------------


class AgentSocket:
    """A guest agent in memory: `guest-exec` runs to its end at the second question."""

    def __init__(self, *, left_over: bytes = b"", deaf: bool = False) -> None:
        self._out = left_over
        self._deaf = deaf
        self._asked = 0
        self.executed: list[dict[str, Any]] = []

    def send(self, data: bytes) -> None:
        if self._deaf:
            return
        message = json.loads(data.lstrip(b"\xff"))
        answer: Any
        match message["execute"]:
            case "guest-sync-delimited":
                self._out += b"\xff" + json.dumps({"return": message["arguments"]["id"]}).encode() + b"\n"
                return
            case "guest-exec":
                self.executed.append(message["arguments"])
                answer = {"return": {"pid": 7}}
            case "guest-exec-status":
                self._asked += 1
                done = {"exited": True, "exitcode": 3, "out-data": "aGVsbG8K"}
                answer = {"return": done if self._asked > 1 else {"exited": False}}
            case _:
                answer = {"error": {"class": "CommandNotFound", "desc": "no such command"}}
        self._out += json.dumps(answer).encode() + b"\n"

    def receive(self, timeout_s: float) -> bytes | None:
        data, self._out = self._out[:5], self._out[5:]  # in small pieces, as a network may bring them
        return data


def test_a_program_runs_in_the_guest_after_another_ones_half_answer() -> None:
    socket = AgentSocket(left_over=b'{"return": {"half')
    agent = GuestAgent(socket)
    agent.wait(2)
    assert agent.run(("ls", "$HOME")) == GuestResult(3, b"hello\n")
    assert socket.executed == [{"path": "ls", "arg": ["$HOME"], "capture-output": True}]


def test_the_agents_own_words_are_kept() -> None:
    with pytest.raises(GuestRefused, match="no such command"):
        GuestAgent(AgentSocket()).call("guest-nonsense")


def test_silence_is_an_error_in_time() -> None:
    with pytest.raises(GuestSilent):
        GuestAgent(AgentSocket(deaf=True)).wait(0.2)
