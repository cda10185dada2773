"""Whether a plan is within the grammar of an installation. Pure: it looks at words, never at the host.

Standard library only, Python 3.8 or newer: installed on hosts as a part of one file, see `helper.py`.
"""

from __future__ import annotations

import json
import re
import shlex

from cloudrepo.host import grammar
from cloudrepo.host.flow_ways import stays_in_its_vlans
from cloudrepo.host.texts import TEXTS, each, lines_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Named = list[tuple[str, str]]  # what a step names: kinds of `grammar.WORDS`, and the words

LONGEST_WORD = 1 << 20
LONGEST_WAIT = 200_000.0  # seconds
#: A device; not one of the words that `ovs-ofctl` has for ports.
DEVICE = "(?!(?:all|any|controller|flood|in_port|local|none|normal|table|unset)(?![0-9a-z_.-]))[a-z][0-9a-z_.-]{0,14}"
#: Of a step, for the orchestrator and the runner alone: they name nothing on the host.
BESIDE = ("name", "label", "act", "timeout_s", "ok")
PLAN_FIELDS = (
    *("installation", "operation", "scopes", "seen", "fence_dir", "lease_s", "lock_wait_s", "stages", "observe"),
    "environment",
)


class NotAllowed(ValueError):
    """What was asked is in no line of the grammar."""


