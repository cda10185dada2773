"""A façade without hosts, for the screens: the documented answers over a dict in memory."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

from cloudrepo.errors import Message
from cloudrepo.interruption import Interruption
from cloudrepo.progress import Progress, ProgressCallback

Answer = tuple[bool, Any]
HOSTS = ("10.0.10.1", "10.0.10.2", "10.0.10.3")


class FakeDatabase:
    """Only what the menu reads."""

    def __init__(self, *, touched: bool = True) -> None:
        workers = {ip: {"ip": ip} for ip in HOSTS} if touched else {}
        self.data: dict[str, Any] = {"workers_list": list(HOSTS), "workers": workers, "slices": {}}


class FakeApi:
    """Accounts `ann` (password `orange-7`) and `bob` (first password `bob`), slices in memory.

    Args:
        deploy_seconds: how long each of the three steps of a deploy takes.
        fail: a message that the next deploy fails with.
    """

    def __init__(self, *, deploy_seconds: float = 0.0, fail: str = "", touched: bool = True) -> None:
        self.db = FakeDatabase(touched=touched)
        self.settings = SimpleNamespace(
            discovery=SimpleNamespace(wait=0.2),
            monitor=SimpleNamespace(interval=15.0),
            log=SimpleNamespace(level="INFO"),
        )
        self.deployment_api = SimpleNamespace(executor=SimpleNamespace())
        self.passwords = {"ann": "orange-7", "bob": "bob"}
        self.must_change = {"bob"}
        self.slices: dict[int, dict[str, Any]] = {}
        self.unfinished: list[dict[str, Any]] = []
        self.calls: list[tuple[Any, ...]] = []
        self.images: list[dict[str, Any]] = []
        self.deploy_seconds = deploy_seconds
        self.fail = fail
        self.deploying = threading.Event()
        self._next = 1000

    def _id(self) -> int:
        self._next += 1
        return self._next - 1

    def login(self, username: str, password: str) -> Answer:
        self.calls.append(("login", username))
        if self.passwords.get(username) != password:
            return False, Message("Name and password do not fit.", code="login")
        must = username in self.must_change
        return True, {
            "username": username,
            "must_change_password": must,
            "quota_vms": 10,
            "used_vms": 0,
            "role": "student",
        }

    def set_password(self, username: str, new_password: str) -> tuple[bool, str]:
        if len(new_password) < 8:
            return False, "At least 8 characters are needed."
        self.passwords[username] = new_password
        self.must_change.discard(username)
        return True, "Password changed"

    def create_slice(self, username: str, slice_name: str, topology_type: str = "custom") -> Answer:
        slice_id = self._id()
        self.slices[slice_id] = {
            "slice_id": slice_id, "name": slice_name, "owner": username, "topology_type": topology_type,
            "status": "design", "vlan_pool_start": 100, "vlan_pool_end": 119, "vms": [], "links": [], "error": "",
        }  # fmt: skip
        return True, {"slice_id": slice_id, "name": slice_name}

    def add_vm_to_slice(
        self, username: str, slice_id: int, vm_name: str, flavor_name: str, data_interfaces_count: int,
        internet_enabled: bool = False, *, image: str = "",
    ) -> Answer:  # fmt: skip
        self.calls.append(("add_vm", slice_id, vm_name, flavor_name, data_interfaces_count, internet_enabled, image))
        if slice_id not in self.slices:
            return False, Message("Slice not found")
        vm_id = self._id()
        vms = self.slices[slice_id]["vms"]
        interfaces: list[dict[str, Any]] = [
            {"name": f"eth{index}", "mac": f"52:54:00:03:e9:{index:02x}", "vlan_id": None, "ip_config": None,
             "link_id": None}
            for index in range(data_interfaces_count + 1)
        ]  # fmt: skip
        if internet_enabled:
            interfaces[0] |= {"vlan_id": 400, "ip_config": {"ip": f"10.60.7.{100 + vm_id % 100}"}}
        vm = {
            "vm_id": vm_id, "name": vm_name, "owner": username, "worker_ip": HOSTS[len(vms) % 3],
            "flavor": flavor_name, "cores": 1, "ram_gb": 0.5, "disk_gb": 1, "vnc_port": 5901 + len(vms),
            "interfaces": interfaces, "qcow_image": f"~/vm_images/{vm_name}_img.qcow2", "status": "design", "pid": None,
        }  # fmt: skip
        vms.append(vm)
        return True, vm

    def list_images(self, username: str, *, look: bool = False) -> Answer:
        return True, {"images": list(self.images), "unreachable": {}}

    def create_link(
        self, username: str, slice_id: int, vm1_id: int, vm1_interface: str, vm2_id: int, vm2_interface: str
    ) -> Answer:
        self.calls.append(("create_link", slice_id, vm1_id, vm1_interface, vm2_id, vm2_interface))
        record = self.slices[slice_id]
        number = len(record["links"]) + 1
        link = {
            "link_id": number, "vlan_id": 99 + number, "vm1_id": vm1_id, "vm1_interface": vm1_interface,
            "vm2_id": vm2_id, "vm2_interface": vm2_interface,
        }  # fmt: skip
        record["links"].append(link)
        for vm in record["vms"]:
            for interface in vm["interfaces"]:
                if (vm["vm_id"], interface["name"]) in ((vm1_id, vm1_interface), (vm2_id, vm2_interface)):
                    interface |= {"vlan_id": 99 + number, "link_id": number}
        return True, link

    def set_link(self, username: str, slice_id: int, link_id: int, **wishes: Any) -> Answer:
        self.calls.append(("set_link", slice_id, link_id, wishes))
        for link in self.slices[slice_id]["links"]:
            if link["link_id"] == link_id:
                link.update(wishes)
                return True, link
        return False, Message(f"there is no link {link_id} in slice {slice_id}")

    def deploy_slice(
        self, username: str, slice_id: int, *, progress: ProgressCallback | None = None,
        stop: Interruption | None = None,
    ) -> Answer:  # fmt: skip
        self.calls.append(("deploy", slice_id))
        if slice_id not in self.slices:
            return False, Message("Slice not found")
        for step in (1, 2, 3):
            if stop is not None and stop.is_set():
                self.calls.append(("keep", stop.keep()))
                return False, Message("Stopped before every step was done", code="stopped")
            for host in HOSTS:
                if progress:
                    progress(Progress(host=host, label=f"step {step}", step=step, total=3))
            self.deploying.set()
            time.sleep(self.deploy_seconds)
            for host in HOSTS:
                if progress:
                    progress(Progress(host=host, label=f"step {step}", done=True, seconds=0.1, step=step, total=3))
        if self.fail:
            return False, Message(self.fail)
        self.slices[slice_id]["status"] = "running"
        for vm in self.slices[slice_id]["vms"]:
            vm["status"] = "running"
        return True, Message("Slice deployed successfully", code="done", hint="Emulated on 10.0.10.2.")

    def delete_slice(
        self, username: str, slice_id: int, *, progress: ProgressCallback | None = None,
        stop: Interruption | None = None,
    ) -> Answer:  # fmt: skip
        self.calls.append(("delete", slice_id))
        if self.slices.pop(slice_id, None) is None:
            return False, Message("Slice not found")
        return True, "Slice deleted"

    def _on(self, call: str, slice_id: int, status: str) -> Answer:
        self.calls.append((call, slice_id))
        if slice_id not in self.slices:
            return False, Message("Slice not found")
        self.slices[slice_id]["status"] = status
        self.unfinished = [one for one in self.unfinished if one["slice_id"] != slice_id]
        return True, f"{call} of slice {slice_id}: it is {status}"

    def start_slice(self, username: str, slice_id: int, **options: Any) -> Answer:
        return self._on("start", slice_id, "running")

    def stop_slice(self, username: str, slice_id: int, **options: Any) -> Answer:
        return self._on("stop", slice_id, "stopped")

    def resume(self, username: str, slice_id: int, **options: Any) -> Answer:
        return self._on("resume", slice_id, "running")

    def rollback(self, username: str, slice_id: int, **options: Any) -> Answer:
        return self._on("rollback", slice_id, "design")

    def unfinished_operations(self, username: str | None = None) -> Answer:
        return True, list(self.unfinished)

    def list_slices(self, username: str) -> Answer:
        return True, list(self.slices.values())

    def get_slice(self, username: str, slice_id: int) -> Answer:
        record = self.slices.get(slice_id)
        return (True, record) if record else (False, Message("Slice not found"))

    def cluster_status(self) -> Answer:
        workers = [
            {"ip": ip, "state": "up", "used_cores": 1, "max_cores": 4, "used_ram_gb": 0.5, "max_ram_gb": 8,
             "used_disk_gb": 2, "max_disk_gb": 50, "vms": 1, "accel": "tcg", "assumed": []}
            for ip in HOSTS
        ]  # fmt: skip
        return True, {"workers": workers, "network_node": HOSTS[2], "log_file": "/x/cloudrepo.log"}
