"""Guests and a DHCP server made by hand: the lab is tested without the product."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from lab.cluster import Lab
from lab_infra.waiting import wait_for

_QEMU = (
    "qemu-system-x86_64 -m 128 -nodefaults -display none -accel tcg -vga std "
    "-drive file={image},if=virtio,snapshot=on "
    "-netdev tap,id=n0,ifname=g{n}c0,script=no,downscript=no,vnet_hdr=off "
    "-device virtio-net-pci,id=nic0,netdev=n0,mac=52:54:00:70:0{n}:00 "
    "-netdev tap,id=n1,ifname=g{n}c1,script=no,downscript=no,vnet_hdr=off "
    "-device virtio-net-pci,id=nic1,netdev=n1,mac=52:54:00:70:0{n}:01 "
    "-serial unix:/run/serial{n},server=on,wait=off -qmp unix:/run/qmp{n},server=on,wait=off "
    "-device virtio-serial -chardev socket,id=ga,path=/run/agent{n},server=on,wait=off "
    "-device virtserialport,chardev=ga,name=org.qemu.guest_agent.0 -pidfile /run/qemu{n}.pid"
)


class DhcpServer:
    """dnsmasq in a namespace of a host, on one VLAN."""

    def __init__(self, lab: Lab, ip: str, vlan: int) -> None:
        self.lab, self.ip, self.vlan = lab, ip, vlan
        self._namespace = f"dhcp{vlan}"

    def _inside(self, *argv: str) -> str:
        done = self.lab.host(self.ip, ["ip", "netns", "exec", self._namespace, *argv], timeout=10)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def __enter__(self) -> Self:
        port = f"srv{self.vlan}"
        steps = (
            ["ovs-vsctl", "add-port", "br-int", port, f"tag={self.vlan}"],
            ["ovs-vsctl", "set", "Interface", port, "type=internal"],
            ["ip", "netns", "add", self._namespace],
            ["ip", "link", "set", port, "netns", self._namespace],
        )
        for step in steps:
            done = self.lab.host(self.ip, step, timeout=10)
            assert done.returncode == 0, done.stderr
        self._inside("ip", "address", "add", "192.168.70.1/24", "dev", port)
        self._inside("ip", "link", "set", port, "up")
        options = ["--no-ping", "--port=0", "--conf-file=/dev/null", "--bind-interfaces"]
        options += [f"--interface={port}", "--dhcp-range=192.168.70.10,192.168.70.99,1h"]
        options += ["--dhcp-leasefile=/run/leases", "--pid-file=/run/dhcp.pid"]
        self._inside("dnsmasq", *options)
        return self

    def address_of(self, mac: str) -> str:
        """Return the address leased to a card, empty when there is none."""
        leases = self.lab.host(self.ip, ["cat", "/run/leases"]).stdout.splitlines()
        return next((line.split()[2] for line in leases if line.split()[1] == mac), "")

    def pings(self, address: str) -> bool:
        """Whether an address answers."""
        argv = ["ip", "netns", "exec", self._namespace, "ping", "-c", "1", "-W", "1", address]
        return self.lab.host(self.ip, argv, timeout=10).returncode == 0

    def __exit__(self, *_error: object) -> None:
        self.lab.host(self.ip, ["pkill", "-F", "/run/dhcp.pid"])
        self.lab.host(self.ip, ["ovs-vsctl", "del-port", "br-int", f"srv{self.vlan}"])
        self.lab.host(self.ip, ["ip", "netns", "del", self._namespace])


class Guest:
    """A guest of the lab's image, started inside a host with two TAPs."""

    def __init__(self, lab: Lab, ip: str, number: int, vlan: int, image: str = "cirros-0.6.2-x86_64-disk.img") -> None:
        self.lab, self.ip, self.number, self.vlan, self.image = lab, ip, number, vlan, image
        self.macs = [f"52:54:00:70:0{number}:0{card}" for card in (0, 1)]

    def __enter__(self) -> Self:
        disk = self.lab.folder.path / "hosts" / self.ip / "disk/var/tmp" / self.image
        shutil.copyfile(self.lab.folder.images / self.image, disk)
        for tap in (f"g{self.number}c0", f"g{self.number}c1"):
            for step in (
                ["ip", "tuntap", "add", tap, "mode", "tap"],
                ["ip", "link", "set", tap, "up"],
                ["ovs-vsctl", "add-port", "br-int", tap, f"tag={self.vlan}"],
            ):
                done = self.lab.host(self.ip, step, timeout=10)
                assert done.returncode == 0, done.stderr
        words = _QEMU.format(n=self.number, image=f"/var/tmp/{self.image}").split()
        log = f"/var/log/qemu{self.number}"
        shell = f'exec setsid --fork "$@" </dev/null >{log} 2>&1'
        done = self.lab.host(self.ip, ["sh", "-c", shell, "sh", *words])
        assert done.returncode == 0, done.stderr
        wait_for(self.running, 20, "QEMU runs")
        return self

    def running(self) -> bool:
        """Whether QEMU has not ended."""
        argv = ["pgrep", "--runstates", "R,S,D", "-F", f"/run/qemu{self.number}.pid"]
        return self.lab.host(self.ip, argv).returncode == 0

    def _connect(self, name: str) -> socket.socket:
        """Connect to a socket in the host's own /run, through its first process."""
        channel = socket.socket(socket.AF_UNIX)
        channel.settimeout(120)
        channel.connect(f"/proc/{self.lab.host_room(self.ip).pid()}/root/run/{name}{self.number}")
        return channel

    def qmp(self, command: str, **arguments: object) -> Any:
        """Give QEMU one command and return its answer."""
        with self._connect("qmp") as channel, channel.makefile("rw") as lines:
            lines.readline()
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                answer = _ask(lines, request)
            return answer

    def agent(self, command: str, **arguments: object) -> Any:
        """Ask the guest agent, which may still be starting."""
        with self._connect("agent") as channel, channel.makefile("rw") as lines:
            return _ask(lines, {"execute": command, "arguments": arguments})

    def shell(self, line: str) -> tuple[int, str]:
        """Run a shell line in the guest by its agent."""
        pid = self.agent("guest-exec", path="/bin/sh", arg=["-c", line], **{"capture-output": False})["pid"]
        status: dict[str, Any] = {"exited": False}
        end = time.monotonic() + 60
        while not status["exited"] and time.monotonic() < end:
            time.sleep(0.2)
            status = self.agent("guest-exec-status", pid=pid)
        return int(status.get("exitcode", -1)), str(status)

    def console(self, line: str, until: str, seconds: float = 30) -> str:
        """Type a line on the serial console and read until a text comes."""
        said = ""
        with self._connect("serial") as channel:
            channel.sendall(f"\n{line}\n".encode())
            end = time.monotonic() + seconds
            while until not in said and time.monotonic() < end:
                said += channel.recv(4096).decode(errors="replace")
        return said

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.lab.host(self.ip, ["pkill", "-KILL", "-F", f"/run/qemu{self.number}.pid"])
        wait_for(lambda: not self.running(), 20, "QEMU is gone")
        for tap in (f"g{self.number}c0", f"g{self.number}c1"):
            self.lab.host(self.ip, ["ovs-vsctl", "--if-exists", "del-port", "br-int", tap])
            self.lab.host(self.ip, ["ip", "link", "del", tap])


def _ask(lines: Any, request: Mapping[str, object]) -> Any:
    """Send one request and return its answer, past events."""
    lines.write(json.dumps(request) + "\n")
    lines.flush()
    while True:
        answer = json.loads(lines.readline())
        if "return" in answer:
            return answer["return"]
        assert "error" not in answer, answer
