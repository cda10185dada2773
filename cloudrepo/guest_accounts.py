"""As whom guests run on a worker: one account for all, or a number of its own for each VM. Pure.

Numbers are derived, not handed out: `qemu.first_uid` and the VM's id make them. VMs of two installations on one host
have different ids, since their TAPs are named by it. See docs/decisions/0020-a-number-for-each-vm.md.
"""

from __future__ import annotations

from cloudrepo.errors import RefusedError
from cloudrepo.settings import Settings

COUNT = 1 << 27  # numbers of VMs; the last is below 2**31, where programs begin to read a number as negative


def first_uid(settings: Settings) -> int:
    """The number of VM 0, where each VM has one of its own: prepared workers, and no account named. Else 0."""
    is_prepared = settings.host.privilege == "helper" and not settings.qemu.user
    return settings.qemu.first_uid if is_prepared else 0


def guests_user(settings: Settings, login: str) -> str:
    """Whom to ask a worker about: the account of all guests, or the first number.

    Args:
        settings: the `host` and `qemu` groups.
        login: the account that logs in.
    """
    first = first_uid(settings)
    return str(first) if first else settings.qemu.user or login


def is_number(user: str) -> bool:
    """Whether a VM has the number for itself, and no account has its name."""
    return user.isdecimal()


def uid_of(first: int, vm_id: int) -> str:
    """The number that a VM runs under.

    Raises:
        RefusedError: no number is left for so high an id.
    """
    if not 0 <= vm_id < COUNT:
        raise RefusedError(
            f"VM {vm_id} can have no account number of its own",
            evidence=f"numbers are {first} + the VM's id, and ids end at {COUNT - 1}",
            remedy="Set qemu.user to an account that all guests run as",
            code="qemu.uid",
        )
    return str(first + vm_id)