class Bounds:
    """What one installation may name on a host.

    Args:
        facts: `installation` (8 hex digits), `account` and its `home`, `base_dir`, `bridge`, `users` (accounts that
            QEMU runs as), `uids` (the number of VM 0 and how many; empty = VMs have none of their own), `vlans` (first
            and last), `internet` (subnet of VLAN 400), `uplink` (a device, or ""), `trunks` (devices that may be made
            uplinks of the bridge; none where it is not there).
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.installation = str(facts["installation"])
        self.base = str(facts["base_dir"])
        self.run = "/run/cloudrepo-" + self.installation
        self.store = self.base + "/.cloudrepo-" + self.installation
        above = [self.base]
        while above[-1] not in ("/", ""):
            above.append(above[-1].rpartition("/")[0] or "/")
        fills = {
            "run": re.escape(self.run),
            "base": re.escape(self.base),
            "store": re.escape(self.store),
            "above": _one_of(above),
            "users": _one_of(facts["users"]),
            "device": DEVICE,
            "trunks": _one_of(facts["trunks"]) if facts.get("trunks") else "(?!)",
            "uplink": _one_of([facts["uplink"]]) if facts["uplink"] else DEVICE,
            **{key: re.escape(str(facts[key])) for key in ("home", "account", "bridge", "installation", "internet")},
        }
        self.words = {name: "(?:" + text.format(**fills) + ")" for name, text in grammar.WORDS.items()}
        self._compiled: dict[str, tuple[re.Pattern[str], list[str]]] = {}
        self._tables: dict[str, list[list[str]]] = {}

    def match(self, pattern: str, word: str) -> Named | None:
        """What a word names if it is as the pattern says, else None."""
        if "<" not in pattern:
            return [] if word == pattern else None
        if pattern not in self._compiled:
            kinds = re.findall("<([a-z0-9]+)>", pattern)
            parts = re.split("<[a-z0-9]+>", pattern)
            text = re.escape(parts[0])
            for kind, part in zip(kinds, parts[1:]):  # noqa: B905  zip has no `strict` in 3.8
                text += "(" + self.words[kind] + ")" + re.escape(part)
            self._compiled[pattern] = re.compile(text, re.ASCII), kinds
        compiled, kinds = self._compiled[pattern]
        found = compiled.fullmatch(word)
        if found is None:
            return None
        named = list(zip(kinds, found.groups()))  # noqa: B905  zip has no `strict` in 3.8
        return named if all(self._is_within(kind, text) for kind, text in named) else None

    def _is_within(self, kind: str, text: str) -> bool:
        """What a regular expression cannot say."""
        if kind == "vlan":
            first, last = self.facts["vlans"]
            return int(text) == 400 or (first <= int(text) <= last and int(text) <= 4094)
        if kind == "tagged":
            return self._is_within("vlan", str(int(text) - 0x1000)) and int(text) > 0x1000
        if kind in ("tried", "asked"):
            return self._is_within("vlan", str(int(text[28:32], 16)))  # behind two addresses and 8100
        if kind == "cookie":
            return int(text, 16) >> 32 == int(self.installation, 16)
        if kind in ("tap", "port"):
            return len(text) <= 15
        if kind == "user" and text.isdigit():
            first, count = self.facts["uids"] or (0, 0)
            return bool(first <= int(text) < first + count)
        if kind == "meter":
            return 0x100 <= int(text) <= 0xFFFF0000
        if kind == "gateway":
            import ipaddress

            try:
                return ipaddress.IPv4Interface(text).network == ipaddress.IPv4Network(self.facts["internet"])
            except ValueError:
                return False
        return True

    def is_its_own(self, named: Named) -> bool:
        """Whether a number that is named as an account is that of the VM which is named with it.

        Only the proof of KVM names no VM: it is made with the first number.
        """
        numbers = {int(text) - self.facts["uids"][0] for kind, text in named if kind == "user" and text.isdigit()}
        if not numbers:
            return True
        if len(numbers) > 1:
            return False
        (vm,) = numbers
        return all(_is_of_vm(kind, text, vm) for kind, text in named) and (vm > 0 or not _names_a_vm(named))

    def table(self, name: str) -> list[list[str]]:
        """The lines of a table, each as its words."""
        if name not in self._tables:
            self._tables[name] = [shlex.split(line) for line in getattr(grammar, name.upper()).splitlines() if line]
        return self._tables[name]

    def line(self, name: str, words: Sequence[str]) -> Named | None:
        """What words name if they are a line of a table that has nothing but words, else None."""
        for patterns in self.table(name):
            named = self.words_as(patterns, words)
            if named is not None:
                return named
        return None

    def words_as(self, patterns: Sequence[str], words: Sequence[str]) -> Named | None:
        """What words name if they are as the patterns of a line say, one by one, else None."""
        patterns = list(patterns)
        if patterns[-1].endswith("…") and len(words) >= len(patterns):
            patterns[-1:] = [patterns[-1][:-1]] * (len(words) - len(patterns) + 1)
        if len(patterns) != len(words):
            return None
        named: Named = []
        for pattern, word in zip(patterns, words):  # noqa: B905  zip has no `strict` in 3.8
            found = self.match(pattern, word)
            if found is None:
                return None
            named += found
        return named if self.is_its_own(named) else None

    def one_word(self, name: str, text: str) -> Named | None:
        """What a text names if it is a line of a table whose lines are one word each, blanks or not."""
        for line in getattr(grammar, name.upper()).splitlines():
            named = self.match(line, text) if line else None
            if named is not None:
                return named
        return None


def metered_device(number: str) -> str:
    """The TAP of the NIC that a meter is numbered for: see `naming.meter_number`."""
    return tap_name(str(int(number) >> 8), f"eth{int(number) & 0xFF}")


def tap_name(vm: str, interface: str) -> str:
    """As `cloudrepo/naming.py` makes it: a name that is too long for Linux is made short."""
    import hashlib

    name = f"tap_{vm}_{interface}"
    return name if len(name) <= 15 else "tap_h" + hashlib.sha256(name.encode()).hexdigest()[:8]


def _names_a_vm(named: Named) -> bool:
    return any(kind in ("id", "tap") or (kind == "disk" and text.startswith("vm-")) for kind, text in named)


def _is_of_vm(kind: str, text: str, vm: int) -> bool:
    """Whether what is named is of this VM, or of none."""
    if kind == "id":
        return int(text) == vm
    if kind == "disk" and text.startswith("vm-"):
        return text == f"vm-{vm}"
    if kind == "tap":
        if text.startswith("tap_h"):
            return text in {tap_name(str(vm), f"eth{index}") for index in range(1000)}
        return text.startswith(f"tap_{vm}_")
    return True


def _one_of(texts: Iterable[str]) -> str:
    return "(?:" + "|".join(re.escape(text) for text in texts) + ")"


# ── a whole plan ────────────────────────────────────────────────────────────────────────────────────────


def judge_plan(plan: Any, bounds: Bounds) -> dict[int, Named]:
    """What each step of a plan names, by the step's `id`.

    Raises:
        NotAllowed: something in the plan is in no line of the grammar; names the step and the word.
    """
    if not isinstance(plan, dict) or not set(plan) <= set(PLAN_FIELDS):
        raise NotAllowed("a plan has other fields")
    if plan.get("environment"):
        raise NotAllowed("a plan brings no variables")
    if plan["installation"] != bounds.installation:
        raise NotAllowed(f"installation {plan['installation']!r} is not {bounds.installation}")
    if plan["fence_dir"] != bounds.store and (plan["operation"] or plan["fence_dir"]):
        raise NotAllowed(f"fence directory {plan['fence_dir']!r}")
    scopes = [*plan["scopes"], *plan["seen"]]
    if not all(isinstance(scope, str) and re.fullmatch(r"\*|[0-9A-Za-z_]{1,20}", scope, re.ASCII) for scope in scopes):
        raise NotAllowed("a scope is no word")
    numbers = [plan["operation"], *plan["seen"].values()]
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        raise NotAllowed("an operation is a number")
    if not all(_is_wait(plan[key]) for key in ("lease_s", "lock_wait_s")):
        raise NotAllowed("a wait is out of bounds")
    for stage in plan["stages"]:
        is_plain = set(stage) == {"name", "parallel", "gate", "steps"} and type(stage["parallel"]) is int
        if not is_plain or not all(_is_label(stage[key]) for key in ("name", "gate")) or stage["parallel"] > 64:
            raise NotAllowed("a stage has other fields")
    steps = [step for stage in plan["stages"] for step in stage["steps"]] + list(plan["observe"])
    return {id(step): judge_step(step, bounds) for step in steps}


def _is_wait(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= LONGEST_WAIT


def _is_label(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 4000 and value.isprintable()


def judge_step(step: Any, bounds: Bounds) -> Named:
    """What a step names.

    Raises:
        NotAllowed: it is in no line of the grammar.
    """
    if not _is_label(step.get("name")) or not _is_label(step.get("label")) or not _is_wait(step.get("timeout_s")):
        raise NotAllowed("a step without a name, a label and a deadline")
    ok = step.get("ok", [])
    if not isinstance(ok, (list, tuple)) or not all(type(status) is int for status in ok):
        raise NotAllowed(f"{step['label']}: exit statuses are numbers")
    fields = {key: value for key, value in step.items() if key not in BESIDE}
    act = step.get("act")
    named = _spawn(fields, bounds) if act == "spawn" else _run(fields, bounds) if act == "run" else None
    if act not in ("run", "spawn"):
        named = _act(act, fields, bounds)
    if named is None:
        shown = " ".join(map(str, fields.get("words", ()))) or " ".join(f"{key}={fields[key]!r}" for key in fields)
        raise NotAllowed(f"{step['label']}: {act} {shown}"[:600])
    if not _is_same_content(step):
        raise NotAllowed(f"{step['label']}: the name of a base image begins with the digest of its content")
    return named


def _is_same_content(step: Any) -> bool:
    """A base image keeps its content's digest in its name, wherever it is moved: others rely on it."""
    if step["act"] == "adopt":
        return bool(step["path"].rpartition("/")[2].startswith(step["sha256"][:16] + "-"))
    if step["act"] == "run" and step["words"][0] == "mv":
        names = [word.rpartition("/")[2] for word in step["words"][-2:]]
        digests = {name[8:24] if name.startswith("removed-") else name[:16] for name in names}
        return len(digests) == 1
    return True


