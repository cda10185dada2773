"""Tells whether two crashes left the very same behind: then what mends the one mends the other.

Most points of an operation are looks at a host, and a kill before an act and one after it often come to the same, since
the runner ends the step it is at. What follows such a crash is the same program with the same input, so it is done
once. Only what must differ between two runs is left out of the comparison: process ids, times, passwords that are
drawn, and digests of files that hold them; a password that is in two places still has to be in both. Whatever else
differs, in any file or any state, makes two leftovers of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from simulated.state import HostState
from simulated.world import World

#: Of the world, not of what is in it: sockets, orders. `events.jsonl` is written for people; no operation reads it.
NOT_LEFT = frozenset(("order", "states", "control", "tools", "events.jsonl"))
TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?")
PROCESS = re.compile(rb'("process":"[^:"]*):(\d+):\d+:')
SUM = re.compile(rb'^(.*),"sum":"([0-9a-f]{16})"}$', re.MULTILINE)
PASSWORD = re.compile(rb'("vnc_password":"|vnc_password: )([A-Za-z2-9]{8})\b')
DIGEST = re.compile(rb"[0-9a-f]{64}")


def fingerprint(world: World, *facts: Any) -> str:
    """A digest of all that is in a world where no runner runs, and of further facts."""
    digest = hashlib.sha256(json.dumps(facts).encode())
    states = world.states()
    for name in sorted(states):
        digest.update(f"{name} {_plain_state(states[name])}\n".encode())
        places = _places(states[name])
        for path, content in _files(world.directory / name):
            digest.update(b"%s %d\n%s" % (path.encode(), len(content), _without_place(path, content, places)))
    for part in _records(world.installation):
        digest.update(part)
    return digest.hexdigest()


class Known:
    """What came of each way at each leftover; processes that run cases at once share it by a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, left: str, way: str) -> list[str] | None:
        """What was wrong; None when nobody has tried."""
        try:
            found: list[str] = json.loads((self.folder / f"{left}.{way}").read_text())
        except FileNotFoundError:
            return None
        return found

    def put(self, left: str, way: str, wrong: list[str]) -> None:
        """Remember it; whole or not at all."""
        fresh = self.folder / f"{left}.{way}.{os.getpid()}"
        fresh.write_text(json.dumps(wrong))
        fresh.rename(self.folder / f"{left}.{way}")


def _plain_state(state: HostState) -> str:
    running = state.programs.values()
    programs = sorted(repr((replace(one, links_down=set()), sorted(one.links_down))) for one in running)
    return repr((replace(state, root=Path(), programs={}), programs))


def _places(state: HostState) -> dict[bytes, bytes]:
    """The process ids of a host's programs, each with a word for the program."""
    ordered = sorted(state.programs.items(), key=lambda item: item[1].words)
    return {str(pid).encode(): b"program %d" % number for number, (pid, _) in enumerate(ordered)}


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Everything below a folder, in order: paths with their modes, and contents."""
    for here, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *names]):
            path = os.path.join(here, name)
            if name in NOT_LEFT:
                continue
            mode = os.lstat(path).st_mode
            content = b""
            if name in names and os.path.isfile(path):
                with open(path, "rb") as file:
                    content = file.read()
            yield f"{os.path.relpath(path, folder)} {mode:o}", content


def _without_place(path: str, content: bytes, places: dict[bytes, bytes]) -> bytes:
    name = path.split()[0].rpartition("/")[2]
    if name == "pid":
        return places.get(content.split()[0] if content else b"", content)
    return b"" if name == "boot_id" else content


def _records(folder: Path) -> Iterator[bytes]:
    """An installation's files. A digest in them that is right says whose it is, a wrong one stays as it is."""
    files = {path: content for path, content in _files(folder) if not path.startswith("settings.yaml ")}
    drawn: dict[bytes, bytes] = {}
    plain = {path: _without_passwords(_without_times(files[path]), drawn) for path in sorted(files)}
    names = {hashlib.sha256(content).hexdigest().encode(): plain[path] for path, content in files.items()}

    def named(match: re.Match[bytes]) -> bytes:
        return hashlib.sha256(names[match[0]]).hexdigest().encode() if match[0] in names else match[0]

    for path in plain:
        yield DIGEST.sub(named, b"%s\n%s" % (path.encode(), plain[path]))


def _without_passwords(content: bytes, drawn: dict[bytes, bytes]) -> bytes:
    return PASSWORD.sub(lambda match: match[1] + drawn.setdefault(match[2], b"%d" % len(drawn)), content)


def _without_times(content: bytes) -> bytes:
    def checked(match: re.Match[bytes]) -> bytes:
        is_right = hashlib.blake2b(match[1], digest_size=8).hexdigest().encode() == match[2]
        return match[1] + b"}" if is_right else match[0]

    def gone(match: re.Match[bytes]) -> bytes:
        return match[0] if os.path.exists(b"/proc/" + match[2]) else match[1] + b":gone:"

    return TIME.sub(b"T", PROCESS.sub(gone, SUM.sub(checked, content)))
