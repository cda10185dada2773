"""`worker add --bootstrap` on the host: commands for packages, and what is refused. No host is changed."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from cloudrepo.host import bootstrap
from cloudrepo.host.bootstrap import Bootstrap, Refused
from control.workers import PROGRAMS

ASKED: dict[str, Any] = {
    "account": "ubuntu", "public_key": "", "user": "cloudvm", "is_root_wanted": True, "base_dir": "~/vm_images",
    "bridge": "br-int", "uplink": "eth1", "datapath": "", "packages": PROGRAMS,
}  # fmt: skip


class Host:
    """Answers commands by their first words, and keeps them."""

    def __init__(self, answers: dict[str, tuple[int, str, str]]) -> None:
        self.answers = answers
        self.ran: list[str] = []

    def run(self, *words: str, more: Any = None, patience_s: float = 0.0) -> tuple[int, str, str]:
        line = " ".join(words)
        self.ran.append(line)
        found = [answer for start, answer in self.answers.items() if line.startswith(start)]
        return found[0] if found else (0, "", "")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host({})
    monkeypatch.setattr(bootstrap, "run", made.run)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return made


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """A host that lacks these programs."""
    monkeypatch.setattr(shutil, "which", lambda name, path="": None if name in missing else f"/usr/bin/{name}")


def test_nothing_is_installed_where_nothing_is_missing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    made = Bootstrap(ASKED)
    made.packages()
    assert made.changed == [] and [line.split()[0] for line in host.ran] == ["dpkg-query"]


def test_what_is_missing_is_installed_from_the_hosts_own_sources(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "ovs-vsctl", "qemu-img", "qemu-system-x86_64", "dnsmasq", "iptables", "ip", "setpriv")
    made = Bootstrap(ASKED)
    made.packages()
    packages = "dnsmasq-base iproute2 iptables openvswitch-switch qemu-system-x86 qemu-utils util-linux"
    options = "-o DPkg::Lock::Timeout=300 --no-install-recommends --fix-broken"
    assert host.ran[1:] == ["dpkg --configure -a", "apt-get -q update", f"apt-get -qy {options} install {packages}"]
    assert made.changed == [f"installed {packages.replace(' ', ', ')}"]


@pytest.mark.parametrize("state", ["half-installed", "unpacked", "half-configured"])
def test_an_installation_that_was_cut_off_is_ended_though_its_programs_are_there(
    host: Host, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    without(monkeypatch)
    host.answers["dpkg-query"] = (
        1,
        f"iproute2 installed\nopenvswitch-switch {state}\nqemu-utils config-files\n",
        "no x",
    )
    made = Bootstrap(ASKED)
    made.packages()
    assert host.ran[1] == "dpkg --configure -a" and host.ran[-1].endswith(" install openvswitch-switch")
    assert made.changed == ["installed openvswitch-switch"]


def test_what_cannot_be_installed_ends_it_with_the_words_of_apt(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "qemu-img")
    host.answers["apt-get -qy"] = (100, "", "E: Unable to locate package qemu-utils")
    made = Bootstrap(ASKED)
    with pytest.raises(Refused, match="install qemu-utils` failed: E: Unable to locate package"):
        made.packages()
    assert made.changed == []
    without(monkeypatch, "qemu-img", "apt-get")
    with pytest.raises(Refused, match="neither Debian nor Ubuntu; install what brings qemu-utils"):
        Bootstrap(ASKED).packages()


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"ip -j address": (0, '[{"addr_info": [{"local": "10.0.10.4", "scope": "global"}]}]', "")},
         "has the host's own address 10.0.10.4"),
        ({"ovs-vsctl --timeout=20 port-to-br": (0, "br-else\n", "")}, "is a port of the bridge br-else"),
    ],
)  # fmt: skip
def test_a_device_that_the_host_uses_is_no_uplink_and_nothing_was_changed(
    host: Host, monkeypatch: pytest.MonkeyPatch, answers: dict[str, tuple[int, str, str]], why: str
) -> None:
    without(monkeypatch, "qemu-img")
    host.answers = {"ovs-vsctl --timeout=20 port-to-br": (1, "", ""), **answers}
    made = Bootstrap({**ASKED, "uplink": "lo"})
    with pytest.raises(Refused, match=f"lo {why}"):
        made.apply()
    assert made.changed == [] and not [line for line in host.ran if "add-port" in line or "apt-get" in line]
    with pytest.raises(Refused, match="there is no device nosuch0"):
        Bootstrap({**ASKED, "uplink": "nosuch0"}).apply()
