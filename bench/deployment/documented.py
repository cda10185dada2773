"""The documented sequence taken literally: one command after another, an `ssh` process each."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from bench.deployment.floor import IMAGES, RUN
from bench.deployment.slice import INTERNET_VLAN, NETWORK_NODE, Guest, Vlan, guests, vlans

Command = tuple[str, str]  # host, shell line


def commands(base: str) -> list[Command]:
    """Every command from the first overlay to the last QEMU. `base` is the base image on the hosts."""
    return [
        *(command for guest in guests() for command in _disk(guest, base)),
        *(command for vlan in vlans() for command in _vlan(vlan)),
        (NETWORK_NODE, "sudo sysctl -qw net.ipv4.ip_forward=1"),
        (NETWORK_NODE, "sudo iptables -t nat -A POSTROUTING -s 10.60.7.0/24 -o eth2 -j MASQUERADE"),
        *(command for guest in guests() for command in _machine(guest)),
    ]


def script(base: str, key: str) -> str:
    """A shell script that runs all of them from where the orchestrator is."""
    options = (
        "-i",
        key,
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
    )
    lines = [shlex.join(("ssh", "-n", *options, f"ubuntu@{host}", line)) for host, line in commands(base)]
    return "\n".join(["set -e", *lines]) + "\n"


def _disk(guest: Guest, base: str) -> Iterator[Command]:
    yield guest.host, f"test -f {base}"
    yield guest.host, f"qemu-img create -q -f qcow2 -b {base} -F qcow2 {IMAGES}/{guest.name}_img.qcow2"


def _vlan(vlan: Vlan) -> Iterator[Command]:
    number, space = vlan.number, f"ns-dhcp-vlan{vlan.number}"
    inside = f"sudo ip netns exec {space}"
    option = "static" if number == INTERNET_VLAN else f"{vlan.subnet}.250"
    folder = f"{RUN}/dhcp-{number}"
    hosts = " ".join(f"--dhcp-host={mac},{address}" for mac, address, _ in vlan.leases)
    lines = (
        f"sudo ovs-vsctl --may-exist add-port br-int gw_vlan{number} tag={number} "
        f"-- set interface gw_vlan{number} type=internal",
        f"sudo ip addr add {vlan.subnet}.1/24 dev gw_vlan{number} 2>/dev/null || true",
        f"sudo ip link set dev gw_vlan{number} up",
        f"sudo ip netns add {space} || true",
        f"sudo ovs-vsctl --may-exist add-port br-int dhcp_v{number} tag={number} "
        f"-- set interface dhcp_v{number} type=internal",
        f"sudo ip link set dev dhcp_v{number} netns {space}",
        f"{inside} ip addr add {vlan.subnet}.2/24 dev dhcp_v{number}",
        f"{inside} ip link set dev dhcp_v{number} up",
        f"{inside} ip link set dev lo up",
        f"sudo mkdir -p {folder} && {inside} dnsmasq --port=0 --no-ping --bind-interfaces --interface=dhcp_v{number} "
        f"--dhcp-range={vlan.subnet}.{'0' if option == 'static' else '10'},{option},255.255.255.0,3600s "
        f"--dhcp-option=3,{vlan.subnet}.1 --dhcp-option=6,8.8.8.8 --pid-file={folder}/pid "
        f"--dhcp-leasefile={folder}/leases --conf-file=/dev/null {hosts}",
        f"sudo kill -0 $(cat {folder}/pid)",
    )
    yield from ((NETWORK_NODE, line) for line in lines)


def _machine(guest: Guest) -> Iterator[Command]:
    words = (
        f"sudo mkdir -p {RUN}/vm-{guest.vm_id} && sudo qemu-system-x86_64 -name {guest.name} -accel tcg -m 128 -smp 1"
    )
    for nic in guest.nics:
        if nic.vlan is None:
            continue
        device = f"tap_{guest.vm_id}_{nic.name}"
        yield guest.host, f"sudo ip tuntap add mode tap name {device}"
        yield guest.host, f"sudo ip link set dev {device} up"
        yield guest.host, f"sudo ovs-vsctl --may-exist add-port br-int {device} tag={nic.vlan}"
        words += (
            f" -netdev tap,id={nic.name},ifname={device},script=no,downscript=no,vnet_hdr=off"
            f" -device virtio-net-pci,netdev={nic.name},mac={nic.mac},romfile="
        )
    drive = f"-drive file={IMAGES}/{guest.name}_img.qcow2,format=qcow2,if=virtio"
    pid_file = f"{RUN}/vm-{guest.vm_id}/pid"
    yield guest.host, f"{words} {drive} -vga std -vnc 127.0.0.1:{guest.screen} -daemonize -pidfile {pid_file}"
    yield guest.host, f"pgrep -f 'qemu.*{guest.name}' | head -1"
