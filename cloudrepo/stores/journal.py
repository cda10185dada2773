"""The journal's text: what is acknowledged and not yet in the state file. Pure functions.

One JSON object a line, only ever appended::

    {"journal":1,"continues":"<sha256 of the YAML>","revision":7,"installation":"…","sections":{…},"sum":"…"}
    {"revision":8,"after":7,"put":{"slices/1000":{…}},"gone":["slices/1001"],"sum":"…"}
    {"folded":"<sha256 of the new YAML>","revision":8,"sum":"…"}

The first line says which YAML the rest continues. `after` chains the records, `sum` closes each line. A last line
without its end was never acknowledged; everything else that does not fit is damage, and is said with its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, TypeVar

from cloudrepo import bounded_yaml
from cloudrepo.late_dataclass import dataclass
from cloudrepo.state import NOT_PLAIN, Key, ShapeError, essence, fingerprint, key_text, restored, text_key

FORMAT = 1
_SUM_DIGITS = 16
_Kind = TypeVar("_Kind")
_SIMPLE = frozenset({str, float, bool, type(None)})
#: What the state file could be read with again: see `bounded_yaml`. A section stands two levels deep in it.
_BEYOND = 1 << bounded_yaml.MOST_BITS
_DEEPEST = bounded_yaml.DEEPEST - 2
_TOO_MUCH = f"a number has more than 300 digits, or values are nested more than {_DEEPEST} levels deep"


class JournalDamage(ValueError):
    """A line of a journal is not what was written.

    Attributes:
        line: its number, from 1.
        byte: where it begins, from 0.
        good: what stands before it.
    """

    def __init__(self, line: int, byte: int, problem: str, good: Journal | None = None) -> None:
        super().__init__(f"line {line}, byte {byte}: {problem}")
        self.line, self.byte, self.good = line, byte, good


@dataclass(frozen=True)
class Header:
    """Which YAML a journal continues.

    Attributes:
        continues: its SHA-256.
        revision: of the state in it.
        said: the revision that stands in it, which an edit by hand leaves as it was.
        installation: whose it is.
        sections: by key, a digest of the value there, without what is derived from other sections.
    """

    continues: str
    revision: int
    said: int
    installation: str
    sections: Mapping[str, str]


NO_HEADER = Header("", 0, 0, "", {})


@dataclass(frozen=True)
class Record:
    """One change.

    Attributes:
        revision: its number.
        changes: by key, the new fingerprint, or None when it is gone.
        end: byte after its line.
    """

    revision: int
    changes: Mapping[Key, bytes | None]
    end: int


@dataclass
class Journal:
    """What was read of a journal.

    Attributes:
        header: the first line; `NO_HEADER` when reading began after it.
        records: in their order.
        folded: by SHA-256 of a YAML made of this journal: the revision of the state in it.
        end: byte after the last whole line.
        lines: how many lines that is.
        last: revision of the last record, or of the header.
    """

    header: Header = NO_HEADER
    records: list[Record] = field(default_factory=list)
    folded: dict[str, int] = field(default_factory=dict)
    end: int = 0
    lines: int = 0
    last: int = 0

    def since(self, revision: int) -> dict[Key, bytes | None]:
        """What the records after `revision` changed, taken together."""
        return _together(record for record in self.records if record.revision > revision)

    def until(self, revision: int) -> dict[Key, bytes | None]:
        """What the others changed."""
        return _together(record for record in self.records if record.revision <= revision)


def _together(records: Iterable[Record]) -> dict[Key, bytes | None]:
    found: dict[Key, bytes | None] = {}
    for record in records:
        found.update(record.changes)
    return found


# ---------------------------------------------------------------------------------------- writing


def header_line(header: Header) -> bytes:
    """The first line."""
    return _line(
        {
            "journal": FORMAT,
            "continues": header.continues,
            "revision": header.revision,
            "said": header.said,
            "installation": header.installation,
            "sections": dict(header.sections),
        }
    )


def is_plain(value: Any, levels: int = _DEEPEST) -> bool:
    """Whether a value comes back from a journal, and later from the state file, as it is.

    Args:
        value: of a section.
        levels: how deep it may be nested.
    """
    kind = type(value)
    if kind is int:
        return bool(-_BEYOND < value < _BEYOND)
    if kind in _SIMPLE:
        return True
    if levels == 0:
        return False
    if kind is dict:
        for key, entry in value.items():  # loops, not `all`: this is a tenth of a commit
            if type(key) is not str or (type(entry) not in _SIMPLE and not is_plain(entry, levels - 1)):
                return False
        return True
    if kind is list:
        for entry in value:  # noqa: SIM110
            if not is_plain(entry, levels - 1):
                return False
        return True
    return False


def plain(value: Any, where: Iterable[Any] = ()) -> Any:
    """A value as it comes back from a journal: a tuple as a list, and keys as text.

    Raises:
        ShapeError: it does not fit into JSON, or could not be read from the state file again.
    """
    try:
        found = json.loads(json.dumps(value, check_circular=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ShapeError(where, NOT_PLAIN) from error
    if not is_plain(found):
        raise ShapeError(where, _TOO_MUCH)
    return found


def record_line(revision: int, after: int, changes: Mapping[Key, bytes | None]) -> bytes:
    """One change.

    Raises:
        ShapeError: a value is not what JSON holds: its keys are not text, or it is of another kind.
    """
    puts = {}
    for key, printed in changes.items():
        if printed is not None:
            puts[key_text(key)] = restored(printed)
    words = {
        "revision": revision,
        "after": after,
        "put": puts,
        "gone": [key_text(key) for key, printed in changes.items() if printed is None],
    }
    return _line({word: value for word, value in words.items() if value or word in ("revision", "after")})


def fold_line(sha: str, revision: int) -> bytes:
    """Says that a YAML with this SHA-256 holds the state at this revision."""
    return _line({"folded": sha, "revision": revision})


def _line(words: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(words, separators=(",", ":"), check_circular=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ShapeError((), str(error)) from error
    body = text[:-1].encode()
    return body + b',"sum":"' + _sum(body) + b'"}\n'


def _sum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_SUM_DIGITS // 2).hexdigest().encode()


def digest(key: Key, printed: bytes) -> str:
    """What a header says of a section's value; the order of its keys does not matter."""
    bare = essence(key, printed)
    try:
        text = json.dumps(restored(bare), sort_keys=True, separators=(",", ":"), default=str)
    except TypeError:  # keys of several kinds, which have no order
        text = bare.hex()
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


