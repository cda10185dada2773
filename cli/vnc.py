"""The screen of a guest: a tunnel from here to the loopback VNC of its worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cli.installation import in_lab

if TYPE_CHECKING:
    from cli.screen import Screen
    from orchestrator_api import OrchestratorAPI


def open_vnc(api: OrchestratorAPI, username: str, vm: int | str, screen: Screen) -> bool:
    """Open a tunnel, print its address, and close it with Ctrl-C.

    Returns:
        Whether the tunnel could be opened.
    """
    from cloudrepo.errors import CloudError

    ok, target = api.vnc_target(username, vm)
    if not ok:
        screen.complain(target)
        return False
    try:
        with api.executor.open_tunnel(target["worker_ip"], target["port"]) as tunnel:
            viewer = f"vncviewer {tunnel.address.replace(':', '::')}"
            if in_lab():  # where loopback is the lab's own
                viewer = f"./cloud lab exec -- {viewer}"
            screen.line(f"Screen of {target['name']}: {tunnel.address}   ({viewer})")
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
