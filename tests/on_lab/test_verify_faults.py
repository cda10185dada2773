"""What is put wrong on real hosts is found and named by `verify`, and nothing else is."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.verification import random_slices
from lab.cluster import Lab
from lab.guestless import guestless
from lab.namespaces import CHECKOUT
from on_lab.cluster import HOSTS, Cluster, wait_until
from on_lab.faults import cut_off
from on_lab.seeds import SEEDS, Lesson

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lesson(lab: Lab, module_clusters: Callable[..., Cluster]) -> Iterator[Lesson]:
    with guestless(lab, HOSTS):
        cluster = module_clusters(accel="tcg", qemu={"stop_grace": 0})
        one = cluster.slice("a", "b", "c", interfaces=3, internet=("a", "b", "c"))
        cluster.link(one, "a", "eth1", "b", "eth1")
        cluster.link(one, "b", "eth2", "c", "eth1")
        two = cluster.slice("d", "e", interfaces=2, internet=("d",))
        cluster.link(two, "d", "eth1", "e", "eth0")
        for made in (one, two):
            cluster.ok("deploy_slice", "admin", made["id"])
        yield Lesson(cluster=cluster, one=one, two=two)
        for made in (one, two):
            cluster.ok("delete_slice", "admin", made["id"])


@pytest.mark.cost(seconds=8)
def test_what_is_right_has_no_violation_and_nothing_is_left(lesson: Lesson) -> None:
    before = lesson.cluster.snapshot()
    found = lesson.cluster.ok("verify")
    assert found["violations"] == [] and found["unproven"] == [] and found["unreachable"] == {}, found
    assert found["nics"] == 10 and found["heard"] > 250 and found["not_heard"] > 5000
    assert lesson.cluster.snapshot() == before


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.cost(seconds=3)
def test_what_is_put_wrong_is_found_and_named(lesson: Lesson, name: str) -> None:
    seed = SEEDS[name](lesson)
    lesson.do(seed.host, seed.wrong)
    try:
        found = lesson.cluster.ok("verify")
    finally:
        lesson.do(seed.host, seed.right)
        if seed.drifts:
            lesson.cluster.ok("drift_fix")
    assert found["unreachable"] == {}, "what is strange on a host does not keep it from being proved"
    texts = [one["text"] for one in found["violations"]]
    named = [one for one in found["violations"] if re.search(seed.named, one["text"])]
    assert named, texts
    assert any(re.search(seed.hop, one["hop"]) for one in named), [one["hop"] for one in named]
    assert all(one["hop"] and one["commands"] for one in found["violations"]), found["violations"]
    for text in texts:
        assert any(word in text for word in seed.concerned), text


@pytest.mark.cost(seconds=5)
def test_what_was_put_right_again_is_right(lesson: Lesson) -> None:
    """After all of these faults; a switch takes a moment to learn what it had to forget."""
    wait_until(lambda: lesson.cluster.ok("verify")["violations"] == [], 30, "all is as it was")


@pytest.mark.cost(seconds=5)
def test_the_way_between_two_nics_is_shown_hop_by_hop(lesson: Lesson) -> None:
    cluster, end = lesson.cluster, lesson.end("a", "eth1")
    way = cluster.ok("path", "admin", "a:eth1", "b:eth1")
    names = [hop["name"] for hop in way["hops"]]
    assert names == ["TAP", "port", "flows", "uplink", "uplink", "flows", "port", "TAP"] and way["broken"] is None, way
    assert way["must_reach"] and "of slice" in way["hops"][2]["found"]
    for hop in way["hops"]:
        cluster.host(hop["host"], "sh", "-ec", hop["command"].replace("sudo ", ""))  # what a person would type
    assert cluster.ok("path", "admin", "a:eth0", "gateway")["broken"] is None
    assert cluster.ok("path", "admin", "a:eth1", "gateway")["broken"] is None
    assert cluster.ok("path", "admin", f"{lesson.one['a']}:eth0", "dhcp")["broken"] is None
    kept_apart = cluster.ok("path", "admin", "a:eth0", "c:eth0")
    assert not kept_apart["must_reach"] and "it is dropped by the flow" in kept_apart["broken"]["broken"]
    lesson.do(end.host, (("ovs-vsctl", "set", "port", end.tap, "tag=7"),))
    try:
        broken = cluster.ok("path", "admin", "a:eth1", "b:eth1")["broken"]
    finally:
        lesson.do(end.host, (("ovs-vsctl", "set", "port", end.tap, f"tag={end.vlan}"),))
    assert (broken["name"], broken["device"], broken["broken"]) == (
        *("port", end.tap, f"its tag is 7, and should be {end.vlan}"),
    )
    assert "no interface eth9" in cluster.refused("path", "admin", "a:eth9", "b:eth1")
    assert "no VM zoe" in cluster.refused("path", "admin", "zoe:eth1", "b:eth1")
    assert "is no NIC" in cluster.refused("path", "admin", "eth1", "b:eth1")


@pytest.mark.cost(seconds=1)
def test_a_switch_that_heard_a_mac_elsewhere_is_stale_until_its_machine_speaks(lesson: Lesson) -> None:
    """As after a VM came from another host: what is sent here by hand, another machine sent there."""
    cluster, end = lesson.cluster, lesson.end("b", "eth1")

    def speak(port: str, tag: str) -> None:
        frame = f"ffffffffffff{end.mac.replace(':', '')}{tag}88b5".ljust(120, "0")
        out = f"in_port={port},packet={frame},actions=NORMAL"
        cluster.host(end.host, "ovs-ofctl", "--timeout=20", "packet-out", "br-int", out)

    speak("eth1", f"8100{end.vlan:04x}")
    way = cluster.ok("path", "admin", "a:eth1", "b:eth1")
    assert way["broken"] is None, way
    assert (way["stale"]["name"], way["stale"]["host"]) == ("flows", end.host)
    assert f"the switch has {end.mac} behind eth1, where it heard it " in way["stale"]["stale"]
    speak(end.tap, "")
    way = cluster.ok("path", "admin", "a:eth1", "b:eth1")
    assert (way["broken"], way["stale"]) == (None, None), way


@pytest.mark.cost(seconds=3)
def test_the_evidence_is_a_file_of_its_own_for_its_owner_alone(lesson: Lesson) -> None:
    found = lesson.cluster.ok("verify")
    path = Path(found["evidence"])
    assert path.parent == lesson.cluster.folder / ".cloudrepo" / "evidence" and path.stat().st_mode & 0o777 == 0o600
    kept = json.loads(path.read_text())
    assert kept["violations"] == [] and len(kept["ends"]) == 10 + 2 * 3 + 2 and set(kept["hosts"]) == set(HOSTS)
    probe = next(one for one in kept["probes"] if (one["from"], one["kind"]) == ("a:eth1", "broadcast"))
    end = lesson.end("b", "eth1")
    assert [end.host, end.tap] in probe["must_hear"]
    assert any(seen[:3] == [end.host, end.tap, "sent"] for seen in probe["seen"])


@pytest.mark.cost(seconds=12)
def test_a_host_that_does_not_answer_is_named_and_the_rest_is_tested(lesson: Lesson) -> None:
    end = lesson.end("c", "eth1")
    lesson.cluster.api.executor.drop(end.host)
    with cut_off(lesson.cluster.lab, end.host):
        found = lesson.cluster.ok("verify")
    assert set(found["unreachable"]) == {end.host} and found["violations"] == [], found
    assert found["frames"] > 40 and found["heard"] > 20 and found["not_heard"] > 100
    assert wait_until(lambda: not lesson.cluster.ok("verify")["unreachable"], 30, "the host answers again")


#: Verifies for ever, in a process of its own.
FOR_EVER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from orchestrator_api import build
api = build(Path(sys.argv[1]))
while True:
    assert api.verify()[0]
    print("once", flush=True)
"""


