"""What code that deals with images and workers asks of an executor; `RemoteExecutor` is the real one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from cloudrepo.errors import CloudError, MessageRefused
from cloudrepo.plan import Plan, PlanResult

log = logging.getLogger(__name__)


class Executor(Protocol):
    """Runs plans on hosts and brings files there."""

    def run_plan(self, host: str, plan: Plan) -> PlanResult:
        """Run one plan on one host."""
        ...

    def upload(
        self,
        host: str,
        local_path: str,
        remote_path: str,
        *,
        installation: str = "",
        progress: Callable[[int, int], None] | None = None,
        resume: bool = True,
    ) -> Any:
        """Copy a file of this machine to an absolute path on a host, going on where a cut copy ended."""
        ...

    def home(self, host: str) -> str:
        """The login account's home directory on a host, absolute."""
        ...

    def images_home(self, host: str) -> str:
        """What `~` means in the place of images on a host, absolute."""
        ...


class NextOperation(Protocol):
    """Gives operation numbers."""

    def __call__(self, above: int = 0) -> int:
        """A number greater than every one before, and than `above`, which a host has seen."""
        ...


def seen_by_hosts(errors: Iterable[CloudError]) -> int:
    """The highest operation number that hosts refused a message for; 0 when none did."""
    return max((int(error.details.get("seen", 0)) for error in errors), default=0)


def run_fenced(
    executor: Executor, host: str, make: Callable[[int], Plan], operation: NextOperation, patience_s: float = 60.0
) -> PlanResult:
    """Run a plan under its scopes' locks; with a new number when a later one of another process came first.

    Of many that add disks to one slice on one worker each passes after a few attempts: whoever is refused comes
    back with the highest number, which is also higher than what the host has seen.

    Raises:
        MessageRefused: it was refused for so long, or for another reason.
    """
    until = time.monotonic() + patience_s
    seen = 0
    while True:
        try:
            return executor.run_plan(host, make(operation(seen)))
        except MessageRefused as refusal:
            if refusal.code != "host.refused.operation" or time.monotonic() > until:
                raise
            log.debug("%s: trying again: %s", host, refusal)
            seen = seen_by_hosts([refusal])
