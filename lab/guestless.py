"""Machines without guests: on chosen hosts a program stands in QEMU's place, holds its TAPs, and costs nothing."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.cluster import Lab

FIRST_IN_PATH = "/usr/local/sbin"  # first in the runner's PATH; each host of the lab has its own
PLACE = f"{FIRST_IN_PATH}/qemu-system-x86_64"
PROGRAM = Path(__file__).with_name("guestless_qemu.py")
INTERPRETER = "#!/usr/bin/python3 -IS\n"


@contextmanager
def guestless(lab: Lab, hosts: Iterable[str]) -> Iterator[None]:
    """Machines that are started on these hosts in the block have all that machines have, but no guest.

    What was started so must be stopped in the block too.
    """
    text = INTERPRETER + PROGRAM.read_text(encoding="utf-8")
    hosts = tuple(hosts)
    for ip in hosts:
        lab.host(ip, ["mkdir", "-p", FIRST_IN_PATH], check=True)
        lab.host(ip, ["sh", "-c", 'cat > "$1" && chmod 755 "$1"', "sh", PLACE], input=text, check=True)
    try:
        yield
    finally:
        for ip in hosts:
            lab.host(ip, ["rm", PLACE], check=True)
