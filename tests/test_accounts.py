from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bcrypt
import pytest

from cloudrepo import accounts
from cloudrepo.errors import RefusedError

SHA_ADMIN = "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"


class FakeUsers:
    """Users in memory."""

    def __init__(self, **users: dict[str, Any]) -> None:
        self.data: dict[str, Any] = {"users": users}

    def get_user(self, username: str) -> dict[str, Any] | None:
        user: dict[str, Any] | None = copy.deepcopy(self.data["users"].get(username))
        return user

    @contextmanager
    def transaction(self) -> Iterator[dict[str, Any]]:
        yield self.data


def sha(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def test_hashes_are_salted_bcrypt_and_verify() -> None:
    one, two = accounts.hash_password("correct horse"), accounts.hash_password("correct horse")
    assert one != two
    assert one.startswith("$2b$")
    assert accounts.verify_password("correct horse", one)
    assert not accounts.verify_password("correct horsf", one)


def test_a_hash_has_twelve_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its own: all tests have them cheaper (conftest.py)."""
    salts = {12: bcrypt.gensalt(4)}
    monkeypatch.setattr(bcrypt, "gensalt", salts.__getitem__)
    assert accounts.hash_password("correct horse").encode().startswith(salts[12])


def test_the_documented_hash_is_accepted_in_either_case() -> None:
    assert accounts.verify_password("admin", SHA_ADMIN)
    assert accounts.verify_password("admin", SHA_ADMIN.upper())
    assert not accounts.verify_password("Admin", SHA_ADMIN)


@pytest.mark.parametrize("damaged", ["", "x", "$2b$12$short", "*", SHA_ADMIN[:-1], "é"])
def test_what_is_no_hash_lets_nobody_in(damaged: str) -> None:
    assert not accounts.verify_password("admin", damaged)
    assert not accounts.verify_password("", damaged)


def test_a_long_password_is_refused_and_never_cut() -> None:
    stored = accounts.hash_password("x" * 72)
    assert accounts.verify_password("x" * 72, stored)
    assert not accounts.verify_password("x" * 73, stored)
    with pytest.raises(RefusedError, match="74 bytes"):
        accounts.hash_password("é" * 37)


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("short12", "8 characters"),
        ("", "8 characters"),
        ("Annabella", "user name"),
        ("the old one", "an old one"),
        ("x" * 73, "72"),
        ("ab\ud800cdefgh", "not text"),
    ],
)
def test_rules_for_new_passwords(password: str, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        accounts.check_new_password("annabella", password, ["", accounts.hash_password("the old one")])


def test_a_good_new_password() -> None:
    accounts.check_new_password("ann", "änders als zuvor", [sha("before")])


def test_login_upgrades_the_documented_hash() -> None:
    users = FakeUsers(ann={"password_hash": sha("my password")})
    assert accounts.Authenticator(users).login("ann", "my password") == accounts.Login("ann", False)
    stored = users.data["users"]["ann"]
    assert stored["password_hash"].startswith("$2b$")
    assert "must_change_password" not in stored
    assert accounts.verify_password("my password", stored["password_hash"])


def test_the_shipped_hash_is_upgraded_and_must_still_be_changed() -> None:
    users = FakeUsers(admin={"password_hash": SHA_ADMIN})
    authenticator = accounts.Authenticator(users)
    assert authenticator.login("admin", "admin").must_change_password
    assert users.data["users"]["admin"]["password_hash"].startswith("$2b$")
    assert authenticator.login("admin", "admin").must_change_password
    accounts.set_password(users, "admin", "a good one")
    assert not authenticator.login("admin", "a good one").must_change_password


def test_the_default_accounts_have_their_documented_passwords() -> None:
    for name, quota in (("admin", 10), ("student", 6)):
        user = accounts.DEFAULT_USERS[name]
        assert accounts.verify_password(name, user["password_hash"])
        assert accounts.must_change(user)
        assert user["quota_vms"] == quota


def test_an_unknown_name_is_answered_as_a_wrong_password() -> None:
    authenticator = accounts.Authenticator(FakeUsers(), sleep=lambda _: None)
    for password in ("admin", "x" * 100, "a\x00b", "\ud800"):
        with pytest.raises(RefusedError, match=r"^wrong user name or password$"):
            authenticator.login("nobody", password)


def test_an_upgrade_does_not_undo_a_password_changed_meanwhile() -> None:
    users = FakeUsers(ann={"password_hash": "new"})
    accounts._store(users, "ann", "old", "upgraded", keep_demand=False)
    assert users.data["users"]["ann"]["password_hash"] == "new"


def test_setting_the_password_of_nobody() -> None:
    with pytest.raises(RefusedError, match=r"^User not found$"):
        accounts.set_password(FakeUsers(), "ann", "long enough")
