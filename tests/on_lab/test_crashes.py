"""Processes and hosts that die in the middle: what they began ends, and the next one goes on from what is there."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cloudrepo.errors import MessageRefused
from cloudrepo.host.message import encode, remote_words
from cloudrepo.interruption import Interruption
from cloudrepo.naming import machine_dir, run_root
from cloudrepo.plan import MakeDir, Plan, Stage, Step
from cloudrepo.wire_acts import Heard, Listen
from lab.cluster import Lab
from on_lab import faults, hardened
from on_lab.cluster import HOSTS, NETWORK_NODE, Cluster, Record, differences, wait_until

pytestmark = pytest.mark.lab

FIRST, SECOND = HOSTS[:2]


def two_machines(cluster: Cluster) -> Record:
    """A slice over two workers, with a link and internet access."""
    made = cluster.slice("vm1", "vm2", internet=("vm1",), flavor="blank")
    cluster.link(made, "vm1", "eth1", "vm2", "eth1")
    return made


def status(cluster: Cluster, made: Record) -> str:
    """The slice's recorded state."""
    return str(cluster.ok("get_slice", "admin", made["id"])["status"])


# ── the orchestrator ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.cost(seconds=10)
def test_the_runner_of_a_dead_orchestrator_stops_and_its_late_message_is_refused(cluster: Cluster) -> None:
    """The first step that was begun ends; no other begins. What arrives later does nothing."""
    api, made = cluster.api, cluster.slice("vm1")
    scope, number = str(made["id"]), api.db.next_operation()
    fence = api.site.host(FIRST).disks_root
    here, after = (machine_dir(api.site.installation, vm_id) for vm_id in (made["vm1"], made["vm1"] + 1))
    user = api.site.user
    steps = (
        Step(name="a", label="first", act=MakeDir(path=here, mode=0o700, user=user)),
        Step(name="b", label="listen", act=Listen(places={"": ()}, run="ab" * 8)),
        Step(name="c", label="slow", act=Heard(settle_s=2)),
        Step(name="d", label="next", act=MakeDir(path=after, mode=0o700, user=user)),
    )
    late = Plan(
        installation=api.site.installation,
        operation=number,
        scopes=(scope,),
        fence_dir=fence,
        stages=(Stage(name="s", steps=steps),),
    )
    message = encode("runner", {**late.to_json(), "environment": {}}, has_helper=True)
    stream = api.executor.transport.open_message(FIRST, message)
    heard = b""

    def is_slow() -> bool:
        nonlocal heard
        heard += (stream.receive(0.1) or (b"",))[0]
        return b'"begin","name":"c"' in heard

    wait_until(is_slow, 60, "the slow step")
    stream.close()  # the orchestrator is gone
    cluster.ok("delete_slice", "admin", made["id"])  # waits for the step that runs, and for nothing else
    assert not _is_there(cluster, after)
    with pytest.raises(MessageRefused, match=f"operation {number} came too late"):
        api.executor.run_plan(FIRST, late)
    assert not _is_there(cluster, after)


def _is_there(cluster: Cluster, path: str) -> bool:
    return cluster.lab.host(FIRST, ["test", "-e", path]).returncode == 0


