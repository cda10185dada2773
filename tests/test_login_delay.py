"""The pause after failed logins, by a clock of the test's own; and that its length and the answer tell nothing."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import bcrypt
import pytest

from cloudrepo import accounts
from cloudrepo.errors import RefusedError
from cloudrepo.login_delay import FILE_NAME, FORGOTTEN_S, MOST_NAMES, LoginDelay, pause_s
from test_accounts import FakeUsers

PAUSES = [0, 0.5, 1, 2, 4, 8, 8]


class Clock:
    """A clock that goes on only when told, or slept on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.boot = "one"
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def delay(self, folder: Path | None) -> LoginDelay:
        """What a process that begins now would have."""
        return LoginDelay(folder, clock=self, boot=lambda: self.boot)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock()


def test_each_failure_makes_the_next_answer_slower_in_every_process(clock: Clock, tmp_path: Path) -> None:
    assert [clock.delay(tmp_path).begin("ann") for _ in PAUSES] == PAUSES
    assert clock.delay(tmp_path).begin("bob") == 0
    assert pause_s(10**9) == 8


def test_a_login_waits_and_a_right_password_ends_the_waiting(clock: Clock, tmp_path: Path) -> None:
    users = FakeUsers(ann={"password_hash": accounts.hash_password("right one")})
    for _ in range(4):  # a menu each
        gate = accounts.Authenticator(users, delay=clock.delay(tmp_path), sleep=clock.sleep)
        with pytest.raises(RefusedError, match=r"^wrong user name or password$"):
            gate.login("ann", "wrong one")
    gate.login("ann", "right one")
    assert clock.slept == [0.5, 1, 2, 4]
    gate.login("ann", "right one")
    assert len(clock.slept) == 4


def test_nobody_is_kept_out_however_often_somebody_else_fails(clock: Clock, tmp_path: Path) -> None:
    users = FakeUsers(admin={"username": "admin", "password_hash": accounts.hash_password("right one")})
    for _ in range(500):
        clock.delay(tmp_path).begin("admin")
    gate = accounts.Authenticator(users, delay=clock.delay(tmp_path), sleep=clock.sleep)
    assert gate.login("admin", "right one").username == "admin"
    assert clock.slept == [8]


def test_tries_at_once_wait_as_those_one_after_another(clock: Clock, tmp_path: Path) -> None:
    """A failure counts when it begins, not when it has ended."""
    together = [clock.delay(tmp_path) for _ in PAUSES]
    assert [one.begin("ann") for one in together] == PAUSES


def test_no_failure_is_lost_between_processes(clock: Clock, tmp_path: Path) -> None:
    """Each with a file of its own open, as processes have."""

    def fail() -> None:
        for _ in range(40):
            clock.delay(tmp_path).begin("ann")

    threads = [threading.Thread(target=fail) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (entry,) = json.loads((tmp_path / FILE_NAME).read_text())["names"].values()
    assert entry["count"] == 320


def test_failures_are_forgotten_in_time_and_not_before(clock: Clock, tmp_path: Path) -> None:
    for _ in range(5):
        clock.delay(tmp_path).begin("ann")
    clock.now += FORGOTTEN_S - 1
    assert clock.delay(tmp_path).begin("ann") == 8
    clock.now += FORGOTTEN_S
    assert clock.delay(tmp_path).begin("ann") == 0


def test_a_reboot_sets_the_clock_back_and_forgets_nothing(clock: Clock, tmp_path: Path) -> None:
    for _ in range(3):
        clock.delay(tmp_path).begin("ann")
        clock.delay(tmp_path).begin("bob")
    clock.now, clock.boot = 5.0, "two"
    assert clock.delay(tmp_path).begin("ann") == 2
    clock.now += FORGOTTEN_S
    assert clock.delay(tmp_path).begin("bob") == 0


def test_the_file_is_private_bounded_and_holds_no_name(clock: Clock, tmp_path: Path) -> None:
    delay = clock.delay(tmp_path)
    for number in range(MOST_NAMES + 50):
        clock.now += 0.01
        delay.begin(f"my password {number}")
    delay.begin("\ud800" + "x" * 100_000)
    path = tmp_path / FILE_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(json.loads(path.read_text())["names"]) == MOST_NAMES
    assert "password" not in path.read_text() and path.stat().st_size < 200 * MOST_NAMES
    assert delay.begin(f"my password {MOST_NAMES + 49}") == 0.5  # the newest are kept


@pytest.mark.parametrize(
    "content", [b"{", b"\xff\xff", b"[]", b'{"names": {"x": 1}}', b'{"salt": "zz"}', b'{"names": {"a": {"count": 1}}}']
)
def test_a_damaged_file_begins_anew(clock: Clock, tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert [clock.delay(tmp_path).begin("ann") for _ in range(3)] == [0, 0.5, 1]


def test_a_shorter_list_over_a_longer_one_cut_off_in_between_is_read(clock: Clock, tmp_path: Path) -> None:
    clock.delay(tmp_path).begin("ann")
    with open(tmp_path / FILE_NAME, "a") as file:
        file.write('":0.5}}}')
    assert clock.delay(tmp_path).begin("ann") == 0.5


def test_without_a_file_a_process_counts_for_itself(clock: Clock, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / FILE_NAME).symlink_to(elsewhere)
    for folder in (None, tmp_path, elsewhere):  # none, a link that is not followed, a folder that is none
        delay = clock.delay(folder)
        assert [delay.begin("ann") for _ in range(3)] == [0, 0.5, 1]
    assert elsewhere.read_text() == "mine"


STORED = {
    "bcrypt": accounts.DEFAULT_USERS["admin"]["password_hash"],
    "documented": hashlib.sha256(b"right one").hexdigest(),
    "none": "",
    "damaged": "$2b$12$short",
}


@pytest.mark.parametrize("name", [*STORED, "nobody"])
def test_a_wrong_password_costs_one_bcrypt_whatever_is_stored_and_says_the_same(
    clock: Clock, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So neither the time nor the words tell whether there is such a user."""
    costs: list[int] = []
    genuine = bcrypt.checkpw

    def counted(password: bytes, stored: bytes) -> bool:
        answer = genuine(password, stored)
        costs.append(int(stored.split(b"$")[2]))
        return answer

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    users = FakeUsers(**{key: {"username": key, "password_hash": stored} for key, stored in STORED.items()})
    gate = accounts.Authenticator(users, delay=clock.delay(tmp_path), sleep=clock.sleep)
    with pytest.raises(RefusedError) as caught:
        gate.login(name, "wrong one")
    assert costs == [12]
    assert (str(caught.value), caught.value.details) == ("wrong user name or password", {})
    assert clock.delay(tmp_path).begin(name) == 0.5  # it waits as any other
