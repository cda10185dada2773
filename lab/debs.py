"""Debian packages unpacked into a folder, without installing them.

The guest needs a kernel and an agent.  Installing those on the machine would put a
kernel into its boot menu and start a service on it.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.packages import KERNEL_PACKAGES, distribution

_AGENT = "qemu-guest-agent"


def fetch_and_unpack(work: Path) -> Path:
    """Download the guest's packages and unpack them below one tree.

    Raises:
        LabError: If a package cannot be had.
    """
    return unpack([*kernel_packages(KERNEL_PACKAGES[distribution()]), _AGENT], work)


def unpack(names: Sequence[str], work: Path) -> Path:
    """Download packages and unpack them below one tree.

    Raises:
        LabError: If a package cannot be had.
    """
    tree, store = work / "tree", work / "debs"
    tree.mkdir()
    store.mkdir()
    _apt(["apt-get", "-o", "APT::Sandbox::User=root", "download", *names], cwd=store)
    for package in sorted(store.glob("*.deb")):
        _checked(["dpkg", "--extract", str(package), str(tree)])
    return tree


def kernel_packages(name: str) -> list[str]:
    """Follow the name that always means the newest kernel to the packages of one."""
    image = _depends(name, "linux-image-")
    if image is None:
        raise LabError(
            f"The package lists know no kernel behind {name}.",
            remedy="Refresh them with: sudo apt-get update",
        )
    modules = _depends(image, "linux-modules-")  # Ubuntu keeps them apart
    return [image] + ([modules] if modules else [])


def _depends(package: str, prefix: str) -> str | None:
    done = _apt(["apt-cache", "depends", "--important", package])
    for line in done.stdout.splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind.endswith("Depends") and name.startswith(prefix) and name != package:
            deeper = _depends(name, prefix) if not any(map(str.isdigit, name)) else None
            return deeper or name
    return None


def _apt(argv: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of apt; refresh its lists once when it does not know a package."""
    done = _plain(argv, cwd)
    if done.returncode:
        _plain(["apt-get", "update"], None)
        done = _plain(argv, cwd)
    if done.returncode:
        raise LabError(f"{' '.join(argv)} failed.", evidence=done.stderr[-2000:])
    return done


def _checked(argv: Sequence[str]) -> None:
    done = _plain(argv, None)
    if done.returncode:
        raise LabError(f"{' '.join(argv)} failed.", evidence=done.stderr[-2000:])


def _plain(argv: Sequence[str], cwd: Path | None) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"LC_ALL": "C"}
    return subprocess.run(argv, cwd=cwd, env=env, check=False, capture_output=True, text=True)
