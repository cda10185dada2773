"""Plans of topology files that are kept, and applied later if neither file nor slice has moved.

A kept plan has the file's text in it: what is applied is what was planned. The file is looked at once more, since a
person who changed it means the new one. What a plan says is worked out anew from text and slice, and compared.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cloudrepo.errors import RefusedError
from cloudrepo.topology.difference import Action
from control.plan_records import digest_of
from control.topology import Plan

VERSION = 1
KIND = "topology"
REMEDY = "Make a new one: ./cloud topology plan FILE -o PLAN"
_MOST_TOLD = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Basis:
    """What a plan is made of, beside the slice.

    Attributes:
        user: who acts.
        file: the absolute path of the topology file; "" = it was read from a pipe.
        text: what it holds.
        variables: values from the command line.
        replace: machines that may be made anew.
    """

    user: str
    file: str
    text: str
    variables: Mapping[str, Any]
    replace: Sequence[str]


def kept(found: Plan, basis: Basis, name: str, record: Mapping[str, Any] | None, installation: str) -> dict[str, Any]:
    """A plan as it is kept.

    Args:
        found: the plan.
        basis: what it is made of.
        name: the slice's.
        record: of the slice; None = there is none yet.
        installation: whose hosts it is about.

    Returns:
        `version`, `kind`, `made` (ISO 8601), `installation`, the basis, `slice_id`, `name`, `record` (a digest of the
        slice's record, "" for none), `actions` (as `topology plan` shows them), `digest` (of all that they say).
    """
    actions = found.difference.actions
    return {
        "version": VERSION,
        "kind": KIND,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "installation": installation,
        **{**dataclasses.asdict(basis), "replace": list(basis.replace), "variables": dict(basis.variables)},
        "slice_id": found.view["slice_id"] if found.view is not None else None,
        "name": name,
        "record": digest_of(record) if record is not None else "",
        "actions": [action.to_dict() for action in actions],
        "digest": _digest(actions),
    }


def _digest(actions: Sequence[Action]) -> str:
    """All that the actions say, machines and their first boot too, in a few characters."""
    said = [dataclasses.asdict(one) for one in actions]
    for one in said:
        if one["wish"]:
            del one["wish"]["place"]  # where it stands in the file
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def basis_of(saved: Mapping[str, Any], installation: str) -> Basis:
    """What a kept plan is made of.

    Raises:
        RefusedError: it is no plan of a topology file, of another installation, or of another version.
    """
    problem = ""
    if saved.get("kind") != KIND:
        problem = f"it is one of {saved.get('kind')!r}; ./cloud apply applies those of slices"
    elif saved.get("version") != VERSION:
        problem = f"its version is {saved.get('version')!r}, and {VERSION} can be read"
    elif saved.get("installation") != installation:
        problem = f"it is of installation {saved.get('installation')!r}"
    else:
        unread = [key for key, kind in _KINDS.items() if not isinstance(saved.get(key), kind)]
        unread += ["slice_id"] if isinstance(saved.get("slice_id"), bool) else []
        unread += ["replace"] if not all(isinstance(one, str) for one in saved.get("replace") or ()) else []
        unread += ["actions"] if not all(map(_is_action, saved.get("actions") or ())) else []
        problem = f"its {unread[0]} cannot be read" if unread else ""
    if problem:
        text = "this is no plan of a topology file that can be applied"
        raise RefusedError(text, evidence=problem, remedy=REMEDY, code="plan.file")
    return Basis(**{field.name: saved[field.name] for field in dataclasses.fields(Basis)})


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("user", "file", "text", "name", "record", "digest"), str),
    **{"variables": dict, "replace": list, "actions": list, "slice_id": int | None},
}


def _is_action(one: Any) -> bool:
    return isinstance(one, Mapping) and isinstance(one.get("text"), str)


def what_moved(saved: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[str]:
    """What is another thing now than in a kept plan, in sentences; pure.

    Args:
        saved: the plan, checked by `basis_of`.
        fresh: one made now of the same text.
    """
    before, now = saved["slice_id"], fresh["slice_id"]
    if before is None and now is not None:
        return [f"slice {now}, named {fresh['name']}, was made"]
    moved = [f"the record of slice {now} changed"] if saved["record"] != fresh["record"] else []
    if saved["digest"] != fresh["digest"]:
        were, are = ([one["text"] for one in plan["actions"]] for plan in (saved, fresh))
        other = [f"+ {text}" for text in are if text not in were] + [f"- {text}" for text in were if text not in are]
        moved.append("other changes are needed" + (f": {'; '.join(other[:_MOST_TOLD])}" if other else ""))
    return moved


def stale(moved: Sequence[str]) -> RefusedError:
    """Why a kept plan is not applied."""
    evidence = "since it was made, " + "; ".join(moved)
    details = {"moved": list(moved)}
    return RefusedError("the plan is not applied", evidence=evidence, remedy=REMEDY, code="plan.stale", details=details)
