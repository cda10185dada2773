"""The screen of a guest: a tunnel to the loopback of its worker, the password, and the way from another PC."""

from __future__ import annotations

import errno
import getpass
import ipaddress
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cli.installation import in_lab
from cli.screen import FAINT
from cloudrepo.setting_values import ports_of

if TYPE_CHECKING:
    from cli.screen import Screen
    from orchestrator_api import OrchestratorAPI
    from remote_executor import Tunnel


def open_vnc(api: OrchestratorAPI, username: str, vm: int | str, screen: Screen) -> bool:
    """Open a tunnel, print its address and the screen's password, and close it with Ctrl-C.

    A screen that listens on an address of its worker needs no tunnel: that address is printed.

    Returns:
        Whether the screen can be reached.
    """
    from cloudrepo.errors import CloudError

    ok, target = api.vnc_target(username, vm)
    if not ok:
        screen.complain(target)
        return False
    if not ipaddress.ip_address(target["bind"]).is_loopback:
        _show_open(target, screen)
        return True
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
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        screen.line()
        screen.line("Closed.")
        return True
    except CloudError as error:
        screen.complain(error)
        return False


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
    address = target["worker_ip"] if target["bind"] == "0.0.0.0" else target["bind"]  # noqa: S104 - compared only
    screen.line(f"Screen of {target['name']}: {address}:{target['port']}   (vncviewer {address}::{target['port']})")
    _say_password(target, screen)


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
