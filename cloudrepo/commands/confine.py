"""A program that reads what a stranger made: limits, no network, no privileges (prlimit, unshare, setpriv)."""

from __future__ import annotations

from cloudrepo.late_dataclass import dataclass

NOBODY = 65534


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a confined program may use.

    Attributes:
        memory: address space in bytes.
        seconds: of CPU.
        files: descriptors open at once. It can write into none: no file of it may have a byte.
    """

    memory: int = 1024**3
    seconds: int = 30
    files: int = 64


def confined(words: tuple[str, ...], *, limits: Limits, is_root: bool, has_namespaces: bool) -> tuple[str, ...]:
    """The words that run `words` confined. The program they start becomes it: there is one process to end.

    Args:
        words: the program and its arguments.
        limits: what it may use.
        is_root: whether root runs it: then it goes on as nobody, and without any capability.
        has_namespaces: whether it can have a network of its own, with nothing in it.
    """
    bounds = (
        *(f"--as={limits.memory}", f"--cpu={limits.seconds}", f"--nofile={limits.files}"),
        *("--fsize=0", "--core=0"),
    )
    network = ("unshare", *(() if is_root else ("--user",)), "--net", "--ipc", "--") if has_namespaces else ()
    nobody = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
    privileges = ("setpriv", *(nobody if is_root else ()), "--no-new-privs", "--pdeathsig=KILL", "--")
    return ("prlimit", *bounds, "--", *network, *privileges, *words)
