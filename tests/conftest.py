"""What every test stands on: no test touches a real network, and lab tests run or say why not."""

from __future__ import annotations

import gc
import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from simulated.simulator import die_with_parent

pytest.register_assert_rewrite("transport_conformance")  # tests are in it, and it is no test file itself
os.environ["CLOUDREPO_LAB_ONLY"] = "1"  # the executor then refuses every address outside a lab
# Tests start hundreds of processes of the project, and each would compile it all again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

LAB_TOOLS = ("ip", "ovs-vsctl", "dnsmasq", "iptables", "qemu-system-x86_64", "qemu-img", "sshd")
LAB_PLACES = ("tests/lab_infra/", "tests/on_lab/", "tests/test_tools_agree.py")
# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
    "suite",
    hypothesis.settings.get_profile(hypothesis.settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")

SPARE_FILES = 16  # in a temporary folder
SPARE_DESCRIPTORS = 3  # what a process opens once and keeps: a nursery of simulated hosts, a library's own
REMEDY = "run `sudo ./cloud test`, which also installs what is missing"


def pytest_configure(config: pytest.Config) -> None:
    """A process of several (`pytest -n`) ends with the one that gave it its tests, however that ends.

    A shell lets what it begins in the background ignore Ctrl-C, and so all that this begins: tests send it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        die_with_parent()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several processes half have labs, each its own, and take whole files; what has no lab goes test by test.

    Lab tests mostly wait for guests that boot, so those beside them use the time. Who has nothing else to do takes
    what is left of the other kind.
    """
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class FewLabs(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.partition("::")[0] if is_on_lab(nodeid) else nodeid

        def _assign_work_unit(self, node: Any) -> None:
            has_lab = node in self.nodes[: (self.numnodes + 1) // 2]
            scope = next((scope for scope in self.workqueue if is_on_lab(scope) == has_lab), None)
            if scope is not None:
                self.workqueue.move_to_end(scope, last=False)
            super()._assign_work_unit(node)

    return FewLabs(config, log)


def is_on_lab(nodeid: str) -> bool:
    """Whether a test, or all of a file, is where lab tests are."""
    return nodeid.startswith(LAB_PLACES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hold lab tests to their markers and places, and skip them with the remedy where they cannot run."""
    obstacle = lab_obstacle()
    for item in items:
        if item.get_closest_marker("lab") is None:
            continue
        if not is_on_lab(item.nodeid):
            raise pytest.UsageError(f"{item.nodeid}: lab tests are in {', '.join(LAB_PLACES)}")
        if item.get_closest_marker("cost") is None:
            raise pytest.UsageError(f"{item.nodeid}: a lab test declares its cost: @pytest.mark.cost(seconds=…)")
        if obstacle and os.environ.get("CI") != "true":
            item.add_marker(pytest.mark.skip(reason=f"not run, {obstacle}; {REMEDY}"))


def lab_obstacle() -> str:
    """Why the lab cannot be made here, or an empty text."""
    if os.geteuid() != 0:
        return "the lab needs root"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [tool for tool in LAB_TOOLS if shutil.which(tool, path=path) is None]
    return f"the lab needs {', '.join(missing)}" if missing else ""


@pytest.fixture(autouse=True, scope="module")
def no_descriptors_left() -> Iterator[None]:
    """What the tests of a module opened is closed when they have ended; the threads of a connection take a moment."""
    before = descriptors()
    yield
    until = time.monotonic() + 15
    while (left := descriptors() - before) and not are_few(left) and time.monotonic() < until:
        gc.collect()
        time.sleep(0.05)
    assert are_few(left), f"left open: {dict(left)}"


def are_few(left: Counter[str]) -> bool:
    """Whether what is open is no more than is known: the log records of a module's last test keep what they tell of."""
    files = Counter({name: count for name, count in left.items() if name.startswith(tempfile.gettempdir())})
    return (left - files).total() <= SPARE_DESCRIPTORS and files.total() <= SPARE_FILES


def descriptors() -> Counter[str]:
    """What this process has open, by kind or path, and how often."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            found[os.readlink(f"/proc/self/fd/{name}").partition("[")[0]] += 1
        except FileNotFoundError:
            pass  # that of this very look
    return found


@pytest.fixture(autouse=True)
def no_real_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every connection of a quick test to anything but this machine's loopback."""
    if request.node.get_closest_marker("lab") is not None:
        yield
        return

    for name in ("connect", "connect_ex"):
        genuine = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any, *, _genuine: Any = genuine) -> Any:
            refuse_beyond_loopback(self.family, address)
            return _genuine(self, address)

        monkeypatch.setattr(socket.socket, name, guarded)
    yield


def refuse_beyond_loopback(family: int, address: Any) -> None:
    """Raise AssertionError unless `address` is a Unix socket or on loopback."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = str(address[0])
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    assert loopback, f"a quick test tried to reach {host}; only loopback is allowed"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of passwords in four rounds: the product's twelve take 0.2 s of a processor each."""
    import bcrypt

    genuine = bcrypt.gensalt
    monkeypatch.setattr(bcrypt, "gensalt", lambda rounds: genuine(4))


@pytest.fixture(autouse=True)
def documented_flavors() -> Iterator[None]:
    """Each test begins with the documented flavors; an installation's own settings replace them."""
    from cloudrepo.settings import DEFAULT_FLAVORS
    from models import Flavor

    Flavor.use(DEFAULT_FLAVORS)
    yield


@pytest.fixture(autouse=True)
def no_open_databases() -> Iterator[None]:
    """What a test left open is not closed by another one that runs a whole command."""
    yield
    if "database" in sys.modules:
        sys.modules["database"]._open_ones.clear()
