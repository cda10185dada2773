"""`worker harden`: what a host is asked to install so that the SSH account need not be root there."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudrepo import guest_accounts
from cloudrepo.errors import HostError
from cloudrepo.host import json_text
from cloudrepo.host.message import HELPER, HELPERS_HOME, diagnose, encode
from cloudrepo.host.programs import helper_files, text as text_of
from cloudrepo.images import resolve
from cloudrepo.settings import Host
from cloudrepo.ssh_config import resolve as resolve_target
from control.context import Context

if TYPE_CHECKING:
    from remote_executor import RemoteExecutor

PATIENCE_S = 1000.0  # packages are installed from a mirror that may be slow


def bounds(context: Context, ip: str) -> dict[str, Any]:
    """What this installation may name on a host; `home` is found there. See `cloudrepo/host/judge.py`."""
    first = guest_accounts.first_uid(replace(context.settings, host=Host(privilege="helper")))
    settings, account = context.settings, resolve_target(ip, context.site.executor.options).user
    return {
        "installation": context.site.installation,
        "account": account,
        "base_dir": resolve(settings.images.base_dir, HELPERS_HOME),
        "bridge": settings.network.bridge,
        "users": [settings.qemu.user or account],
        "uids": [first, guest_accounts.COUNT] if first else [],
        "vlans": [settings.vlan.first, settings.vlan.last],
        "internet": settings.internet.cidr,
        "uplink": settings.network.uplink,
    }


def _request(context: Context, ip: str, *, undo: bool) -> dict[str, Any]:
    files = helper_files(os.path.dirname(HELPER))
    return {"do": "undo" if undo else "apply", "helper": files, "bounds": bounds(context, ip)}


def script(context: Context, ip: str, *, undo: bool) -> str:
    """The same as a program for root on the host: `python3 FILE`."""
    call = f"sys.exit(main({json.dumps(_request(context, ip, undo=undo))!r}))"
    return f'{text_of("hardening")}\n\nif __name__ == "__main__":\n    {call}'


def harden(context: Context, ip: str, *, admin: str = "", undo: bool = False) -> dict[str, Any]:
    """Install the helper, or take it away.

    Args:
        context: the installation.
        ip: the host.
        admin: the account that is root there; "" = the SSH account, which is so until the first time.
        undo: take it away.

    Returns:
        `changed` and `warnings`, a line each.

    Raises:
        HostError: the host cannot be reached, the account is not root there, or the host cannot be prepared.
    """
    message = encode("hardening", _request(context, ip, undo=undo))
    remedy = (
        f"name an account that is root there without a password: `./cloud worker harden {ip} --admin USER`; or "
        f"have root run on the host what `./cloud worker harden {ip} --print` prints"
    )
    answer = ask_root(context, ip, message, admin=admin, remedy=remedy)
    if "refused" in answer:
        done = f"; done before: {', '.join(answer['changed'])}" if answer["changed"] else "; nothing was changed"
        raise HostError(ip, "the host was not prepared", evidence=answer["refused"] + done, code="host.harden")
    return answer


def ask_root(context: Context, ip: str, message: bytes, *, admin: str, remedy: str) -> dict[str, Any]:
    """Have a program run as root on a host, by sudo: its answer, with `changed` and `warnings`.

    Args:
        context: the installation.
        ip: the host.
        message: the program and what is asked of it.
        admin: the account that is root there; "" = the SSH account.
        remedy: what is said when the account is not root.

    Raises:
        HostError: the host cannot be reached, the account is not root there, or its answer cannot be understood.
    """
    from remote_executor import RemoteExecutor  # slow to import, and seldom needed

    options = context.site.executor.options
    with RemoteExecutor(
        admin or options.user,
        settings=context.settings,
        key_file=options.key_file,
        known_hosts=options.known_hosts,
        config_file=options.config_file,
        privilege="sudo",
    ) as executor:
        return _ask(executor, ip, message, remedy)


def public_key(context: Context, ip: str) -> str:
    """The public half of the key that we log in with; "" when it does not lie beside the private one."""
    for path in resolve_target(ip, context.site.executor.options).key_files:
        try:
            return Path(f"{path}.pub").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            continue
    return ""


def _read(ip: str, line: bytes) -> dict[str, Any]:
    """What a host says that was asked, which may be anything."""
    try:
        answer = json_text.loads(line)
        texts = [*answer["changed"], *answer["warnings"], answer.get("refused", "")]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("it is no text")
    except json_text.NOT_UNDERSTOOD as error:
        evidence = f"{line[:200]!r}: {error!r}"
        raise HostError(ip, "its answer cannot be understood", evidence=evidence, code="host.harden") from error
    return dict(answer)


def _ask(executor: RemoteExecutor, ip: str, message: bytes, remedy: str) -> dict[str, Any]:
    """Send the message and read the one line that answers it."""
    stream = executor.transport.open_message(ip, message)
    out, err, until = b"", b"", time.monotonic() + PATIENCE_S
    try:
        while (parts := stream.receive(1.0)) is not None and time.monotonic() < until:
            out, err = out + parts[0], err + parts[1]
        lines = [line for line in out.splitlines() if line.startswith(b"{")]
        if lines:
            return _read(ip, lines[-1])
        error = diagnose(ip, stream.status(2.0), err.decode("utf-8", "replace"), out.decode("utf-8", "replace"))
    finally:
        stream.close()
    if error.code == "host.sudo":
        error.remedy = remedy
    raise error
