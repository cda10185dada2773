"""Runners that have done a plan and wait for another: the next message then costs no start of a program."""

from __future__ import annotations

import threading
import time

from cloudrepo.transports import Stream

FRESH_S = 2.0  # a runner that was heard so recently is there
ANSWER_S = 2.0
MOST = 64 * 1024  # bytes that it may say to that


class IdleRunners:
    """At most one waiting runner a host. May be used from several threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: dict[str, tuple[Stream, float]] = {}

    def take(self, host: str) -> Stream | None:
        """The runner that waits on a host, if it is still there; the caller gives it back or closes it."""
        with self._guard:
            stream, since = self._waiting.pop(host, (None, 0.0))
        if stream is None or _answers(stream, is_fresh=time.monotonic() - since < FRESH_S):
            return stream
        stream.close()
        return None

    def give(self, host: str, stream: Stream) -> None:
        """Keep a runner whose plan has ended; a second one of the same host is closed."""
        with self._guard:
            earlier = self._waiting.get(host)
            self._waiting[host] = (stream, time.monotonic())
        if earlier is not None:
            earlier[0].close()

    def drop(self, host: str) -> None:
        """Let the one of a host end."""
        with self._guard:
            stream, _ = self._waiting.pop(host, (None, 0.0))
        if stream is not None:
            stream.close()

    def close(self) -> None:
        """Let all of them end."""
        with self._guard:
            streams = [stream for stream, _ in self._waiting.values()]
            self._waiting.clear()
        for stream in streams:
            stream.close()


def _answers(stream: Stream, *, is_fresh: bool) -> bool:
    """Whether the runner is there. Nothing has been sent yet, so a dead one can be replaced by another."""
    if stream.receive(0.0) is None:
        return False
    if is_fresh:
        return True
    until, heard = time.monotonic() + ANSWER_S, b""
    try:
        stream.send(b"ready\n")
    except OSError:
        return False
    while b"\n" not in heard:
        parts = stream.receive(max(0.0, until - time.monotonic()))
        if parts is None or time.monotonic() > until or len(heard) > MOST:
            return False
        heard += parts[0]
    return b'"ready"' in heard
