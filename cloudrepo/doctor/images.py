"""What is wrong with base images: with the files of this machine, and with their copies on a host. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cloudrepo.doctor.findings import Finding, Level
from cloudrepo.errors import CloudError
from cloudrepo.late_dataclass import dataclass


@dataclass(frozen=True, kw_only=True)
class Copy:
    """What has become of an image on a host that has to have it, or has it.

    Attributes:
        what: of what, such as `the base image of cirros` or `the added image focal`.
        size: bytes.
        state: `ready`, `missing` or `damaged`.
        place: where it is, or would be, on the host.
        users: of one that is not ready, whose disks are on it, in words.
        can_be_brought: whether this machine has what it is a copy of.
    """

    what: str
    size: int
    state: str
    place: str
    users: Sequence[str] = ()
    can_be_brought: bool = True


def judge(ip: str, copies: Sequence[Copy]) -> Iterator[Finding]:
    """What is wrong on a host."""
    for copy in copies:
        if copy.state != "ready":
            yield _missing(ip, copy) if copy.state == "missing" else _damaged(ip, copy)


def _missing(ip: str, copy: Copy) -> Finding:
    text = f"{ip}: {copy.what} is not there"
    if not copy.users:
        code, level, text = "hosts.image.missing", Level.WARNING, f"{text}, and its first VM waits for {_size(copy)}"
        remedy = _copies(copy)
    else:
        code, level, text = "hosts.image.missing.used", Level.WRONG, f"{text}, and {_on_it(copy)}"
        remedy = f"{_copies(copy)}. Machines that run have it open still: do not stop them before that"
    return Finding(code=code, level=level, text=text, evidence=copy.place, remedy=remedy, hosts=(ip,))


def _damaged(ip: str, copy: Copy) -> Finding:
    text = f"{ip}: {copy.what} is damaged"
    if not copy.users:
        code, remedy = "hosts.image.damaged", f"{_copies(copy)} again"
    else:
        code, text = "hosts.image.damaged.used", f"{text}, and {_on_it(copy)}"
        remedy = (
            f"What they read from it is wrong. Save what is needed of them and delete them, then {_copies(copy)} again"
        )
    return Finding(code=code, level=Level.WRONG, text=text, evidence=copy.place, remedy=remedy, hosts=(ip,))


def _on_it(copy: Copy) -> str:
    return f"these are on it: {', '.join(copy.users)}"


def _copies(copy: Copy) -> str:
    first = "" if copy.can_be_brought else "when the one of this machine is set right, "
    return f"{first}`./cloud doctor --fix` copies it"


def _size(copy: Copy) -> str:
    return f"{max(1, copy.size // 1_000_000)} MB"


# -- on this machine ---------------------------------------------------------------------


def not_here(paths: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Images of flavors that are not on this machine: by path, the flavors."""
    return [
        Finding(
            code="hosts.image.source",
            level=Level.WARNING,
            text=f"the image of {', '.join(flavors)} is not on this machine, so no host can be given it",
            evidence=path,
            remedy=f"Put it at {path}, or name another in `flavors` of settings.yaml",
        )
        for path, flavors in paths.items()
    ]


def unread(what: str, path: str, error: CloudError | OSError) -> Finding:
    """A file of this machine that cannot be read."""
    reason = error.evidence or str(error) if isinstance(error, CloudError) else error.strerror or str(error)
    return Finding(
        code="hosts.image.source",
        level=Level.WRONG,
        text=f"{what} cannot be read on this machine, so no host can be given it",
        evidence=f"{path}: {reason}",
        remedy=f"Give this account the right to read it: `chmod a+r {path}`",
    )


def gone(name: str, path: str, sha256: str, users: Sequence[str]) -> Finding:
    """An added image without its file."""
    return Finding(
        code="hosts.image.source",
        level=Level.WRONG,
        text=f"the file of the added image {name} is gone, so no host can be given it",
        evidence=path,
        remedy=_put_back(name, path, sha256, users),
    )


def changed(name: str, path: str, sha256: str, users: Sequence[str], *, found: str) -> Finding:
    """An added image whose file is another than the one that was inspected.

    Args:
        name: the image's.
        path: of its file on this machine.
        sha256: as recorded.
        users: VMs on it, in words.
        found: the file's SHA-256 now.
    """
    return Finding(
        code="hosts.image.changed",
        level=Level.WRONG,
        text=f"the file of the added image {name} is not what was inspected when it was added, so nobody is given it",
        evidence=f"{path}: SHA-256 {found}, recorded is {sha256}",
        remedy=_put_back(name, path, sha256, users),
    )


def _put_back(name: str, path: str, sha256: str, users: Sequence[str]) -> str:
    back = f"Put the file whose SHA-256 begins with {sha256[:16]} back at {path}"
    if users:
        return f"{back}; these VMs are on it: {', '.join(users)}"
    return f"{back}, or add it again: `./cloud image remove {name}`, `./cloud image add FILE --name {name}`"


def unknown(name: str, folder: str, users: Sequence[str], *, has_folder: bool) -> Finding:
    """VMs on an image that the library does not have.

    Args:
        name: the image's, as the records have it.
        folder: where it is kept on this machine.
        users: these VMs, in words.
        has_folder: whether there is such a folder: then its record cannot be read.
    """
    again = f"Add the same file again: `./cloud image add FILE --name {name}`"
    return Finding(
        code="hosts.image.unknown",
        level=Level.WRONG,
        text=f"there is no added image {name}, and these VMs are on it: {', '.join(users)}",
        evidence=f"the record in {folder} cannot be read" if has_folder else f"there is no {folder}",
        remedy=f"Put {folder} back from a copy, or move it away first. {again}" if has_folder else again,
    )
