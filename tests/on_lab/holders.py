"""Machines without guests: a program that holds TAPs in QEMU's place on hosts of the lab, for as long as a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.cluster import Lab
from on_lab.faults import FIRST_IN_PATH

PLACE = f"{FIRST_IN_PATH}/qemu-system-x86_64"
PROGRAM = "#!/usr/bin/python3 -IS\n" + Path(__file__).with_name("tap_holder.py").read_text()


@contextmanager
def tap_holders(lab: Lab, hosts: Iterable[str]) -> Iterator[None]:
    """Every machine that is started on these hosts in the block holds its TAPs and runs no guest.

    What was started so ends with the block's slices; nothing else of a machine is different.
    """
    hosts = tuple(hosts)
    for ip in hosts:
        lab.host(ip, ["mkdir", "-p", FIRST_IN_PATH], check=True)
        lab.host(ip, ["sh", "-c", 'cat > "$1" && chmod 755 "$1"', "sh", PLACE], input=PROGRAM, check=True)
    try:
        yield
    finally:
        for ip in hosts:
            lab.host(ip, ["rm", PLACE], check=True)
