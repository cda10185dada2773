"""Who watches: one process of all, a `./cloud monitor` before every menu, nobody after its death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudrepo.leadership import Holder, Leadership, holder, is_wished_for

CHECKOUT = Path(__file__).resolve().parent.parent
CONTENDER = """
import sys
from pathlib import Path
from cloudrepo.leadership import Leadership
claim = Leadership(Path(sys.argv[1]), sys.argv[2])
for line in sys.stdin:
    if line.strip() == "release":
        claim.release()
    print(claim.lead() if line.strip() == "lead" else claim.leads, flush=True)
"""


class Contender:
    """A process with a claim of its own."""

    def __init__(self, folder: Path, kind: str) -> None:
        words = (sys.executable, "-c", CONTENDER, str(folder), kind)
        self.process = subprocess.Popen(
            words, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def say(self, word: str) -> bool:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == "True\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".cloudrepo"


@pytest.fixture
def contenders(folder: Path) -> Iterator[list[Contender]]:
    made = [Contender(folder, kind) for kind in ("menu", "menu", "monitor", "monitor")]
    yield made
    for one in made:
        one.close()


def test_one_menu_leads_and_its_death_makes_room(folder: Path, contenders: list[Contender]) -> None:
    first, second = contenders[:2]
    assert first.say("lead") and first.say("lead")
    assert not second.say("lead")
    found = holder(folder)
    assert found is not None
    assert (found.pid, found.kind) == (first.process.pid, "menu")
    assert not found.is_us
    first.kill()
    assert holder(folder) is None
    assert second.say("lead")


def test_a_monitor_comes_before_menus_at_their_next_pass(folder: Path, contenders: list[Contender]) -> None:
    menu, other, monitor, stand_by = contenders
    assert menu.say("lead")
    assert not monitor.say("lead")  # the menu is in the middle of its pass, for all we know
    assert is_wished_for(folder)
    assert not menu.say("lead")  # it has yielded
    assert not other.say("lead")  # and no other menu steps in
    assert monitor.say("lead")
    assert not stand_by.say("lead")
    found = holder(folder)
    assert found is not None and found.kind == "monitor" and found.pid == monitor.process.pid
    monitor.kill()
    assert stand_by.say("lead")
    stand_by.kill()
    assert other.say("lead")


def test_who_releases_leads_no_more(folder: Path, contenders: list[Contender]) -> None:
    monitor = contenders[2]
    assert monitor.say("lead")
    assert not monitor.say("release")
    assert not is_wished_for(folder)
    assert holder(folder) is None
    assert contenders[0].say("lead")


def test_looks_of_others_do_not_take_it_away(folder: Path) -> None:
    """Who looks has the lock for a moment; a taker tries again."""
    claim = Leadership(folder, "monitor")
    assert claim.lead()
    for _ in range(100):
        assert holder(folder) is not None
        assert is_wished_for(folder)
        assert claim.lead()
    claim.release()
    claim.release()


def test_a_symbolic_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (tmp_path / "precious").write_text("words")
    (folder / "monitor.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        Leadership(folder, "menu").lead()
    assert (tmp_path / "precious").read_text() == "words"


def test_the_holder_in_words() -> None:
    far = Holder(host="elsewhere", pid=7, kind="monitor", since="2026-11-24T15:00:00+00:00")
    assert str(far) == "./cloud monitor (process 7 on elsewhere, since 2026-11-24T15:00:00+00:00)"
    near = Holder(host=os.uname().nodename, pid=os.getpid(), kind="menu", since="now")
    assert str(near) == f"a menu (process {os.getpid()}, since now)"
    assert near.is_us and not far.is_us
