"""Programs in guests, by the guest agent or by SSH: started, waited for, and their output brought back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cloudrepo.errors import HostError, RefusedError
from cloudrepo.guest_agent import GuestAgent, GuestRefused, GuestResult, GuestSilent
from cloudrepo.naming import INTERNET_VLAN
from control import views
from control.context import Context, Record

AGENT, SSH = "agent", "ssh"

ANSWER_S = 10.0  # for the agent's first word
MOST_INPUT = 8 * 1024 * 1024  # bytes: one line of JSON to the agent


def run(
    context: Context,
    slices: Sequence[Record],
    username: str,
    wanted: int | str,
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout_s: float = 60.0,
    by: str = "",
    login: Mapping[str, Any] | None = None,
) -> Record:
    """Run a program in a running VM of these slices and wait for its end.

    Args:
        context: the installation.
        slices: those that may be used for this.
        username: who acts; a name means one's own VM before somebody else's.
        wanted: its id or name.
        command: the program and its words, which reach it as they are.
        stdin: what it reads.
        timeout_s: how long it may take; it is ended when it takes longer.
        by: `agent`, `ssh`, or "" = by the agent where one answers, else by SSH.
        login: for SSH: `user`, `key_file`, `password`, `own_keys`, as `GuestLogin` has them.

    Returns:
        `status` (its exit status; 128 + the signal that ended it), `out` and `err` (bytes), `by`, `vm_id`, `name`,
        `owner`.

    Raises:
        RefusedError: there is no such VM, it does not run, has no address, or there is nothing to run.
        GuestSilent: nobody answers, or the program did not end in time (code `guest.slow`).
        GuestRefused: the guest has no such program (code `guest.program`), it cannot be started, or the guest lets
            nobody in (code `guest.auth`).
        HostError: its worker or the network node cannot be reached, or the guest's key is not the pinned one.
    """
    if by not in ("", AGENT, SSH):
        raise RefusedError(f"there is no way {by!r} into a guest", evidence="there are agent and ssh", code="exec.by")
    words = [str(word) for word in command]
    if not words or not words[0]:
        raise RefusedError("no program was named", remedy="Write it after `--`", code="exec.empty")
    if len(stdin) > MOST_INPUT:
        text = f"{len(stdin)} bytes of input are too many for the guest agent"
        raise RefusedError(text, evidence=f"it takes {MOST_INPUT}", remedy="Copy a file instead", code="exec.input")
    target = views.console(context, slices, username, wanted)
    vm = views.running_vm(slices, username, wanted)
    if by == SSH:
        done, way = _by_ssh(context, vm, words, login or {}, stdin=stdin, timeout_s=timeout_s), SSH
    else:
        done, way = _by_either(context, target, vm, words, None if by else login or {}, stdin, timeout_s)
    about = {key: target[key] for key in ("vm_id", "name", "owner")}
    return {"status": done.status, "out": done.out_bytes, "err": done.err_bytes, "by": way, **about}


def _by_either(
    context: Context,
    target: Record,
    vm: Record,
    words: Sequence[str],
    login: Mapping[str, Any] | None,
    stdin: bytes,
    timeout_s: float,
) -> tuple[GuestResult, str]:
    """By the agent; by SSH where none answers and a login may be tried."""
    with context.site.executor.open_serial(target["worker_ip"], target["agent_socket"]) as channel:
        agent = GuestAgent(channel)
        silence: GuestSilent | None = None
        try:
            agent.wait(min(ANSWER_S, timeout_s))
        except GuestSilent as error:
            silence = error
        if silence is None:
            try:
                return agent.run(words, stdin=stdin, timeout_s=timeout_s), AGENT
            except GuestRefused as error:
                raise _not_started(words[0], target, error) from error
    if login is not None and _address(vm):
        try:
            return _by_ssh(context, vm, words, login, stdin=stdin, timeout_s=timeout_s), SSH
        except GuestSilent as error:
            if error.code != "guest.silent":
                raise
            silence = error
    raise GuestSilent(
        f"VM {target['vm_id']} ({target['name']}) has no guest agent that answers",
        evidence=silence.evidence,
        remedy=f"Wait until it has booted, or install qemu-guest-agent in it; "
        f"./cloud console {target['vm_id']} shows its screen",
    ) from silence


def _address(vm: Mapping[str, Any]) -> tuple[int, str] | None:
    """VLAN and address by which a machine is reached from its link's namespace; None where it has none.

    Not on VLAN 400: its gateway is in the network node's own namespace, which lets no guest answer it.
    """
    for one in vm["interfaces"]:
        if one["ip_config"] and one["vlan_id"] not in (None, INTERNET_VLAN):
            return int(one["vlan_id"]), str(one["ip_config"]["ip"])
    return None


def _by_ssh(
    context: Context, vm: Mapping[str, Any], words: Sequence[str], login: Mapping[str, Any], *, stdin: bytes,
    timeout_s: float,
) -> GuestResult:  # fmt: skip
    from cloudrepo.known_hosts import KnownHosts
    from cloudrepo.transports import guest_ssh

    name, place = f"VM {vm['vm_id']} ({vm['name']})", _address(vm)
    if place is None:
        raise RefusedError(
            f"{name} has no address on a link",
            evidence="SSH goes through the namespace of a link with DHCP",
            remedy=f"Link it with one, or use ./cloud console {vm['vm_id']}",
            code="exec.address",
        )
    pins = KnownHosts(Path(context.db.path).resolve().parent / "known_guests")
    try:
        channel = context.site.executor.open_guest_ssh(context.settings.network.node, context.db.installation, *place)
    except HostError as error:
        if error.code != "host.socket":
            raise
        raise GuestSilent(
            f"{name} has no SSH server that answers",
            evidence=f"{place[1]} on VLAN {place[0]}: {error.evidence}",
            remedy=f"Wait until it has booted; ./cloud console {vm['vm_id']} shows its screen",
        ) from error
    client = guest_ssh.log_in(channel, f"vm-{vm['vm_id']}", _login(context, vm, login), pins, min(ANSWER_S, timeout_s))
    try:
        return guest_ssh.run(client, words, stdin=stdin, timeout_s=timeout_s)
    finally:
        client.close()
        channel.close()


def _login(context: Context, vm: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    from cloudrepo.transports.guest_ssh import GuestLogin

    made = (vm.get("first_boot") or {}).get("users") or ["root"]
    ssh = context.settings.ssh
    return GuestLogin(
        user=str(given.get("user") or ssh.guest_user or made[0]),
        key_file=str(given.get("key_file") or ("" if given.get("password") else ssh.guest_key)),
        password=str(given.get("password") or ""),
        own_keys=bool(given.get("own_keys")),
    )


def _not_started(program: str, target: Record, error: GuestRefused) -> GuestRefused:
    """Said of a program that the guest could not start, in the agent's words."""
    is_missing = "No such file" in error.evidence
    return GuestRefused(
        f"{program} was not started in VM {target['vm_id']} ({target['name']})",
        evidence=error.evidence,
        remedy="Name a program of the guest; `sh -c '…'` runs a line of its shell" if is_missing else "",
        code="guest.program" if is_missing else error.code,
    )
