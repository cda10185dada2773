"""The use cases behind the façade, each loaded when it is first called: a command that only lists starts sooner.

`late.drift.look(…)` is `control.drift.look(…)`. Several threads may ask: an import is done once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from control import (
        cleaning as cleaning,
        design as design,
        drift as drift,
        guests as guests,
        handover as handover,
        hardening as hardening,
        host_mending as host_mending,
        images as images,
        lifecycle as lifecycle,
        links as links,
        mending as mending,
        path as path,
        plan_parts as plan_parts,
        planning as planning,
        rebuild as rebuild,
        recovery as recovery,
        recovery_plans as recovery_plans,
        rehearsal as rehearsal,
        repair as repair,
        targets as targets,
        users as users,
        verify as verify,
        workers as workers,
    )
else:

    def __getattr__(name: str) -> Any:
        """A use case by the name of its module."""
        if name.startswith("_"):
            raise AttributeError(name)
        return importlib.import_module(f"control.{name}")
