"""What fuzz tests share: how many examples, and what a stranger might say.

In the suite there are few examples, the same each time. `./cloud bench fuzz` runs many, others each time: see the
profile `fuzz`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings, strategies as st

Test = TypeVar("Test", bound=Callable[..., Any])
LONG = "fuzz"  # the profile, by `pytest --hypothesis-profile=fuzz`

settings.register_profile(
    LONG, max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)


def fuzz(examples: int = 50) -> Callable[[Test], Test]:
    """Run a test with so many examples, always the same; with the profile `fuzz` with many, always others."""
    if settings.get_current_profile_name() == LONG:
        return settings.get_profile(LONG)
    return settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )


#: Words that would show if they reached a shell, an option parser, a format, a terminal or a number.
ODD = (
    *("", " ", "\n", "\r", "\t", "\0", "\x1b[2J\x1b]0;owned\x07", "\x9b31m", "\u202e", "\u2028", "\ud83d", "\udcff"),
    *("--help", "-x", "--conf-script=/tmp/x", "; reboot", "$(reboot)", "`id`", "| sh", "'", '"', "\\", "%s", "{0}"),
    *("../../etc/shadow", "/", "~", "~root", "json:{}", "nbd:x", ",", "=", ":", "*", "#", "\U0001f600", "é", "a" * 300),
    *("NaN", "Infinity", "1e999", "-1", "0x10", "9" * 30, "9" * 5000, "٣", "True", "null", "[" * 3000, '{"a":' * 3000),
)  # fmt: skip

words = st.one_of(st.sampled_from(ODD), st.text(max_size=40))
texts = st.one_of(words, st.lists(words, max_size=4).map("".join), st.lists(words, max_size=4).map("\n".join))
numbers = st.one_of(st.integers(), st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**30, 10**400]), st.floats())
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4)),
    max_leaves=12,
)


@st.composite
def changed_json(draw: st.DrawFn, text: str) -> str:
    """A JSON text with some values, keys or entries changed for others."""
    value = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        value = _changed(draw, value)
    try:
        return json.dumps(value)
    except ValueError:  # a number with too many digits for Python to write
        return json.dumps(None)


def _changed(draw: st.DrawFn, value: Any) -> Any:
    is_deep = isinstance(value, dict | list) and bool(value)
    if not is_deep or draw(st.integers(0, 3)) == 0:
        return draw(values)
    if isinstance(value, list):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], _changed(draw, value[place]), *value[place + 1 :]]
    key = draw(st.sampled_from(sorted(value)))
    what = draw(st.integers(0, 4))
    if what == 0:
        return {name: each for name, each in value.items() if name != key}
    if what == 1:
        return {draw(words) if name == key else name: each for name, each in value.items()}
    return value | {key: _changed(draw, value[key])}


@st.composite
def changed(draw: st.DrawFn, text: str) -> str:
    """A tool's answer garbled: cut, doubled, with strange pieces, or as JSON with other values."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return draw(texts)
    if kind <= 2:
        lines = text.splitlines(keepends=True)
        place = draw(st.integers(0, max(0, len(lines) - 1)))
        try:
            json.loads(lines[place] if lines else "")
        except (ValueError, RecursionError):
            pass
        else:
            return "".join([*lines[:place], draw(changed_json(lines[place].strip())) + "\n", *lines[place + 1 :]])
    start, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    middle = draw(st.sampled_from(["", text[start:end] * 2])) if kind == 3 else draw(texts)
    return text[:start] + middle + text[end if kind != 4 else start :]


def plain_words(value: Any) -> bool:
    """Whether words could be handed to execve: texts, none empty of meaning, no NUL in them, all whole characters."""
    try:
        return isinstance(value, str) and "\0" not in value and value.encode() is not None
    except UnicodeEncodeError:
        return False


# -- the same by a generator of numbers, for threads, where hypothesis cannot be asked -----------------------


def garble(random: Random, text: str) -> str:
    """A tool's answer garbled, as `changed`."""
    lines = text.splitlines(keepends=True)
    if random.random() < 0.7 and lines:
        place = random.randrange(len(lines))
        try:
            value = json.loads(lines[place])
        except (ValueError, RecursionError):
            pass
        else:
            return "".join([*lines[:place], json.dumps(_garbled(random, value)) + "\n", *lines[place + 1 :]])
    start, end = sorted(random.randint(0, len(text)) for _ in range(2))
    return text[:start] + random.choice(["", text[start:end] * 2, *ODD]) + text[random.choice([start, end]) :]


def _garbled(random: Random, value: Any) -> Any:
    if not isinstance(value, dict | list) or not value or random.random() < 0.15:
        return random.choice([*ODD, None, True, -1, 0, 2**63, 10**30, 0.5, [], {}, [None], {"": None}, [[[]]]])
    if isinstance(value, list):
        place = random.randrange(len(value))
        return [*value[:place], _garbled(random, value[place]), *value[place + 1 :]]
    key = random.choice(sorted(value))
    kind = random.random()
    if kind < 0.1:
        return {name: each for name, each in value.items() if name != key}
    if kind < 0.2:
        return {random.choice(ODD) if name == key else name: each for name, each in value.items()}
    return value | {key: _garbled(random, value[key])}
