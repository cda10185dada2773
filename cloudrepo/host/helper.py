"""The program that `./cloud worker harden` installs: takes messages as the runner does, within the grammar only.

`programs.py` makes it of `relay.py`, the parts of the runner, `grammar.py`, `texts.py`, `judge.py`, `ownership.py` and
this file, in this order: one module of root's, beside six lines that sudo lets one account run without arguments. A
message names its version instead of bringing a program; everything else is refused.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import zlib

from cloudrepo.host.judge import Bounds, NotAllowed, judge_plan
from cloudrepo.host.ownership import Owners
from cloudrepo.host.relay import relay, visit
from cloudrepo.host.runner.base import explain
from cloudrepo.host.runner.fence import Refused
from cloudrepo.host.runner.line import Control
from cloudrepo.host.runner.plans import checks, guards
from cloudrepo.host.runner.program import IDLE_S, LARGEST, main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

BOUNDS = "/etc/cloudrepo/helper.d"  # one file for each installation: what it may name on this host
ADDRESS = re.compile(r"[0-9]{1,3}(?:[.][0-9]{1,3}){3}", re.ASCII)
SOCKET = re.compile(r"/run/cloudrepo-([0-9a-f]{8})/vm-(?:0|[1-9][0-9]{0,8})/(?:serial|agent)[.]sock", re.ASCII)


def bounds_of(installation: Any, caller: int) -> Bounds:
    """The bounds of an installation, if this caller may act for it.

    Raises:
        Refused: the host was not prepared for it, or not for the account.
    """
    import pwd

    name = installation if isinstance(installation, str) else ""
    path = f"{BOUNDS}/{name}.json"
    if not re.fullmatch("[0-9a-f]{8}", name, re.ASCII) or not os.path.isfile(path):
        raise Refused("unprepared", f"this host was not prepared for installation {name or installation!r}")
    facts = os.lstat(path)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != 0 or facts.st_mode & 0o022:
        raise Refused("unprepared", f"{path} is not a file that only root may write")
    with open(path, encoding="utf-8") as file:
        bounds = Bounds(json.load(file))
    if caller and pwd.getpwnam(bounds.facts["account"]).pw_uid != caller:
        raise Refused("unprepared", f"installation {name} is another account's on this host")
    require_own_folders(bounds.base)
    return bounds


def require_own_folders(path: str) -> None:
    """Every directory of a path must be root's alone: else others could put another in its place."""
    while True:
        try:
            facts = os.lstat(path)
        except OSError as error:
            raise Refused("unprepared", explain(error)) from None
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != 0 or facts.st_mode & 0o022:
            raise Refused("unprepared", f"{path} is not a directory that only root may write")
        if path == "/":
            return
        path = os.path.dirname(path)


def keep_within(caller: int) -> None:
    """From now on the runner takes plans within the grammar only, and asks before each step whose things are."""
    owners: dict[str, Any] = {}

    def check(plan: Any) -> None:
        bounds = bounds_of(plan["installation"], caller)
        try:
            owners["named"] = judge_plan(plan, bounds)
        except (NotAllowed, KeyError, TypeError, AttributeError) as error:
            raise Refused("grammar", f"not among the acts of the helper: {error}") from None
        owners["owners"] = Owners(bounds, [one for named in owners["named"].values() for one in named])

    def guard(step: Any) -> None:
        owners["owners"].check(step, owners["named"][id(step)])

    checks.append(check)
    guards.append(guard)


def receive() -> tuple[str, str]:
    """The head and the text of a message; what is no whole message ends this."""
    import hashlib

    with open(0, "rb", buffering=0, closefd=False) as file:
        head = file.readline(200).split()
        size = int(head[0]) if len(head) == 2 and head[0].isdigit() else -1
        data = bytearray()
        while len(data) < min(size, LARGEST):
            part = file.read(min(size, LARGEST) - len(data))
            if not part:
                break
            data += part
    if len(data) != size or hashlib.sha256(data).hexdigest().encode() != head[1]:
        sys.exit("cloudrepo: the message was cut")
    return unpacked(bytes(data))


def unpacked(data: bytes) -> tuple[str, str]:
    """The head and the text of a payload, which may be made to grow without end."""
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, LARGEST)
    if not unpacker.eof:
        sys.exit("cloudrepo: the message is too large")
    head, _, rest = text.decode().partition("\0")
    return head, rest


def refuse(refusal: Any) -> NoReturn:
    """Say why nothing was done, and end."""
    Control(IDLE_S).say(**refusal.event)
    sys.exit(0)


def helper_main(version: str) -> int:
    """Take one message, and those that follow it; the exit status."""
    caller = int(os.environ.get("SUDO_UID", os.getuid()))
    os.environ.clear()
    os.umask(0o022)
    os.chdir("/")
    if os.geteuid() != 0:
        sys.exit("cloudrepo: the helper is run by sudo")
    head, text = receive()
    try:
        kind, _, wanted = head.partition(" ")
        if kind not in ("runner", "relay") or not re.fullmatch("[0-9a-f]{16}", wanted, re.ASCII):
            raise Refused("grammar", "the helper takes plans, not programs")
        if wanted != version:
            raise Refused("version", f"the helper on this host is {version}, the orchestrator's is {wanted}")
        with open("/proc/sys/fs/protected_hardlinks", encoding="ascii") as file:
            if file.read().strip() != "1":
                raise Refused("unprepared", "fs.protected_hardlinks is off on this host")
        if kind == "relay":
            return relay_within(json.loads(text), caller)
    except Refused as refusal:
        refuse(refusal)
    keep_within(caller)
    return main(text)


def relay_within(asked: Any, caller: int) -> int:
    """Join a guest's serial console or agent, or the SSH server of a machine on a link of ours, and no other socket."""
    if isinstance(asked, dict) and set(asked) == {"installation", "vlan", "address"}:
        bounds = bounds_of(asked["installation"], caller)
        first, last = bounds.facts["vlans"]
        vlan, address = asked["vlan"], asked["address"]
        if type(vlan) is not int or not first <= vlan <= last or vlan == 400:
            raise Refused("grammar", f"not the VLAN of a link: {str(vlan)[:200]}")
        if not isinstance(address, str) or not ADDRESS.fullmatch(address):
            raise Refused("grammar", f"not an address: {str(address)[:200]}")
        return visit(bounds.installation, vlan, address)
    path = asked.get("socket") if isinstance(asked, dict) and len(asked) == 1 else None
    found = SOCKET.fullmatch(path) if isinstance(path, str) else None
    if path is None or found is None:
        raise Refused("grammar", f"not a console of a machine: {str(path)[:200]}")
    bounds_of(found[1], caller)
    return relay(path)
