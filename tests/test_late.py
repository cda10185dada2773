"""What is made when it is needed: methods of dataclasses, and libraries that another library imports."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, field
from pathlib import Path
from typing import Any

import pytest

from cloudrepo import late_dataclass
from cloudrepo.late_dataclass import dataclass
from cloudrepo.late_module import defer
from cloudrepo.ssh_config import read_config

CHECKOUT = Path(__file__).resolve().parent.parent
Decorator = Callable[..., Any]


def example(decorator: Decorator) -> tuple[Any, Any]:
    """The same two classes, by this or that decorator; the second one is an heir."""

    @decorator(frozen=True, kw_only=True, order=True)
    class Card:
        """A card."""

        name: str
        speed: int = 3
        tags: list[str] = field(default_factory=list, compare=False, metadata={"unit": "none"})

    @decorator(frozen=True, kw_only=True, order=True)
    class Fast(Card):
        """One that is faster."""

        factor: int = 2

        def __post_init__(self) -> None:
            if self.factor < 1:
                raise ValueError("slower is not faster")

    return Card, Fast


LOOKS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda card, fast: repr(fast(name="a", factor=7)),
    lambda card, fast: [card(name="a") == card(name="a", tags=["x"]), card(name="a") == card(name="b")],
    lambda card, fast: hash(card(name="a")) == hash(card(name="a", tags=["y"])),
    lambda card, fast: sorted([fast(name="b"), fast(name="a")])[0].name,
    lambda card, fast: card(name="a") == fast(name="a"),
    lambda card, fast: dataclasses.asdict(fast(name="a")),
    lambda card, fast: dataclasses.replace(fast(name="a"), speed=9).speed,
    lambda card, fast: [(one.name, dict(one.metadata), one.kw_only) for one in dataclasses.fields(fast)],
    lambda card, fast: [dataclasses.is_dataclass(card), card.__doc__, card.__init__.__qualname__ != ""],
    lambda card, fast: (card(name="a").tags is card(name="a").tags, card.speed, fast.factor),
)


@pytest.mark.parametrize("look", LOOKS)
def test_a_late_dataclass_is_as_one_that_was_written_at_once(look: Callable[[Any, Any], Any]) -> None:
    """Each look is the first one at two new classes."""
    assert look(*example(dataclass)) == look(*example(dataclasses.dataclass))


MISTAKES: tuple[Callable[[Any, Any], Any], ...] = (
    lambda card, fast: card(),
    lambda card, fast: card("a"),
    lambda card, fast: fast(name="a", weight=1),
    lambda card, fast: fast(name="a", factor=0),
    lambda card, fast: setattr(card(name="a"), "name", "b"),
    lambda card, fast: delattr(card(name="a"), "name"),
    lambda card, fast: card(name="a") < 3,
)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_it_refuses_what_the_other_one_refuses_in_its_words(mistake: Callable[[Any, Any], Any]) -> None:
    said = []
    for decorator in (dataclass, dataclasses.dataclass):
        with pytest.raises((TypeError, ValueError, FrozenInstanceError)) as caught:
            mistake(*example(decorator))
        said.append((type(caught.value), str(caught.value).replace("example.<locals>.", "")))
    assert said[0] == said[1]


def test_nothing_is_written_before_an_object_is_made() -> None:
    card, fast = example(dataclass)
    assert {"__repr__", "__eq__", "__hash__", "__setattr__", "__lt__"} & set(vars(card)) == set()
    fast(name="a")
    assert {"__repr__", "__eq__", "__hash__", "__setattr__", "__lt__"} <= set(vars(card)) & set(vars(fast))


def test_who_has_wrapped_the_init_stays_around_it() -> None:
    card, _ = example(dataclass)
    genuine, asked = card.__init__, []

    def init(self: Any, **values: Any) -> None:
        asked.append(values)
        genuine(self, **values)

    card.__init__ = init
    assert [card(name="a").speed, card(name="b").name] == [3, "b"]
    assert asked == [{"name": "a"}, {"name": "b"}]


class Stopped(BaseException):
    """As Ctrl-C."""


def stopped_at(line: int, call: Callable[[], Any]) -> bool:
    """Whether a call was stopped at so many lines of the standard library's dataclasses, from 1."""
    seen = 0

    def trace(frame: types.FrameType, event: str, _value: Any) -> Any:
        nonlocal seen
        if frame.f_globals.get("__name__") != "dataclasses":
            return None
        seen += event == "line"
        if seen == line:
            sys.settrace(None)
            raise Stopped
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Stopped:
        return True
    finally:
        sys.settrace(before)
    return False


