"""`iptables-restore` and `iptables-save`: chains of our own, changed in one transaction (iptables-restore(8)).

A rule is a table and the words that follow in `iptables-save`'s own spelling, so that what is wanted and
what is seen compare as they are.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable

from cloudrepo.naming import Mark

Rule = tuple[str, tuple[str, ...]]
CHAIN_PREFIX = "CR-"


def chain(installation: str, hook: str) -> str:
    """The name of our chain for a hook, such as `CR-ab12cd34-FORWARD` (28 characters are allowed)."""
    return f"{CHAIN_PREFIX}{installation}-{hook}"


def jump(table: str, hook: str, installation: str, mark: Mark) -> Rule:
    """The marked jump from a built-in chain into ours."""
    return (table, ("-A", hook, "-m", "comment", "--comment", str(mark), "-j", chain(installation, hook)))


def restore() -> tuple[str, ...]:
    """Apply a text of rules without touching anybody else's."""
    return ("iptables-restore", "--noflush", "--wait", "10")


def restore_text(*, remove: Iterable[Rule] = (), add: Iterable[Rule] = ()) -> str:
    """One transaction a table, that of NAT first: jumps and chains of ours away, then the new ones in.

    Args:
        remove: rules that are there: jumps are deleted one by one, chains of ours are flushed and removed.
        add: rules that should be. Jumps go in first place, before rules that might accept.
    """
    away, new = list(remove), list(add)
    # what is let through is translated from the first packet on
    tables = sorted({table for table, _ in [*away, *new]}, key=lambda table: (table != "nat", table))
    return "".join(
        _table_text(table, [r for t, r in away if t == table], [r for t, r in new if t == table]) for table in tables
    )


def _table_text(table: str, away: list[tuple[str, ...]], new: list[tuple[str, ...]]) -> str:
    kept = list(dict.fromkeys(words[1] for words in new if _is_ours(words[1])))
    gone = [name for name in dict.fromkeys(words[1] for words in away if _is_ours(words[1])) if name not in kept]
    lines = [f"*{table}"]
    lines += [f":{name} - [0:0]" for name in [*gone, *kept]]  # declaring a chain makes it, or flushes it
    lines += [_line(("-D", *words[1:])) for words in away if not _is_ours(words[1])]
    lines += [f"-X {name}" for name in gone]
    lines += [_line(words) for words in new if _is_ours(words[1])]
    lines += [_line(("-I", *words[1:])) for words in new if not _is_ours(words[1])]
    return "\n".join([*lines, "COMMIT"]) + "\n"


def _is_ours(name: str) -> bool:
    return name.startswith(CHAIN_PREFIX)


def _line(words: tuple[str, ...]) -> str:
    for word in words:
        if any(letter in word for letter in " \t\n\"'\\"):
            raise ValueError(f"not a word for iptables-restore: {word!r}")
    return " ".join(words)


def save() -> tuple[str, ...]:
    """All rules of all tables."""
    return ("iptables-save",)


def parse_rules(text: str, installation: str) -> list[Rule]:
    """The rules of this installation: those in our chains, and the jumps to them, whether marked or not.

    A stranger's rule is not taken apart: whatever it says, it is none of ours. A chain of ours without a rule is
    one rule here, `-N CHAIN`, in the words of `iptables -S`.

    Raises:
        ValueError: the text is not what `iptables-save` prints, or ends too early.
    """
    rules: list[Rule] = []
    table = ""
    for line in text.splitlines():
        if line.startswith("*") and not table:
            table = line[1:].strip()
            if not table:
                raise ValueError("a table without a name")
        elif line == "COMMIT" and table:
            table = ""
        elif line.startswith(f":{chain(installation, '')}") and table:
            rules.append((table, ("-N", line[1:].split()[0])))
        elif line.startswith("-A ") and table:
            if chain(installation, "") in line:
                words = _words(line)
                if words[1].startswith(chain(installation, "")) or _leads_to_us(words, installation):
                    rules.append((table, words))
        elif line and not line.startswith("#") and not (line.startswith(":") and table):
            raise ValueError(f"not a line of iptables-save: {line[:200]!r}")
    if table:
        raise ValueError(f"the table {table} has no end")
    filled = {(table, words[1]) for table, words in rules if words[0] == "-A"}
    return [(table, words) for table, words in rules if words[0] == "-A" or (table, words[1]) not in filled]


def are_first(text: str, installation: str) -> bool:
    """Whether every jump into a chain of ours is the first rule of the chain it is in, so that nobody accepts before.

    Raises:
        ValueError: the text is not what `iptables-save` prints.
    """
    jumps = [(table, words) for table, words in parse_rules(text, installation) if not _is_ours(words[1])]
    firsts: dict[tuple[str, str], str] = {}
    table = ""
    for line in text.splitlines():
        table = line[1:].strip() if line.startswith("*") else table
        if line.startswith("-A "):
            firsts.setdefault((table, line.split()[1]), line)
    return all(words == _words(firsts[table, words[1]]) for table, words in jumps)


def _words(line: str) -> tuple[str, ...]:
    """A line's words. Anything but plain letters and single words is rare, and the way through it slow."""
    is_plain = line.isascii() and line.isprintable() and not any(letter in line for letter in "\"'\\")
    return tuple(line.split() if is_plain else shlex.split(line))


def _leads_to_us(words: tuple[str, ...], installation: str) -> bool:
    """A jump into a chain of ours; without its comment too, since nobody else has a use for one."""
    if words[-1].startswith("--"):
        raise ValueError(f"a rule ends with the option {words[-1]}")
    targets = [after for word, after in itertools.pairwise(words) if word in ("-j", "-g")]
    return any(target.startswith(chain(installation, "")) for target in targets)


def parse_strangers(text: str, installation: str) -> dict[str, str]:
    """The chains of other installations: name → installation.

    Raises:
        ValueError: the text is not what `iptables-save` prints.
    """
    parse_rules(text, installation)
    names = [line[1:].split()[0] for line in text.splitlines() if line.startswith(f":{CHAIN_PREFIX}")]
    return {name: name.split("-")[1] for name in names if not name.startswith(chain(installation, ""))}
