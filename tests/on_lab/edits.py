"""Random edits of a topology that runs, and what of the hosts no edit may touch. The first half is pure."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from cloudrepo.naming import tap_name
from cloudrepo.topology.model import End, Link, Node, Topology
from on_lab.cluster import HOSTS, NETWORK_NODE, Cluster

#: Machines that come and go, and how many data interfaces each has.
COMERS, INTERFACES = ("x", "y", "z"), 3


class Editor:
    """Makes edits. Some links stay as they are, and all machines but those that come and go stay.

    Args:
        seed: which edits.
        flavor: of a new machine.
        kept: links that stay.
    """

    def __init__(self, seed: int, flavor: str, kept: Iterable[Link]) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.flavor = flavor
        self.kept = tuple(kept)
        self.names: set[str] = set()

    def edited(self, topology: Topology) -> Topology:
        """One to three things are other ones."""
        edits = (self.comes, self.goes, self.linked, self.linked, self.unlinked, self.switched, self.joined, self.left)
        self.names = {node.name for node in topology.nodes}
        after, wanted = topology, self.random.randint(1, 3)
        while wanted or after == topology:
            fresh = self.random.choice(edits)(after)
            wanted -= fresh != after and wanted > 0
            after = fresh
        return after

    # -- one of them each; where there is nothing to do it, the topology as it was ---------------------

    def comes(self, topology: Topology) -> Topology:
        # one that has just gone is still there for whoever compares
        absent = [name for name in COMERS if topology.node(name) is None and name not in self.names]
        if not absent:
            return topology
        worker = self.random.choice(HOSTS)
        new = Node(name=self.random.choice(absent), flavor=self.flavor, interfaces=INTERFACES, worker=worker)
        return self.linked(replace(topology, nodes=(*topology.nodes, new)), among=(new.name,))

    def goes(self, topology: Topology) -> Topology:
        present = [name for name in COMERS if topology.node(name) is not None]
        if not present:
            return topology
        name = self.random.choice(present)
        links = (replace(link, ends=tuple(e for e in link.ends if e.node != name)) for link in topology.links)
        nodes = tuple(node for node in topology.nodes if node.name != name)
        return replace(topology, nodes=nodes, links=tuple(link for link in links if len(link.ends) > 1))

    def linked(self, topology: Topology, among: Iterable[str] = ()) -> Topology:
        free = self._free(topology)
        nodes = sorted({end.node for end in free})
        first = self.random.choice([name for name in nodes if name in among] or nodes or [""])
        others = [name for name in nodes if name != first]
        if not others:
            return topology
        ends = [
            self.random.choice([end for end in free if end.node == name])
            for name in (first, *self.random.sample(others, min(len(others), self.random.choice((1, 1, 2)))))
        ]
        return replace(topology, links=(*topology.links, Link(ends=tuple(ends))))

    def unlinked(self, topology: Topology) -> Topology:
        return self._at_one(topology, lambda _: None)

    def switched(self, topology: Topology) -> Topology:
        name = self.random.choice(("spoofing", "bridging", "vlans", "dhcp"))
        other = {True: False, False: True, "allowed": "forbidden", "forbidden": "allowed"}
        return self._at_one(
            topology, lambda link: replace(link, switches={**link.switches, name: other[link.switches[name]]})
        )

    def joined(self, topology: Topology) -> Topology:
        def with_another(link: Link) -> Link:
            here = {end.node for end in link.ends}
            free = [end for end in self._free(topology) if end.node not in here]
            return replace(link, ends=(*link.ends, self.random.choice(free))) if free else link

        return self._at_one(topology, with_another)

    def left(self, topology: Topology) -> Topology:
        def without_one(link: Link) -> Link:
            gone = self.random.choice(link.ends)
            return replace(link, ends=tuple(end for end in link.ends if end != gone)) if len(link.ends) > 2 else link

        return self._at_one(topology, without_one)

    def _at_one(self, topology: Topology, change: Callable[[Link], Link | None]) -> Topology:
        """One of the links that may be edited becomes another one, or none."""
        some = [number for number, link in enumerate(topology.links) if link not in self.kept]
        if not some:
            return topology
        chosen = self.random.choice(some)
        links = (change(link) if number == chosen else link for number, link in enumerate(topology.links))
        return replace(topology, links=tuple(link for link in links if link is not None))

    def _free(self, topology: Topology) -> list[End]:
        used = {end for link in topology.links for end in link.ends}
        return [end for node in topology.nodes for end in _cards(node) if end not in used]


def same_links(before: Topology, after: Topology) -> list[Link]:
    """Links of both, of which nothing differs but the order of their ends."""
    there = [_essence(link) for link in before.links]
    return [link for link in after.links if _essence(link) in there]


def same_ends(before: Topology, after: Topology) -> Iterator[End]:
    """NICs of machines of both that are on such a link, or in both on none."""
    yield from (end for link in same_links(before, after) for end in link.ends)
    used = {end for one in (before, after) for link in one.links for end in link.ends}
    for node in after.nodes:
        if before.node(node.name) is not None:
            yield from (end for end in _cards(node) if end not in used)


def _cards(node: Node) -> list[End]:
    """Its data interfaces, of which the file says how many."""
    return [End(node.name, f"eth{number}") for number in range(1, (node.interfaces or 0) + 1)]


def essence(topology: Topology) -> list[Any]:
    """Its links, in whatever order, and so their ends."""
    return sorted(map(_essence, topology.links), key=str)


def _essence(link: Link) -> tuple[Any, ...]:
    return sorted(map(str, link.ends)), sorted(link.switches.items()), link.subnet


# ── hosts ───────────────────────────────────────────────────────────────────────────────────────────────

LOOK = r"""
import glob, json, os, re, subprocess, sys
def said(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
def read(path):
    with open(path, errors="replace") as file:
        return file.read()
def began(pid):
    return [int(pid), read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19]]
