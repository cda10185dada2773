"""Workers come and go: made ready over SSH, kept free of new VMs, taken out of the installation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudrepo import worker_facts
from cloudrepo.errors import CloudError, HostError, RefusedError
from cloudrepo.host.message import HELPERS_HOME, encode
from cloudrepo.images import resolve
from cloudrepo.placement import DRAINED
from cloudrepo.reconcile import View
from cloudrepo.state import all_slices
from cloudrepo.validation import excerpt
from control import cleaning, hardening, host_images
from control.context import Context, Record

PROGRAMS = {**{program: package for program, package in worker_facts.PACKAGES.values()}, "setpriv": "util-linux"}


# -- coming ------------------------------------------------------------------------------


def bootstrap(context: Context, ip: str, *, uplink: str = "", admin: str = "", datapath: str = "") -> dict[str, Any]:
    """Install and set up on a host what a worker needs; what is as it should be stays.

    Args:
        context: the installation.
        ip: the host; it need not be enrolled.
        uplink: the device to the other hosts; "" = the bridge keeps what it has.
        admin: the account that is root there; "" = the one that we log in with.
        datapath: of a bridge that is made: `system` or `netdev`; "" = by whether the kernel has the module.

    Returns:
        `changed` and `warnings`, a line each.

    Raises:
        HostError: the host cannot be reached, the account is not root there, or a step failed: with what was done.
    """
    executor = context.site.executor
    is_limited, images = context.settings.host.privilege == "helper", context.settings.images.base_dir
    request = {
        "account": executor.options.user,
        "public_key": hardening.public_key(context, ip),
        "user": context.site.user,
        "is_root_wanted": not is_limited,
        "base_dir": resolve(images, HELPERS_HOME) if is_limited else images,
        "bridge": context.settings.network.bridge,
        "uplink": uplink,
        "datapath": datapath,
        "packages": PROGRAMS,
    }
    remedy = (
        f"name an account that is root there without a password: `./cloud worker add {ip} --bootstrap --admin USER`"
    )
    answer = hardening.ask_root(context, ip, encode("bootstrap", request), admin=admin, remedy=remedy)
    done = {"changed": list(answer["changed"]), "warnings": list(answer["warnings"])}
    _require_done(ip, answer, done["changed"])
    if is_limited:
        more = hardening.harden(context, ip, admin=admin)
        done = {key: [*done[key], *more[key]] for key in done}
    executor.drop(ip)  # groups and rules of the account are read at the next login
    _bring_images(context, ip, done)
    return done


def _require_done(ip: str, answer: Mapping[str, Any], changed: list[str]) -> None:
    if "refused" in answer:
        done = f"; done before: {', '.join(changed)}" if changed else "; nothing was changed"
        raise HostError(
            ip,
            "the host was not made a worker",
            evidence=str(answer["refused"]) + done,
            remedy="Set right what it says, and run it again: it goes on from there",
            code="host.bootstrap",
        )


def _bring_images(context: Context, ip: str, done: dict[str, list[str]]) -> None:
    """The images of all flavors that this machine has."""
    bases = context.deployment.qcow_manager.bases
    bases.forget(ip)
    there = bases.copies(ip, context.settings.images.base_dir)
    for path, flavors in host_images.of_flavors(context).items():
        try:
            image = bases.ensure(ip, path, context.settings.images.base_dir)
        except RefusedError as error:
            done["warnings"].append(f"no image for {', '.join(flavors)}: {error}")
            continue
        if image.path_on_host not in there:
            done["changed"].append(f"copied {path}")


# -- going -------------------------------------------------------------------------------


def drain(context: Context, ip: str, *, undo: bool = False) -> dict[str, Any]:
    """Place no new VM on a worker, or place some again. What runs there goes on.

    Returns:
        `ip`, `is_drained`, `changed` (whether that is new) and `vms` (what is there).

    Raises:
        RefusedError: it is no worker of this installation.
    """
    with context.db.transaction() as data:
        _require_listed(data, ip)
        drained = [one for one in data.get(DRAINED) or () if one != ip]
        was = len(drained) < len(data.get(DRAINED) or ())
        data[DRAINED] = drained if undo else [*drained, ip]
        return {"ip": ip, "is_drained": not undo, "changed": was == undo, "vms": _vms(data, ip)}


def remove(context: Context, ip: str, *, force: bool = False) -> dict[str, Any]:
    """Take a worker out of the installation, and what is ours from the host.

    Args:
        context: the installation.
        ip: the worker.
        force: also with VMs there, which stay in the records and on the host, or when it does not answer.

    Returns:
        `ip`, `removed` (what was taken from the host, a line each), `vms` (that are left there) and `left` (why
        something of ours is still on the host, or "").

    Raises:
        RefusedError: it is no worker, there are VMs on it, or it does not answer.
    """
    before = drain(context, ip)
    try:
        _require_empty(before["vms"], ip, force=force)
        removed, left = _cleaned(context, ip, before["vms"], force=force)
        with context.db.transaction() as data:
            vms = take_out(data, ip, force=force)
    except CloudError:
        if before["changed"]:
            drain(context, ip, undo=True)
        raise
    context.site.executor.drop(ip)
    return {"ip": ip, "removed": removed, "vms": vms, "left": left}


def take_out(data: Record, ip: str, *, force: bool) -> list[Record]:
    """Take a worker out of the records, in a transaction: the VMs that stay there.

    Raises:
        RefusedError: it is no worker, or there are VMs on it.
    """
    _require_listed(data, ip)
    vms = _vms(data, ip)
    _require_empty(vms, ip, force=force)
    data["workers_list"] = [one for one in data["workers_list"] if one != ip]
    data[DRAINED] = [one for one in data.get(DRAINED) or () if one != ip]
    data["workers"].pop(ip, None)
    return vms


def look_before_removal(context: Context, ip: str, vms: list[Record], *, force: bool) -> tuple[dict[str, View], str]:
    """What of ours would be taken from a worker that is removed, and why something stays, or "".

    Raises:
        RefusedError: somebody is at work there, or it does not answer.
    """
    left = _why_left(context, ip, vms)
    if left:
        return {}, left
    cleaning.refuse_busy(context, {ip})
    views, errors = cleaning.look(context, ip)
    return views, _why_unreachable(ip, str(errors.get(ip, "")), force=force)


def _require_listed(data: Mapping[str, Any], ip: str) -> None:
    if ip not in data["workers_list"]:
        known = ", ".join(data["workers_list"]) or "none"
        raise RefusedError(f"{excerpt(ip)} is no worker", evidence=f"the workers are {known}", code="worker.unknown")


def _require_empty(vms: list[Record], ip: str, *, force: bool) -> None:
    if vms and not force:
        named = ", ".join(f"{one['vm_id']} ({one['name']}, slice {one['slice_id']})" for one in vms[:10])
        more = f" and {len(vms) - 10} more" if len(vms) > 10 else ""
        raise RefusedError(
            f"worker {ip} has VMs",
            evidence=named + more,
            remedy=f"Delete their slices first; `./cloud worker drain {ip}` keeps new ones away until then. With "
            "--force it is taken out of the list all the same, and they stay in the records",
            code="worker.used",
            details={"vms": [one["vm_id"] for one in vms]},
        )


def _cleaned(context: Context, ip: str, vms: list[Record], *, force: bool) -> tuple[list[str], str]:
    """What was removed of ours, and why something stays."""
    left = _why_left(context, ip, vms)
    if left:
        return [], left
    found = cleaning.clean(context, ip)
    left = _why_unreachable(ip, str(found["unreachable"].get(ip, "")), force=force)
    return list(found["hosts"].get(ip, ())), left


def _why_left(context: Context, ip: str, vms: list[Record]) -> str:
    if vms:
        return "its VMs are there"
    if ip == context.settings.network.node:
        return "it is the network node (network.node in settings.yaml), and goes on with that"
    return ""


def _why_unreachable(ip: str, reason: str, *, force: bool) -> str:
    if not reason or force:
        return reason
    raise RefusedError(
        f"what is ours on worker {ip} could not be removed",
        evidence=reason,
        remedy=f"Repair it and try again; if it will not come back: `./cloud worker remove {ip} --force`",
        code="worker.unreachable",
    )


def _vms(data: Mapping[str, Any], ip: str) -> list[Record]:
    return [
        {"vm_id": vm["vm_id"], "name": vm["name"], "slice_id": record["slice_id"], "owner": vm["owner"]}
        for record in all_slices(data)
        for vm in record["vms"]
        if vm["worker_ip"] == ip
    ]
