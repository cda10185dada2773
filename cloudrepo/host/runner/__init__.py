"""Runs plans on a host, each in a process of its own. Sent over SSH; nothing of it stays there.

What travels is one file: the parts in this folder, one after another (`programs.py`). Each part may use those before it
in `PARTS`; all of them the standard library only, of Python 3.8 or newer. The bootstrap in `message.py` has read and
verified the whole message before this begins, so a cut message never gets here. It ends with the connection, or when
no further plan came for a while. While a plan runs:

* stdin carries control lines: `beat` (still here), `open GATE`, `close GATE REASON`, `stop`. End of file, or
  nothing heard for `lease_s` seconds, means that the orchestrator is gone.
* stdout carries one JSON object per line: `begin` and `end` of each step, `gate`, `refused`,
  `crashed`, and as the last line `done`.

Nothing new is begun once the orchestrator is gone or has said `stop`; a step that runs is let end. The acts
and their fields are those of `cloudrepo/plan.py`. Imports that are not always needed are made where they are.
"""

from __future__ import annotations

#: The parts, in the order in which they stand in what is sent.
PARTS = (
    "base",
    "line",
    "accounts",
    "files",
    "processes",
    "words",
    "fence",
    "qmp",
    "file_acts",
    "lives",
    "cgroups",
    "looks",
    "machines",
    "spaces",
    "wire",
    "switch",
    "plans",
    "program",
)
