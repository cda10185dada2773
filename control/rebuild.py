"""The state file is gone: its records are made anew from the marks on the hosts."""

from __future__ import annotations

import functools
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cloudrepo.accounts import DEFAULT_USERS, hash_password
from cloudrepo.contradictions import contradictions
from cloudrepo.errors import CloudError, RefusedError
from cloudrepo.images import DIRECTORY_PREFIX
from cloudrepo.plan import ObserveFiles, Plan, Step
from cloudrepo.probe import Host
from cloudrepo.rebuilt import Rebuilt, candidates, rebuilt
from cloudrepo.reconcile import Reconciler
from cloudrepo.resources import HostState
from control.context import Context, Record

_QUOTA = 10


def rebuild(
    context: Context, hosts: Iterable[str] = (), *, installation: str | None = None, force: bool = False
) -> Record:
    """Make the records anew, and write them.

    The process must not go on with this installation afterwards: its marks may have another name now.

    Args:
        context: the installation whose state file is written.
        hosts: where to look; default the listed workers and the network node.
        installation: whose marks; default the only one that has something on the hosts.
        force: also where the state file has slices; it is copied aside first.

    Returns:
        `installation`, `hosts`, `slices` and `vms` (numbers), `unknown` (sentences), `first_passwords` (by user),
        `set_aside` (the copy, or "").

    Raises:
        CloudError: a host does not answer; two hosts contradict each other; nothing, or several installations were
            found; there are slices already. Nothing was written.
    """
    context.db.refresh()
    _refuse_slices(context, force=force)
    chosen = list(dict.fromkeys(hosts)) or list(
        dict.fromkeys([*context.db.data["workers_list"], context.settings.network.node])
    )
    found = _all_answer(context.site.hosts(chosen))
    states = _all_answer(context.site.reconciler.observe(found.values(), is_broad=True))
    names = candidates(states.values(), context.site.installation)
    name = _choose(_with_disks(context, list(found.values()), names), installation)
    ours = [replace(host, installation=name) for host in found.values()]
    reconciler = Reconciler(context.site.executor, installation=name)
    seen = _all_answer(reconciler.observe(ours, is_broad=True))
    _refuse_contradictions(seen)
    made = rebuilt(seen, context.settings.images.base_dir)
    set_aside = _set_aside(context) if force and context.db.data["slices"] else ""
    passwords = _write(context, made, chosen, name, force=force)
    context.db.save()  # whoever opens the file next finds one installation's in it
    return {
        "installation": name,
        "hosts": chosen,
        "slices": len(made.slices),
        "vms": made.vms,
        "unknown": made.unknown,
        "first_passwords": passwords,
        "set_aside": set_aside,
    }


def _refuse_slices(context: Context, *, force: bool) -> None:
    slices = context.db.data["slices"]
    if slices and not force:
        raise RefusedError(
            f"{context.db.path} is not rebuilt: it has slices",
            evidence=", ".join(f"{each['slice_id']} ({each['name']})" for each in list(slices.values())[:5]),
            remedy="`--force` puts it aside and writes what the hosts show; `./cloud drift` says where they differ",
            code="rebuild.slices",
        )


def _refuse_contradictions(states: Mapping[str, HostState]) -> None:
    """Of hosts that contradict each other one lies, or was copied. Which one, the records would have told."""
    found = list(contradictions(states))
    if found:
        raise RefusedError(
            f"the records are not rebuilt: {found[0].text}",
            evidence="; ".join(one.text for one in found[1:4]),
            remedy=f"Name with `--host` the hosts to believe, without {' or without '.join(found[0].hosts)}",
            code="rebuild.contradiction",
        )


def _all_answer(found: Mapping[str, Any]) -> dict[str, Any]:
    """All hosts, or the first that does not answer: what is on it would be missing from the records."""
    for ip, one in found.items():
        if isinstance(one, CloudError):
            raise RefusedError(
                f"the records are not rebuilt: {ip} cannot be looked at",
                evidence=str(one),
                remedy="Name the hosts that there are with `--host`, if it is gone for good",
                code="rebuild.host",
            )
    return dict(found)


def _with_disks(context: Context, hosts: list[Host], names: list[str]) -> list[str]:
    """Those of these installations that have a disk on a host; an image directory outlives its last disk."""

    def ask(host: Host) -> set[str]:
        steps = tuple(
            Step(
                name=name,
                label=f"look at {name}",
                act=ObserveFiles(directory=replace(host, installation=name).disks_root),
            )
            for name in names
        )
        answers = context.site.executor.run_plan(host.ip, Plan(installation=host.installation, observe=steps)).observed
        return {name for name in names if f"/{DIRECTORY_PREFIX}" in answers[name].out}

    found = _all_answer(context.site.executor.gather({host.ip: functools.partial(ask, host) for host in hosts}))
    return [name for name in names if any(name in each for each in found.values())]


def _choose(found: list[str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in found:
            raise RefusedError(
                f"installation {wanted} has nothing on the hosts",
                evidence=f"found were {', '.join(found) or 'none'}",
                code="rebuild.installation",
            )
        return wanted
    if len(found) != 1:
        raise RefusedError(
            "there is nothing on the hosts to rebuild from" if not found else "several installations are on the hosts",
            evidence=", ".join(found),
            remedy="Name one with `--installation`" if found else "Look for a copy of the state file",
            code="rebuild.installation",
        )
    return found[0]


def _set_aside(context: Context) -> str:
    """A copy of the state file, under a name that is free."""
    context.db.save()
    path = context.db.path
    for number in range(1, 1000):
        copy = path.with_name(f"{path.name}.before-rebuild-{number}")
        if not copy.exists():
            shutil.copyfile(path, copy)
            os.chmod(copy, 0o600)
            return str(copy)
    raise CloudError(f"{path} cannot be put aside", evidence="a thousand copies are there", code="rebuild.copy")


def _write(context: Context, made: Rebuilt, hosts: list[str], installation: str, *, force: bool) -> dict[str, str]:
    passwords: dict[str, str] = {}
    with context.db.transaction() as data:
        _refuse_slices(context, force=force)
        data["installation"] = installation
        data["operation"] = max(data["operation"], made.operation)
        data["slices"] = {key: dict(record) for key, record in made.slices.items()}
        data["placements"] = max(data["placements"], made.vms)
        data["workers_list"] = list(dict.fromkeys([*data["workers_list"], *_workers(made, hosts)]))
        for owner in made.owners:
            if owner not in data["users"]:
                data["users"][owner], passwords[owner] = _account(owner, made)
    return passwords


def _workers(made: Rebuilt, hosts: list[str]) -> list[str]:
    """Hosts that have VMs, in the order that was asked for."""
    used = {vm["worker_ip"] for record in made.slices.values() for vm in record["vms"]}
    return [ip for ip in hosts if ip in used]


def _account(name: str, made: Rebuilt) -> tuple[Record, str]:
    """An account with a first password, which its owner has to change."""
    shipped = DEFAULT_USERS.get(name)
    if shipped is not None:
        return dict(shipped), name
    password = secrets.token_urlsafe(9)
    vms = sum(len(record["vms"]) for record in made.slices.values() if record["owner"] == name)
    user = {
        "username": name,
        "password_hash": hash_password(password),
        "quota_vms": max(_QUOTA, vms),
        "used_vms": 0,
        "slices": [],
        "must_change_password": True,
    }
    return user, password
