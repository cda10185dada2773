"""How long a person waits for the login prompt."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pexpect

from lab.namespaces import CHECKOUT, Room

PATIENCE_S = 20


def seconds_to_prompt(room: Room, state: Path) -> float:
    """Start the menu on a terminal where the orchestrator runs; seconds until it asks for a name."""
    environment = {**os.environ, "CLOUDREPO_STATE": str(state), "CLOUDREPO_LAB_ONLY": "1", "TERM": "xterm-256color"}
    words = [f"--net=/proc/{room.pid()}/ns/net", "--", sys.executable, str(CHECKOUT / "main.py")]
    began = time.monotonic()
    with pexpect.spawn("nsenter", words, env=environment, timeout=PATIENCE_S, dimensions=(40, 120)) as menu:
        menu.expect("Username")
        waited = time.monotonic() - began
        menu.sendeof()
        menu.expect(pexpect.EOF)
    return waited
