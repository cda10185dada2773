"""A simulated host does what a real one does: one story of commands and failures, told to both.

The other half is `tests/on_lab/test_conformance.py`.
"""

from __future__ import annotations

import pytest

from remote_executor import RemoteExecutor
from simulated.conformance import Bench, story, told_to
from simulated.world import HOSTS, ME, World

NODE = HOSTS["w3"]


def test_a_simulated_host_follows_the_story() -> None:
    with World() as world, RemoteExecutor(ME, transport=world.transport()) as executor:
        assert told_to(executor, NODE) == []


def test_the_story_has_at_least_forty_failures() -> None:
    with World() as world, RemoteExecutor(ME, transport=world.transport()) as executor:
        trials = [*story(Bench(executor, NODE).host)]
    assert sum(trial.status != 0 for trial in trials) >= 40
    assert len({trial.name for trial in trials}) > 100


REFUSED: tuple[tuple[str, ...], ...] = (
    ("ip", "link", "show"),
    ("ip", "tuntap", "add", "dev", "t", "mode", "tun"),
    ("ovs-vsctl", "show"),
    ("ovs-vsctl", "--", "add-br", "br-two"),
    ("ovs-ofctl", "del-flows", "br-int"),
    ("ovs-ofctl", "-O", "OpenFlow13", "add-flow", "br-int", "actions=drop"),
    ("iptables", "-A", "INPUT", "-j", "DROP"),
    ("iptables-restore",),
    ("dnsmasq", "--port=0"),
    ("qemu-img", "convert", "a", "b"),
    ("qemu-system-x86_64", "-monitor", "stdio"),
    ("nsenter", "-t", "1", "-m", "--", "ls"),
    ("sysctl", "-a"),
    ("grep", "root", "/etc/passwd"),
    ("tc", "qdisc", "show"),
    ("sh", "-c", "true"),
)


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: " ".join(words))
def test_what_a_simulated_host_does_not_know_it_refuses(words: tuple[str, ...]) -> None:
    with World() as world:
        answer = world.control.ask("ask", host="w3", words=list(words))
    assert answer["status"] != 0 and answer["err"]
