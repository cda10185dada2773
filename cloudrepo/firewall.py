"""What the network node lets guests of VLAN 400 reach, as rules in the words of `iptables-save`. Pure.

The gateway of VLAN 400 is in the node's own namespace, where everything else of the node is as well. So refusals come
first: to networks the node is connected to, to hosts of the cluster, to `network.deny`. What is left goes out by the
uplink, and only if it is translated. The rules stand in chains of our own, and the jumps to them before everybody
else's rules.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from cloudrepo.commands import iptables
from cloudrepo.commands.iptables import Rule
from cloudrepo.errors import HostError
from cloudrepo.naming import INTERNET_VLAN, Mark, gateway_port, is_gateway_port
from cloudrepo.resources import Firewall, HostFacts
from cloudrepo.settings import Settings

Network = ipaddress.IPv4Network
HOOKS = (("filter", "FORWARD"), ("filter", "INPUT"), ("nat", "POSTROUTING"))

_DROP, _ACCEPT = ("-j", "DROP"), ("-j", "ACCEPT")
_DNS_PROTOCOLS = ("udp", "tcp")


def internet_firewall(
    mark: Mark, cidr: str, gateway_ip: str, settings: Settings, facts: HostFacts, guarded: Sequence[str]
) -> Firewall:
    """The rules for VLAN 400, and the two devices that packets are forwarded by.

    Args:
        mark: whose they are.
        cidr: the subnet of VLAN 400.
        gateway_ip: the gateway's address in it.
        settings: the `internet` and `network` groups.
        facts: of the network node.
        guarded: addresses of the cluster's hosts.

    Raises:
        HostError: the node has no uplink.
    """
    uplink = settings.network.uplink or facts.uplink
    if not uplink:
        raise HostError(
            settings.network.node,
            "the network node has no default route, so there is no way to the internet",
            remedy="Give it one, or name the interface in the setting `network.uplink`",
            code="network.uplink",
        )
    way = _Way(mark=mark, cidr=cidr, gateway_ip=gateway_ip, uplink=uplink, dns=settings.internet.dns)
    closed = closed_networks(cidr, settings, facts, guarded)
    rules: list[Rule] = [iptables.jump(table, hook, mark.installation, mark) for table, hook in HOOKS]
    rules += [("filter", words) for words in (*way.outward(closed), *way.inward(forwards=facts.forwards))]
    rules += [("filter", words) for words in way.to_the_node(closed)]
    rules.append(("nat", ("-A", way.chain("POSTROUTING"), "-s", cidr, "-o", uplink, "-j", "MASQUERADE")))
    return Firewall(vlan_id=INTERNET_VLAN, rules=tuple(rules), forwarding=(way.port, uplink), mark=mark)


def closed_networks(cidr: str, settings: Settings, facts: HostFacts, guarded: Sequence[str]) -> list[Network]:
    """What a guest never reaches by its gateway, in order and without those that lie in another one.

    That is VLAN 400 itself, every network the node is connected to (that of its uplink too: the internet lies behind
    the next hop, not beside it), the hosts of the cluster wherever they are, and `network.deny`.

    Gateways of links are left out. They belong into namespaces of their own; rules made while one stands in the node's
    would differ again as soon as it is put back. Nothing is opened by that: only the uplink is a way out.
    """
    connected = [one for device, networks in facts.connected.items() if not is_gateway_port(device) for one in networks]
    texts = {cidr, *connected, *guarded, *settings.network.deny}
    found = {ipaddress.IPv4Network(text, strict=False) for text in texts}
    return sorted(one for one in found if not any(one != other and one.subnet_of(other) for other in found))


def stands(text: str, installation: str) -> bool:
    """Whether rules of ours are in force at each hook, and first there; by `iptables-save`, and not whether all are.

    Raises:
        ValueError: the text is not what `iptables-save` prints.
    """
    rules = iptables.parse_rules(text, installation)
    needed = {(table, chain) for table, hook in HOOKS for chain in (hook, iptables.chain(installation, hook))}
    return needed <= {(table, words[1]) for table, words in rules if words[0] == "-A"} and iptables.are_first(
        text, installation
    )


def forwarding_for(firewall: Firewall, facts: HostFacts) -> list[str]:
    """Devices that forward because of these rules: the gateway, and the uplink unless the node forwards for all.

    Args:
        firewall: as it was seen.
        facts: of the network node. Where no rule names an uplink any more, it is that of the default route.
    """
    ways = [words for _, words in firewall.rules if words[-1] in ("ACCEPT", "MASQUERADE") and "-o" in words]
    port = gateway_port(INTERNET_VLAN)
    uplinks = {words[words.index("-o") + 1] for words in ways} - {port} or {facts.uplink}
    found = [port, *([] if facts.forwards else sorted(uplinks))]
    return [device for device in found if device in firewall.forwarding]


class _Way:
    """From VLAN 400 to the uplink of the network node and back."""

    def __init__(self, *, mark: Mark, cidr: str, gateway_ip: str, uplink: str, dns: str) -> None:
        self.mark = mark
        self.cidr = cidr
        self.gateway_ip = gateway_ip
        self.uplink = uplink
        self.dns = dns
        self.port = gateway_port(INTERNET_VLAN)

    def chain(self, hook: str) -> str:
        """Our chain of a hook."""
        return iptables.chain(self.mark.installation, hook)

    def outward(self, closed: Sequence[Network]) -> Iterator[tuple[str, ...]]:
        """What a guest sends through the gateway.

        The first packet of a connection meets the NAT rule; all later ones are translated as it was. What belongs to
        no connection of a guest (invalid, untracked, an ICMP error about somebody else's) is translated by nobody, and
        nor is a connection that began while the NAT rule was missing. These two must not leave.
        """
        rule = ("-A", self.chain("FORWARD"))
        conntrack = ("-i", self.port, "-m", "conntrack")
        yield (*rule, *conntrack, "!", "--ctstate", "NEW,SNAT", *_DROP)
        yield (*rule, *conntrack, "!", "--ctstate", "SNAT", "--ctstatus", "CONFIRMED", *_DROP)
        if _holds(closed, self.dns):
            for words in self._dns("-i", self.port, "-o", self.uplink):
                yield (*rule, "-s", self.cidr, *words)
        for network in closed:
            yield (*rule, "-d", str(network), "-i", self.port, *_DROP)
        yield (*rule, "-s", self.cidr, "-i", self.port, "-o", self.uplink, *_ACCEPT)
        yield (*rule, "-i", self.port, *_DROP)

    def inward(self, *, forwards: bool) -> Iterator[tuple[str, ...]]:
        """What comes back, and nothing else.

        A node that forwarded nothing before does so by its uplink now, for our sake: to VLAN 400 alone.
        """
        rule = ("-A", self.chain("FORWARD"))
        answers = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
        yield (*rule, "-i", self.uplink, "-o", self.port, *answers, *_ACCEPT)
        yield (*rule, "-o", self.port, *_DROP)
        if not forwards:
            yield (*rule, "-i", self.uplink, *_DROP)

    def to_the_node(self, closed: Sequence[Network]) -> Iterator[tuple[str, ...]]:
        """What a guest sends to the node itself: ICMP to the gateway, and DNS if the node is to answer it."""
        rule = ("-A", self.chain("INPUT"))
        yield (*rule, "-d", f"{self.gateway_ip}/32", "-i", self.port, "-p", "icmp", *_ACCEPT)
        if _holds(closed, self.dns):
            for words in self._dns("-i", self.port):
                yield (*rule, *words)
        yield (*rule, "-i", self.port, *_DROP)

    def _dns(self, *way: str) -> Iterator[tuple[str, ...]]:
        for protocol in _DNS_PROTOCOLS:
            yield ("-d", f"{self.dns}/32", *way, "-p", protocol, "-m", protocol, "--dport", "53", *_ACCEPT)


def _holds(networks: Sequence[Network], address: str) -> bool:
    return any(ipaddress.IPv4Address(address) in network for network in networks)
