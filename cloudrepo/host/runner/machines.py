"""What lives in the directories of machines, of servers and of disks."""

from __future__ import annotations

import json
import os

from cloudrepo.host.runner.base import DONE, in_parallel, to_json
from cloudrepo.host.runner.cgroups import held_by
from cloudrepo.host.runner.files import read_text
from cloudrepo.host.runner.looks import file_facts
from cloudrepo.host.runner.processes import proven, read_pid_file, state_and_start
from cloudrepo.host.runner.qmp import QmpError, ask_qmp, command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloudrepo.host.runner.base import Answer, Json


def directories(root: str, prefix: str) -> list[str]:
    """The directories in `root` whose names begin with `prefix`."""
    try:
        names = sorted(os.listdir(root))
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [os.path.join(root, name) for name in names if name.startswith(prefix)]
    return [path for path in paths if os.path.isdir(path) and not os.path.islink(path)]


def machine(act: Json, path: str) -> Json:
    """What is known of the machine in one directory."""
    mark = read_text(os.path.join(path, "mark"))
    uuid = (mark or "").partition("\n")[2].partition("\n")[0].strip()
    pid, start = read_pid_file(os.path.join(path, act["pid_file"]))
    state, began = state_and_start(pid) if pid else ("", 0)
    alive = bool(uuid and proven(pid, start, uuid))
    facts: Json = {"dir": path, "mark": mark, "pid": pid or None, "alive": alive, "start_time": began or None}
    facts.update(process_state=state or None, uuid=None, status=None, limits=held_by(act, path, pid))
    if alive and state not in ("T", "t"):
        try:
            socket_path = os.path.join(path, act["socket"])
            found, status = ask_qmp(socket_path, 1.0, command("query-uuid"), command("query-status"))
            facts.update(uuid=found.get("UUID"), status=status.get("status"))
        except QmpError:
            pass  # both stay null: the socket did not answer
    return facts


def act_machines(act: Json) -> Answer:
    """What lives in the machine directories."""
    found = in_parallel(lambda path: machine(act, path), directories(act["root"], "vm-"))
    return DONE, to_json(found), ""


def act_servers(act: Json) -> Answer:
    """What lives in the directories of servers."""
    found = []
    for path in directories(act["root"], act["prefix"]):
        pid, start = read_pid_file(os.path.join(path, act["pid_file"]))
        files = {name: read_text(os.path.join(path, name)) for name in act["files"]}
        alive = bool(pid and proven(pid, start, path))
        found.append({"dir": path, "files": files, "pid": pid or None, "alive": alive})
    return DONE, to_json(found), ""


def disk(path: str, kept: str) -> Json:
    """What the directory of one disk says, and whether it is so."""
    text = read_text(os.path.join(path, "mark.json"))
    try:
        fields = json.loads(text or "")
        named = {"disk": fields.get("disk"), "base": fields.get("base", {}).get("path_on_host")}
    except (ValueError, AttributeError):
        named = {}
    facts = {name: file_facts(each) for name, each in named.items() if isinstance(each, str) and each[:1] == "/"}
    facts["kept"] = file_facts(os.path.join(path, kept))
    return dict(dict({"disk": None, "base": None}, **facts), dir=path, files={"mark.json": text})


def act_disks(act: Json) -> Answer:
    """What the directories of disks say."""
    return DONE, to_json([disk(path, act["kept"]) for path in directories(act["root"], "vm-")]), ""
