"""What is under way, or was when its process ended: read from the records alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from cloudrepo.late_dataclass import dataclass
from control import processes
from control.states import (
    BUSY,
    CREATING,
    DELETE,
    DELETING,
    DEPLOY,
    DEPLOYING,
    REPAIR,
    ROLLBACK,
    SLICE,
    STOP,
    STOPPING,
    VM,
)

CLEAN = "clean"  # hosts that did not answer an undo, and still hold something
KINDS = {*SLICE, *VM, ROLLBACK, CLEAN}
KIND_BY_STATE = {DEPLOYING: DEPLOY, STOPPING: STOP, DELETING: DELETE}  # where a record names no operation


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """One operation that has not ended.

    Attributes:
        slice_id, name: the slice.
        owner: whose slice it is.
        kind: `deploy`, `start`, `stop`, `delete`, `rollback`, `start_vm`, `stop_vm`, `add_vm`, `remove_vm`, or
            `clean`: hosts that did not answer an undo.
        of: what a rollback rolls back, else "".
        vm_id: the VM, where it is about one.
        who: who began it.
        began: when, ISO 8601 in UTC; "" when nobody noted it.
        process: who is or was at it, as `processes.this_process` says; "" = nobody.
        is_dead: nobody is at it any more, so it can be resumed or rolled back.
        is_handed: it waits for the monitor.
        hosts: hosts that did not answer, and are waited for.
        text: all this in one sentence without a full stop.
    """

    slice_id: int
    name: str
    owner: str
    kind: str
    of: str = ""
    vm_id: int | None = None
    who: str = ""
    began: str = ""
    process: str = ""
    is_dead: bool = True
    is_handed: bool = False
    hosts: tuple[str, ...] = ()

    @property
    def is_waiting(self) -> bool:
        """Whether only hosts are waited for: it ends by itself when the monitor reaches them."""
        return self.is_dead and bool(self.hosts) and (self.kind == CLEAN or not self.process)

    @property
    def text(self) -> str:
        """What it is, and whether somebody is at it."""
        label = f"slice {self.slice_id}" + (f" “{self.name}”" if self.name else "")
        if self.vm_id is not None:
            label = f"VM {self.vm_id} of {label}"
        began = f", begun {self.began}" + (f" by {self.who}" if self.who else "") if self.began else ""
        return f"{label}: {_WORDS.get(self.kind, self.kind)}{began}; {self._at_it()}"

    def _at_it(self) -> str:
        if self.is_handed:
            return "handed to the monitor, which has not begun"
        if not self.is_dead:
            return f"{processes.described(self.process)} is at it"
        if self.is_waiting:
            return f"waits for {', '.join(self.hosts)}"
        return f"{processes.described(self.process)} has ended" if self.process else "nobody is at it"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for programs."""
        return {**asdict(self), "hosts": list(self.hosts), "is_waiting": self.is_waiting, "text": self.text}


_WORDS = {
    **{"deploy": "deploying", "start": "starting", "stop": "stopping", "delete": "deleting"},
    **{"rollback": "rolling back", "start_vm": "starting", "stop_vm": "stopping"},
    **{"add_vm": "making its disk", "remove_vm": "removing it", REPAIR: "bringing back"},
    CLEAN: "something is left on a host",
}


def in_records(data: Mapping[str, Any], state: str | os.PathLike[str]) -> list[Unfinished]:
    """All that is unfinished, by slice.

    Args:
        data: the state.
        state: the path of the state file, which tells this process's own work from that of others.
    """
    return [one for record in data["slices"].values() for one in of_slice(record, state)]


def of_slice(record: Mapping[str, Any], state: str | os.PathLike[str]) -> Iterator[Unfinished]:
    """What is unfinished of one slice: its own operation, those of its VMs, hosts that are waited for."""
    about = {"slice_id": record["slice_id"], "name": record["name"], "owner": record["owner"]}
    pending = tuple(record.get("pending", ()))
    operation = record.get("operation")
    if operation and _goes_on_by_itself(record, operation) and processes.is_abandoned(str(state), operation):
        operation = None
    if operation and operation.get("kind") in KINDS:
        yield Unfinished(**about, **_noted(operation, state), vm_id=operation.get("vm_id"), hosts=pending)
    elif record["status"] in BUSY:
        # a delete whose other hosts are not known to be clear has more to do than to wait
        waits_for = pending if record.get("cleared") else ()
        yield Unfinished(**about, kind=KIND_BY_STATE[record["status"]], hosts=waits_for)
    elif pending:
        yield Unfinished(**about, kind=CLEAN, hosts=pending)
    if record["status"] == DELETING:
        return  # VMs that come and go go with it
    for vm in record["vms"]:
        if (vm.get("operation") or {}).get("kind") in VM:
            yield Unfinished(**about, **_noted(vm["operation"], state), vm_id=vm["vm_id"])
        elif vm["status"] == CREATING:
            yield Unfinished(**about, kind="add_vm", vm_id=vm["vm_id"])


def _goes_on_by_itself(record: Mapping[str, Any], operation: Mapping[str, Any]) -> bool:
    """Whether the monitor does it again without a word: a repair, or the clearing of hosts that were missing."""
    is_delete = bool(record.get("cleared")) and operation.get("kind") != ROLLBACK  # a person wanted it back
    return operation.get("kind") == REPAIR or (is_delete and not operation.get("handed"))


def _noted(operation: Mapping[str, Any], state: str | os.PathLike[str]) -> dict[str, Any]:
    is_handed = bool(operation.get("handed"))
    return {
        "kind": str(operation["kind"]),
        "of": str(operation.get("of", "")),
        "who": str(operation.get("who", "")),
        "began": str(operation.get("began", "")),
        "process": str(operation.get("process", "")),
        "is_handed": is_handed,
        "is_dead": not is_handed and processes.is_abandoned(str(state), operation),
    }
