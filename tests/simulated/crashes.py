"""Runs one operation of an orchestrator in a copy of a prepared world, lets something die at one point, and recovers.

The orchestrator is a process of its own (`Actor`), forked where everything is imported and nothing has been done
(`crash_workers.py`). Another one, which knows
nothing but the state file, recovers. What then is on the hosts and in the records is compared with what an operation
that nobody disturbed had left, or found.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from control.states import ERROR
from database import Database
from orchestrator_api import OrchestratorAPI
from simulated.leftovers import Known, fingerprint
from simulated.simulator import die_with_parent
from simulated.transport import Control
from simulated.world import HOSTS, Picture, World, open_installation

Work = Callable[[OrchestratorAPI], Any]
USER = "admin"
ACKNOWLEDGED = "acknowledged"  # a site of points: its caller has the answer
CANNOT_BE_ROLLED_BACK = "recovery.disk"
RESUME, ROLLBACK = "resume", "rollback"
AGAIN, DELETE = "again", "delete"  # what comes after a clean-up, which no slice's record tells of
REPEAT, DRIFT = "repeat", "drift"  # what comes after a link was set: its record says what is wanted from the first
#: Of a slice's record, what an operation and its recovery must agree on.
RECORD = ("status", "name", "owner", "topology_type", "vlan_pool_start", "vlan_pool_end", "links")
VM = ("vm_id", "name", "worker_ip", "status", "interfaces", "vnc_port", "qcow_image")
SLOW_S = 60  # nothing here waits for anything but work


@dataclass(frozen=True)
class Scenario:
    """An operation and the world it begins in.

    Attributes:
        name: for people.
        picture: the world before it.
        slice_id: the slice it works on.
        work: the call.
        before, after: what is there without it and with it, as `look` sees it.
        points: all points that it passes, by the site that counts them.
        back: where the second of the ways leads.
        ways: what a person may do about it when it was cut short by a kill: each leads from every point to one end.
        repeats: whether the caller who is told that it failed does it again. A slice whose deploy, start or stop failed
            is recorded so, and what is pending is cleared; of one VM the failure alone is.
    """

    name: str
    picture: Picture
    slice_id: int
    work: Work
    before: dict[str, Any]
    after: dict[str, Any]
    points: dict[str, list[str]]
    back: dict[str, Any]
    ways: tuple[str, str] = (RESUME, ROLLBACK)
    repeats: bool = False


@dataclass(frozen=True)
class Case:
    """One point, what happens there, and what is done about it.

    Attributes:
        site: who counts the point.
        label: of the point.
        index: how many points of that label come first.
        action: `kill` the orchestrator, `cut` the connections of the site's host, or take its `power`.
        ways: some of the scenario's, each tried on what the point left.
    """

    site: str
    label: str
    index: int
    action: str
    ways: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.action} at {self.site}, {self.label} [{self.index}]"

    @property
    def host(self) -> str:
        """The host that is cut or loses its power; empty for a site that is none."""
        return self.site if self.site in HOSTS else ""


def call(name: str, *args: Any, **more: Any) -> Work:
    """A call of the façade, and then the orderly end of its process."""
    return functools.partial(_call, name=name, args=args, more=more)


def _call(api: OrchestratorAPI, name: str, args: tuple[Any, ...], more: dict[str, Any]) -> Any:
    return _ended(api, name, *getattr(api, name)(USER, *args, **more))


def clean_up(api: OrchestratorAPI) -> Any:
    """A clean-up of all hosts, and then the orderly end of its process; one that missed a host is not done."""
    done, payload = api.cleanup()
    return _ended(api, "cleanup", done and not payload["unreachable"], payload)


def _ended(api: OrchestratorAPI, name: str, done: bool, payload: Any) -> dict[str, Any]:
    if done:
        api.executor.transport.control.ask("point", site=ACKNOWLEDGED, label=name)
    api.executor.close()
    api.db.close()
    return {"done": done, "said": str(payload)}


# ── orchestrators ───────────────────────────────────────────────────────────────────────────────────────


class Actor:
    """A process that has a world's installation, does one piece of work with it and answers its result.

    Args:
        world: the world.
        work: gets the façade; what it returns must be JSON.
        trap: how the process, by its id, is to meet its end; None = only points are counted.
    """

    def __init__(self, world: World, work: Work, trap: Callable[[int], dict[str, Any]] | None = None) -> None:
        reading, writing = os.pipe()
        wait, go = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(go)
            os.close(reading)
            _act(world, work, wait, writing)
        os.close(writing)
        os.close(wait)
        self._answer = reading
        world.control.ask("arm", **(trap(self.pid) if trap else {}))
        os.write(go, b".")
        os.close(go)

    def result(self) -> Any:
        """What it answered; None when it was killed before it could."""
        with open(self._answer, "rb") as pipe:
            text = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        if text:
            return json.loads(text)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "it ended by itself without an answer"
        return None


def _act(world: World, work: Work, wait: int, writing: int) -> None:
    """Be the process; never returns."""
    try:
        die_with_parent()
        os.read(wait, 1)
        _count_fsyncs(Control(world.directory / "control"))
        signal.alarm(SLOW_S)
        answer = json.dumps(work(open_installation(world)))
    except BaseException:
        answer = json.dumps({"crashed": traceback.format_exc()})
    try:
        os.write(writing, answer.encode())
        sys.stdout.flush()
    finally:
        os._exit(0)


def _count_fsyncs(control: Control) -> None:
    genuine = os.fsync

    def fsync(descriptor: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        name = "journal" if "journal" in name else "state" if ".yaml" in name else "folder"
        control.ask("point", site="state", label=f"before fsync {name}")
        genuine(descriptor)
        control.ask("point", site="state", label=f"after fsync {name}")

    os.fsync = fsync  # type: ignore[assignment]


# ── looking ─────────────────────────────────────────────────────────────────────────────────────────────


def look(world: World, slice_id: int) -> dict[str, Any]:
    """Hosts and the slice's record, without what is another each time."""
    path = world.installation / "database.yaml"
    db = Database(path)
    record = db.get_slice(slice_id)
    db.close()
    return {"hosts": world.look(), "record": record and _plain(record)}


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    plain = {key: record.get(key) for key in RECORD}
    plain["vms"] = [{key: vm.get(key) for key in VM} for vm in record["vms"]]
    return plain


