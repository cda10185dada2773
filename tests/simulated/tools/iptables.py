"""`iptables-restore` and `iptables-save`: tables change as a whole (iptables-restore(8))."""

from __future__ import annotations

import copy
import shlex

from simulated.state import BUILT_IN, Answer, Call, HostState, Refusal, Rule

NAME = "iptables-restore v1.8.9 (nf_tables)"
BAD, BUSY = 2, 4  # exit statuses, beside 1 for a line that failed
TARGETS = ("ACCEPT", "DROP", "MASQUERADE")


def version(call: Call) -> Answer:
    """`iptables --version`; rules are changed by `iptables-restore` only."""
    if call.words[1:] != ("--version",):
        raise Refusal("iptables: this stand-in only says its version", 2)
    return Answer(out="iptables v1.8.9 (nf_tables)\n")


def restore(call: Call) -> Answer:
    """Apply a text. A line that fails undoes its table; tables that were committed before it stay."""
    if call.words[1:] != ("--noflush", "--wait", "10"):
        raise Refusal(f"iptables-restore: this stand-in does not know {' '.join(call.words[1:])}", 2)
    table = ""
    draft: dict[str, list[Rule]] = {}
    number = 0
    for number, line in enumerate(call.stdin.splitlines(), start=1):
        if line.startswith("*"):
            table = line[1:]
            if table not in call.host.rules:
                raise Refusal(f"{NAME}: iptables-restore: line {number} table name '{table}' invalid", BAD)
            draft = copy.deepcopy(call.host.rules[table])
        elif line == "COMMIT":
            _check(draft, number)
            call.host.rules[table] = draft
            table = ""
        elif table:
            _line(draft, tuple(shlex.split(line)), number)
        elif line and not line.startswith("#"):
            raise Refusal(f"iptables-restore: line {number} failed", 1)
    if table:
        raise Refusal(f"iptables-restore: COMMIT expected at line {number + 1}", 1)
    return Answer()


def _line(draft: dict[str, list[Rule]], words: Rule, number: int) -> None:
    failed = Refusal(f"iptables-restore: line {number} failed", 1)
    match words:
        case (name, "-", _) if name.startswith(":"):
            draft[name[1:]] = []
        case ("-X", name):
            if name not in draft:
                raise failed
            if any(name in rule for rules in draft.values() for rule in rules):
                raise Refusal(
                    f"{NAME}: \nline {number}: CHAIN_DEL failed (Device or resource busy): chain {name}", BUSY
                )
            del draft[name]
        case ("-D", chain, *rest):
            if chain not in draft or ("-A", chain, *rest) not in draft[chain]:
                raise failed
            draft[chain].remove(("-A", chain, *rest))
        case ("-A" | "-I" as verb, chain, *rest):
            if chain not in draft:
                raise failed
            draft[chain].insert(len(draft[chain]) if verb == "-A" else 0, ("-A", chain, *rest))
        case _:
            raise failed


def _check(draft: dict[str, list[Rule]], number: int) -> None:
    for rule in (rule for rules in draft.values() for rule in rules):
        target = rule[rule.index("-j") + 1] if "-j" in rule else ""
        if target and target not in (*draft, *TARGETS):
            raise Refusal(f"{NAME}: Chain '{target}' does not exist\nError occurred at line: {number}", BAD)


def save(call: Call) -> Answer:
    """All rules of all tables that anybody has used."""
    if call.words[1:]:
        raise Refusal(f"iptables-save: this stand-in does not know {' '.join(call.words[1:])}", 1)
    return Answer(out=_text(call.host))


def _text(host: HostState) -> str:
    lines = []
    for table, chains in host.rules.items():
        lines.append(f"*{table}")
        lines += [f":{name} {'ACCEPT' if name in BUILT_IN[table] else '-'} [0:0]" for name in chains]
        lines += [" ".join(_quoted(word) for word in rule) for rules in chains.values() for rule in rules]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    return word if shlex.quote(word) == word else '"' + word.replace('"', '\\"') + '"'
