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
_END = "\n\nif __name__ == '__main__':\n"


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
        "#!/usr/bin/python3 -IS\n"
        "# The helper of Cloud Repositorio, made by `./cloud worker harden`. Its text is its version: do not edit it.\n"
    )
    program = f"{head}{_BEGIN}import sys\n\ngrammar = sys.modules[__name__]\n\n{_joined(HELPER_PARTS)}"
    return f"{program}{_END}    sys.exit(helper_main({_version_of(program)!r}))\n"


def helper_version() -> str:
    """What a message names instead of bringing a program: 16 hex digits of the text's digest."""
    return _version_of(helper_text().rpartition(_END)[0])


def _joined(names: tuple[str, ...]) -> str:
    return "\n\n".join(f"# == {name}.py\n\n{_OWN_IMPORTS.sub('', source(name))}" for name in names)


def _version_of(program: str) -> str:
    return hashlib.sha256(program.encode()).hexdigest()[:16]
