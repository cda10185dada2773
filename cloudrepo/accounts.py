"""Passwords: bcrypt, the documented SHA-256 accepted once more, rules for new ones, a pause after failures."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from cloudrepo.errors import RefusedError
from cloudrepo.late_dataclass import dataclass
from cloudrepo.login_delay import LoginDelay

MIN_LENGTH = 8
MAX_BYTES = 72  # bcrypt looks at no more
ROUNDS = 12

_LEGACY = re.compile(r"[0-9a-fA-F]{64}\Z")
_BCRYPT = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}\Z")
_SHIPPED = {hashlib.sha256(word).hexdigest() for word in (b"admin", b"student")}

# What a missing state file is made with. The passwords are the user names; the first login changes them.
DEFAULT_USERS: dict[str, dict[str, Any]] = {
    "admin": {
        "username": "admin",
        "password_hash": "$2b$12$Ego780jv5A6Ns/TQj5DWv.DE2pRlIg.DgB5Gmvz/12fW5Kvspa2Ri",
        "quota_vms": 10,
        "used_vms": 0,
        "slices": [],
        "must_change_password": True,
    },
    "student": {
        "username": "student",
        "password_hash": "$2b$12$zG6O1BOMWlgniGCF2ekPCu.j.C.sI6uRWMoeoSaYKf.Jc1evbbCIi",
        "quota_vms": 6,
        "used_vms": 0,
        "slices": [],
        "must_change_password": True,
    },
}


class Users(Protocol):
    """What accounts need of the database."""

    def get_user(self, username: str) -> dict[str, Any] | None:
        """A copy of a user's record, or None."""

    def transaction(self) -> AbstractContextManager[dict[str, Any]]:
        """The state, to be changed."""


def hash_password(password: str, rounds: int = ROUNDS) -> str:
    """The bcrypt hash of a password, with a salt of its own.

    Raises:
        RefusedError: more than 72 bytes, which bcrypt would not look at.
    """
    import bcrypt  # takes as long to load as ten of our own modules, and most commands hold no password

    return bcrypt.hashpw(_bytes(password), bcrypt.gensalt(rounds)).decode()


def verify_password(password: str, password_hash: str) -> bool:
    """Whether the password belongs to the hash: bcrypt, or unsalted SHA-256 in hex as documented."""
    if is_legacy(password_hash):
        digest = hashlib.sha256(password.encode("utf-8", "surrogatepass")).hexdigest()
        return hmac.compare_digest(digest, password_hash.lower())
    import bcrypt

    try:
        return bcrypt.checkpw(_bytes(password), password_hash.encode())
    except (RefusedError, ValueError):  # too long to be anybody's; not a hash
        return False


def is_legacy(password_hash: str) -> bool:
    """Whether a hash is the documented unsalted SHA-256."""
    return bool(_LEGACY.match(password_hash))


def must_change(user: Mapping[str, Any]) -> bool:
    """Whether the next login asks for a new password: marked so, or still the shipped one."""
    return bool(user.get("must_change_password")) or user["password_hash"].lower() in _SHIPPED


def check_new_password(username: str, password: str, old_hashes: Iterable[str] = ()) -> None:
    """Refuse a password that breaks a rule.

    Args:
        username: whose it is to be.
        password: the new one.
        old_hashes: of those the user has had: the present and the first one.

    Raises:
        RefusedError: too short, too long for bcrypt, the user's name, or an old one.
    """
    _bytes(password)
    if len(password) < MIN_LENGTH:
        raise RefusedError(f"the password is too short: {MIN_LENGTH} characters are the least", code="password.short")
    if password.casefold() == username.casefold():
        raise RefusedError("the password must not be the user name", code="password.name")
    if any(verify_password(password, old) for old in old_hashes if old):
        raise RefusedError(
            "the new password must not be an old one",
            evidence="it is the present or the first one",
            code="password.same",
        )


def set_password(users: Users, username: str, password: str) -> None:
    """Give a user the new password he chose, and take back the demand to change it.

    A first password is remembered, as its hash, so that it is never taken again.

    Raises:
        RefusedError: no such user, or the password breaks a rule.
    """
    user = users.get_user(username)
    if user is None:
        raise RefusedError("User not found", code="user.unknown")
    check_new_password(username, password, (user["password_hash"], user.get("first_password_hash", "")))
    _store(users, username, user["password_hash"], hash_password(password), keep_demand=False)


def first_password(username: str, password: str) -> dict[str, Any]:
    """The part of a user's record with a password that somebody else gave: it is to be changed at the next login.

    Raises:
        RefusedError: the password breaks a rule.
    """
    check_new_password(username, password)
    return {"password_hash": hash_password(password), "must_change_password": True}


@dataclass(frozen=True)
class Login:
    """A successful login."""

    username: str
    must_change_password: bool


class Authenticator:
    """The login: every failure makes the next answer for that name slower, in every process on the state file.

    An unknown name, and one whose stored hash is quickly compared, cost as much time as any other.
    """

    def __init__(
        self, users: Users, *, delay: LoginDelay | None = None, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._users = users
        self._sleep = sleep
        self._delay = delay or LoginDelay(None)

    def login(self, username: str, password: str) -> Login:
        """Let a person in; a documented SHA-256 hash is replaced by bcrypt.

        Raises:
            RefusedError: the name or the password is wrong (not said which).
        """
        wait_s = self._delay.begin(username)
        if wait_s:
            self._sleep(wait_s)
        user = self._users.get_user(username)
        if not _is_right(password, user["password_hash"] if user else "") or user is None:
            raise RefusedError("wrong user name or password", code="login.wrong")
        self._delay.succeeded(username)
        demand = must_change(user)
        if is_legacy(user["password_hash"]) and len(password.encode()) <= MAX_BYTES:
            _store(self._users, username, user["password_hash"], hash_password(password), keep_demand=demand)
        return Login(username, demand)


def _is_right(password: str, stored: str) -> bool:
    """As `verify_password`, in the time that bcrypt takes, whatever is stored."""
    is_right = verify_password(password, stored)
    if not _BCRYPT.match(stored):
        verify_password(password, DEFAULT_USERS["admin"]["password_hash"])
    return is_right


def _store(users: Users, username: str, old_hash: str, new_hash: str, *, keep_demand: bool) -> None:
    """Write a new hash unless somebody changed the password since `old_hash` was read."""
    with users.transaction() as data:
        user = data["users"].get(username)
        if user is None or user["password_hash"] != old_hash:
            return
        if must_change(user) and not keep_demand:
            user["first_password_hash"] = old_hash
        user["password_hash"] = new_hash
        user.pop("must_change_password", None)
        if keep_demand:
            user["must_change_password"] = True


def _bytes(password: str) -> bytes:
    try:
        encoded = password.encode()
    except UnicodeEncodeError as error:
        raise RefusedError("the password holds characters that are not text", code="password.text") from error
    if len(encoded) > MAX_BYTES:
        raise RefusedError(
            f"the password is too long: {len(encoded)} bytes, and bcrypt looks at {MAX_BYTES} only",
            remedy="Choose a shorter one; it is never cut silently",
            code="password.long",
        )
    return encoded
