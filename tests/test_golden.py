"""Golden cases: what each builder and parser must give, written from the tools' manuals and captured answers.

A file `golden/<module>.<function>.yaml` is a list of cases::

    why:    the reason, in a line
    input:  the function's arguments by name, or a list of them in order
    gives:  what it returns
    holds:  words, or pieces of text, that it returns among others
    raises: the name of what it raises instead; `nonsense` = anything that the probe reports as not understood

Tags make values: `!Port {…}` and so on for the classes of the project, `!mark "cloudrepo/…"`, `!captured FILE`
for a recorded answer, `!times [TEXT, N]`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudrepo import accelerator, plan, probe, resources, worker_facts
from cloudrepo.commands import confine, coreutils, dnsmasq, ovs, qemu, qemu_img
from cloudrepo.errors import HostError
from cloudrepo.naming import Mark, parse_mark

GOLDEN = Path(__file__).parent / "golden"
CLASSES = {
    kind.__name__: kind
    for kind in (
        *(resources.Tap, resources.Port, resources.Namespace, resources.Address, resources.DhcpServer),
        *(resources.Firewall, resources.Nic, resources.MachineSpec, resources.Machine, resources.Disk),
        *(resources.Wiring, resources.Closure, resources.Flows, resources.Meter, qemu.Started),
        *(
            confine.Limits,
            resources.HostFacts,
            dnsmasq.Lease,
            dnsmasq.Range,
            ovs.Bridge,
            qemu_img.ImageInfo,
            coreutils.DiskSpace,
        ),
        *(plan.StepResult, probe.Host, worker_facts.Question, worker_facts.WorkerFacts, accelerator.Proof),
    )
}
ERRORS: dict[str, Any] = {"nonsense": probe.NOT_UNDERSTOOD, "HostError": HostError, "ValueError": ValueError}
#: Functions that have no file of their own, and why.
ELSEWHERE = {
    "cloudrepo.probe.read": "its answers are those of the parsers; tests/test_probe.py",
    "cloudrepo.probe.questions": "tests/test_probe.py",
    "cloudrepo.probe.require_bridge": "tests/test_vm_launcher.py",
    "cloudrepo.probe.first_question": "tests/test_probe.py",
    "cloudrepo.worker_facts.probe": "tests/test_worker_discovery.py",
    "cloudrepo.worker_facts.read": "tests/test_worker_discovery.py",
    "cloudrepo.worker_facts.record": "tests/test_worker_discovery.py",
    "cloudrepo.worker_facts.diagnose": "tests/test_worker_discovery.py, tests/test_doctor_hosts.py",
    "cloudrepo.worker_facts.problems": "tests/test_worker_discovery.py",
}
COVERED = (
    *(
        "commands.ovs",
        "commands.confine",
        "commands.openflow",
        "commands.iproute",
        "commands.iptables",
        "commands.dnsmasq",
        "commands.qemu",
    ),
    *("commands.qemu_img", "commands.coreutils", "worker_facts", "probe", "naming"),
)


class Loader(yaml.SafeLoader):
    """YAML with the tags above."""


def _construct(loader: Loader, suffix: str, node: yaml.Node) -> Any:
    if suffix == "mark":
        return _mark(loader.construct_scalar(node))  # type: ignore[arg-type]
    if suffix == "captured":
        return (GOLDEN / "captured" / str(loader.construct_scalar(node))).read_text()  # type: ignore[arg-type]
    if suffix == "times":
        text, count = loader.construct_sequence(node, deep=True)  # type: ignore[arg-type]
        return text * count
    fields = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    return CLASSES[suffix](**{str(name): _frozen(value) for name, value in fields.items()})


Loader.add_multi_constructor("!", _construct)


def _mark(text: str) -> Mark:
    mark = parse_mark(text)
    assert mark is not None, text
    return mark


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """The value with lists for tuples, and a dictionary with its class's name for an object."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def cases() -> list[Any]:
    found = []
    for path in sorted(GOLDEN.glob("*.yaml")):
        name = path.name.removesuffix(".yaml")
        for number, case in enumerate(yaml.load(path.read_text(), Loader)):  # noqa: S506 - a SafeLoader
            found.append(pytest.param(name, case, id=f"{name}-{number}"))
    return found


def function(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"cloudrepo.{module}"), attribute)


@pytest.mark.parametrize(("name", "case"), cases())
def test_golden(name: str, case: dict[str, Any]) -> None:
    assert case["why"] and case.keys() <= {"why", "input", "gives", "holds", "lacks", "raises"}
    assert case.keys() & {"gives", "holds", "lacks", "raises"}
    given = case.get("input", {})
    positional, named = ([_frozen(one) for one in given], {}) if isinstance(given, list) else ([], given)
    call = function(name)
    if "raises" in case:
        with pytest.raises(ERRORS[case["raises"]]):
            call(*positional, **named)
        return
    answer = plain(call(*positional, **named))
    if "gives" in case:
        assert answer == plain(case["gives"]), case["why"]
    for piece in case.get("holds", []):
        assert piece in answer, case["why"]
    for piece in case.get("lacks", []):
        assert not any(piece in word for word in answer), case["why"]


@pytest.mark.parametrize("module", COVERED)
def test_every_builder_and_parser_has_golden_cases(module: str) -> None:
    """A public function of these modules without a file would be one that nothing holds to its tool's manual."""
    loaded = importlib.import_module(f"cloudrepo.{module}")
    public = [
        name
        for name, value in vars(loaded).items()
        if callable(value)
        and not name.startswith("_")
        and not isinstance(value, type)
        and getattr(value, "__module__", "") == loaded.__name__
    ]
    missing = [
        name
        for name in public
        if not (GOLDEN / f"{module}.{name}.yaml").exists() and f"cloudrepo.{module}.{name}" not in ELSEWHERE
    ]
    assert public and not missing
