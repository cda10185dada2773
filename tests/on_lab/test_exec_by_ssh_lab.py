"""`./cloud exec` by SSH on the lab: through the helper of the network node and the namespace of a link's VLAN."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import commands
from cli.installation import Installation
from cloudrepo.host.message import encode
from cloudrepo.naming import machine_dir, tap_name
from lab.cluster import Lab
from lab.guestless import guestless
from on_lab.cluster import HOSTS, NETWORK_NODE, Cluster, Record, wait_until
from private_sshd import make_key

pytestmark = pytest.mark.lab

GUEST = Path(__file__).with_name("ssh_guest.py")


def run(*words: str) -> int:
    return commands.run(words, lambda db: None)


class Bench:
    """Machines `a` and `b` on one link; behind a's NIC is an sshd, behind b's nobody.

    Attributes:
        key: a private key that the sshd lets in.
    """

    def __init__(self, cluster: Cluster, made: Record, key: Path) -> None:
        self.cluster = cluster
        self.made = made
        self.key = key

    @property
    def nic(self) -> Record:
        return next(dict(one) for one in self.cluster.vm(self.made["a"])["interfaces"] if one["name"] == "eth1")

    def guest(self) -> subprocess.Popen[Any]:
        """Begin to be the guest of machine a."""
        vm = self.cluster.vm(self.made["a"])
        config = self.nic["ip_config"]
        folder = machine_dir(self.cluster.api.site.installation, vm["vm_id"])
        words = (
            *("/usr/bin/python3", "-IS", "-c", GUEST.read_text(), f"{folder}/frames.sock"),
            *(tap_name(vm["vm_id"], "eth1"), self.nic["mac"], f"{config['ip']}/24"),
            self.key.with_suffix(".pub").read_text().strip(),
        )
        return self.cluster.lab.host_room(vm["worker_ip"]).popen(words, stdin=subprocess.PIPE)

    def asked(self, **asked: Any) -> str:
        """What the node's helper first says to this."""
        executor = self.cluster.api.executor
        stream = executor.transport.open_message(NETWORK_NODE, encode("relay", asked, has_helper=True))
        try:
            parts = wait_until(lambda: stream.receive(1.0), 30, "the helper says nothing")
            return bytes(parts[0]).decode()
        finally:
            stream.close()


@pytest.fixture(scope="module")
def bench(
    lab: Lab, module_clusters: Callable[..., Cluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    cluster, key = module_clusters(), tmp_path_factory.mktemp("keys") / "id"
    make_key(key)
    api = cluster.api

    def opened(before_write: Any) -> Installation:
        return Installation(cluster.state, api.db, api.settings, api)

    with guestless(lab, HOSTS), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Installation, "open", opened)
        made = cluster.slice("a", "b")
        cluster.link(made, "a", "eth1", "b", "eth1")
        cluster.ok("deploy_slice", "admin", made["id"])
        bench = Bench(cluster, made, key)
        guest = bench.guest()
        try:
            yield bench
        finally:
            guest.communicate(timeout=60)
        cluster.ok("delete_slice", "admin", made["id"])


@pytest.mark.cost(seconds=25)
def test_a_program_runs_in_a_guest_without_an_agent(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("exec", str(bench.made["a"]), "--user", "root", "--identity", str(bench.key))

    def answers() -> bool:
        capsys.readouterr()
        return run(*words, "--", "true") == 0

    wait_until(answers, 60, "the guest's sshd does not answer")
    assert run(*words, "--json", "--", "sh", "-c", "echo $SSH_CONNECTION; ip -o link; exit 7") == 7
    found = json.loads(capsys.readouterr().out)
    assert (found["by"], found["status"]) == ("ssh", 7)
    config = bench.nic["ip_config"]
    assert found["stdout"].split()[2:4] == [config["ip"], "22"], "it was reached at its recorded address"
    assert bench.nic["mac"] in found["stdout"], "and is the guest behind that NIC"
    assert run(*words, "--", "head", "-c", "1000000", "/dev/zero") == 0
    assert capsys.readouterr().out == "\0" * 1000000
    pins = (bench.cluster.folder / "known_guests").read_text().splitlines()
    assert [line.split()[0] for line in pins] == [f"vm-{bench.made['a']}"]


@pytest.mark.cost(seconds=12)
def test_where_nobody_answers_is_said(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("exec", str(bench.made["b"]), "--by", "ssh", "--json", "--", "true") == 255
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "guest.silent" and "has no SSH server that answers" in error["message"]


@pytest.mark.cost(seconds=5)
def test_the_helper_leads_to_recorded_addresses_of_our_links_alone(bench: Bench) -> None:
    installation, vlan = bench.cluster.api.site.installation, int(bench.nic["vlan_id"])
    good = {"installation": installation, "vlan": vlan, "address": bench.nic["ip_config"]["ip"]}
    assert '"open"' in bench.asked(**good)
    for other in (
        {"address": str(bench.nic["ip_config"]["ip"]).rpartition(".")[0] + ".99"},  # nobody's
        {"address": bench.nic["ip_config"]["gateway"]},
        {"address": "10.0.10.1"},
        {"address": "localhost"},
        {"address": "127.0.0.1"},
        {"vlan": 400},
        {"vlan": vlan + 1},
        {"vlan": 5000},
        {"vlan": str(vlan)},
        {"vlan": True},
        {"installation": "00000000"},
        {"installation": "../../etc"},
        {"port": 80},
        {"socket": "/run/x"},
    ):
        assert '"refused"' in bench.asked(**{**good, **other}), other


@pytest.mark.cost(seconds=10)
def test_nothing_is_opened_for_it(bench: Bench) -> None:
    """No flow, no rule, no device: what verifies the links finds them as they are without it."""
    assert [one for one in bench.cluster.ok("drift")["objects"] if one["difference"]] == []
    found = bench.cluster.ok("verify", bench.made["id"])
    assert found["heard"] and not found["violations"], found["violations"]
