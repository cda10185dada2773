"""`dnsmasq`: reads its configuration, checks what it needs, goes to the background (dnsmasq(8))."""

from __future__ import annotations

from simulated.state import Answer, Call, Program, Refusal

BAD_CONFIG, NETWORK, FILES = 1, 2, 3  # exit codes of dnsmasq(8)
FLAGS = ("no-hosts", "no-resolv", "no-ping", "bind-interfaces", "dhcp-authoritative")
VALUES = (
    *("port", "except-interface", "interface", "dhcp-range", "dhcp-option", "dhcp-hostsfile"),
    *("dhcp-leasefile", "pid-file", "log-facility", "user", "group"),
)


def answer(call: Call) -> Answer:
    """One start."""
    if call.words[1:] == ("--version",):
        return Answer(out="Dnsmasq version 2.90  Copyright (c) 2000-2024 Simon Kelley\n")
    if len(call.words) != 2 or not call.words[1].startswith("--conf-file="):
        raise Refusal("\ndnsmasq: bad command line options: try --help", BAD_CONFIG)
    path = call.words[1].removeprefix("--conf-file=")
    options = _options(call, path)
    name = options.get("interface", "")
    if name not in call.host.space(call.space).devices:
        raise Refusal(f"\ndnsmasq: unknown interface {name}", NETWORK)
    hosts, pid_file = call.host.real(options["dhcp-hostsfile"]), options["pid-file"]
    if not call.host.real(pid_file).parent.is_dir():
        raise Refusal(f"\ndnsmasq: cannot open log {options['log-facility']}: No such file or directory", FILES)
    call.host.real(options["log-facility"]).touch()
    call.host.real(options["dhcp-leasefile"]).touch()
    program = Program(
        call.words,
        space=call.space,
        files={"config": path, "pid": pid_file, "hosts": options["dhcp-hostsfile"]},
        hosts=hosts.read_text() if hosts.exists() else "",
        status="running",
    )
    return Answer(stays=program, in_background=True)


def _options(call: Call, path: str) -> dict[str, str]:
    real = call.host.real(path)
    if not real.is_file():
        raise Refusal(f"\ndnsmasq: cannot read {path}: No such file or directory", FILES)
    options: dict[str, str] = {}
    for number, line in enumerate(real.read_text().splitlines(), start=1):
        name, _, value = line.partition("=")
        if not line or line.startswith("#"):
            continue
        if name not in (VALUES if value else FLAGS):
            raise Refusal(f"\ndnsmasq: bad option at line {number} of {path}", BAD_CONFIG)
        options[name] = value
    return options
