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
#: What draws on terminals; each of these commands writes to a pipe.
RICH = {"rich"}
TYPER, FACADE, YAML = {"typer"}, {"orchestrator_api", "control.calls"}, {"yaml"}

#: Command; what it may not load besides HOSTS, OTHERS and RICH; what it may of these; the most modules, Python's too.
ROWS: tuple[tuple[str, set[str], set[str], int], ...] = (
    ("--version", TYPER | FACADE | YAML, set(), 65),
    ("--help", FACADE | YAML, set(), 195),
    ("vm --help", FACADE | YAML, set(), 175),
    ("completion bash", FACADE | YAML, set(), 170),
    ("__complete vm ", FACADE | YAML, set(), 170),
    ("__complete deploy ", FACADE, set(), 240),
    ("config show", FACADE, set(), 200),
    ("config show --json", FACADE, set(), 200),
    ("events", FACADE | YAML, set(), 175),
    ("state check --json", FACADE, set(), 235),
    ("slice list", set(), set(), 270),
    ("slice list --json", set(), set(), 270),
    ("vm list --json", set(), set(), 270),
    ("vm show 1001 --json", set(), set(), 270),
    ("link list 1000 --json", set(), set(), 275),
    ("user list --json", set(), set(), 270),
    ("image list --json", set(), set(), 275),
    ("status --no-wait", set(), set(), 275),
    ("status --no-wait --json", set(), set(), 275),
    ("topology validate examples/two-hosts.cloud.yml --json", FACADE, {"cloudrepo.topology"}, 230),
    ("user quota student0 --vms 70 --dry-run --json", set(), set(), 285),
    ("deploy 1000 --dry-run --json", {"paramiko", "invoke"}, HOSTS | {"cloudrepo.topology"}, 330),
)
#: Of rich, what lays out tables that are wider than the terminal, and what nothing here uses.
HEAVY = {"rich.table", "rich.markdown", "rich.traceback", "rich.progress", "rich.live", "pygments", "markdown_it"}
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
    # a dry run of something ends with 2; the hosts of this deploy may not be looked at, so SSH is not loaded
    status = 0 if "--dry-run" not in words else 1 if words[0] == "deploy" else 2
    assert process.returncode == status, process.stderr[-500:]
    assert found(modules, ((HOSTS | OTHERS | RICH) - needed) | unwanted) == set()
    assert len(modules) <= most, f"{len(modules)} modules; see what is new by: python -X importtime main.py {line}"


@pytest.mark.parametrize("line", ["slice list", "user list", "status --no-wait", "deploy --help"])
def test_on_a_terminal_rich_shows_colours_and_lays_out_no_table_that_fits(
    line: str, state: Path, tmp_path: Path
) -> None:
    told, variables = tmp_path / "told", {**environment(state), "COLUMNS": "250", "TERM": "xterm-256color"}
    ours, its = pty.openpty()
    with told.open("wb") as errors:
        process = subprocess.Popen(
            program(*line.split()), cwd=CHECKOUT, env=variables, stdin=its, stdout=its, stderr=errors
        )
    os.close(its)
    try:
        shown = until(ours, b"nothing that it says")  # so it is all
        assert process.wait(60) == 0, shown
    finally:
        process.kill()
        os.close(ours)
    modules = loaded(told.read_bytes())
    assert found(modules, (HOSTS | OTHERS | HEAVY)) == set()
    assert ("\x1b[1m" in shown) == ("rich" in modules) == ("--help" not in line), shown


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
    """What came up to a word, or to the end."""
    shown, end = b"", time.monotonic() + 60
    while word not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:  # the other side has closed it
                break
    return shown.decode(errors="replace")