class Digests:
    """The digests of a state's sections; those of sections that did not change are known from before."""

    def __init__(self) -> None:
        self._known: dict[Key, tuple[bytes, str]] = {}

    def of(self, prints: Mapping[Key, bytes]) -> dict[str, str]:
        """The `sections` of a header."""
        known = self._known
        self._known = {
            key: known[key] if key in known and known[key][0] is printed else (printed, digest(key, printed))
            for key, printed in prints.items()
        }
        return {key_text(key): said for key, (_printed, said) in self._known.items()}


# ---------------------------------------------------------------------------------------- reading


def read(content: bytes, *, begin: Journal | None = None) -> Journal:
    """The journal in `content`.

    Args:
        content: a whole journal, or what comes after a part that was read before.
        begin: that part; only its `end`, `lines` and `last` count.

    Raises:
        JournalDamage: a line is not what was written.
    """
    found = Journal(end=begin.end, lines=begin.lines, last=begin.last) if begin else Journal()
    at = 0
    while (stop := content.find(b"\n", at)) >= 0:
        try:
            end = found.end + stop + 1 - at
            _take(found, _words(content[at:stop]), end, is_first=not found.lines)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problem = str(error) if isinstance(error, _Problem) else "it is not what was written there"
            raise JournalDamage(found.lines + 1, found.end, problem, found) from error
        found.end = end
        found.lines += 1
        at = stop + 1
    _check_rest(found, content[at:])
    return found


class _Problem(ValueError):
    """What is wrong with a line, in words."""


def _check_rest(found: Journal, rest: bytes) -> None:
    """What stands after the last whole line is either the beginning of a line or damage."""
    if not found.lines:
        raise JournalDamage(1, 0, "its first line is cut" if rest else "it is empty", found)
    if rest:
        body, mark, tail = rest.rpartition(b',"sum":"')
        if mark and len(tail) > _SUM_DIGITS + 2 and tail[:_SUM_DIGITS] == _sum(body):
            raise JournalDamage(found.lines + 1, found.end, "the line has lost its end", found)


def _words(line: bytes) -> dict[str, Any]:
    body, mark, tail = line.rpartition(b',"sum":"')
    if not mark or tail != _sum(body) + b'"}':
        raise _Problem("its checksum is wrong")
    words: dict[str, Any] = json.loads(body + b"}")
    return words


def _take(found: Journal, words: Mapping[str, Any], end: int, *, is_first: bool) -> None:
    if is_first:
        if words.get("journal") != FORMAT:
            raise _Problem("it is no journal of a state file, or one of a newer version")
        found.header = Header(
            _of(str, words["continues"]),
            _of(int, words["revision"]),
            _of(int, words["said"]),
            _of(str, words["installation"]),
            _of(dict, words["sections"]),
        )
        found.last = found.header.revision
    elif "folded" in words:
        found.folded[_of(str, words["folded"])] = _of(int, words["revision"])
    elif words["after"] != found.last:
        raise _Problem(f"what comes before it is missing: it follows revision {words['after']}, not {found.last}")
    else:
        found.last = _of(int, words["revision"])
        found.records.append(Record(words["revision"], _changes(words.get("put", {}), words.get("gone", ())), end))


def _of(kind: type[_Kind], value: Any) -> _Kind:
    if type(value) is not kind:
        raise _Problem("it is not what was written there")
    found: _Kind = value
    return found


def _changes(put: Mapping[str, Any], gone: Iterable[str]) -> dict[Key, bytes | None]:
    changes: dict[Key, bytes | None] = {text_key(text): fingerprint(value) for text, value in put.items()}
    changes.update({text_key(text): None for text in gone})
    return changes


def without_folds(lines: bytes) -> bytes:
    """Whole lines that were read before, without those that tell of a fold."""
    return b"".join(line for line in lines.splitlines(keepends=True) if not line.startswith(b'{"folded"'))
