"""`qemu-system-x86_64`: one machine's command line, and what it is told by QMP (qemu(1), QMP reference)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cloudrepo import screen_password
from cloudrepo.late_dataclass import dataclass
from cloudrepo.resources import Machine, MachineSpec, Nic, Wiring

BINARY = "qemu-system-x86_64"
FIRST_VNC_PORT = 5900
FIRST_NIC_SLOT = 0x10
MAX_NICS = 0x20 - FIRST_NIC_SLOT  # slots of one PCI bus

#: What QEMU may still do. `spawn` and `elevateprivileges` are refused by -daemonize, which needs them itself.
SANDBOX = {
    "setsid": "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    "daemonize": "on,obsolete=deny,resourcecontrol=deny",
}

#: A line in QEMU's log says who asked for its end (`reason=6`: the guest). Nobody waits for its exit status, and a
#: QMP event reaches only who is connected just then. A QEMU without this trace point says so and goes on.
END_TRACE = "qemu_system_shutdown_request"


def command(machine: Machine, directory: str) -> tuple[str, ...]:
    """The whole command line. It starts paused (`-S`), so that a NIC without a link never has a carrier.

    Args:
        machine: a wanted machine, with its spec.
        directory: its run directory, for sockets, pid file and serial log.

    Raises:
        ValueError: the machine has no spec, or a value holds a comma, which QEMU reads as a separator.
    """
    spec = machine.spec
    if spec is None:
        raise ValueError(f"VM {machine.vm_id} has no spec to start from")
    for value in (spec.disk, directory, spec.vm_name, spec.vnc_bind, *_words_of(spec.nics)):
        if "," in value or not value.isprintable():
            raise ValueError(f"not a value for QEMU: {value!r}")
    return (
        BINARY,
        *("-name", f"guest={spec.vm_name},debug-threads=on", "-uuid", machine.uuid),
        *("-S", "-nodefaults", "-no-user-config", "-sandbox", SANDBOX[spec.detach], "-trace", END_TRACE),
        *_hardware(spec),
        *("-drive", f"file={spec.disk},format=qcow2,if=virtio"),
        *(("-drive", f"file={directory}/{spec.seed.name},format=raw,if=virtio,readonly=on") if spec.seed else ()),
        *("-vga", "std", "-vnc", _screen(spec)),
        *_channels(directory),
        *(word for slot, nic in enumerate(spec.nics) for word in _nic(nic, slot, vnet_hdr=spec.vnet_hdr)),
        *(("-daemonize", "-pidfile", f"{directory}/pid") if spec.detach == "daemonize" else ()),
    )


def _screen(spec: MachineSpec) -> str:
    """Where its screen is. With `password` it lets nobody in until QMP has set one."""
    asks = ",password=on" if screen_password.is_wanted(spec.vnc_password, spec.vnc_bind) else ""
    return f"{spec.vnc_bind}:{spec.vnc_port - FIRST_VNC_PORT}{asks}"


def _words_of(nics: Iterable[Nic]) -> Iterator[str]:
    for nic in nics:
        yield from (nic.interface, nic.device, nic.mac)


def _hardware(spec: MachineSpec) -> tuple[str, ...]:
    accelerator = ("-enable-kvm", "-cpu", "host") if spec.accelerator == "kvm" else ("-accel", "tcg")
    return (*accelerator, "-m", str(spec.ram_mib), "-smp", str(spec.cores))


def _channels(directory: str) -> tuple[str, ...]:
    """QMP, the serial console and the guest agent, each a socket in the machine's own directory."""
    socket = "server=on,wait=off"
    return (
        *("-qmp", f"unix:{directory}/qmp.sock,{socket}"),
        *("-chardev", f"socket,id=serial0,path={directory}/serial.sock,{socket},logfile={directory}/serial.log"),
        *("-serial", "chardev:serial0"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent0,path={directory}/agent.sock,{socket}"),
        *("-device", "virtserialport,chardev=agent0,name=org.qemu.guest_agent.0"),
    )


def _nic(nic: Nic, slot: int, *, vnet_hdr: bool) -> tuple[str, ...]:
    """A TAP and its virtio NIC. The PCI slot is fixed, so the guest's numbering is the designer's.

    Without `vnet_hdr` a guest finishes its own checksums: the userspace datapath does not do it.
    """
    offload = "" if vnet_hdr else ",vnet_hdr=off"
    return (
        *("-netdev", f"tap,id={nic.interface},ifname={nic.device},script=no,downscript=no{offload}"),
        *(
            "-device",
            f"virtio-net-pci,id=nic-{nic.interface},netdev={nic.interface},mac={nic.mac},"
            f"addr=0x{FIRST_NIC_SLOT + slot:x},romfile=",
        ),
    )


def start_commands(machine: Machine) -> tuple[Mapping[str, Any], ...]:
    """What a fresh, paused machine is told: its screen's password, carriers of unlinked NICs down, then run."""
    nics = machine.spec.nics if machine.spec else ()
    password = machine.spec.vnc_password if machine.spec else ""
    return (
        *((set_password(password),) if password else ()),
        *(set_link(nic.interface, is_up=False) for nic in nics if not nic.has_carrier),
        {"execute": "cont"},
    )


def set_password(password: str) -> Mapping[str, Any]:
    """Set the password of the screen; QEMU forgets it when it ends."""
    return {"execute": "set_password", "arguments": {"protocol": "vnc", "password": password}}


def set_link(interface: str, *, is_up: bool) -> Mapping[str, Any]:
    """Plug a NIC in, or pull it out."""
    return {"execute": "set_link", "arguments": {"name": f"nic-{interface}", "up": is_up}}


@dataclass(frozen=True, kw_only=True)
class Started:
    """What a command line of QEMU says.

    Attributes:
        uuid: its `-uuid`, in lower case; "" without one.
        directory: of its QMP socket; "" without one.
        wiring: what the machine is to its guest; None when it is not written as we write it.
    """

    uuid: str
    directory: str
    wiring: Wiring | None


def parse_command(words: Sequence[str]) -> Started:
    """Read what a running QEMU was started with.

    Args:
        words: its command line, from the program on. A person may have written it: nothing is taken for granted.
    """
    options: dict[str, list[str]] = {}
    for word, after in itertools.pairwise((*words[1:], "")):
        if word.startswith("-"):
            options.setdefault(word, []).append(after)
    socket = next((value for value in options.get("-qmp", ()) if value.startswith("unix:")), "")
    return Started(
        uuid=options.get("-uuid", [""])[-1].lower(),
        directory=socket.removeprefix("unix:").split(",")[0].rpartition("/")[0],
        wiring=_wiring(options),
    )


def _wiring(options: Mapping[str, Sequence[str]]) -> Wiring | None:
    devices = [_fields(text) for text in options.get("-device", ())]
    taps = {fields.get("id"): fields.get("ifname", "") for fields in map(_fields, options.get("-netdev", ()))}
    seeds = [_fields(text).get("file", "") for text in options.get("-drive", ())[1:]]
    try:
        return Wiring(
            disk=_fields(options["-drive"][0])["file"],
            cores=int(options["-smp"][-1].split(",")[0]),
            ram_mib=int(options["-m"][-1]),
            vnc_port=int(options["-vnc"][-1].split(",")[0].rpartition(":")[2]) + FIRST_VNC_PORT,
            nics=tuple((taps.get(one["netdev"], ""), one.get("mac", "")) for one in devices if "netdev" in one),
            seed=" ".join(path.rpartition("/")[2] for path in seeds),
        )
    except (LookupError, ValueError):
        return None


def _fields(text: str) -> dict[str, str]:
    """The `key=value` parts of an option; a part without a value has an empty one."""
    return dict(part.partition("=")[::2] for part in text.split(","))
