"""What is sent to a host, and what comes back: plain values, made and read without a host.

A `Plan` is one message to one host. It holds stages of steps; each step is one *act*: words run
without a shell, or one of a few plain acts (read or write a file, ask a QMP socket …). Building an
act runs nothing. `cloudrepo/host/runner/` is the other side; it knows the acts by the names in
their `ACT` and their fields by the names here, and nothing else of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

from cloudrepo.late_dataclass import dataclass

EVERYTHING = "*"  # the scope of a message that speaks for all of an installation on a host


@dataclass(frozen=True, kw_only=True)
class Act:
    """One thing a runner can do. `timeout_s` is its own deadline in seconds."""

    ACT: ClassVar[str] = ""
    timeout_s: float = 30.0

    def to_json(self) -> dict[str, Any]:
        """The act as the runner reads it."""
        return {"act": self.ACT, **vars(self)}


@dataclass(frozen=True, kw_only=True)
class Run(Act):
    """Run a tuple of words without a shell and collect both streams.

    Attributes:
        words: the command; `words[0]` is looked up in the runner's fixed PATH.
        stdin: text given to it.
        ok: exit statuses that are accepted.
        user: account it runs as (its uid, gid and groups); empty = the runner's own, which is root.
    """

    ACT: ClassVar[str] = "run"
    words: tuple[str, ...]
    stdin: str = ""
    ok: tuple[int, ...] = (0,)
    user: str = ""


@dataclass(frozen=True, kw_only=True)
class Spawn(Act):
    """Start a process that outlives the message: own session, no inherited files, stdin /dev/null.

    stdout and stderr go to `log` (created 0600, owned by `user`). The answer is the pid as text.
    It fails when the process has ended within `settle_s` seconds; `err` then holds the log's tail.
    `pid_file`, if given, is written by the runner (so it is root's, and the process cannot change it):
    the pid and the start time in clock ticks, one line. A later `Qmp` in the same message whose `log` is
    this log fails as soon as the process has ended, not at its deadline.
    """

    ACT: ClassVar[str] = "spawn"
    words: tuple[str, ...]
    log: str
    user: str = ""
    settle_s: float = 0.0
    pid_file: str = ""


@dataclass(frozen=True, kw_only=True)
class Qmp(Act):
    """Ask a QMP socket: wait until it answers, negotiate, run the commands in order.

    The answer (`out`) is a JSON list of the `return` values. A QMP error fails the step.
    `expect_uuid`: first `query-uuid` must give it, else the step fails. When the socket does not
    answer, `err` ends with the tail of `log`, if given: QEMU's last words.
    """

    ACT: ClassVar[str] = "qmp"
    socket: str
    commands: tuple[Mapping[str, Any], ...] = ()
    expect_uuid: str = ""
    log: str = ""


@dataclass(frozen=True, kw_only=True)
class WriteFile(Act):
    """Write a file whole: temporary file in the same directory, fsync if asked, rename."""

    ACT: ClassVar[str] = "write"
    path: str
    text: str
    mode: int = 0o600
    user: str = ""
    durable: bool = False


@dataclass(frozen=True, kw_only=True)
class ReadFile(Act):
    """Read a text file (at most 1 MiB). A missing file answers status 1 with empty `out`."""

    ACT: ClassVar[str] = "read"
    path: str
    ok: tuple[int, ...] = (0, 1)


@dataclass(frozen=True, kw_only=True)
class MakeDir(Act):
    """Make a directory and its missing parents; set mode and owner of the last one only."""

    ACT: ClassVar[str] = "mkdir"
    path: str
    mode: int = 0o700
    user: str = ""


@dataclass(frozen=True, kw_only=True)
class Remove(Act):
    """Remove exactly this file, symlink or (with `tree`) directory; content when it is not there.

    `within` must be a parent of `path` after resolving the parent's symlinks, else the step fails and
    nothing is removed. With `same_as`, `path` goes only if it is another name of that very file.
    """

    ACT: ClassVar[str] = "remove"
    path: str
    within: str
    tree: bool = False
    same_as: str = ""


@dataclass(frozen=True, kw_only=True)
class RemoveIfEmpty(Act):
    """Remove this directory; content when it is not there, or when something is in it, which then stays."""

    ACT: ClassVar[str] = "remove if empty"
    path: str


@dataclass(frozen=True, kw_only=True)
class RequireFile(Act):
    """A regular file must be at `path`; status 1 when there is none."""

    ACT: ClassVar[str] = "require"
    path: str


@dataclass(frozen=True, kw_only=True)
class PublishFile(Act):
    """Give `draft` its owner and mode, then a second name `path` by a hard link; status 1 when that is taken.

    Content when `path` is the draft's second name already, as a message leaves it that ended right after.
    With `ok` (0, 1) a taken name is content: owner and mode were set all the same.

    A hard link never replaces anything, not even a dangling symlink. A draft that is a symlink is refused.
    """

    ACT: ClassVar[str] = "publish"
    draft: str
    path: str
    user: str = ""
    mode: int = 0o600
    ok: tuple[int, ...] = (0,)


@dataclass(frozen=True, kw_only=True)
class AdoptFile(Act):
    """Make a file of ours of a draft that another account may have written, and may still have open.

    The draft must be a regular file; a symlink is refused. What another account wrote is copied (its blocks are shared
    where the file system can), so that nothing it does to the draft afterwards reaches `path`, and the copy must have
    the digest `sha256`. Owner, mode and modification time are set and all is on the disk before it gets its name.
    """

    ACT: ClassVar[str] = "adopt"
    draft: str
    path: str
    owner: str
    mode: int
    mtime_s: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class StopProcess(Act):
    """End one process that is provably ours, in stages, and wait until it is gone.

    Ours means: the pid in `pid_file` is alive (not a zombie), started when the file says so (if it does),
    and its command line holds the word `token` (a UUID, or the path of our configuration file, alone or
    between `=`, `,`, `:`). A missing pid file, a dead process or a foreign one is content: `gone`.
    Without a `pid_file` it is the process `pid` that started at `start` (clock ticks).
    Stages: QMP `system_powerdown` on `socket` and up to `grace_s` seconds (skipped when 0 or without
    socket), then QMP `quit` and `quit_s`, then SIGTERM without a socket, and SIGKILL. A stopped (SIGSTOP)
    process is found by its state and goes straight to SIGKILL after `quit_s`.
    `out` names the stage that ended it: `gone`, `powerdown`, `quit`, `term` or `kill`.
    """

    ACT: ClassVar[str] = "stop"
    pid_file: str
    token: str
    pid: int = 0
    start: int = 0
    socket: str = ""
    grace_s: float = 0.0
    quit_s: float = 2.0


@dataclass(frozen=True, kw_only=True)
class SignalProcess(Act):
    """Send one signal to a process that is provably ours (as in `StopProcess`); no process is a failure."""

    ACT: ClassVar[str] = "signal"
    pid_file: str
    token: str
    signal: str = "HUP"


@dataclass(frozen=True, kw_only=True)
class ObserveMachines(Act):
    """What lives in the machine directories `root`/vm-*: `out` is a JSON list, one object each.

    Keys: `dir`, `mark` (text of `mark` in it or null), `pid` (int or null), `alive` (bool: the process
    exists, is no zombie and its command line holds the uuid of the mark's second line), `start_time`
    (clock ticks, from /proc/PID/stat), `process_state` (letter), `uuid` and `status` (QMP `query-uuid`,
    `query-status`, null when the socket did not answer in 1 s). `pid_file` and `socket` are the names of
    these two in each directory.
    """

    ACT: ClassVar[str] = "machines"
    root: str
    pid_file: str = "pid"
    socket: str = "qmp"


@dataclass(frozen=True, kw_only=True)
class ObserveServers(Act):
    """What lives in the directories `root`/`prefix`*: `out` is a JSON list, one object each.

    Keys: `dir`, `files` (name → text, of those in `files`), `pid`, `alive` (the command line holds the path
    of the directory).
    """

    ACT: ClassVar[str] = "servers"
    root: str
    prefix: str
    files: tuple[str, ...] = ()
    pid_file: str = "pid"


@dataclass(frozen=True, kw_only=True)
class ObserveProcesses(Act):
    """Processes of the programs `names`: `out` is a JSON list, one object each.

    A program is known by the last part of the first word of its command line, or of the second one behind an
    interpreter. Keys: `pid`, `start` (clock ticks), `state` (letter), `words` (from the program on) and `namespace`
    (the named network namespace it is in, "" for the host's own, "?" for one without a name).
    """

    ACT: ClassVar[str] = "processes"
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ObserveDisks(Act):
    """What the disk directories `root`/vm-* say, and whether it is so: `out` is a JSON list, one object each.

    Keys: `dir`, `files` ({"mark.json": text or null}), and facts as of `ObserveFiles`: `disk` of the file the mark
    names, `kept` of the file `kept` in the directory, `base` of the image the mark names.
    """

    ACT: ClassVar[str] = "disks"
    root: str
    kept: str


@dataclass(frozen=True, kw_only=True)
class ObserveFiles(Act):
    """Facts of files: JSON object path → null or {size, mtime_ns, mode, uid, owner, file, kind: file|dir|link}.

    `owner` is the account's name; `file` is equal for two names of one file.

    `directory` non-empty: all entries directly in it are reported as well (names only of that directory).
    """

    ACT: ClassVar[str] = "files"
    paths: tuple[str, ...] = ()
    directory: str = ""


@dataclass(frozen=True, kw_only=True)
class ObserveNamespaces(Act):
    """For each named network namespace whose name starts with `prefix`, run the words in it.

    `out` is a JSON object name → {"status": int, "out": str, "err": str}. Names come from /run/netns.
    """

    ACT: ClassVar[str] = "namespaces"
    prefix: str
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Checksum(Act):
    """SHA-256 of a file, in hex, and its size: `out` is JSON {"sha256", "size"}; missing = status 1.

    `length` > 0: the digest is of the first `length` bytes only; `size` is the whole file's all the same.
    """

    ACT: ClassVar[str] = "checksum"
    path: str
    length: int = 0
    ok: tuple[int, ...] = (0, 1)


@dataclass(frozen=True, kw_only=True)
class MeasureDisk(Act):
    """Write so many bytes to the disk of a folder, or of its nearest parent that is there: `out` is JSON.

    Keys: `bytes`, `seconds` until they are on the disk. The file has no name at any time, so nothing can be left.
    """

    ACT: ClassVar[str] = "measure"
    path: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """One act with its words for a person.

    Attributes:
        name: how its answer is looked up afterwards; unique in the plan (for observations, the question).
        label: what a person reads, such as `add port tap_1001_eth1, VLAN 100`.
        act: what is done.
        vm_id: the machine it is for, if any; names the VM in an error.
    """

    name: str
    label: str
    act: Act
    vm_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The step as the runner reads it."""
        return {"name": self.name, "label": self.label, **self.act.to_json()}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps that run in order, `parallel` at a time.

    A `gate` is a name: before the stage begins the runner says it stands at the gate and waits until the
    orchestrator opens it (or ends the message). So a worker prepares while the network node makes VLANs.
    With `parallel` > 1, steps that share a `lane` (the text before the first `:` of their name) stay in order.
    """

    name: str
    steps: tuple[Step, ...]
    parallel: int = 1
    gate: str = ""

    def to_json(self) -> dict[str, Any]:
        """The stage as the runner reads it."""
        return {
            "name": self.name,
            "parallel": self.parallel,
            "gate": self.gate,
            "steps": [step.to_json() for step in self.steps],
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One message to one host.

    Attributes:
        installation: whose lock it takes and whose operation number it carries.
        operation: increasing number; the host refuses a lower one than it has seen. 0 = read only: no lock.
        scopes: what it speaks for: a slice, what all share, or everything (the default). Only messages with a
            common scope wait for each other, and only they make each other's numbers too low.
        seen: by scope, the host's count of changes when it was looked at; the host refuses when it has moved on.
        fence_dir: directory (absolute, on a disk that survives a reboot) with the locks and the highest numbers.
        stages: what is done, in order; the first failed step ends it.
        observe: what is looked at in the end, whether the stages failed or not.
        lease_s: the runner stops before its next step when it has heard nothing for so long.
        lock_wait_s: how long it waits for its scopes' locks before it refuses, naming the holder.
    """

    installation: str
    operation: int = 0
    scopes: tuple[str, ...] = (EVERYTHING,)
    seen: Mapping[str, int] = field(default_factory=dict)
    fence_dir: str = ""
    stages: tuple[Stage, ...] = ()
    observe: tuple[Step, ...] = ()
    lease_s: float = 15.0
    lock_wait_s: float = 60.0

    def to_json(self) -> dict[str, Any]:
        """The plan as the runner reads it."""
        return {
            "installation": self.installation,
            "operation": self.operation,
            "scopes": list(self.scopes),
            "seen": dict(self.seen),
            "fence_dir": self.fence_dir,
            "lease_s": self.lease_s,
            "lock_wait_s": self.lock_wait_s,
            "stages": [stage.to_json() for stage in self.stages],
            "observe": [step.to_json() for step in self.observe],
        }

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps that change something, in order."""
        return tuple(step for stage in self.stages for step in stage.steps)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step answered. `status` is an exit status; 124 = out of time, 255 = could not be run."""

    name: str
    label: str
    status: int
    out: str = ""
    err: str = ""
    accepted: bool = True
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """Something that just happened on a host, while a plan runs there.

    Attributes:
        host: its address.
        kind: `begin` or `end` of a step, or `gate`: the host stands at one (`name` is the gate's).
        name: the step's name.
        label: its words for a person.
        status: exit status; at `end` only.
        accepted: whether the answer was accepted; at `end` only.
        seconds: how long it took on the host; at `end` only.
    """

    host: str
    kind: str
    name: str
    label: str = ""
    status: int = 0
    accepted: bool = True
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PlanResult:
    """All that came back from one host.

    Attributes:
        host: its address.
        steps: answers by step name, in the order they came; steps that never ran are absent.
        observed: answers of the observation by step name.
        failed: the step that ended the plan, or None.
        aborted: why the plan ended early other than by a failed step (`gate closed`, `stopped`), or "".
    """

    host: str
    steps: dict[str, StepResult] = field(default_factory=dict)
    observed: dict[str, StepResult] = field(default_factory=dict)
    failed: StepResult | None = None
    aborted: str = ""

    @property
    def ok(self) -> bool:
        """Whether every step of every stage ran and was accepted."""
        return self.failed is None and not self.aborted
