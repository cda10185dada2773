"""What is sent by whom, and who must hear it: from the records alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudrepo.late_dataclass import dataclass
from cloudrepo.verification import on_internet, on_links, outside
from cloudrepo.verification.cast import INTERNET_VLAN, Ear, Nic, Wire
from cloudrepo.verification.outside import Outside
from cloudrepo.verification.shapes import Shape, transaction

__all__ = ["Probe", "note", "probes"]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One frame.

    Attributes:
        number: in the run; the frame carries it.
        sender: who sends it.
        shape: what must become of it.
        frame: its bytes.
        transaction: of a DHCP question, four bytes by which its answers are known.
    """

    number: int
    sender: Nic
    shape: Shape
    frame: bytes
    transaction: bytes = b""

    @property
    def kind(self) -> str:
        """What it is, in a person's words."""
        return self.shape.kind

    @property
    def hearers(self) -> frozenset[Ear]:
        """Who must hear it."""
        return self.shape.hearers


def note(run: bytes, number: int) -> bytes:
    """By which a frame is known: eight bytes of the run, four of the probe."""
    return run + number.to_bytes(4, "big")


def probes(wires: Sequence[Wire], around: Outside, run: bytes, node: Nic | None = None) -> list[Probe]:
    """All frames of a run.

    Args:
        wires: of all slices that run, whoever asked.
        around: hosts, management network, uplink.
        run: eight bytes that no other run has.
        node: the network node, if its translation of addresses is to be tried.
    """
    found: list[Probe] = []
    for sender, shape in _shapes(wires, around, node):
        mark = note(run, len(found))
        found.append(
            Probe(
                number=len(found),
                sender=sender,
                shape=shape,
                frame=shape.make(mark),
                transaction=transaction(mark) if shape.is_question else b"",
            )
        )
    return found


def _shapes(wires: Sequence[Wire], around: Outside, node: Nic | None) -> Iterator[tuple[Nic, Shape]]:
    for host in around.management:
        yield from ((host, shape) for shape in outside.from_host(host, around))
    for wire in wires:
        for sender in (*wire.nics, *wire.services):
            yield from ((sender, shape) for shape in _of(sender, wire, around))
    if node is not None and around.uplink is not None:
        yield from ((node, shape) for shape in outside.from_node(around))


def _of(sender: Nic, wire: Wire, around: Outside) -> Iterator[Shape]:
    if wire.vlan != INTERNET_VLAN:
        if sender.is_guest:
            return on_links.from_guest(sender, wire, around)
        return on_links.from_service(sender, wire)
    if sender.is_guest:
        return on_internet.from_guest(sender, wire, around)
    return on_internet.from_gateway(sender, wire) if sender is wire.gateway else iter(())
