"""Debian's own cloud-init, unpacked from its packages and run by the machine's own Python: it is not installed."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab import debs, image_cache

PACKAGES = (
    *("cloud-init", "python3-attr", "python3-certifi", "python3-chardet", "python3-configobj", "python3-idna"),
    *("python3-jinja2", "python3-json-pointer", "python3-jsonpatch", "python3-jsonschema", "python3-markupsafe"),
    *("python3-netifaces", "python3-oauthlib", "python3-pyrsistent", "python3-requests", "python3-six"),
    *("python3-urllib3", "python3-yaml"),
)
_PYTHON = "/usr/bin/python3"  # the one that these packages are for


class CloudInit:
    """cloud-init below a folder.

    Attributes:
        tree: where the packages were unpacked.
    """

    def __init__(self, cache: Path) -> None:
        recipe = image_cache.digest_of([Path(__file__), Path(debs.__file__)])
        place = cache / f"cloud-init-{recipe}"
        self.tree = place / "tree"
        with image_cache.one_builder(cache, "cloud-init.lock"):
            if not self.tree.exists():
                place.mkdir(exist_ok=True)
                with tempfile.TemporaryDirectory(dir=place, prefix="work-") as work:
                    debs.unpack(PACKAGES, Path(work)).replace(self.tree)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of cloud-init."""
        env: Mapping[str, str] = {
            "PYTHONPATH": str(self.tree / "usr/lib/python3/dist-packages"),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
        }
        argv: Sequence[str] = [_PYTHON, "-s", "-m", "cloudinit.cmd.main", *words]
        return subprocess.run(argv, env=env, cwd="/", check=False, capture_output=True, text=True, timeout=120)