machines, servers = {}, {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        words = read(f"/proc/{pid}/cmdline")
        found = re.search(sys.argv[1] + r"/vm-(\d+)/", words)
        if words.startswith("qemu-system") or "/qemu-system" in words.split("\0")[0]:
            machines[found[1]] = began(pid)
    except OSError:
        pass
for path in glob.glob(sys.argv[1] + "/dhcp-*"):
    pid = read(path + "/pid").strip()
    servers[path.rpartition("-")[2]] = {"process": began(pid), "leases": read(path + "/leases").splitlines()}
rows = json.loads(said("ovs-vsctl", "--format=json", "--columns=name,ofport,_uuid", "list", "Interface"))["data"]
numbers = {name: [ofport, uuid[1]] for name, ofport, uuid in rows}
columns = "--columns=name,tag,vlan_mode"
tags = json.loads(said("ovs-vsctl", "--format=json", columns, "list", "Port"))["data"]
ports = {name: [*numbers[name], tag, mode] for name, tag, mode in tags if name in numbers}
taps = {one["ifname"]: [one["ifindex"], one["operstate"]] for one in json.loads(said("ip", "-j", "link"))}
flows = said("ovs-ofctl", "-O", "OpenFlow13", "--names", "--no-stats", "dump-flows", "br-int").splitlines()
print(json.dumps({"machines": machines, "servers": servers, "ports": ports, "taps": taps, "flows": flows}))
"""


@dataclass(frozen=True)
class Seen:
    """A slice as its hosts have it.

    Attributes:
        topology: of which it was made; each machine is pinned.
        ids: of its VMs, by name.
        hosts: what each has: processes with when they began, ports, devices, flows, leases.
    """

    topology: Topology
    ids: Mapping[str, int]
    hosts: Mapping[str, Any]

    def machine(self, node: Node) -> Any:
        """Its process, and when that began; None = it has none."""
        return self.hosts[node.worker]["machines"].get(str(self.ids[node.name]))

    def nic(self, end: End) -> dict[str, Any]:
        """Device, port and flows."""
        tap, node = tap_name(self.ids[end.node], end.interface), self.topology.node(end.node)
        assert node is not None
        host = self.hosts[node.worker]
        flows = sorted(flow for flow in host["flows"] if tap in flow)
        return {"device": host["taps"].get(tap), "port": host["ports"].get(tap), "flows": flows}

    def server(self, link: Link) -> dict[str, Any] | None:
        """Its DHCP server: process and leases; None = it has none."""
        _, _, vlan, _ = self.nic(link.ends[0])["port"]
        found: dict[str, Any] | None = self.hosts[NETWORK_NODE]["servers"].get(str(vlan))
        return found


def look(cluster: Cluster, topology: Topology, ids: Mapping[str, int]) -> Seen:
    """Look at all hosts."""
    root = f"/run/cloudrepo-{cluster.api.site.installation}"

    def at(ip: str) -> Any:
        return json.loads(cluster.host(ip, "/usr/bin/python3", "-I", "-c", LOOK, root))

    with ThreadPoolExecutor(len(HOSTS)) as pool:
        return Seen(topology, ids, dict(zip(HOSTS, pool.map(at, HOSTS), strict=True)))


def touched(before: Seen, after: Seen) -> list[str]:
    """What is not as it was, of what is in both files and differs in nothing."""
    found = []
    for node in after.topology.nodes:
        if before.topology.node(node.name) is not None:
            pairs = [(before.ids[node.name], after.ids[node.name]), (before.machine(node), after.machine(node))]
            found += [f"{node.name}: {was} is {now}" for was, now in pairs if was != now or now is None]
    for end in same_ends(before.topology, after.topology):
        was, now = before.nic(end), after.nic(end)
        found += [f"{end}: {key} {was[key]} is {now[key]}" for key in was if was[key] != now[key]]
        found += [] if now["device"] else [f"{end} has no device"]
    for link in same_links(before.topology, after.topology):
        found += [f"{end} has no port" for end in link.ends if after.nic(end)["port"] is None]
        old, new = before.server(link), after.server(link)
        if (old or {}).get("process") != (new or {}).get("process") or (new is not None) is not link.switches["dhcp"]:
            found.append(f"{link}: server {old} is {new}")
        # a guest may have its first lease between the two looks
        elif old and new and not held(old["leases"]) <= held(new["leases"]):
            found.append(f"{link}: leases {old['leases']} are {new['leases']}")
    return found


def held(leases: Sequence[str]) -> set[tuple[str, str]]:
    """MAC and address of each lease. A lease is renewed; a new machine may have id, MAC and lease of one that went."""
    words = [line.split() for line in leases]
    return {(mac, ip) for _, mac, ip, *_ in words}