@pytest.mark.cost(seconds=5)
def test_a_message_that_is_cut_does_nothing(cluster: Cluster) -> None:
    """Over real SSH: a message that ends early, by its last byte or within its header, is not begun."""
    path = machine_dir(cluster.api.site.installation, 7)
    act = MakeDir(path=path, mode=0o700, user=cluster.api.site.user)
    steps = (Step(name="a", label="a", act=act),)
    plan = Plan(installation=cluster.api.site.installation, stages=(Stage(name="s", steps=steps),))
    message = encode("runner", {**plan.to_json(), "environment": {}}, has_helper=True)
    command = shlex.join(remote_words("ubuntu", has_helper=True))
    for length in (0, 1, 40, 71, 72, 200, len(message) // 2, len(message) - 1):
        stream = cluster.api.executor.transport.open_shell(FIRST, command, 10)
        stream.send(message[:length])
        stream.finish()
        said = b""
        while (parts := stream.receive(10)) is not None:
            said += parts[1]
        assert stream.status(5) != 0 and b"the message was cut" in said, (length, said)
    assert not _is_there(cluster, path)
    assert cluster.api.executor.run_plan(FIRST, plan).ok  # the same message, whole
    cluster.host(FIRST, "rmdir", path)


#: What goes with the closing of a bridge, where a deploy gets as far as that: these very lines and no others.
AN_OPEN_BRIDGE = (
    ": flows: -  priority=0 actions=NORMAL",
    ": bridge: - fail_mode           : []",
    ": bridge: - external_ids        : {}",
)


# ── Ctrl-C ──────────────────────────────────────────────────────────────────────────────────────────────


def interrupted_deploy(cluster: Cluster, made: Record, *, keep: bool) -> tuple[str, list[str]]:
    """Deploy, wish to stop at the fifth event, choose; the message and the steps begun after the wish was heard."""
    stop = Interruption()
    labels: list[str] = []
    asked = threading.Event()

    def progress(event: Any) -> None:
        labels.append(f"{event.host} {event.label}")
        if len(labels) == 5:
            stop.set()
            asked.set()

    def person() -> None:
        asked.wait(60)
        stop.choose(keep=keep)

    chooser = threading.Thread(target=person)
    chooser.start()
    message = cluster.refused("deploy_slice", "admin", made["id"], progress=progress, stop=stop)
    chooser.join()
    return message, labels


@pytest.mark.cost(seconds=12)
def test_a_deploy_stopped_by_a_person_is_kept_or_rolled_back(cluster: Cluster) -> None:
    before = cluster.snapshot()
    made = two_machines(cluster)
    message, labels = interrupted_deploy(cluster, made, keep=False)
    assert "stopped" in message
    assert not any("start VM" in label for label in labels)
    assert differences(before, cluster.snapshot()) == []
    assert status(cluster, made) == "design"

    message, labels = interrupted_deploy(cluster, made, keep=True)
    assert "stopped" in message
    assert not any("start VM" in label for label in labels)
    kept = [line for line in differences(before, cluster.snapshot()) if not line.endswith(AN_OPEN_BRIDGE)]
    assert kept and all("+" in line for line in kept)
    record = cluster.ok("get_slice", "admin", made["id"])
    assert record["status"] == "error" and "you stopped it: what was made is kept" in record["error"]
    cluster.ok("deploy_slice", "admin", made["id"])
    cluster.ok("delete_slice", "admin", made["id"])
    assert differences(before, cluster.snapshot()) == []


# ── workers ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.cost(seconds=25)
def test_a_worker_that_dies_during_a_deploy(clusters: Callable[..., Cluster]) -> None:
    """The others are taken down at once; the dead one is pending, and clean once it is back and asked again."""
    cluster = clusters(ssh={"connect_timeout": 2})
    before = cluster.snapshot()
    made = two_machines(cluster)
    killed = threading.Event()

    def progress(event: Any) -> None:
        if event.host == SECOND and "tap_" in event.label and not killed.is_set():
            killed.set()
            cluster.lab.kill(SECOND)

    try:
        message = cluster.refused("deploy_slice", "admin", made["id"], progress=progress)
        assert killed.is_set() and message.startswith(SECOND)
        record = cluster.ok("get_slice", "admin", made["id"])
        assert (record["status"], record["pending"]) == ("design", [SECOND])
        assert differences({ip: before[ip] for ip in (FIRST, NETWORK_NODE)}, cluster.snapshot()) == []
    finally:
        faults.boot_again(cluster.lab, SECOND)
    cluster.api.executor.close()
    cluster.ok("deploy_slice", "admin", made["id"])
    assert status(cluster, made) == "running"
    assert cluster.ok("get_slice", "admin", made["id"])["pending"] == []
    cluster.ok("delete_slice", "admin", made["id"])
    assert differences(before, cluster.snapshot()) == []


@pytest.mark.cost(seconds=12)
def test_a_worker_that_is_down_at_the_start_gets_no_machine(
    lab: Lab, clusters: Callable[..., Cluster], caplog: pytest.LogCaptureFixture
) -> None:
    lab.kill(FIRST)
    try:
        cluster = clusters(ssh={"connect_timeout": 2})
        warnings = [record for record in caplog.records if record.levelname == "WARNING" and FIRST in record.message]
        assert any("Worker skipped" in record.message for record in warnings)
        assert FIRST not in cluster.api.db.data["workers"]
        made = cluster.slice("vm1", "vm2", "vm3")
        places = {cluster.vm(made[name])["worker_ip"] for name in ("vm1", "vm2", "vm3")}
        assert places == {SECOND, NETWORK_NODE}
        cluster.ok("delete_slice", "admin", made["id"])
    finally:
        faults.boot_again(lab, FIRST)
    hardened.prepare(lab, cluster.api)
    assert cluster.api.discovery.discover_all()[FIRST].ok
    made = cluster.slice("vm1", "vm2", "vm3")
    assert FIRST in {cluster.vm(made[name])["worker_ip"] for name in ("vm1", "vm2", "vm3")}
    cluster.ok("delete_slice", "admin", made["id"])


@pytest.mark.cost(seconds=8)
def test_a_worker_that_shows_another_key_is_refused(cluster: Cluster) -> None:
    """Both fingerprints and the remedy are named; nothing is sent there; the other hosts keep nothing."""
    before = cluster.snapshot()
    made = two_machines(cluster)
    pins = cluster.folder / "known_hosts"
    genuine = pins.read_text()
    keys = {line.split()[0]: line.split()[2] for line in genuine.splitlines()}
    pins.write_text(genuine.replace(keys[SECOND], keys[FIRST]))
    cluster.api.executor.close()
    message = cluster.refused("deploy_slice", "admin", made["id"])
    assert message.startswith(SECOND) and message.count("SHA256:") == 2 and f"worker trust {SECOND}" in message
    assert differences(before, cluster.snapshot()) == []
    pins.write_text(genuine)
    cluster.ok("delete_slice", "admin", made["id"])


@pytest.mark.cost(seconds=8)
def test_a_half_made_machine_and_network_of_nobody_are_found_again(cluster: Cluster) -> None:
    """Directories without a mark, as a crash between two steps leaves them, go with the slice or a clean-up."""
    before = cluster.snapshot()
    made = cluster.slice("vm1", flavor="blank")
    installation = cluster.api.site.installation
    cluster.host(FIRST, "mkdir", "-p", machine_dir(installation, made["vm1"]))
    cluster.host(NETWORK_NODE, "mkdir", "-p", f"{run_root(installation)}/dhcp-777")
    cluster.ok("deploy_slice", "admin", made["id"])
    cluster.ok("delete_slice", "admin", made["id"])
    cluster.ok("cleanup")
    assert differences(before, cluster.snapshot()) == []
