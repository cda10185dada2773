"""The record of a running lab: its options and who its processes are."""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.layout import Options
from lab.namespaces import Room
from lab.processes import ProcessIdentity

LAB, ORCHESTRATOR, INTERNET = "the lab", "the orchestrator", "the internet"


@dataclass(frozen=True)
class Record:
    """What ``lab.json`` says.

    Attributes:
        mark: Words on the loopback of each namespace, by which the product knows it.
        options: How the lab was started.
        ready: Whether ``up`` came to its end.
        made_mount_point: Whether a lab made the machine's image folder.
        rooms: Holder of each room, by the room's name.
    """

    mark: str
    options: Options
    ready: bool = False
    made_mount_point: bool = False
    rooms: dict[str, ProcessIdentity] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Record | None":
        """Read a record; None when there is none, or only a piece of one."""
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            rooms = {name: ProcessIdentity(**entry) for name, entry in data.pop("rooms").items()}
            options = Options(**data.pop("options"))
            return cls(options=options, rooms=rooms, **data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, LabError):
            return None

    def save(self, path: Path) -> None:
        """Write the record in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        os.replace(fresh, path)

    def room(self, name: str) -> Room | None:
        """Return a room if its holder lives."""
        holder = self.rooms.get(name)
        if holder is None or holder.find() is None:
            return None
        return Room(name, holder)

    def with_room(self, room: Room) -> "Record":
        """Return the record with a room more, or another holder of it."""
        return replace(self, rooms=self.rooms | {room.name: room.holder})
