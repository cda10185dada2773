"""A plan: its acts by name, its stages and steps, and how it ends."""

from __future__ import annotations

import json
import os
import threading
import time

from cloudrepo.host.runner.base import NOT_RUN, environment, explain, in_parallel
from cloudrepo.host.runner.cgroups import act_confine, act_release
from cloudrepo.host.runner.fence import Fence, Refused
from cloudrepo.host.runner.file_acts import (
    act_adopt,
    act_mkdir,
    act_publish,
    act_read,
    act_remove,
    act_remove_if_empty,
    act_require,
    act_write,
)
from cloudrepo.host.runner.line import PIPE_CHUNK, Control
from cloudrepo.host.runner.lives import act_qmp, act_signal, act_spawn, act_stop
from cloudrepo.host.runner.looks import act_checksum, act_files, act_measure, act_namespaces, act_processes
from cloudrepo.host.runner.machines import act_disks, act_machines, act_servers
from cloudrepo.host.runner.spaces import act_devices
from cloudrepo.host.runner.switch import act_inject
from cloudrepo.host.runner.wire import act_emit, act_heard, act_listen
from cloudrepo.host.runner.words import act_run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudrepo.host.runner.base import Json

ACTS = {
    "run": act_run,
    "spawn": act_spawn,
    "qmp": act_qmp,
    "write": act_write,
    "read": act_read,
    "mkdir": act_mkdir,
    "remove": act_remove,
    "remove if empty": act_remove_if_empty,
    "require": act_require,
    "publish": act_publish,
    "adopt": act_adopt,
    "stop": act_stop,
    "signal": act_signal,
    "machines": act_machines,
    "servers": act_servers,
    "files": act_files,
    "namespaces": act_namespaces,
    "disks": act_disks,
    "processes": act_processes,
    "checksum": act_checksum,
    "measure": act_measure,
    "listen": act_listen,
    "inject": act_inject,
    "heard": act_heard,
    "emit": act_emit,
    "confine": act_confine,
    "release": act_release,
    "devices": act_devices,
}


class PlanRun:
    """One plan on its way: which steps ran, what ended it."""

    def __init__(self, plan: Json, control: Control) -> None:
        self.plan = plan
        self.control = control
        self.failed: list[int] = []  # numbers of failed steps
        self.numbers: dict[str, int] = {}
        self.names: list[str] = []
        for stage in plan["stages"]:
            for step in stage["steps"]:
                self.numbers[step["name"]] = len(self.names)
                self.names.append(step["name"])

    def run(self) -> Json:
        """Stages, then the observation; returns the last line."""
        ending = ""
        for stage in self.plan["stages"]:
            ending = (self.control.wait_gate(stage["gate"]) if stage["gate"] else "") or self.control.why_stop()
            if ending:
                break
            self.run_stage(stage)
            ending = self.control.why_stop() if self.is_unfinished(stage) else ""
            if self.failed or ending:
                break
        if not self.control.is_gone:
            in_parallel(lambda step: self.run_step(step, observe=True), self.plan["observe"])
        failed = self.names[min(self.failed)] if self.failed else None
        return {"event": "done", "failed": failed, "aborted": "" if failed else ending}

    def is_unfinished(self, stage: Json) -> bool:
        """Whether a later step than the last one of this stage exists, or one of it was not begun."""
        return not all(step.get("begun") for step in stage["steps"]) or stage is not self.plan["stages"][-1]

    def run_stage(self, stage: Json) -> None:
        """Lane by lane, `parallel` lanes at a time; in order when that is 1."""
        if stage["parallel"] <= 1:
            return self.run_lane(stage["steps"])
        lanes: dict[str, list[Json]] = {}
        for step in stage["steps"]:
            lanes.setdefault(step["name"].partition(":")[0], []).append(step)
        in_parallel(self.run_lane, list(lanes.values()), stage["parallel"])

    def run_lane(self, steps: list[Json]) -> None:
        """Steps one after another, until one fails anywhere or the orchestrator is gone."""
        for step in steps:
            if self.failed or self.control.why_stop():
                return
            step["begun"] = True
            self.control.say(event="begin", name=step["name"], label=step["label"])
            self.run_step(step)

    def run_step(self, step: Json, observe: bool = False) -> None:
        """Do one act and say how it ended."""
        began = time.monotonic()
        try:
            for guard in guards:
                guard(step)
            status, out, err = ACTS[step["act"]](step)
        except (OSError, KeyError, ValueError, TypeError) as error:
            status, out, err = NOT_RUN, "", explain(error)
        accepted = status in step.get("ok", (0,))
        if not accepted and not observe:
            self.failed.append(self.numbers[step["name"]])
        seconds = round(time.monotonic() - began, 6)
        self.control.say(
            event="end", observe=observe, name=step["name"], label=step["label"], status=status,
            out=out, err=err.strip(), accepted=accepted, seconds=seconds,
        )  # fmt: skip


def check_acts(plan: Json) -> None:
    """Refuse the whole message when it holds an act that this runner does not know."""
    steps = [step for stage in plan["stages"] for step in stage["steps"]] + plan["observe"]
    unknown = sorted({step["act"] for step in steps} - set(ACTS))
    if unknown:
        raise Refused("plan", f"unknown acts: {', '.join(unknown)}")


checks = [check_acts]  # what a plan must pass before anything of it is done; an installed helper adds its own
guards: list[Callable[[Json], None]] = []  # asked before each step, likewise


def run_plan(text: str, report: int) -> None:
    """Run the plan in `text` (JSON), write the last line to the pipe `report`, and end this process."""
    plan = json.loads(text)
    environment["HOME"] = os.path.expanduser("~")
    environment.update(plan.get("environment", {}))
    os.environ.clear()
    os.environ.update(environment)
    control = Control(plan["lease_s"])
    threading.Thread(target=control.listen, daemon=True).start()
    try:
        for check in checks:
            check(plan)
        fence = Fence(plan, control) if plan["operation"] else None
        if fence:
            fence.enter()
        last_line = PlanRun(plan, control).run()
        if fence:
            fence.leave()  # before the last line: who reads that may look at the host at once
    except Refused as refusal:
        last_line = refusal.event
    except BaseException as error:
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-1]
        last_line = {"event": "crashed", "text": f"{explain(error)} (line {where.lineno} of {where.name})"}
    if not control.is_gone:
        os.write(report, json.dumps(last_line).encode()[:PIPE_CHUNK])
    os._exit(0)  # at once: threads that wait for the orchestrator are not waited for
