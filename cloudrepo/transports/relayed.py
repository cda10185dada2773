"""A socket of a host, joined to us by its relay (`cloudrepo/host/relay.py`)."""

from __future__ import annotations

from cloudrepo.errors import HostError
from cloudrepo.host.events import first_line
from cloudrepo.transports import Stream


class SerialChannel:
    """Bytes both ways to a socket on a host; made by `open_serial` and `open_guest_ssh` of `RemoteExecutor`."""

    def __init__(self, host: str, name: str, stream: Stream) -> None:
        self._stream = stream
        self._rest = self._opened(host, name)

    def _opened(self, host: str, name: str) -> bytes:
        head = first_line(host, self._stream)
        line, _, rest = head.partition(b"\n")
        if b'"open"' not in line:
            raise HostError(
                host,
                f"nothing answers on {name}",
                evidence=line.decode("utf-8", "replace")[:200],
                remedy="look whether the VM runs",
                code="host.socket",
            )
        return rest

    def receive(self, timeout_s: float) -> bytes | None:
        """What came; empty when nothing came in time, None at the end."""
        if self._rest:
            data, self._rest = self._rest, b""
            return data
        parts = self._stream.receive(timeout_s)
        return None if parts is None else parts[0]

    def send(self, data: bytes) -> None:
        """Send all of it; raises OSError when the other side is gone."""
        self._stream.send(data)

    def close(self) -> None:
        """End it; the machine's serial port stays."""
        self._stream.close()

    def __enter__(self) -> SerialChannel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
