"""Network namespaces, and the devices in them."""

from __future__ import annotations

import os
import threading

from cloudrepo.host.runner.base import DONE, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cloudrepo.host.runner.base import Answer, Json


def within(space: str, work: Callable[[], Any]) -> Any:
    """The answer of `work`, done in a named network namespace ("" = the host's own); setns(2) is for one thread."""
    if not space:
        return work()
    answers: list[Any] = []
    failures: list[BaseException] = []

    def enter() -> None:
        try:
            import ctypes

            number = os.open("/run/netns/" + space, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(number, 0x40000000):  # CLONE_NEWNET, linux/sched.h
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), space)
            finally:
                os.close(number)
            answers.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return answers[0]


def act_devices(act: Json) -> Answer:
    """The network devices of the host and of its named namespaces."""
    try:
        spaces = ["", *sorted(os.listdir("/run/netns"))]
    except FileNotFoundError:
        spaces = [""]
    found = {}
    for space in spaces:
        try:
            found[space] = within(space, devices_here)
        except OSError:
            continue  # it went, or is no namespace
    return DONE, to_json(found), ""


def devices_here() -> Json:
    """Each device of the namespace this thread is in: MAC, MTU, flags and first address (netdevice(7))."""
    import fcntl
    import socket
    import struct

    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:

        def ask(number: int, name: str) -> bytes:
            return fcntl.ioctl(asking, number, struct.pack("16s24x", name.encode()))[16:]

        for _, name in socket.if_nameindex():
            try:
                flags, mtu, hardware = ask(0x8913, name), ask(0x8921, name), ask(0x8927, name)
            except OSError:
                continue  # it went
            try:
                address = socket.inet_ntoa(ask(0x8915, name)[4:8])
                mask = socket.inet_ntoa(ask(0x891B, name)[4:8])
            except OSError:
                address = mask = ""  # it has none
            found[name] = {
                "mac": ":".join("%02x" % byte for byte in hardware[2:8]),  # noqa: UP031
                "mtu": struct.unpack("i", mtu[:4])[0],
                "flags": struct.unpack("H", flags[:2])[0],
                "address": address,
                "mask": mask,
                "is_tap": os.path.exists("/sys/class/net/%s/tun_flags" % name),  # noqa: UP031
            }
    return found