def difference(wanted: Any, found: Any, where: str = "") -> Iterator[str]:
    """Where two plain values differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted({*wanted, *found}):
            yield from difference(wanted.get(key, "absent"), found.get(key, "absent"), f"{where}/{key}")
    elif wanted != found:
        yield f"{where}: {str(found)[:300]} instead of {str(wanted)[:300]}"


# ── one case ────────────────────────────────────────────────────────────────────────────────────────────


def rehearse(name: str, picture: Picture, slice_id: int, work: Work, *, back: Picture | None = None) -> Scenario:
    """The operation without disturbance: its points, and what is there before and after.

    Args:
        name: for people.
        picture: the world it begins in.
        slice_id: the slice it works on.
        work: the call.
        back: a world as a rollback leaves it, if that is not the one before.
    """
    with World(picture, shortcut=True) as world:
        before = look(world, slice_id)
        result = Actor(world, work).result()
        assert result and result.get("done") is True and ACKNOWLEDGED in world.control.ask("points")["points"], result
        points = world.control.ask("points")["points"]
        after = look(world, slice_id)
        assert world.control.ask("violations") == []
    with World(back or picture, shortcut=True) as world:
        return Scenario(name, picture, slice_id, work, before, after, points, look(world, slice_id))


def cases(scenario: Scenario, action: str) -> list[Case]:
    """Every point of the operation at which this can happen, each with what is done about it.

    A kill is followed by each of the scenario's ways, at every point. When a connection is cut or a host loses its
    power, the orchestrator lives and ends the operation by itself; what is pending is then resumed. `before` and
    `after` one call lead to the same world there: the runner lets what has begun end, and without power what was
    said of it is lost either way.
    """
    found = []
    for site, labels in sorted(scenario.points.items()):
        for number, label in enumerate(labels):
            is_before, index = label.startswith("before"), labels[:number].count(label)
            if action == "kill":
                found.append(Case(site, label, index, action, scenario.ways))
            elif site in HOSTS and (is_before or (action == "power" and number == len(labels) - 1)):
                found.append(Case(site, label, index, action, scenario.ways[:1]))
    return found


def run(scenario: Scenario, case: Case, known: Known) -> str:
    """Do it; what is wrong afterwards, or an empty text.

    What a crash left is copied once nothing runs on, so that each further way begins with the very same. Where another
    crash of this scenario left the same, what came of it is known.
    """
    try:
        with World(scenario.picture, shortcut=True) as world:
            crash = _crash(world, scenario, case)
            world.wait_for_runners()
            left = fingerprint(world, case.action == "kill", crash.is_acknowledged, crash.is_done)
            new = [way for way in case.ways if known.get(left, way) is None]
            if new[1:]:
                picture = world.take_picture()
            if new:
                known.put(left, new[0], list(_mend(world, scenario, case, crash, new[0])))
        for way in new[1:]:
            with World(picture, shortcut=True) as world:
                known.put(left, way, list(_mend(world, scenario, case, crash, way)))
        wrong = [f"then {way}: {text}" for way in case.ways for text in known.get(left, way) or ()]
        return "; ".join((*crash.problems, *wrong))
    except Exception:
        return traceback.format_exc()


@dataclass(frozen=True)
class Crash:
    """What came of an operation at whose point something died.

    Attributes:
        result: what it answered; None when it was killed.
        is_acknowledged: whether its caller had the answer.
        problems: what is wrong already.
    """

    result: Any
    is_acknowledged: bool
    problems: tuple[str, ...]

    @property
    def is_done(self) -> bool | None:
        """What it answered in one word."""
        return None if self.result is None else bool(self.result.get("done"))


def _crash(world: World, scenario: Scenario, case: Case) -> Crash:
    def trap(pid: int) -> dict[str, Any]:
        point = {"site": case.site, "label": case.label, "index": case.index}
        return {**point, "action": case.action, "pid": pid, "host": case.host}

    result = Actor(world, scenario.work, trap).result()
    passed = world.control.ask("points")
    problems = [] if passed["sprung"] else ["the point was not reached"]
    if result is not None and "crashed" in result:
        problems.append(result["crashed"])
    if case.action == "power":
        world.control.ask("power", host=case.host, on=True)
    return Crash(result, ACKNOWLEDGED in passed["points"], tuple(problems))


def _mend(world: World, scenario: Scenario, case: Case, crash: Crash, way: str) -> Iterator[str]:
    if way == REPEAT:
        repeated = Actor(world, scenario.work).result()
        if not repeated or not repeated.get("done"):
            yield f"it failed again: {repeated}"
        yield from difference(scenario.after, look(world, scenario.slice_id))
        yield from world.control.ask("violations")
        return
    recovery = Actor(world, lambda api: _recover(api, scenario.slice_id, way)).result()
    if recovery is None or "crashed" in recovery:
        yield f"the recovery crashed: {recovery}"
        return
    yield from recovery["problems"]
    acknowledged, result = crash.is_acknowledged, crash.result
    if scenario.repeats and result is not None and not result.get("done") and not recovery["did"]:
        repeated = Actor(world, scenario.work).result()
        acknowledged = bool(repeated and repeated.get("done"))
        if not acknowledged:
            yield f"it failed again: {repeated}"
    found = look(world, scenario.slice_id)
    wanted, why = _expected(scenario, case, acknowledged, recovery, found)
    differences = list(difference(wanted, found))
    if differences:
        yield f"{why}: " + ", ".join(differences[:5]) + f" (said: {recovery['said']}, then {result})"
    yield from world.control.ask("violations")


def _recover(api: OrchestratorAPI, slice_id: int, then: str) -> dict[str, Any]:
    """What a person does who finds something unfinished. What cannot be rolled back is resumed, as the refusal says."""
    if then in (AGAIN, DELETE):
        problems = []
        if then == DELETE:
            done, payload = api.delete_slice(USER, slice_id)
            problems += [] if done else [f"delete: {payload}"]
        # after a delete as well: it sends no message to a host that has nothing of the slice but an empty directory
        done, payload = api.cleanup()
        problems += [] if done and not payload["unreachable"] else [f"clean-up: {payload}"]
        api.executor.close()
        api.db.close()
        return {"problems": problems, "said": str(payload), "did": then}
    if then == DRIFT:
        done, payload = api.drift_fix()
        problems = [] if done and payload["after"]["differences"] == 0 else [f"drift: {payload}"]
        api.executor.close()
        api.db.close()
        return {"problems": problems, "said": "", "did": ""}
    done, unfinished = api.unfinished_operations()
    problems = [] if done else [str(unfinished)]
    did = then if unfinished else ""
    said = ""
    if unfinished:
        done, payload = getattr(api, then)(USER, slice_id)
        if not done and payload.code == CANNOT_BE_ROLLED_BACK:
            did = RESUME
            done, payload = api.resume(USER, slice_id)
        said = str(payload)
        problems += [] if done else [f"{did}: {payload}"]
        done, rest = api.unfinished_operations()
        problems += [f"still unfinished: {rest}"] if rest else []
    api.executor.close()
    api.db.close()
    return {"problems": problems, "said": said, "did": did}


def _expected(
    scenario: Scenario, case: Case, acknowledged: bool, recovery: dict[str, Any], found: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """What must be there: what was acknowledged; what recovery promises; else what the record says."""
    if recovery["did"] in (AGAIN, DELETE):
        return (scenario.after, "done again") if recovery["did"] == AGAIN else (scenario.back, "deleted")
    if acknowledged:
        return scenario.after, "acknowledged"
    if recovery["did"] and case.action == "kill":
        return (scenario.after, "resumed") if recovery["did"] == RESUME else (scenario.back, "rolled back")
    if case.action != "kill" and found["record"] and found["record"]["status"] == ERROR:
        # It failed and its caller was told so; what is left of it was cleared when the host was back.
        return {"hosts": scenario.after["hosts"], "record": found["record"]}, "failed"
    is_after = found["record"] == scenario.after["record"]
    return (scenario.after, "as if done") if is_after else (scenario.before, "as if never begun")
