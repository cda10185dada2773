"""What an account of the orchestrator host reaches with nothing but Python. Prints a JSON object: try, reached.

Run as a student's account every try must fail but the one that sudo allows, the menu; run as the installation's own,
those about what it owns succeed, which shows that they try the right thing. Arguments: state file, key file, a worker,
the menu's words.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
PIDFD_OPEN, PIDFD_GETFD = 434, 438  # system calls of every architecture that has them
TOKEN = "reached-it"
OWNER = "cloud"
ALLOWED = "the menu by sudo"
BEGINS = "This opens the menu only"  # what the menu says where there is no terminal: it was started
Try = Callable[[], bool]

_libc = ctypes.CDLL(None, use_errno=True)


def readable(path: str) -> Try:
    return lambda: bool(Path(path).read_bytes())


def listable(path: str) -> Try:
    return lambda: bool(os.listdir(path))


def writable(path: str) -> Try:
    def attempt() -> bool:
        made = Path(path, f"of-{os.getuid()}")
        made.write_text("")
        made.unlink()
        return True

    return attempt


def says(expected: str, *words: str, **variables: str) -> Try:
    """Whether a program runs and prints something. Its input is no terminal, and empty."""

    def attempt() -> bool:
        done = subprocess.run(
            words,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return expected in done.stdout

    return attempt


def by_sudo(*words: str, expected: str = BEGINS) -> Try:
    return says(expected, "sudo", "-n", *words)


def menus_of_others() -> list[int]:
    """Menus that the installation's account runs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"menu" in words and words[0].endswith(b"/python"):
            found.append(int(folder.name))
    return found


def of_a_process(pid: int) -> dict[str, Try]:
    """What is tried with a menu that somebody else has open."""

    def traced() -> bool:
        if _libc.ptrace(PTRACE_ATTACH, pid, None, None) != 0:
            return False
        os.waitpid(pid, 0)
        _libc.ptrace(PTRACE_DETACH, pid, None, None)
        return True

    def descriptor() -> bool:
        handle = _libc.syscall(PIDFD_OPEN, pid, 0)
        return bool(_libc.syscall(PIDFD_GETFD, handle, 0, 0) >= 0)

    def opened() -> bool:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
        return True

    def signalled() -> bool:
        os.kill(pid, 0)
        return True

    return {
        "environment of a menu": readable(f"/proc/{pid}/environ"),
        "files of a menu": listable(f"/proc/{pid}/fd"),
        "memory of a menu": opened,
        "a menu traced": traced,
        "a file of a menu taken": descriptor,
        "a menu signalled": signalled,
    }


def tries(state: str, key: str, worker: str, menu: list[str]) -> dict[str, Try]:
    """Everything, by a name."""
    folder, program = str(Path(state).parent), menu[0]
    python = str(Path(program).with_name(".venv") / "bin/python")
    library = f"import sys; sys.path.insert(0, {str(Path(program).parent)!r})\n"
    by_executor = library + (
        "from remote_executor import RemoteExecutor\n"
        f"done = RemoteExecutor('ubuntu').execute_direct({worker!r}, 'echo {TOKEN}')\n"
        "print(done.stdout)\n"
    )
    by_facade = library + f"from orchestrator_api import build\nprint(build({state!r}).list_users(None))\n"
    variables = {"CLOUDREPO_STATE": state, "CLOUDREPO_SSH_KEY": key, "HOME": str(Path(folder).parent)}
    ssh = ("ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no")
    pins = ("-o", "UserKnownHostsFile=/dev/null", "-i", key)
    return {
        "state": readable(state),
        "settings": readable(f"{folder}/settings.yaml"),
        "key": readable(key),
        "pins": readable(f"{folder}/known_hosts"),
        "log": readable(f"{folder}/cloudrepo.log"),
        "events": readable(f"{folder}/events.jsonl"),
        "folder": listable(folder),
        "home": listable(str(Path(folder).parent)),
        "a file beside the state": writable(folder),
        "the program changed": writable(str(Path(program).parent)),
        "its Python changed": writable(str(Path(python).parent)),
        "a command with the state": says("admin", program, "user", "list", **variables),
        "the façade with the state": says("admin", python, "-c", by_facade, **variables),
        "a worker by ssh": says(TOKEN, *ssh, *pins, f"ubuntu@{worker}", "echo", TOKEN),
        "a worker by the executor": says(TOKEN, python, "-c", by_executor, **variables),
        "a shell by sudo": by_sudo("-u", OWNER, "/bin/sh", "-c", f"echo {TOKEN}", expected=TOKEN),
        "a login by sudo": by_sudo("-i", "-u", OWNER, "echo", TOKEN, expected=TOKEN),
        "a file by sudoedit": by_sudo("-e", "-u", OWNER, state, expected="users"),
        "another command by sudo": by_sudo("-u", OWNER, program, "user", "list", expected="admin"),
        "another state by sudo": by_sudo("-u", OWNER, program, "menu", "--state", "/tmp/database.yaml"),
        "more words by sudo": by_sudo("-u", OWNER, *menu, "--help", expected="Usage"),
        "the menu as root": by_sudo("-u", "root", *menu),
        "the menu as another group": by_sudo("-u", OWNER, "-g", "root", *menu),
        "the menu with a root of one's own": by_sudo("-R", "/tmp", "-u", OWNER, *menu),
        "the menu in a folder of one's own": by_sudo("-D", "/tmp", "-u", OWNER, *menu),
        "the menu with a variable": by_sudo("-u", OWNER, f"CLOUDREPO_STATE={state}", *menu),
        "the menu with all variables": by_sudo("-E", "-u", OWNER, *menu),
        ALLOWED: by_sudo("-u", OWNER, *menu),
        **(of_a_process(found[0]) if (found := menus_of_others()) else {}),
    }


def main(state: str, key: str, worker: str, *menu: str) -> int:
    """Try all of it."""
    reached = {}
    for name, attempt in tries(state, key, worker, list(menu)).items():
        try:
            reached[name] = attempt()
        except (OSError, subprocess.TimeoutExpired):
            reached[name] = False
    print(json.dumps(reached))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
