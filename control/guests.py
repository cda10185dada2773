"""Programs in guests, by the guest agent: started without a shell, waited for, and their output brought back."""

from __future__ import annotations

from collections.abc import Sequence

from cloudrepo.errors import RefusedError
from cloudrepo.guest_agent import GuestAgent, GuestRefused, GuestSilent
from control import views
from control.context import Context, Record

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
) -> Record:
    """Run a program in a running VM of these slices and wait for its end.

    Args:
        context: the installation.
        slices: those that may be used for this.
        username: who acts; a name means one's own VM before somebody else's.
        wanted: its id or name.
        command: the program and its words; no shell sees them.
        stdin: what it reads.
        timeout_s: how long it may take; it is ended when it takes longer.

    Returns:
        `status` (its exit status; 128 + the signal that ended it), `out` and `err` (bytes), `vm_id`, `name`, `owner`.

    Raises:
        RefusedError: there is no such VM, it does not run, or there is nothing to run.
        GuestSilent: no agent answers, or the program did not end in time (code `guest.slow`).
        GuestRefused: the guest has no such program (code `guest.program`), or it cannot be started.
        HostError: its worker cannot be reached.
    """
    words = [str(word) for word in command]
    if not words or not words[0]:
        raise RefusedError("no program was named", remedy="Write it after `--`", code="exec.empty")
    if len(stdin) > MOST_INPUT:
        text = f"{len(stdin)} bytes of input are too many for the guest agent"
        raise RefusedError(text, evidence=f"it takes {MOST_INPUT}", remedy="Copy a file instead", code="exec.input")
    target = views.console(context, slices, username, wanted)
    with context.site.executor.open_serial(target["worker_ip"], target["agent_socket"]) as channel:
        agent = GuestAgent(channel)
        try:
            agent.wait(min(ANSWER_S, timeout_s))
        except GuestSilent as error:
            raise GuestSilent(
                f"VM {target['vm_id']} ({target['name']}) has no guest agent that answers",
                evidence=error.evidence,
                remedy=f"Wait until it has booted, or install qemu-guest-agent in it; "
                f"./cloud console {target['vm_id']} shows its screen",
            ) from error
        try:
            done = agent.run(words, stdin=stdin, timeout_s=timeout_s)
        except GuestRefused as error:
            raise _not_started(words[0], target, error) from error
    return {
        "status": done.status,
        "out": done.out_bytes,
        "err": done.err_bytes,
        **{key: target[key] for key in ("vm_id", "name", "owner")},
    }


def _not_started(program: str, target: Record, error: GuestRefused) -> GuestRefused:
    """Said of a program that the guest could not start, in the agent's words."""
    is_missing = "No such file" in error.evidence
    return GuestRefused(
        f"{program} was not started in VM {target['vm_id']} ({target['name']})",
        evidence=error.evidence,
        remedy="Name a program of the guest; `sh -c '…'` runs a line of its shell" if is_missing else "",
        code="guest.program" if is_missing else error.code,
    )
