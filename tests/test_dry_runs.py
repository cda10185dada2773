"""`--dry-run`: every command that changes something has it; it changes nothing, and says what is then done."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from cloudrepo import record_changes
from cloudrepo.reconcile import Reconciler
from cloudrepo.settings import History
from cloudrepo.stores.generations import Generations
from control import plan_parts
from crashing import SLICE, Installation
from database import Database
from fakes.orchestrator import give_image
from test_cli_recovery import crash, installation, run
from test_cli_schemas import document, every_command
from worlds import give_disk

__all__ = ["installation"]  # the fixture

# ── no command is forgotten ─────────────────────────────────────────────────────────────────────────────

#: They change nothing, but for a file that they are told to write.
LOOKS = {
    *("status", "log", "events", "monitor", "config show", "completion", "console", "vnc", "path", "verify"),
    *("doctor access", "draw", "plan", "slice list", "slice show", "vm list", "vm show", "link list", "worker list"),
    *("user list", "image list", "state check", "state history", "state export", "lab status"),
    *("topology validate", "topology plan", "topology export", "topology draw", "topology convert", "topology schema"),
}
#: They change something, and why there is no rehearsal of it.
WITHOUT = {
    "menu": "it asks before each change, and shows it",
    "init": "it makes a directory of files that can be removed, and refuses one that is there",
    "exec": "what a program in a guest does, only that program knows",
    "demo": "a show that cleans up after itself",
    "test": "its words are pytest's, which has --collect-only",
    "bench": "it works in a folder of its own, which it removes",
    "lint": "it only reads; its words are other programs'",
    "worker add": "what is on a host that was never asked is not known; --bootstrap says what it changed, and goes on",
    "worker harden": "--print shows the very script",
    "state rebuild": "it refuses a state file with slices, and puts aside what there is",
    "lab up": "a lab is made anew at will",
    "lab down": "as `lab up`",
    "lab kill": "a lab's host is there to be killed",
    "lab boot": "as `lab kill`",
    "lab cut": "as `lab kill`",
    "lab heal": "as `lab kill`",
    "lab exec": "its words are another program's",
    "lab host": "its words are another program's",
}
#: Commands with `--dry-run` whose rehearsals other files hold against what is done.
ELSEWHERE = {
    "doctor": "test_cli_doctor.py, on hosts that have something to set right",
    "worker trust": "test_cli_workers.py, with a host that shows a key",
}


def with_dry_run() -> set[str]:
    return {name for name, command in every_command() if any("--dry-run" in one.opts for one in command.params)}


def test_every_command_that_changes_something_has_a_dry_run() -> None:
    """A new command has `--dry-run`, or stands above with a reason; one that has it is tried below."""
    names = {name for name, _ in every_command()}
    assert names - with_dry_run() == LOOKS | set(WITHOUT)
    assert not LOOKS & set(WITHOUT)
    assert with_dry_run() - set(ELSEWHERE) == {case.command for case in CASES}


# ── what is said is what is done ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Case:
    """One dry run.

    Attributes:
        command: its words.
        words: further ones.
        before: what leads to where it begins.
        real: words of the real thing alone, such as `--yes`.
    """

    command: str
    words: str
    before: Callable[[Installation], None] = lambda installation: None
    real: str = ""

    @property
    def given(self) -> list[str]:
        return [*self.command.split(), *self.words.split()]


def calls(*names: str) -> Callable[[Installation], None]:
    def before(installation: Installation) -> None:
        for name in names:
            installation.ok(name, "admin", SLICE)

    return before


def _stopped_vm(installation: Installation) -> None:
    installation.ok("deploy_slice", "admin", SLICE)
    installation.ok("stop_vm", "admin", SLICE, 1002)


def _student_with_slice(installation: Installation) -> None:
    installation.ok("create_slice", "student", "theirs")
    installation.ok("add_vm_to_slice", "student", 1003, "web", "cirros", 1)


def _worker_with_leftovers(installation: Installation) -> None:
    installation.ok("remove_vm", "admin", SLICE, 1002)
    give_disk(installation.hosts["10.0.10.2"], 1999, 1888)


def _drifted(installation: Installation) -> None:
    installation.ok("deploy_slice", "admin", SLICE)
    host = installation.hosts["10.0.10.1"]
    del host.devices[next(name for name in host.devices if name.startswith("tap_"))]


def _image_file(installation: Installation) -> None:
    file = installation.state.parent / "disk.qcow2"
    subprocess.run(("qemu-img", "create", "-q", "-f", "qcow2", str(file), "4M"), check=True)


def _image(installation: Installation) -> None:
    path = give_image(installation.api, "mine", "admin")
    assert path.exists()
    bases = installation.api.deployment_api.qcow_manager.bases
    image = installation.api.context.library.require("mine")
    for ip in ("10.0.10.1", "10.0.10.2"):
        on_host = bases.path_on(ip, "", image.sha256, image.file_name)
        installation.hosts[ip].files[on_host] = "base"


def _generation(installation: Installation) -> None:
    installation.api.db.save()
    Generations(installation.state, History()).keep(None, installation.state.read_bytes())
    installation.ok("create_slice", "admin", "later")


def _file(installation: Installation) -> None:
    text = "version: 1\nname: lab\nnodes:\n  vm1: {flavor: cirros, internet: true}\n  vm2: {flavor: cirros}\n"
    text += "  vm3: {flavor: cirros}\nlinks: [vm1:eth1 -- vm2:eth1]\n"
    (installation.state.parent / "lab.cloud.yml").write_text(text)


def _saved_plan(installation: Installation) -> None:
    assert run("plan", "lab", "-o", str(installation.state.parent / "lab.plan")) == 2


def _saved_plan_of_a_world_that_moved(installation: Installation) -> None:
    _saved_plan(installation)
    installation.ok("deploy_slice", "admin", SLICE)


CASES = (
    Case("deploy", "lab"),
    Case("stop", "lab", calls("deploy_slice")),
    Case("start", "lab", calls("deploy_slice", "stop_slice")),
    Case("delete", "lab", calls("deploy_slice")),
    Case("slice create", "two"),
    Case("slice remove", "lab"),
    Case("vm add", "lab vm3"),
    Case("vm start", "vm2", _stopped_vm),
    Case("vm stop", "vm2", calls("deploy_slice")),
    Case("vm remove", "vm2"),
    Case("vm remove", "vm2", calls("deploy_slice")),
    Case("link add", "lab vm1:eth1 vm2:eth1", lambda made: made.ok("remove_link", "admin", SLICE, 1)),
    Case("link set", "lab 1 --no-dhcp", calls("deploy_slice")),
    Case("link remove", "lab 1", calls("deploy_slice")),
    Case("resume", "lab", crash),
    Case("resume", "", crash),
    Case("rollback", "lab", crash),
    Case("apply", "{folder}/lab.plan", _saved_plan),
    Case("restart-policy", "vm1 always"),
    Case("cleanup", "", calls("deploy_slice"), "--yes"),
    Case("drift", "--fix", _drifted, "--yes"),
    Case("worker drain", "10.0.10.2"),
    Case("worker remove", "10.0.10.2", _worker_with_leftovers, "--yes"),
    Case("worker remove", "10.0.10.2 --force", calls("deploy_slice"), "--yes"),
    Case("user add", "ann --role instructor --vms 7 --generate"),
    Case("user remove", "student --give-slices-to admin", _student_with_slice),
    Case("user remove", "student"),
    Case("user passwd", "student --generate"),
    Case("user quota", "student --vms 7 --ram unlimited"),
    Case("user role", "student instructor"),
    Case("image add", "{folder}/disk.qcow2 --name mine", _image_file),
    Case("image remove", "mine", _image),
    Case("state restore", "1", _generation, "--yes"),
    Case("state use", "yaml", real="--yes"),
    Case("state use", "journal", real="--yes"),
    Case("topology apply", "{folder}/lab.cloud.yml", _file),
)


def folder_of(installation: Installation) -> dict[str, bytes]:
    """Every file beside the state file, byte for byte."""
    folder = installation.state.parent
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def world(installation: Installation) -> Any:
    """The files, the records in memory, and all hosts."""
    data = json.loads(json.dumps(installation.api.db.data, default=dict))
    placed = installation.api.round_robin_idx
    return copy.deepcopy((folder_of(installation), data, placed, installation.picture()))


@contextmanager
def noted(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[Any]]]:
    """What is done on hosts meanwhile, by host, as plans say it: of each object the last that is done to it."""
    done: dict[str, list[Any]] = {}
    genuine = Reconciler.apply

    def apply(self: Reconciler, *args: Any, **kwargs: Any) -> Any:
        outcome = genuine(self, *args, **kwargs)
        for ip, changes in outcome.changes.items():
            found = [plan_parts.action(change) for change in changes]
            about = {(one["kind"], one["name"]) for one in found}
            done[ip] = [one for one in done.get(ip, []) if (one["kind"], one["name"]) not in about] + found
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(Reconciler, "apply", apply)
        yield done


def in_order(actions: list[Any]) -> list[Any]:
    return sorted(actions, key=lambda one: (one["kind"], one["name"], one["verb"]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case.given))
def test_a_dry_run_changes_nothing_and_what_it_said_is_done(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: Case
) -> None:
    case.before(installation)
    words = [word.format(folder=installation.state.parent) for word in case.given]
    before, known = world(installation), record_changes.objects(installation.api.db.data)
    capsys.readouterr()
    assert run(*words, "--dry-run") == 2
    told = capsys.readouterr()
    assert told.out and not told.err.replace("1 operation not finished", "").count("Traceback")
    assert run(*words, "--dry-run", "--json") == 2
    found = document(case.command, capsys)
    assert world(installation) == before

    with noted(installation, monkeypatch) as done:
        assert run(*words, *case.real.split()) == 0
    (plan,) = found.get("plans") or [found.get("plan") or {}]
    if "hosts" in plan:
        planned = {one["host"]: in_order(one["actions"]) for one in plan["hosts"] if one["actions"]}
        copies = {ip: actions for ip, actions in planned.items() if actions[0]["kind"] == "image"}
        actual = {ip: in_order(actions) for ip, actions in done.items() if actions}
        assert planned == (actual or copies)
        for ip in copies:
            assert not any("mine.raw" in path for path in installation.hosts[ip].files)
    if plan.get("records"):
        after = Database(installation.state).data if case.command.startswith("state") else installation.api.db.data
        made = record_changes.between(known, record_changes.objects(after))
        assert made == [one for one in plan["records"] if not one["what"].startswith("image")]
    else:
        assert world(installation) != before


# ── refused as the real thing is ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("before", "words", "real"),
    [
        (None, "resume lab", ""),
        (None, "rollback lab", ""),
        (crash, "resume lab --gone 10.0.10.1", ""),
        (None, "restart-policy vm1 sometimes", ""),
        (None, "restart-policy vm9 always", ""),
        (None, "restart-policy vm1 always --as student", ""),
        (None, "user add admin --generate", ""),
        (None, "user add operator --generate", ""),
        (None, "user add ann --role king --generate", ""),
        (None, "user add ann --vms many --generate", ""),
        (None, "user remove nobody", ""),
        (None, "user remove admin", ""),
        (_student_with_slice, "user remove student", ""),
        (_student_with_slice, "user remove student --give-slices-to nobody", ""),
        (None, "user passwd nobody --generate", ""),
        (None, "user quota nobody --vms 1", ""),
        (None, "user quota student --vms -1", ""),
        (None, "user role student king", ""),
        (None, "user role admin student", ""),
        (None, "image add /nowhere", ""),
        (None, "image add /etc/passwd --name x", ""),
        (_image, "image add /etc/passwd --name mine", ""),
        (None, "image remove mine", ""),
        (None, "worker drain 10.9.9.9", ""),
        (None, "worker remove 10.9.9.9", "--yes"),
        (None, "worker remove 10.0.10.2", "--yes"),
        (None, "state restore 99", "--yes"),
        (None, "apply {folder}/none", ""),
        (_saved_plan_of_a_world_that_moved, "apply {folder}/lab.plan", ""),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_dry_run_is_refused_in_the_words_of_the_real_thing(
    installation: Installation, capsys: pytest.CaptureFixture[str], before: Any, words: str, real: str
) -> None:
    if before is not None:
        before(installation)
    given, was = words.format(folder=installation.state.parent).split(), world(installation)
    capsys.readouterr()
    assert run(*given, "--dry-run", "--json") == 1
    dry = json.loads(capsys.readouterr().out)["error"]
    assert world(installation) == was
    assert run(*given, *real.split(), "--json") == 1
    wet = json.loads(capsys.readouterr().out)
    said = wet.get("error") or wet["operations"][0]
    assert (dry["code"], dry["message"]) == (said["code"], said["message"])


def test_a_host_that_does_not_answer_is_said_and_is_status_1(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    crash(installation)
    installation.hosts["10.0.10.2"].is_up = False
    assert run("rollback", "lab", "--dry-run", "--json") == 1
    assert document("rollback", capsys)["error"]["code"] == "plan.incomplete"
    assert run("resume", "--dry-run") == 1
    assert "10.0.10.2" in capsys.readouterr().out


def test_what_is_so_already_is_nothing_to_do(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("user role student student", "worker drain 10.0.10.1 --undo", "restart-policy vm1 default"):
        assert run(*words.split(), "--dry-run") == 0
        assert "Nothing would be changed" in capsys.readouterr().out
    assert run("resume", "--dry-run") == 0
    assert "Nothing is unfinished." in capsys.readouterr().out


def test_the_quota_is_the_one_afterwards(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("user", "quota", "student", "--vms", "7", "--dry-run", "--json") == 2
    assert document("user quota", capsys)["plan"]["quota"]["vms"] == {"used": 0, "limit": 7}
    installation.ok("create_slice", "student", "theirs")
    installation.ok("add_vm_to_slice", "student", 1003, "web", "cirros", 1)
    capsys.readouterr()
    assert run("user", "remove", "student", "--give-slices-to", "admin", "--dry-run", "--json") == 2
    told = document("user remove", capsys)["plan"]["quota"]
    assert (told["user"], told["vms"]["used"]) == ("admin", 3), "two of his own, and that of the student"


def test_nothing_of_a_password_is_in_a_dry_run(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    """None is asked for, and none is made that anybody could take for the one."""
    assert run("user", "add", "ann", "--dry-run", "--json") == 2
    new = document("user add", capsys)["plan"]
    assert new["records"][0]["after"].keys() == {"role", "quota_vms"}
    assert run("user", "passwd", "student", "--generate", "--dry-run", "--json") == 2
    shown = capsys.readouterr().out
    assert json.loads(shown)["plan"]["records"] == [
        {"what": "user student", "key": "password", "before": "set", "after": "another"}
    ]
    assert "$2" not in shown and "first_password" not in shown
