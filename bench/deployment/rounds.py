"""The rounds: what is measured, in which order, and what came out."""

from __future__ import annotations

import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.deployment.field import SETTLE_S, Field
from bench.deployment.start_up import seconds_to_prompt

PRODUCT, OTHER_ORDER = "product", "other-order"
INSTALLATIONS: Mapping[str, dict[str, Any]] = {PRODUCT: {}, OTHER_ORDER: {"deploy": {"order": "parallel"}}}
AT_A_TIME = (1, 2, 3, 4)


@dataclass
class Results:
    """All samples in seconds, by the name of what was measured, and single facts."""

    samples: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    messages: dict[str, dict[str, int]] = field(default_factory=dict)
    peak_mib: float = 0.0
    rounds: int = 0

    def median(self, name: str) -> float:
        """The median of one thing."""
        return statistics.median(self.samples[name])

    def best(self, row: str) -> int:
        """How many QEMUs at a time were best for the floor in a row, by its median."""
        return min(AT_A_TIME, key=lambda count: self.median(f"floor.{row}.{count}"))


class Rounds:
    """Measures on a field.

    Args:
        field: the lab with its orchestrators.
        say: told of each sample.
    """

    def __init__(self, field: Field, say: Callable[[str], None]) -> None:
        self.field = field
        self.say = say
        self.results = Results()

    def run(self, rounds: int, *, documented: bool) -> Results:
        """All rounds, interleaved; then what is measured once."""
        for number in range(1, rounds + 1):
            self.say(f"round {number} of {rounds}")
            self._prompt()
            self._product()
            self._other_order()
            for count in AT_A_TIME:
                self._floor(count, is_pinged=count == self._pinged())
            self.results.rounds = number
        self.results.peak_mib = self.field.orchestrators[PRODUCT].do("memory")["peak_mib"]
        if documented:
            self._note("documented.all", self.field.documented())
        return self.results

    def _pinged(self) -> int:
        """The floor whose guests are waited for: the best so far."""
        return self.results.best("deploy") if self.results.rounds else 2

    def _product(self) -> None:
        orchestrator = self.field.orchestrators[PRODUCT]
        design = orchestrator.do("design")["seconds"]
        began = time.monotonic()
        deploy = orchestrator.do("deploy")
        self._note("product.deploy", deploy["seconds"])
        self._note("product.all", design + deploy["seconds"])
        options = self.field.machine_options()
        self.field.wait_for_guests(orchestrator.do("addresses")["addresses"])
        self._note("product.ping", time.monotonic() - began)
        time.sleep(SETTLE_S)
        delete = orchestrator.do("delete")
        self._note("product.delete", delete["seconds"])
        self.results.messages = {"deploy": deploy["messages"], "delete": delete["messages"]}
        self.options = options

    def _other_order(self) -> None:
        orchestrator = self.field.orchestrators[OTHER_ORDER]
        orchestrator.do("design")
        self._note("product.deploy.parallel", orchestrator.do("deploy")["seconds"])
        orchestrator.do("delete")

    def _floor(self, count: int, *, is_pinged: bool) -> None:
        disks = self.field.floor("disks")
        began = time.monotonic()
        deploy = self.field.floor("up", count)
        self._note(f"floor.deploy.{count}", deploy)
        self._note(f"floor.all.{count}", disks + deploy)
        if not is_pinged:
            self.field.floor("down")
            return
        found = self.field.machine_options()
        other = {" ".join(words) for words in found} ^ {" ".join(words) for words in self.options}
        assert found == self.options, "the floor's machines have other options than ours:\n" + "\n".join(sorted(other))
        self.field.wait_for_guests()
        self._note("floor.ping", time.monotonic() - began)
        time.sleep(SETTLE_S)
        self._note("floor.delete", self.field.floor("down"))

    def _prompt(self) -> None:
        """On a copy of the state, so that nothing else looks at the hosts."""
        home = self.field.home("prompt")
        home.mkdir(exist_ok=True)
        for name in ("database.yaml", "settings.yaml", "known_hosts"):
            shutil.copy2(self.field.home(PRODUCT) / name, home / name)
        self._note("prompt", seconds_to_prompt(self.field.lab.orchestrator_room(), home / "database.yaml"))

    def _note(self, name: str, seconds: float) -> None:
        self.results.samples[name].append(seconds)
        self.say(f"  {name:32} {seconds:7.3f} s")