# ── acts ────────────────────────────────────────────────────────────────────────────────────────────────


def _act(act: Any, fields: Mapping[str, Any], bounds: Bounds) -> Named | None:
    """What a plain act names, by the first line of `grammar.PLAIN_ACTS` that it fits."""
    for name, *patterns in bounds.table("plain_acts"):
        wanted = dict(pattern.split("=", 1) for pattern in patterns)
        if name != act or set(wanted) != set(fields):
            continue
        named: Named = []
        for key, pattern in wanted.items():
            found = _field(key, fields[key], pattern, bounds)
            if found is None:
                break
            named += found
        else:
            return named if bounds.is_its_own(named) else None
    return None


def _field(key: str, value: Any, pattern: str, bounds: Bounds) -> Named | None:
    """What the value of a field names, if it is one of those in the pattern."""
    if key == "words":
        return [] if value == pattern.split(" ") else None
    if pattern.endswith("*"):
        if not isinstance(value, (list, tuple)):
            return None
        return each(value, lambda item: _value(key, item, pattern[:-1], bounds))
    if isinstance(value, (list, tuple, dict)) and pattern[:1] != ":":
        return None
    return _value(key, value, pattern, bounds)


def _value(key: str, value: Any, pattern: str, bounds: Bounds) -> Named | None:
    text = _as_text(key, value) if key != "mode" or type(value) is int else ""
    if len(text) > LONGEST_WORD:
        return None
    for one in pattern.split("|"):
        if one.startswith(":"):
            named = TEXTS[one[1:]](text, bounds)
        elif one.startswith("{"):
            named = bounds.one_word(one[1:-1], text)
        else:
            named = bounds.match(one, text)
        if named is not None:
            return named
    return None


def _as_text(key: str, value: Any) -> str:
    """A value as the tables write it."""
    if key == "mode":
        return f"{value:04o}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


# ── commands ────────────────────────────────────────────────────────────────────────────────────────────


def _run(fields: Mapping[str, Any], bounds: Bounds) -> Named | None:
    """What a command names: whose tables count is said by the account it runs as."""
    if set(fields) != {"words", "stdin", "user"}:
        return None
    words, user = fields["words"], fields["user"]
    if not isinstance(words, (list, tuple)) or not all(
        isinstance(word, str) for word in (*words, fields["stdin"], user)
    ):
        return None
    if user == "":
        return _command("as_root", words, fields["stdin"], bounds)
    whose = bounds.match("<user>", user)
    named = _command("as_qemu", words, fields["stdin"], bounds) if whose is not None else None
    if named is not None and not bounds.is_its_own([*(whose or ()), *named]):
        return None
    if named is None and user == bounds.facts["account"]:
        named = _command("as_account", words, fields["stdin"], bounds)
    return named


