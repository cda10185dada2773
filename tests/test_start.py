"""What a command does not need it does not load: that is most of the time between Enter and an answer.

Nothing is timed here; `./cloud bench commands` does that on a quiet machine. Each command is a process of its own, and
Python itself tells what it loads.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.storage import made
from database import Database

CHECKOUT = Path(__file__).resolve().parent.parent
STATE = "CLOUDREPO_STATE"
LOADED = re.compile(rb"import time:\s+\d+ \|\s+\d+ \|\s+(\S+)")

#: What acts on hosts, and the libraries that it needs.
HOSTS = {
    *("paramiko", "cryptography", "remote_executor", "deployment_api", "worker_discovery", "vlan_manager"),
    *("vm_launcher", "cloudrepo.site", "cloudrepo.plan", "cloudrepo.resources", "cloudrepo.images"),
}
#: What belongs to a few commands, to the menu, or to nobody here.
OTHERS = {
    *("networkx", "ruamel", "prompt_toolkit", "pycdlib", "bcrypt", "markdown_it", "pygments", "pydantic"),
    *("asyncio", "ssl", "http", "email", "importlib.metadata", "multiprocessing", "unittest", "xml"),
    *("cloudrepo.topology", "cloudrepo.verification", "cloudrepo.pictures", "cloudrepo.doctor"),
}
RICH, TYPER, FACADE, YAML = {"rich"}, {"typer"}, {"orchestrator_api", "control.calls"}, {"yaml"}

#: Command; what it may not load besides HOSTS and OTHERS; what it may of these; the most modules, Python's own too.
ROWS: tuple[tuple[str, set[str], set[str], int], ...] = (
    ("--version", RICH | TYPER | FACADE | YAML, set(), 75),
    ("--help", FACADE | YAML, {"markdown_it", "pygments"}, 370),
    ("vm --help", FACADE | YAML, {"markdown_it", "pygments"}, 355),
    ("completion bash", RICH | FACADE | YAML, set(), 180),
    ("__complete vm ", RICH | FACADE | YAML, set(), 180),
    ("__complete deploy ", RICH | FACADE, set(), 250),
    ("config show", FACADE, set(), 255),
    ("config show --json", RICH | FACADE, set(), 205),
    ("events", FACADE | YAML, set(), 240),
    ("state check --json", RICH | FACADE, set(), 245),
    ("slice list", set(), set(), 335),
    ("slice list --json", RICH, set(), 285),
    ("vm list --json", RICH, set(), 285),
    ("vm show 1001 --json", RICH, set(), 290),
    ("link list 1000 --json", RICH, set(), 285),
    ("user list --json", RICH, set(), 285),
    ("image list --json", RICH, set(), 290),
    ("status --no-wait", set(), set(), 340),
    ("status --no-wait --json", RICH, set(), 290),
    ("topology validate examples/two-hosts.cloud.yml --json", RICH | FACADE, {"cloudrepo.topology"}, 240),
    ("deploy 1000 --dry-run --json", set(), HOSTS | {"cloudrepo.topology"}, 390),
)
MOST_AT_LOGIN = 430


def loaded(process: bytes) -> set[str]:
    """What Python says it loaded (`-X importtime`)."""
    return {name.decode() for name in LOADED.findall(process)}


def found(modules: set[str], unwanted: set[str]) -> set[str]:
    """Those of the unwanted that are there, themselves or a part of them."""
    return {one for one in unwanted if any(name == one or name.startswith(f"{one}.") for name in modules)}


def program(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-X", "importtime", "main.py", *words)


def environment(state: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDREPO_")}
    return clean | {STATE: str(state), "CLOUDREPO_LAB_ONLY": "1"}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of ten VMs."""
    path = tmp_path_factory.mktemp("start") / "database.yaml"
    made.write(path, 10)
    return path


@pytest.mark.parametrize(("line", "unwanted", "needed", "most"), ROWS, ids=[row[0] for row in ROWS])
def test_a_command_loads_only_what_it_needs(
    line: str, unwanted: set[str], needed: set[str], most: int, state: Path
) -> None:
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    process = subprocess.run(program(*words), cwd=CHECKOUT, env=environment(state), capture_output=True, timeout=120)
    modules = loaded(process.stderr)
    assert process.returncode == (1 if "--dry-run" in words else 0), process.stderr[-500:]
    assert found(modules, ((HOSTS | OTHERS) - needed) | unwanted) == set()
    assert len(modules) <= most, f"{len(modules)} modules; see what is new by: python -X importtime main.py {line}"


def test_the_login_prompt_waits_for_neither_facade_nor_terminal_library(tmp_path: Path) -> None:
    """Of an installation that was never contacted: else the façade is loaded beside the person who types a name."""
    Database(tmp_path / "database.yaml").close()
    ours, its = pty.openpty()
    told = tmp_path / "told"
    with told.open("wb") as errors:
        process = subprocess.Popen(
            program(), cwd=CHECKOUT, env=environment(tmp_path / "database.yaml"), stdin=its, stdout=its, stderr=errors
        )
    os.close(its)
    try:
        assert "Username" in until(ours, b"Username")
        modules = loaded(told.read_bytes())
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    unwanted = (HOSTS | OTHERS | RICH | TYPER | FACADE) - {"prompt_toolkit", "asyncio", "ssl", "xml"}
    assert found(modules, unwanted) == set()
    assert len(modules) <= MOST_AT_LOGIN, len(modules)


def until(terminal: int, word: bytes) -> str:
    """What came up to a word."""
    shown, end = b"", time.monotonic() + 60
    while word not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 4096)
    return shown.decode(errors="replace")
