"""The screen of a guest: a tunnel to the loopback of its worker, the password, and the way from another PC."""

from __future__ import annotations

import errno
import getpass
import ipaddress
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cli.documents import NotDone
from cli.installation import in_lab
from cli.screen import FAINT
from cloudrepo.setting_values import ports_of

if TYPE_CHECKING:
    from cli.screen import Screen
    from cli.work import Work
    from orchestrator_api import OrchestratorAPI
    from remote_executor import Tunnel

Told = Callable[[dict[str, Any]], None]


def open_vnc(api: OrchestratorAPI, username: str, vm: int | str, screen: Screen) -> bool:
    """Open a tunnel, print its address and the screen's password, and close it with Ctrl-C.

    A screen that listens on an address of its worker needs no tunnel: that address is printed.

    Returns:
        Whether the screen can be reached.
    """
    from cloudrepo.errors import CloudError

    try:
        _open(api, username, vm, screen, lambda told: None)
    except NotDone as error:
        screen.complain(error.answer)
        return False
    except CloudError as error:
        screen.complain(error)
        return False
    return True


def show_vnc(work: Work, words: str, user: str) -> int:
    """The same as a command. Its document is written when the tunnel is open; it ends by Ctrl-C or SIGTERM.

    Args:
        work: the command.
        words: the VM's id or name.
        user: who acts; empty = the owner.

    Raises:
        NotDone: there is no such VM, it does not run, or the user may not.
        CloudError: its worker cannot be reached, or no tunnel can be opened.
    """
    record, found = work.installation.one_vm(words, user)
    is_told = False

    def tell(told: dict[str, Any]) -> None:
        nonlocal is_told
        work.end(told)
        is_told = True

    try:
        _open(work.api, user or str(record["owner"]), int(found["vm_id"]), work.screen, tell)
    except SystemExit as end:  # SIGTERM: one document is enough
        if not (is_told and work.as_json):
            raise
        return int(end.code or 0)
    return 0


def _open(api: OrchestratorAPI, username: str, vm: int | str, screen: Screen, tell: Told) -> None:
    """Say where the screen is, and keep the tunnel until Ctrl-C where one is needed.

    Raises:
        NotDone: the façade refuses.
        CloudError: the worker cannot be reached, or no tunnel can be opened.
    """
    ok, target = api.vnc_target(username, vm)
    if not ok:
        raise NotDone(target)
    if not ipaddress.ip_address(target["bind"]).is_loopback:
        _show_open(target, screen)
        tell(_told(target, _address(target), target["port"], is_tunnel=False))
        return
    try:
        with _tunnel(api, target) as tunnel:
            viewer = f"vncviewer 127.0.0.1::{tunnel.port}"
            if in_lab():  # where loopback is the lab's own
                viewer = f"./cloud lab exec -- {viewer}"
            screen.line(f"Screen of {target['name']}: {tunnel.address}   ({viewer})")
            _say_password(target, screen)
            if not in_lab():
                _show_way(target["port"], tunnel.port, screen)
            screen.line("Ctrl-C closes it.")
            tell(_told(target, "127.0.0.1", tunnel.port, is_tunnel=True))
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        screen.line()
        screen.line("Closed.")


def _told(target: Mapping[str, Any], host: str, port: int, *, is_tunnel: bool) -> dict[str, Any]:
    """What a program reads."""
    about = {key: target[key] for key in ("vm_id", "name", "worker_ip")}
    return {**about, "host": host, "port": port, "password": target["password"] or None, "tunnel": is_tunnel}


def _tunnel(api: OrchestratorAPI, target: Mapping[str, Any]) -> Tunnel:
    """A tunnel that begins at the first of our ports that is free."""
    from cloudrepo.errors import CloudError

    for port in ports_of(api.settings.vnc.tunnels) or (0,):
        try:
            tunnel: Tunnel = api.executor.open_tunnel(target["worker_ip"], target["port"], local_port=port)
            return tunnel
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise CloudError(
        "no tunnel can be opened",
        evidence=f"ports {api.settings.vnc.tunnels} of this machine are in use",
        remedy="Close another screen first; an operator can widen vnc.tunnels",
        code="vnc.tunnels",
    )


def _show_open(target: Mapping[str, Any], screen: Screen) -> None:
    """An address of the worker, as documented."""
    address = _address(target)
    screen.line(f"Screen of {target['name']}: {address}:{target['port']}   (vncviewer {address}::{target['port']})")
    _say_password(target, screen)


def _address(target: Mapping[str, Any]) -> str:
    address = target["worker_ip"] if target["bind"] == "0.0.0.0" else target["bind"]  # noqa: S104 - compared only
    return str(address)


def _say_password(target: Mapping[str, Any], screen: Screen) -> None:
    if target["password"]:
        screen.line(f"Password: {target['password']}")
    else:  # its record is older than passwords, or was made anew from the hosts
        screen.line(("Its password is not in the records; stopped and started again, it has one.", FAINT))


def _show_way(there: int, here: int, screen: Screen) -> None:
    """Two hops from somebody's own PC: that one's ssh to this machine, and the tunnel from here to the worker."""
    screen.line("From another PC, in a second window there:")
    screen.line(f"  ssh -N -L {there}:127.0.0.1:{here} {login_here(os.environ)}")
    screen.line(f"  vncviewer 127.0.0.1::{there}")


def login_here(environ: Mapping[str, str]) -> str:
    """How whoever is here logs in to this machine, as words for ssh: the account he came by, and the address.

    Args:
        environ: `SUDO_USER` is the account before sudo; `SSH_CONNECTION` has our address and port as the client sees
            them (sshd(8)). Without it the name of the machine is taken.
    """
    account = environ.get("SUDO_USER") or getpass.getuser()
    connection = environ.get("SSH_CONNECTION", "").split()
    address, port = connection[2:] if len(connection) == 4 else (socket.gethostname(), "22")
    return f"{account}@{address}" if port == "22" else f"-p {port} {account}@{address}"