def _spawn(fields: Mapping[str, Any], bounds: Bounds) -> Named | None:
    """What a machine names that is started to stay."""
    if set(fields) != {"words", "log", "user", "settle_s", "pid_file"} or not _is_wait(fields["settle_s"]):
        return None
    run = _run({"words": fields["words"], "stdin": "", "user": fields["user"]}, bounds)
    files = {"log": "<run>/vm-<id>/qemu.log", "pid_file": "<run>/vm-<id>/pid", "user": "<user>"}
    rest = each(files, lambda key: _field(key, fields[key], files[key], bounds))
    is_machine = "-uuid" in fields["words"]
    if run is None or rest is None or not is_machine:
        return None
    return run + rest if bounds.is_its_own(run + rest) else None


def _command(name: str, words: Sequence[str], stdin: str, bounds: Bounds) -> Named | None:
    """What a command names, by the first line of a table that it fits."""
    for line in bounds.table(name):
        patterns, wanted = (line[:-2], line[-1]) if "<" in line else (line, "")
        if bool(wanted) != bool(stdin):
            continue
        if patterns[-1][:1] == "{":
            at = len(patterns) - 1
            named = bounds.words_as(patterns[:-1], words[:at])
            more = MORE[patterns[-1][1:-1]](words[at:], bounds) if named is not None else None
        else:
            named, more = bounds.words_as(patterns, words), []
        if named is None or more is None:
            continue
        read = STDIN[wanted](stdin, bounds) if wanted else []
        return named + more + read if read is not None else None
    return None


def _transaction(words: Sequence[str], bounds: Bounds) -> Named | None:
    """The further words of `ovs-vsctl`: each command behind a `--`."""
    if not words or words[0] != "--":
        return None
    commands: list[list[str]] = [[]]
    for word in words[1:]:
        commands[-1].append(word) if word != "--" else commands.append([])
    return each(commands, lambda command: bounds.line("ports", command))


def _machine(words: Sequence[str], bounds: Bounds) -> Named | None:
    """The options of an emulator; those that keep it in bounds must be there."""
    options: list[list[str]] = []
    for word in words:
        if word.startswith("-"):
            options.append([word])
        elif options:
            options[-1].append(word)
        else:
            return None
    if not {option[0] for option in options}.issuperset(grammar.NEEDED):
        return None
    return each(options, lambda option: bounds.line("machine", option))


MORE = {"ports": _transaction, "machine": _machine}


def _batch(name: str) -> Callable[[str, Bounds], Named | None]:
    return lambda text, bounds: each(lines_of(text), lambda line: bounds.line(name, line.split(" ")))


def _flows(text: str, bounds: Bounds) -> Named | None:
    return each(lines_of(text), lambda line: _flow(line, bounds))


def _flow(line: str, bounds: Bounds) -> Named | None:
    """A line for `ovs-ofctl add-flows`: about a port of ours, or one that leads to others and a VLAN of ours."""
    kind, _, rest = line.partition(" ")
    if kind == "delete":
        return bounds.match("cookie=<cookie>/-1", rest)
    matching, marker, doing = rest.partition(",actions=")
    cookie, _, matching = matching.partition(",")
    priority, _, matching = matching.partition(",")
    if kind != "add" or not marker or bounds.match("cookie=<cookie>", cookie) is None:
        return None
    if bounds.match("priority=<number>", priority) is None:
        return None
    fields = matching.split(",")
    named = each(fields, lambda field: bounds.line("match", [field]))
    actions = each(doing.split(","), lambda action: bounds.line("actions", [action]))
    keys = [field.partition("=")[0] for field in fields]
    if named is None or actions is None or len(set(keys)) != len(keys):
        return None
    if "metadata" in keys:
        return named if len(keys) == 1 and doing == "drop" else None
    held = {metered_device(text) for kind, text in actions if kind == "meter"}
    if not held <= {text for kind, text in named if kind == "port"}:
        return None
    kinds = [kind for kind, _ in named]
    is_about_ours = "port" in kinds or ("beyond" in kinds and "vlan" in kinds)
    outside = {text for kind, text in actions if kind == "beyond"}
    is_kept = stays_in_its_vlans(doing.split(","), outside, is_tagged="vlan" in kinds)
    return named + actions if is_about_ours and is_kept else None


def _base64(text: str, bounds: Bounds) -> Named | None:
    return [] if re.fullmatch("[A-Za-z0-9+/=]{1,524288}", text, re.ASCII) else None


STDIN = {
    "links": _batch("links"), "inside": _batch("inside"), "rules": _batch("rules"), "flows": _flows, "base64": _base64,
}  # fmt: skip
