"""Booting one host of the lab."""

import subprocess
from contextlib import ExitStack
from pathlib import Path

from lab import switch
from lab.environment import HOST_PATH
from lab.errors import LabError
from lab.host_files import prepare_host
from lab.layout import Folder, Node
from lab.machine import datapath_type
from lab.namespaces import Opening, Room, open_room
from lab.record import Record
from lab.switch import Switch

SCRIPTS = Path(__file__).resolve().parent / "scripts"


def boot_host(folder: Folder, node: Node, record: Record, lab: Room, internet: Room) -> Opening:
    """Make a host's namespaces, lay its cables and start its services.

    Returns:
        The host, which vanishes again unless it is kept.

    Raises:
        LabError: If it does not boot, with what its boot said.
    """
    prepare_host(folder, node, record.options, record.mark)
    with ExitStack() as stack:
        opening = stack.enter_context(open_room(node.ip, inside=lab, own_pids=True, log=folder.holders_log))
        cables = Switch(lab)
        cables.plug_host(node, opening.room)
        if node.is_network_node and record.options.uplink == "own":
            cables.plug_uplink(node, opening.room, internet)
            switch.configure_internet(internet, record.options, record.mark)
        _start_services(folder, node, opening.room)
        stack.pop_all()  # booted: now the caller decides
    return opening


def _start_services(folder: Folder, node: Node, room: Room) -> None:
    home = folder.host(node)
    script = ["sh", str(SCRIPTS / "host-boot.sh"), str(home), node.hostname, datapath_type()]
    log = home / "boot.log"
    with log.open("wb") as out:
        # A file, not a pipe: daemons keep what they inherit open.
        process = room.popen(script, env={"PATH": HOST_PATH}, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        status = process.wait()
    if status:
        said = log.read_text(encoding="utf-8", errors="replace")
        raise LabError(f"The lab's host {node.ip} did not boot.", evidence=said)