def listeners(lesson: Lesson) -> dict[str, str]:
    """How many packet sockets there are, on each host and in its namespaces: the switch has some of its own."""
    count = "cat /proc/net/packet; for one in /run/netns/*; do nsenter --net=$one cat /proc/net/packet; done"
    return {ip: lesson.cluster.host(ip, "sh", "-c", f"({count}) | wc -l") for ip in HOSTS}


@pytest.mark.cost(seconds=8)
def test_a_run_that_is_killed_leaves_nothing(lesson: Lesson) -> None:
    cluster = lesson.cluster
    cluster.ok("verify")
    before, snapshot = listeners(lesson), cluster.snapshot()
    room = cluster.lab.orchestrator_room()
    words = [sys.executable, "-c", FOR_EVER, str(cluster.state)]
    process = room.popen(words, cwd=str(CHECKOUT), env=cluster.lab.environment(), stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None and process.stdout.readline() == "once\n"
        wait_until(lambda: listeners(lesson) != before, 60, "it listens")
        process.kill()
    wait_until(lambda: listeners(lesson) == before, 60, "nobody listens any more")
    assert cluster.snapshot() == snapshot
    assert cluster.ok("verify")["violations"] == []


@pytest.mark.cost(seconds=15)
def test_random_slices_that_are_as_they_should_be_raise_no_alarm(lesson: Lesson) -> None:
    """Ten at once, of another kind every day; `./cloud bench verify` does so with two hundred."""
    api = lesson.cluster.api
    seed = datetime.now(UTC).strftime("%Y-%m-%d")
    with api.db.transaction() as data:
        data["users"]["admin"]["quota_vms"] = 100
    chance = random.Random(seed)  # noqa: S311
    ids = [random_slices.make(api, chance) for _ in range(10)]
    try:
        for slice_id in ids:
            lesson.cluster.ok("deploy_slice", "admin", slice_id)
        found = lesson.cluster.ok("verify")
    finally:
        for slice_id in ids:
            lesson.cluster.ok("delete_slice", "admin", slice_id)
    assert found["violations"] == [] and found["unreachable"] == {}, (seed, found)
    assert found["nics"] > 20
