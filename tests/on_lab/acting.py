"""Starting orchestrator processes of their own, for tests of several at once and of one that dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ACTOR = Path(__file__).with_name("actor.py")


class Actor:
    """A process with a façade of its own on the same state file. It lives in the network it was started in.

    Args:
        state: the state file.
        die_at: after how many progress events it kills itself; 0 = never.
    """

    def __init__(self, state: Path, *, die_at: int = 0) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            (sys.executable, str(ACTOR), str(state), str(die_at)),
            env=environment,
            cwd=state.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def tell(self, call: str, *args: Any, **kwargs: Any) -> None:
        """Begin a call without waiting for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([call, args, kwargs]) + "\n")
        self._process.stdin.flush()

    def answered(self) -> tuple[bool, Any] | None:
        """The answer to the call begun longest ago; None when the process died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            return None
        done, payload = json.loads(line)
        return bool(done), payload

    def answer(self) -> Any:
        """The payload of the call begun longest ago, which must have succeeded; None when the process died."""
        answered = self.answered()
        if answered is None:
            return None
        done, payload = answered
        assert done, payload
        return payload

    def ok(self, call: str, *args: Any, **kwargs: Any) -> Any:
        """Call, and wait for the payload."""
        self.tell(call, *args, **kwargs)
        return self.answer()

    def close(self) -> int:
        """Let it end; its exit status."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it died
        status = self._process.wait(60)
        self._process.stdout.close()
        return status
