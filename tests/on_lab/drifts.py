"""What may befall the objects of a slice on real hosts, and how each is to be found.

A `Drift` is done by words of a shell on a host, behind the orchestrator's back, and names the finding it must lead to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudrepo.guest_accounts import first_uid, uid_of
from cloudrepo.naming import Mark, flow_cookie
from on_lab.cluster import NETWORK_NODE, Cluster, Record


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One thing done to one object.

    Attributes:
        about: the kind it is a drift of, in the words of the issue.
        host: where.
        script: what is done, for `sh -e`.
        kind, name: the object that must be found.
        state: what must be said of it.
        says: what its `differs` must hold, as `what found, wanted value`; a part of one is enough.
    """

    about: str
    host: str
    script: str
    kind: str
    name: str
    state: str = "changed"
    says: str = ""

    def found_in(self, report: Record) -> str:
        """An empty text when the report has it as it must be, else what it has instead."""
        of_it = [
            one
            for one in report["objects"]
            if (one["host"], one["kind"], one["name"]) == (self.host, self.kind, self.name)
        ]
        said = [f"{each['what']} {each['found']}, wanted {each['wanted']}" for one in of_it for each in one["differs"]]
        if any(one["state"] == self.state for one in of_it) and (
            not self.says or any(self.says in one for one in said)
        ):
            return ""
        return f"{self.about}: {self.kind} {self.name} on {self.host}: {[one['state'] for one in of_it]} {said}"


class Deployed:
    """Names and scripts for a deployed slice."""

    def __init__(self, cluster: Cluster, made: Record) -> None:
        self.cluster = cluster
        self.slice_id = made["id"]
        self.installation = cluster.api.site.installation
        record = cluster.ok("get_slice", "admin", made["id"])
        self.vms: Mapping[str, Any] = {vm["name"]: vm for vm in record["vms"]}
        self.vlans = [link["vlan_id"] for link in record["links"]]
        self.run = f"/run/cloudrepo-{self.installation}"
        self.images = cluster.images

    def mark(self, vm: str, detail: str) -> str:
        return f"cloudrepo/{self.installation}/{self.slice_id}/{self.vms[vm]['vm_id']}/{detail}"

    def link_mark(self, vlan: int) -> str:
        return f"cloudrepo/{self.installation}/{self.slice_id}/-/{vlan}"

    def tap(self, vm: str, interface: str) -> str:
        return f"tap_{self.vms[vm]['vm_id']}_{interface}"

    def runs_as(self, vm: str) -> str:
        """Who owns what the VM's QEMU uses, as a report writes it."""
        return uid_of(first_uid(self.cluster.api.settings), self.vms[vm]["vm_id"])

    def disk(self, vm: str) -> str:
        return self.cluster.place(str(self.vms[vm]["qcow_image"]))

    # -- one drift of an object ------------------------------------------------------------------------

    def on_tap(self, about: str, vm: str, interface: str, script: str, **expected: Any) -> Drift:
        device = self.tap(vm, interface)
        return Drift(
            about=about, host=self.vms[vm]["worker_ip"], script=script.replace("DEV", device), name=device,
            kind=expected.pop("kind", "TAP"), **expected,
        )  # fmt: skip

    def on_port(self, about: str, vm: str, interface: str, script: str, **expected: Any) -> Drift:
        return self.on_tap(about, vm, interface, script, kind="port", **expected)

    def on_vm(self, about: str, vm: str, script: str, **expected: Any) -> Drift:
        number = self.vms[vm]["vm_id"]
        words = script.replace("DIR", f"{self.run}/vm-{number}").replace(
            "PID", f"$(cut -d' ' -f1 {self.run}/vm-{number}/pid)"
        )
        return Drift(about=about, host=self.vms[vm]["worker_ip"], script=words, kind="VM", name=str(number), **expected)

    def on_disk(self, about: str, vm: str, script: str, **expected: Any) -> Drift:
        number = self.vms[vm]["vm_id"]
        own = f"{self.images}/.cloudrepo-{self.installation}/vm-{number}"
        words = script.replace("DISK", self.disk(vm)).replace("DIR", own)
        return Drift(
            about=about, host=self.vms[vm]["worker_ip"], script=words, kind="disk", name=str(number), **expected
        )

    def on_flows(self, about: str, vm: str, script: str, **expected: Any) -> Drift:
        """Of the slice, on the host of a VM; COOKIE is theirs, OFCTL the program with its protocol."""
        cookie = f"0x{flow_cookie(Mark(self.installation, str(self.slice_id))):x}"
        words = script.replace("OFCTL", "ovs-ofctl -O OpenFlow13").replace("COOKIE", cookie)
        host = self.vms[vm]["worker_ip"]
        return Drift(about=about, host=host, script=words, kind="flows", name=f"slice {self.slice_id}", **expected)

    def on_bridge(self, about: str, vm: str, script: str, **expected: Any) -> Drift:
        """The bridge of a VM's host; KEY is that of our mark."""
        host, words = self.vms[vm]["worker_ip"], script.replace("KEY", f"cloudrepo-{self.installation}")
        return Drift(about=about, host=host, script=words, kind="closed bridge", name="br-int", **expected)

    def on_node(self, about: str, vlan: int, kind: str, script: str, **expected: Any) -> Drift:
        space = f"ns-dhcp-vlan{vlan}"
        names = {
            "namespace": space, "DHCP server": space, "NAT rules": str(vlan), "port": f"gw_vlan{vlan}",
            "address": f"gw_vlan{vlan} in {space}" if vlan != 400 else "gw_vlan400",
        }  # fmt: skip
        words = script.replace("NS", space).replace("GW", f"gw_vlan{vlan}").replace("DHCP", f"dhcp_v{vlan}")
        words = words.replace("DIR", f"{self.run}/dhcp-{vlan}")
        words = words.replace("PID", f"$(cut -d' ' -f1 {self.run}/dhcp-{vlan}/pid)")
        name = expected.pop("name", names[kind])
        return Drift(about=about, host=NETWORK_NODE, script=words, kind=kind, name=name, **expected)


def befall(cluster: Cluster, drifts: Iterable[Drift]) -> None:
    """Do all of them, one script a host."""
    scripts: dict[str, list[str]] = {}
    for drift in drifts:
        scripts.setdefault(drift.host, []).append(f": {drift.about!r}\n{drift.script}")
    for host, parts in scripts.items():
        cluster.host(host, "sh", "-ec", "\n".join(parts))
