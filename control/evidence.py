"""What a run of `verify` has shown, as a file: what was required, what was sent, what every host saw."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloudrepo.errors import StateFileError
from cloudrepo.stores import files
from cloudrepo.verification.ground import Ground
from cloudrepo.verification.matrix import Probe
from cloudrepo.verification.sightings import Heard, Sighting
from cloudrepo.verification.stage import Stage
from control.context import Context, Record

KEPT = 20  # files; the oldest goes
FOLDER = "evidence"  # in .cloudrepo, beside the state file
SHOWN = 96  # bytes of a frame that are kept: all of it but padding

_NAME = re.compile(r"verify-\d{8}T\d{6}\.\d{6}Z\.json\Z", re.ASCII)


def write(context: Context, document: Mapping[str, Any]) -> Path:
    """Write a document whole or not at all, for its owner alone, and forget the oldest ones.

    Returns:
        The file.

    Raises:
        StateFileError: it cannot be written; nothing of it is left.
    """
    state = context.observations.path.parent
    folder = state / FOLDER
    path = folder / f"verify-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.json"
    content = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = state.stat()
    except OSError as error:
        raise StateFileError(f"{folder} cannot be made", evidence=str(error), code=files.NOT_WRITTEN) from error
    files.replace(path, content, files.Owner(facts.st_uid, facts.st_gid))
    _forget(folder)
    return path


def _forget(folder: Path) -> None:
    names = sorted(entry.name for entry in folder.iterdir() if _NAME.match(entry.name))
    for name in names[:-KEPT]:
        (folder / name).unlink(missing_ok=True)


def document(
    told: Mapping[str, Any], stage: Stage, grounds: Mapping[str, Ground], probes: Iterable[Probe], heard: Heard
) -> Record:
    """All of a run.

    Args:
        told: what a program is told of it.
        stage: who took part, and where was listened.
        grounds: how the hosts were seen before.
        probes: what was sent in the last run.
        heard: what came of it.
    """
    return {
        **told,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "ends": [
            {
                "name": str(nic),
                "slice_id": nic.slice_id,
                "vm_id": nic.vm_id,
                "host": nic.host,
                "device": nic.device,
                "vlan": nic.wire,
                "mac": nic.mac,
                "ip": nic.ip,
                "allowed": sorted(nic.switches),
            }
            for wire in stage.wires
            for nic in (*wire.nics, *wire.services)
        ],
        "listened": [
            {"host": place.ear[0], "device": place.ear[1], "name": place.name, "role": place.role}
            for place in stage.places.values()
        ],
        "hosts": {ip: _host(ground) for ip, ground in grounds.items()},
        "probes": [_probe(probe, heard) for probe in probes],
        "arp_replies": [[*one.ear, one.mac, one.ip] for one in heard.claims],
    }


def _host(ground: Ground) -> Record:
    ports = {name: {"tag": port.tag, "trunks": list(port.trunks)} for name, port in ground.ports.items()}
    return {"bridge": ground.bridge, "closed": ground.is_closed, "ports": ports}


def _probe(probe: Probe, heard: Heard) -> Record:
    offers = [[*one.ear, one.mac, one.server, one.address] for one in heard.offers.get(probe.number, [])]
    return {
        "number": probe.number,
        "from": str(probe.sender),
        "kind": probe.kind,
        "frame": probe.frame[:SHOWN].hex(),
        "bytes": len(probe.frame),
        "must_hear": [list(ear) for ear in sorted(probe.hearers)],
        "must_be_answered": probe.shape.answer,
        "leaves": probe.shape.leaves,
        "seen": [_seen(one) for one in heard.at(probe.number)],
        **({"offers": offers} if offers else {}),
    }


def _seen(one: Sighting) -> list[str]:
    """Host, device, which way, source MAC and, if it holds an IPv4 packet, source address."""
    return [*one.ear, "sent" if one.is_sent else "received", one.mac, *([one.ip] if one.ip else [])]
