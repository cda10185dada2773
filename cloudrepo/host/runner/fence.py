"""Whose turn it is on this host."""

from __future__ import annotations

import json
import os
import time

from cloudrepo.host.runner.base import LONGEST_WAIT_S
from cloudrepo.host.runner.files import read_text, write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloudrepo.host.runner.base import Json
    from cloudrepo.host.runner.line import Control

EVERYTHING = "*"  # the scope of a message that speaks for all others
NAMES = {EVERYTHING: "this installation", "shared": "what all slices share", "manual": "what was made by hand"}
SCOPES_KEPT = 64  # in the file of fences; those seen longest ago are forgotten, and all operations as old with them


class Refused(Exception):
    """The message is not taken; nothing was changed."""

    def __init__(self, code: str, text: str, **facts: Any) -> None:
        super().__init__(text)
        self.event = dict(event="refused", code=code, text=text, **facts)  # `event` first: the reader looks for it


class Fence:
    """Whose turn it is on this host, for each scope of this installation: a slice, what all share, or everything.

    Two files. `lock` is empty: a byte of it is locked for each scope, so no file is left behind for each slice.
    `fences` is JSON: `changes` counts the beginnings and ends of all messages, `scopes` has for each scope the
    highest operation number seen and the count at its last beginning or end, and operations below `floor` are late
    for every scope. Who reads a scope's count before looking at the host can so have a message refused when the
    host may have changed since.
    """

    def __init__(self, plan: Json, control: Control) -> None:
        self.control = control
        self.number = plan["operation"]
        self.scopes = sorted(plan["scopes"])
        self.seen = plan["seen"]
        self.patience = time.monotonic() + plan["lock_wait_s"]
        self.path = os.path.join(plan["fence_dir"], "fences")
        os.makedirs(plan["fence_dir"], 0o700, exist_ok=True)
        self.lock = os.open(os.path.join(plan["fence_dir"], "lock"), os.O_RDWR | os.O_CREAT, 0o600)

    def enter(self) -> None:
        """Take the locks, then let nobody older pass. A message that is late is refused without waiting."""
        for scope in self.scopes:
            while not self._lock(scope):
                holder = self._check(self._read(), scope)
                if self.control.why_stop():
                    raise Refused("gone", self.control.ending)
                if time.monotonic() > self.patience:
                    text = f"operation {holder} holds the lock of {NAMES.get(scope, 'slice ' + scope)} on this host"
                    raise Refused("lock", text, holder=str(holder))
                time.sleep(LONGEST_WAIT_S)
        self._note(is_beginning=True)

    def leave(self) -> None:
        """What was seen of the host until now is out of date; the next may enter."""
        self._note(is_beginning=False)
        os.close(self.lock)

    def _lock(self, scope: str) -> bool:
        import fcntl
        import zlib

        # byte 0 guards the file of fences; everything is all the other bytes
        first, length = (1, 0) if scope == EVERYTHING else (1 + zlib.crc32(scope.encode()), 1)
        try:
            fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB, length, first)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _read(self) -> Json:
        text = read_text(self.path) or '{"changes": 0, "floor": 0, "scopes": {}}'
        try:
            found = json.loads(text)
            for number, count in [(found["floor"], found["changes"]), *found["scopes"].values()]:
                int(number), int(count)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Refused("fence", f"{self.path} is damaged: {text[:40]!r}") from None
        return dict(found)

    def _check(self, found: Json, scope: str) -> int:
        """Refuse what is late for a scope; returns the highest number seen there."""
        number, count = found["scopes"].get(scope, (0, 0))
        if scope == EVERYTHING:
            number = max([number, *(each for each, _ in found["scopes"].values())])
            count = found["changes"]
        highest = max(number, found["floor"])
        if self.number < highest:
            text = f"operation {self.number} came too late: operation {highest} was already here"
            raise Refused("operation", text, seen=highest)
        if count != self.seen.get(scope, count):
            raise Refused("changed", f"operation {highest} was here since the host was looked at", seen=highest)
        return int(highest)

    def _note(self, is_beginning: bool) -> None:
        """Count a beginning, which is checked once more and durable, or an end."""
        import fcntl

        fcntl.lockf(self.lock, fcntl.LOCK_EX, 1, 0)
        try:
            found = self._read()
            scopes = found["scopes"]
            if is_beginning:
                for scope in self.scopes:
                    self._check(found, scope)
            found["changes"] += 1
            for scope in [*scopes] if EVERYTHING in self.scopes else self.scopes:
                scopes[scope] = [max(self.number, scopes.get(scope, (0, 0))[0]), found["changes"]]
            if EVERYTHING in self.scopes:
                found["floor"] = max(found["floor"], self.number)
            for scope in sorted(scopes, key=lambda each: scopes[each][0])[:-SCOPES_KEPT]:
                found["floor"] = max(found["floor"], scopes.pop(scope)[0])
            write_whole(self.path, json.dumps(found).encode() + b"\n", 0o600, "", is_beginning)
        finally:
            fcntl.lockf(self.lock, fcntl.LOCK_UN, 1, 0)
