"""Runs of `verify` on the lab's hosts: `python -m bench.verification.on_lab PART …`, where the orchestrator is."""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.verification import random_slices
from orchestrator_api import build

AT_ONCE = 10  # random slices that run together
GUESTS_AT_ONCE = 2
GUESTS_WAIT_S = 150.0
SPARE_VMS = 1000

Record = dict[str, Any]


def grow(api: Any, passes: int, *sizes: int) -> list[Record]:
    """Runs over lines of VMs, so many together, each linked with the next and with internet access."""
    found = []
    for size in sizes:
        ids = random_slices.lines(api, size)
        for slice_id in ids:
            _ok(api.deploy_slice("admin", slice_id))
        _ok(api.verify())  # connections and runners are there
        runs = [_ok(api.verify()) for _ in range(passes)]
        for one in runs:
            wrong = [each["text"] for each in one["violations"]] + one["unproven"]
            assert not wrong, wrong[:20]
        seconds = [one["seconds"] for one in runs]
        last = runs[-1]
        found.append(
            {
                "vms": size,
                "nics": last["nics"],
                "links": size - len(ids),
                "frames": last["frames"],
                "heard": last["heard"],
                "not_heard": last["not_heard"],
                "seconds": statistics.median(seconds),
                "least": min(seconds),
                "most": max(seconds),
            }
        )
        for slice_id in ids:
            _ok(api.delete_slice("admin", slice_id))
    return found


def clean(api: Any, slices: int, seed: int) -> Record:
    """Runs over random slices that are as they should be."""
    return _rounds(api, slices, seed, AT_ONCE, wait_s=0)


def guests(api: Any, slices: int, seed: int) -> Record:
    """The same with guests that boot meanwhile; the last run of each round is when all of them answer, or gave up."""
    return _rounds(api, slices, seed, GUESTS_AT_ONCE, wait_s=GUESTS_WAIT_S)


def _rounds(api: Any, slices: int, seed: int, at_once: int, *, wait_s: float) -> Record:
    total: Record = {"slices": 0, "vms": 0, "nics": 0, "links": 0, "runs": 0, "heard": 0, "not_heard": 0, "guests": 0}
    texts: list[str] = []
    for number in range(0, slices, at_once):
        chance = random.Random(f"{seed}-{number}")  # noqa: S311  nothing is kept secret by it
        ids = [random_slices.make(api, chance) for _ in range(min(at_once, slices - number))]
        for slice_id in ids:
            _ok(api.deploy_slice("admin", slice_id))
        records = [_ok(api.get_slice("admin", slice_id)) for slice_id in ids]
        until = time.monotonic() + wait_s
        while True:
            found = _ok(api.verify())
            total["runs"] += 1
            texts += [one["text"] for one in found["violations"]] + list(found["unreachable"].values())
            if time.monotonic() > until or len(found["guests"]) == _addressed(records):
                break
            time.sleep(2)
        _add(total, found, records)
        for slice_id in ids:
            _ok(api.delete_slice("admin", slice_id))
    return {**total, "alarms": len(texts), "texts": texts}


def _addressed(records: Sequence[Record]) -> int:
    """How many NICs on a wire have an address, and so a guest that could answer for it."""
    interfaces = [one for record in records for vm in record["vms"] for one in vm["interfaces"]]
    return sum(1 for one in interfaces if one.get("vlan_id") is not None and one.get("ip_config"))


def _add(total: Record, found: Record, records: Sequence[Record]) -> None:
    total["slices"] += len(records)
    total["vms"] += sum(len(record["vms"]) for record in records)
    total["links"] += sum(len(record["links"]) for record in records)
    for name in ("nics", "heard", "not_heard"):
        total[name] += found[name]
    total["guests"] += len(found["guests"])


def _ok(answer: tuple[bool, Any]) -> Any:
    done, payload = answer
    assert done, payload
    return payload


def main(part: str, *arguments: int) -> Any:
    """Run one part."""
    api = build(os.environ["CLOUDREPO_STATE"])
    try:
        api.discovery.discover_all()
        with api.db.transaction() as data:
            data["users"]["admin"]["quota_vms"] = SPARE_VMS
        parts: dict[str, Callable[..., Any]] = {"grow": grow, "clean": clean, "guests": guests}
        return parts[part](api, *arguments)
    finally:
        api.executor.close()
        api.db.close()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:]))))
