"""Where it is measured: a lab of its own, the orchestrator's process, and the hosts' scripts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import yaml

from bench.deployment import documented, floor
from bench.deployment.slice import HOSTS, NETWORK_NODE, guests
from lab.cluster import Lab
from lab.environment import host_environment
from lab.layout import Options

CHECKOUT = Path(__file__).resolve().parents[2]
PINGER = Path(__file__).with_name("pinger.py")
SETTLE_S = 1.0  # after the last guest answered: its start-up scripts end
SCRIPT_S = 300.0
IMAGE = "cirros-0.6.2-x86_64-disk.img"


#: Names, numbers, addresses and paths in a command line of QEMU.
_ONE_MACHINES_OWN = re.compile(
    r"vm\d+|(?<=-uuid )\S+|(?<=127\.0\.0\.1:)\d+|/\S*?(?=/\w+\.(sock|log)|,)|(?<=ifname=)\w+|(?<=mac=)[0-9a-f:]+"
)


class Field:
    """A lab in a folder, and what is measured on it.

    Args:
        folder: a temporary folder; the caller removes it.
        installations: by name, the settings of each, beside those that the lab needs.

    Attributes:
        orchestrators: by the same names, a process each.
    """

    def __init__(self, folder: Path, installations: Mapping[str, dict[str, Any]]) -> None:
        self.folder = folder
        self.installations = installations
        self.lab = Lab(folder / "lab")
        self.base = ""
        self.orchestrators: dict[str, Driven] = {}

    def __enter__(self) -> Self:
        self.lab.up(Options(), with_parent=os.getpid())
        try:
            self._rooms = {host: self.lab.host_room(host) for host in HOSTS}
            for name, settings in self.installations.items():
                self.orchestrators[name] = Driven(self._start_orchestrator(name, settings))
            self._warm_up()
        except BaseException:
            self.lab.down(purge=True)
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            for orchestrator in self.orchestrators.values():
                orchestrator.close()
        finally:
            self.lab.down(purge=True)

    def home(self, installation: str) -> Path:
        """The directory of an installation."""
        return self.folder / installation

    def _start_orchestrator(self, name: str, settings: dict[str, Any]) -> subprocess.Popen[str]:
        home = self.home(name)
        home.mkdir()
        image = str(self.lab.folder.images / IMAGE)
        flavor = {"cores": 1, "ram_gb": 0.125, "disk_gb": 1, "image": image}
        whole = {"ssh": {"key": str(self.lab.folder.private_key)}, "flavors": {"cirros": flavor}, **settings}
        (home / "settings.yaml").write_text(yaml.safe_dump(whole))
        words = (sys.executable, "-m", "bench.deployment.orchestrator", str(home / "database.yaml"))
        environment = {**self.lab.environment(), "PYTHONPATH": str(CHECKOUT)}
        environment.pop("CLOUDREPO_STATE")
        process: subprocess.Popen[str] = self.lab.orchestrator_room().popen(
            words, cwd=str(CHECKOUT), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return process

    def _warm_up(self) -> None:
        """One unmeasured round each: the base image is on all hosts afterwards, and every connection stands."""
        for orchestrator in self.orchestrators.values():
            for act in ("discover", "design", "deploy", "delete"):
                orchestrator.do(act)
        found = self._run(HOSTS[0], f"ls {floor.IMAGES}/base/*.img")
        self.base = found.strip()

    # -- the floor and the documented sequence ---------------------------------------------------------

    def floor(self, stage: str, at_a_time: int = 1) -> float:
        """Run one stage of the floor on all hosts at once; seconds until the last has ended."""
        scripts = {host: floor.script(stage, host, base=self.base, at_a_time=at_a_time) for host in HOSTS}
        began = time.monotonic()
        with ThreadPoolExecutor(len(scripts)) as pool:
            list(pool.map(self._run, scripts, scripts.values()))
        return time.monotonic() - began

    def documented(self) -> float:
        """Run the documented sequence; its seconds. What it makes stays until the lab's end: nothing comes after it."""
        for host in HOSTS:
            self._run(host, f"mkdir -p {floor.IMAGES}/.floor {floor.RUN}")
        script = documented.script(self.base, str(self.lab.folder.private_key))
        began = time.monotonic()
        done = self.lab.exec(["bash", "-c", script], timeout=SCRIPT_S)
        assert done.returncode == 0, done.stderr
        return time.monotonic() - began

    def _run(self, host: str, text: str) -> str:
        words = ("bash", "-c", text)
        done = self._rooms[host].run(words, cwd="/root", env=host_environment(), timeout=SCRIPT_S)
        assert done.returncode == 0, f"{host}: status {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    # -- guests ----------------------------------------------------------------------------------------

    def wait_for_guests(self, addresses: Iterable[str] | None = None) -> None:
        """Until every guest answers a ping from the network node."""
        wanted = list(addresses or (guest.address for guest in guests()))
        words = ("/usr/bin/python3", "-I", "-S", "-c", PINGER.read_text(), *wanted)
        done = self._rooms[NETWORK_NODE].run(words, env=host_environment())
        assert done.returncode == 0, f"no answer from {done.stdout}{done.stderr}"

    def machine_options(self) -> list[list[str]]:
        """What every QEMU on the hosts was told, without the values that are one machine's own."""
        text = "for pid in $(pgrep qemu-system); do tr '\\0' ' ' </proc/$pid/cmdline; echo; done"
        lines = [line for host in HOSTS for line in self._run(host, text).splitlines() if line.strip()]
        return sorted(_ONE_MACHINES_OWN.sub("", line).split() for line in lines)


class Driven:
    """The orchestrator's process, told what to do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def do(self, name: str) -> dict[str, Any]:
        """Have one thing done; its answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": name}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the orchestrator ended with status {self.process.wait()}; its words are above"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Have it clean up and end."""
        if self.process.poll() is None:
            self.do("cleanup")
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait(30)
