"""The programs that travel to hosts, each one file of text: made of the parts in this folder, one after another.

What a part imports of another is in the same file there, so these imports are left out: whole lines that begin with
`from cloudrepo.host`. Parts import names, not modules, and no name is used twice. One exception: `judge.py` asks the
module `grammar` for its tables by their names, and there that module is the file itself.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from cloudrepo.host.runner import PARTS

#: Of the runner, in order; each may use those before it.
RUNNER_PARTS = tuple(f"runner/{name}" for name in PARTS)
#: Of the installed helper, in order.
HELPER_PARTS = ("relay", *RUNNER_PARTS, "grammar", "texts", "flow_ways", "judge", "ownership", "helper")

_OWN_IMPORTS = re.compile(r"^from (?:cloudrepo\.host[\w.]*|__future__) import (?:\([^)]*\)|.*)\n", re.MULTILINE)
_BEGIN = "from __future__ import annotations\n\n"
#: What sudo starts. Python compiles a program that it starts each time, which takes longer than all that the helper
#: does for a plan; a module that was compiled before it only reads.
_START = """\
#!/usr/bin/python3 -IS
# Made by `./cloud worker harden`: what sudo starts. The program lies beside it, compiled by `worker harden`, too.
import sys

sys.dont_write_bytecode = True  # the caller's limits hold here: what is written could be cut
sys.path.append({folder!r})
from helper_{version} import helper_main

sys.exit(helper_main({version!r}))
"""


def source(name: str) -> str:
    """The text of one part, as it is in the repository."""
    return (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")


@cache
def text(name: str) -> str:
    """The text of a program without a part of another: `relay`, `hardening`; or of the `runner`, made of its parts."""
    return _BEGIN + _joined(RUNNER_PARTS) if name == "runner" else source(name)


@cache
def helper_text() -> str:
    """The whole text of the installed helper."""
    head = (
        "# The helper of Cloud Repositorio, made by `./cloud worker harden`. Its text is its version: do not edit it.\n"
    )
    return f"{head}{_BEGIN}import sys\n\ngrammar = sys.modules[__name__]\n\n{_joined(HELPER_PARTS)}"


@cache
def helper_version() -> str:
    """What a message names instead of bringing a program: 16 hex digits of the text's digest."""
    return hashlib.sha256(helper_text().encode()).hexdigest()[:16]


def helper_files(folder: str) -> dict[str, str]:
    """The texts of the helper's files by their names, in the order in which they are written: the last one counts.

    Args:
        folder: where they lie.
    """
    version = helper_version()
    return {f"helper_{version}.py": helper_text(), "helper": _START.format(folder=folder, version=version)}


def _joined(names: tuple[str, ...]) -> str:
    return "\n\n".join(f"# == {name}.py\n\n{_OWN_IMPORTS.sub('', source(name))}" for name in names)
