"""What a runner can do on the wire, for `verify`: listen at devices, send as if by a port, tell of what came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar

from cloudrepo.late_dataclass import dataclass
from cloudrepo.plan import Act


@dataclass(frozen=True, kw_only=True)
class ObserveDevices(Act):
    """Network devices: `out` is a JSON object: namespace ("" = the host's own) → device → facts.

    Facts: `mac`, `mtu` (bytes), `flags` (netdevice(7)), `address` and `mask` (the first IPv4 address, "" = none), and
    `is_tap`, which is told of the host's own devices only. Nothing is started for it.
    """

    ACT: ClassVar[str] = "devices"


@dataclass(frozen=True, kw_only=True)
class Listen(Act):
    """Begin to listen for frames that hold the bytes `run` (hex); until `Heard` in the same message.

    Attributes:
        places: by namespace ("" = the host's own), the devices that are listened at.
        run: eight bytes that no other run has.
        questions: by transaction id of DHCP (four bytes, hex), the number of the frame that asked.
        tags: whether frames are told of with their 802.1Q headers, which the kernel takes out.
    """

    ACT: ClassVar[str] = "listen"
    places: Mapping[str, tuple[str, ...]]
    run: str
    questions: Mapping[str, int] = field(default_factory=dict)
    tags: bool = False


@dataclass(frozen=True, kw_only=True)
class Inject(Act):
    """Have the bridge's switch take frames as if they came in by a port: `frames` are pairs of port number and hex.

    They go through its tables as any other. Returns when the switch has dealt with all.
    """

    ACT: ClassVar[str] = "inject"
    bridge: str
    frames: tuple[tuple[int, str], ...]


@dataclass(frozen=True, kw_only=True)
class Emit(Act):
    """Send by this host itself, after `Listen` in the same message.

    Attributes:
        frames: namespace, device and frame (hex); the device must be one that is listened at.
        packets: IPv4 address and packet (hex) for the host's own network stack, which finds the way.
    """

    ACT: ClassVar[str] = "emit"
    frames: tuple[tuple[str, str, str], ...] = ()
    packets: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Heard(Act):
    """End listening `settle_s` seconds after the last frame: `out` is a JSON object of two lists, each entry once.

    `heard`: device, number (the four bytes that follow the run's), 1 if the device sent it or 0 if it received it, and
    the frame's first 42 bytes in hex. `answers` is the same with what came without the run's bytes: an ARP reply, with
    number -1, or a DHCP answer with the number of its question and 768 bytes.
    """

    ACT: ClassVar[str] = "heard"
    settle_s: float = 0.3
    at_most_s: float = 5.0
