"""The small tools of a host: coreutils, grep, sysctl, and those that only run another."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace

from simulated.state import Answer, Call, HostState, Refusal

FOUND, NOT_FOUND, TROUBLE = 0, 1, 2  # of grep(1)


def nsenter(call: Call) -> Answer:
    """`nsenter --net=/run/netns/NAME -- WORDS`."""
    match call.words[1:]:
        case (place, "--", _, *_) if place.startswith("--net=/run/netns/"):
            name = place.removeprefix("--net=/run/netns/")
            if name not in call.host.spaces or not name:
                raise Refusal(f"nsenter: cannot open /run/netns/{name}: No such file or directory")
            return Answer(then=replace(call, words=call.words[3:], space=name))
    raise Refusal("nsenter: this stand-in only enters network namespaces")


def prlimit(call: Call) -> Answer:
    """`prlimit LIMITS -- WORDS`."""
    if "--" not in call.words:
        raise Refusal("prlimit: this stand-in runs commands only")
    return Answer(then=replace(call, words=call.words[call.words.index("--") + 1 :]))


def sysctl(call: Call) -> Answer:
    """`-qw` and `-qew` (without a word about missing keys); a key has `.` or, where names have dots, `/` in it."""
    mode, settings = call.words[1], call.words[2:]
    if mode not in ("-qw", "-qew"):
        raise Refusal("sysctl: this stand-in only writes")
    switches = {key: holder for key, holder in call.host.switches(call.space)}
    err = ""
    for setting in settings:
        name, _, value = setting.partition("=")
        key = name if "/" in name else name.replace(".", "/")
        holder = switches.get(key.removeprefix("net/"))
        if holder is not None:
            holder[key.removeprefix("net/")] = value
        elif mode == "-qw":
            err += f"sysctl: cannot stat /proc/sys/{key}: No such file or directory\n"
    return Answer(err=err, status=1 if err else 0)


def grep(call: Call) -> Answer:
    """The questions that are asked: a switch by device, and a line in a mark file."""
    match call.words[1:]:
        case ("-rs", include, value, place) if place in ("/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"):
            begin, end = place.removeprefix("/proc/sys/net/") + "/", "/" + include.removeprefix("--include=")
            names = [
                key
                for key, holder in call.host.switches(call.space)
                if key.startswith(begin) and key.endswith(end) and holder[key] == value
            ]
            out = "".join(f"/proc/sys/net/{name}:1\n" for name in names)
            return Answer(out=out, status=FOUND if out else NOT_FOUND)
        case ("-q", pattern, "--", path) if pattern.startswith("^"):
            if not call.host.real(path).is_file():
                raise Refusal(f"grep: {path}: No such file or directory", TROUBLE)
            lines = call.host.real(path).read_text().splitlines()
            return Answer(status=FOUND if any(line.startswith(pattern[1:]) for line in lines) else NOT_FOUND)
    raise Refusal(f"grep: this stand-in does not know {' '.join(call.words[1:])}", TROUBLE)


def on_real_files(call: Call) -> Answer:
    """Tools that only touch files: the real one, with every path below the host's root."""
    root = str(call.host.root)
    words = [root + word if word.startswith("/") else word for word in call.words]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return Answer(done.stdout.replace(root, ""), done.stderr.replace(root, ""), done.returncode)


def chown(call: Call) -> Answer:
    """Nothing changes its owner here: all accounts of a host are the one that runs the tests."""
    match call.words[1:]:
        case ("--", _, path) if call.host.real(path).exists():
            return Answer()
        case ("--", _, path):
            raise Refusal(f"chown: cannot access '{path}': No such file or directory")
    raise Refusal("chown: this stand-in only knows `chown -- OWNER PATH`")


def fixed(words: tuple[str, ...], out: str) -> Callable[[Call], Answer]:
    """A tool that is asked one question only."""

    def tool(call: Call) -> Answer:
        if call.words[1:] != words:
            raise Refusal(f"{call.words[0]}: this stand-in does not know {' '.join(call.words[1:])}")
        return Answer(out=out)

    return tool


def identify(call: Call) -> Answer:
    """`id`: root asks, and any account is in its own group."""
    match call.words[1:]:
        case ("-u",):
            return Answer(out="0\n")
        case ("-Gn", "--", user):
            return Answer(out=f"{user}\n")
    raise Refusal("id: this stand-in does not know that")


def disk_space(call: Call) -> Answer:
    """`df -B1 --output=size,avail -- PATHS`: 500 GB, of which 400 are free."""
    if call.words[1:4] != ("-B1", "--output=size,avail", "--"):
        raise Refusal("df: this stand-in does not know that")
    there = [path for path in call.words[4:] if call.host.real(path).exists()]
    gone = [path for path in call.words[4:] if path not in there]
    out = "      1B-blocks        Avail\n" + "".join("   500000000000 400000000000\n" for _ in there)
    return Answer(out, "".join(f"df: {path}: No such file or directory\n" for path in gone), 1 if gone else 0)


def boot_files(host: HostState, boot_id: str) -> None:
    """The files of /proc and /dev that are read."""
    for path, text in {
        "/proc/sys/net/ipv4/ip_forward": "0\n",
        "/proc/sys/kernel/random/boot_id": f"{boot_id}\n",
        "/proc/meminfo": "MemTotal:       16384000 kB\nMemFree:        8192000 kB\n",
        "/dev/net/tun": "",
    }.items():
        host.real(path).parent.mkdir(parents=True, exist_ok=True)
        host.real(path).write_text(text)


TOOLS: dict[str, Callable[[Call], Answer]] = {
    "chown": chown,
    "df": disk_space,
    "grep": grep,
    "id": identify,
    "nproc": fixed((), "8\n"),
    "nsenter": nsenter,
    "prlimit": prlimit,
    "python3": fixed(("--version",), "Python 3.11.2\n"),
    "sync": lambda call: Answer(),
    "sysctl": sysctl,
    "uname": fixed(("-r",), "6.1.0-28-amd64\n"),
    **{name: on_real_files for name in ("chmod", "cp", "mv", "stat", "touch")},
}