def test_who_is_stopped_while_methods_are_written_leaves_nothing_half_done() -> None:
    """Ctrl-C at any moment; the menu goes on after it."""
    expected = [look(*example(dataclasses.dataclass)) for look in LOOKS]
    stops = 0
    for line in range(1, 100_000, 37):
        card, fast = example(dataclass)
        if not stopped_at(line, lambda fast=fast: fast(name="a")):  # type: ignore[misc]
            break
        stops += 1
        assert [look(card, fast) for look in LOOKS] == expected, line
    assert stops > 30


def test_an_init_of_its_own_is_told_at_once() -> None:
    with pytest.raises(TypeError, match=r"has an __init__ of its own: take dataclasses\.dataclass"):

        @dataclass
        class Odd:
            def __init__(self) -> None:
                pass


def test_threads_that_make_the_first_objects_at_once_get_whole_ones() -> None:
    for _ in range(200):
        _, fast = example(dataclass)
        ready = threading.Barrier(4)

        def make(fast: Any = fast, ready: threading.Barrier = ready) -> Any:
            ready.wait()
            return fast(name="a", speed=1)

        with ThreadPoolExecutor(4) as pool:
            made = [one.result() for one in [pool.submit(make) for _ in range(4)]]
        assert made == [fast(name="a", speed=1)] * 4


def test_who_comes_while_the_methods_are_written_waits_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    card, _ = example(dataclass)
    half_done = threading.Event()

    def slow(**options: Any) -> Decorator:
        def write(cls: type) -> type:
            half_done.set()
            time.sleep(0.05)
            return dataclasses.dataclass(**options)(cls)

        return write

    monkeypatch.setattr(late_dataclass, "dataclasses", types.SimpleNamespace(dataclass=slow))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(card, name="a")
        assert half_done.wait(30)
        second = card(name="a")
        assert second == first.result() and repr(second) == repr(first.result())


# ---------------------------------------------------------------------------------------- libraries


def python(text: str, *, typed: str = "") -> str:
    """What a Python of its own prints."""
    words = [sys.executable, "-c", text]
    done = subprocess.run(words, cwd=CHECKOUT, input=typed, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_paramiko_does_without_invoke(tmp_path: Path) -> None:
    (tmp_path / "config").write_text('Match exec "test $(cat | wc -c) = 0"\n  User ann\n')
    text = (
        "import sys, pathlib, cloudrepo.ssh_config, paramiko\n"
        f"print(cloudrepo.ssh_config.read_config(pathlib.Path({str(tmp_path / 'config')!r}), '10.0.10.1')['user'])\n"
        "print('unittest.mock' in sys.modules, type(sys.modules['invoke']).__name__)\n"
        "print(sys.stdin.read())\n"
    )
    assert python(text, typed="deploy") == "ann\nFalse _LateModule\ndeploy\n", "what is typed is for the menu"


@pytest.mark.parametrize(
    ("command", "user"),
    [("true", "ann"), ("false", "bob"), ("test %h = 10.0.10.1", "ann"), ("exit 7", "bob"), ("no-such-program", "bob")],
)
def test_a_match_exec_of_the_users_ssh_configuration_is_asked(tmp_path: Path, command: str, user: str) -> None:
    config = tmp_path / "config"
    config.write_text(f'Match exec "{command}"\n  User ann\nHost *\n  User bob\n')
    assert read_config(config, "10.0.10.1")["user"] == user


def test_a_module_that_is_loaded_stays_and_one_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    here = types.ModuleType("here_already")
    monkeypatch.setitem(sys.modules, "here_already", here)
    defer("here_already")
    assert sys.modules["here_already"] is here
    monkeypatch.setitem(sys.modules, "nowhere_at_all", here)
    del sys.modules["nowhere_at_all"]
    defer("nowhere_at_all")
    import nowhere_at_all  # type: ignore[import-not-found]

    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        nowhere_at_all.anything  # noqa: B018


def test_threads_that_use_a_late_module_at_once_get_it_whole() -> None:
    text = (
        "import sys, threading\n"
        "from cloudrepo.late_module import defer\n"
        "defer('invoke')\n"
        "import invoke\n"
        "ready, seen = threading.Barrier(8), []\n"
        "def look():\n"
        "    ready.wait()\n"
        "    seen.append(invoke.run)\n"
        "threads = [threading.Thread(target=look) for _ in range(8)]\n"
        "[one.start() for one in threads]; [one.join() for one in threads]\n"
        "print(len(seen), len(set(seen)))\n"
    )
    assert python(text) == "8 1\n"
