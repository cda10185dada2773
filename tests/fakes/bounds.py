"""The bounds that a hardened host would have for a plan, and the question whether the plan is within them."""

from __future__ import annotations

import functools
import json
from typing import Any

from cloudrepo.host.judge import Bounds, judge_plan
from cloudrepo.plan import Plan

HOME = "/home/ubuntu"


def bounds_for(installation: str, **other: Any) -> Bounds:
    """Those of a host of the documented cluster."""
    facts: dict[str, Any] = {
        "installation": installation,
        "account": "ubuntu",
        "home": HOME,
        "base_dir": f"{HOME}/vm_images",
        "bridge": "br-int",
        "users": ["ubuntu"],
        "uids": [],
        "vlans": [100, 4094],
        "internet": "10.60.7.0/24",
        "uplink": "",
        "trunks": ["eth1"],
    }
    return Bounds({**facts, **other})


def as_sent(plan: Plan) -> dict[str, Any]:
    """The plan as a host reads it."""
    sent: dict[str, Any] = json.loads(json.dumps({**plan.to_json(), "environment": {}}))
    return sent


def require_allowed(plan: Plan) -> None:
    """Fail when a hardened host of the documented cluster would refuse the plan."""
    judge_plan(as_sent(plan), _kept(plan.installation))


_kept = functools.cache(bounds_for)
