"""The system packages a lab needs, and installing them with leave only."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import LabError

# What each package is for, and the file that shows that it is there.  The names
# are the same on Debian 12 and Ubuntu 24.04 unless the second table says otherwise.
PACKAGES: dict[str, str] = {
    "busybox-static": "/bin/busybox",  # the guest's programs
    "cpio": "/usr/bin/cpio",  # the guest's initramfs
    "dnsmasq-base": "/usr/sbin/dnsmasq",
    "dosfstools": "/usr/sbin/mkfs.fat",  # the guest's disk
    "e2fsprogs": "/usr/sbin/mkfs.ext4",  # the router's
    "fdisk": "/usr/sbin/sfdisk",
    "iproute2": "/usr/sbin/ip",
    "iptables": "/usr/sbin/iptables",
    "iputils-ping": "/usr/bin/ping",
    "kmod": "/usr/sbin/modprobe",
    "mtools": "/usr/bin/mcopy",
    "openssh-client": "/usr/bin/ssh",
    "openssh-server": "/usr/sbin/sshd",
    "openvswitch-switch": "/usr/sbin/ovs-vswitchd",
    "procps": "/usr/bin/free",
    "python3": "/usr/bin/python3",  # workers have one, whatever runs the orchestrator
    "qemu-system-x86": "/usr/bin/qemu-system-x86_64",
    "qemu-utils": "/usr/bin/qemu-img",
    "sudo": "/usr/bin/sudo",
    "syslinux": "/usr/bin/syslinux",
    "syslinux-common": "/usr/lib/syslinux/mbr/mbr.bin",
    "tcpdump": "/usr/bin/tcpdump",
    "util-linux": "/usr/bin/nsenter",
}

# What the project's own tests use besides: `./cloud test` wants it, a lab does not.
# Ubuntu has no package of Chromium (there it is a snap): any Chromium on PATH will do.
_TMUX = {"tmux": "/usr/bin/tmux"}  # the menu is walked through in it
TEST_PACKAGES: dict[str, dict[str, str]] = {
    "debian": {"chromium-headless-shell": "/usr/bin/chromium-headless-shell"} | _TMUX,  # looks at SVG and HTML
    "ubuntu": _TMUX,
}

# Unpacked for the guest, never installed on the machine: by distribution.
KERNEL_PACKAGES: dict[str, str] = {
    "debian": "linux-image-cloud-amd64",
    "ubuntu": "linux-image-virtual",
}

_POLICY = Path("/usr/sbin/policy-rc.d")
_INSTALL = "apt-get install --yes --no-install-recommends"


def release() -> str:
    """Return the name of the distribution's release, such as ``bookworm``."""
    return _os_release().get("VERSION_CODENAME", "")


def _os_release() -> dict[str, str]:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        text = ""
    fields = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: value.strip('"') for key, value in fields}


def distribution() -> str:
    """Return ``debian`` or ``ubuntu``; a relative counts as the one it names.

    Raises:
        LabError: On any other system.
    """
    fields = _os_release()
    words = [fields.get(key, "") for key in ("ID", "ID_LIKE")]
    for word in " ".join(words).split():
        if word in KERNEL_PACKAGES:
            return word
    raise LabError("The lab needs Debian 12 or Ubuntu 24.04 for its packages.")


def missing(packages: Iterable[str] = PACKAGES) -> list[str]:
    """Return the packages that are not there, by the file each brings.

    Looking at files takes no time; asking the package database takes half a second.
    """
    files = {**PACKAGES, **TEST_PACKAGES["debian"]}
    return [name for name in packages if not Path(files[name]).exists()]


def for_tests() -> list[str]:
    """Return the packages of a lab, and those of the project's own tests on this system.

    Raises:
        LabError: On a system other than Debian and Ubuntu.
    """
    return [*PACKAGES, *TEST_PACKAGES[distribution()]]


def ensure(
    packages: Iterable[str] = PACKAGES,
    *,
    assume_yes: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Install what is missing, when that was allowed.

    On a terminal the person is asked.  Without one, ``assume_yes`` or ``CI=true`` is
    the permission.

    Raises:
        LabError: If something is missing and may not be, or cannot be, installed.
    """
    wanted = missing(packages)
    if not wanted:
        return
    command = f"{_INSTALL} {' '.join(wanted)}"
    allowed = assume_yes or os.environ.get("CI") == "true"
    if not allowed and sys.stdin.isatty() and sys.stdout.isatty():
        say(f"The lab needs these packages: {' '.join(wanted)}")
        allowed = input("Install them now? [y/N] ").strip().lower() in ("y", "yes")
    if not allowed:
        raise LabError(
            f"Packages are missing: {' '.join(wanted)}.",
            remedy=f"Install them with: sudo {command}",
        )
    _install(command.split(), wanted, say)
    still = missing(packages)
    if still:
        raise LabError(f"Still missing after their installation: {' '.join(still)}.")


def _install(command: list[str], packages: Iterable[str], say: Callable[[str], None]) -> None:
    """Run apt-get; where its lists are old or absent, refresh them once."""
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    say(f"Installing: {' '.join(command)}")
    with _services_stay_off():
        done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
        if done.returncode:
            subprocess.run(["apt-get", "update"], env=env, check=False, capture_output=True)
            done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    if done.returncode and missing(packages):
        raise LabError(
            f"The packages could not be installed: {' '.join(command)} failed.",
            evidence=(done.stderr or done.stdout)[-2000:],
        )


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Keep an installation from starting the machine's own SSH server and switch.

    The lab starts its own in its namespaces.  Debian asks this script before it starts
    a service; one that the machine has already is left alone.  What the machine starts
    at its next boot is its own affair: ``systemctl disable ssh openvswitch-switch``.
    """
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
