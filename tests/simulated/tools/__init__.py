"""What the tools of a host answer, one module a tool."""

from __future__ import annotations

from collections.abc import Callable

from simulated.state import Answer, Call, Refusal
from simulated.tools import dnsmasq, ip, iptables, ovs_ofctl, ovs_vsctl, qemu, qemu_img, system

Tool = Callable[[Call], Answer]

TOOLS: dict[str, Tool] = {
    "dnsmasq": dnsmasq.answer,
    "ip": ip.answer,
    "iptables": iptables.version,
    "iptables-restore": iptables.restore,
    "iptables-save": iptables.save,
    "ovs-ofctl": ovs_ofctl.answer,
    "ovs-vsctl": ovs_vsctl.answer,
    "qemu-img": qemu_img.answer,
    "qemu-system-x86_64": qemu.answer,
    **system.TOOLS,
}


def answer(call: Call) -> Answer:
    """What the named tool says; one that passes its words on to another (`nsenter`, `prlimit`) is followed."""
    while True:
        tool = TOOLS.get(call.words[0])
        if tool is None:
            return Answer(err=f"{call.words[0]}: not found\n", status=127)
        try:
            result = tool(call)
        except Refusal as refusal:
            return Answer(err=f"{refusal}\n", status=refusal.status)
        if result.then is None:
            return result
        call = result.then
