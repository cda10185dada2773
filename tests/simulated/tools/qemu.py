"""`qemu-system-x86_64`: checks what it is started with, and then runs until it is told or killed (qemu(1))."""

from __future__ import annotations

from simulated.state import Answer, Call, HostState, Program, Refusal
from simulated.tools import qemu_img

NAME = "qemu-system-x86_64"
VERSION = "QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7)\nCopyright (c) 2003-2022 Fabrice Bellard\n"
FLAGS = ("-S", "-nodefaults", "-no-user-config", "-daemonize", "-enable-kvm")
WITH_VALUE = (
    *("-name", "-uuid", "-sandbox", "-trace", "-accel", "-cpu", "-m", "-smp", "-drive", "-vga", "-vnc", "-qmp"),
    *("-chardev", "-serial", "-device", "-netdev", "-pidfile"),
)
FIRST_VNC_PORT = 5900


def answer(call: Call) -> Answer:
    """One start."""
    if call.words[1:] == ("--version",):
        return Answer(out=VERSION)
    options = _options(call.words)
    host = call.host
    taps = tuple(_value(word, "ifname") for word in options["-netdev"] if word.startswith("tap,"))
    for name in taps:
        _require_tap(host, call.space, name)
    disk = _open_disk(host, options["-drive"][0])
    vnc = _require_port(host, options["-vnc"][0])
    qmp = options["-qmp"][0].partition(",")[0].removeprefix("unix:")
    if not host.real(qmp).parent.is_dir():
        raise Refusal(f"{NAME}: -qmp {options['-qmp'][0]}: Failed to bind socket to {qmp}: No such file or directory")
    files = {"disk": disk, "qmp": qmp, **({"pid": options["-pidfile"][0]} if options["-pidfile"] else {})}
    status = "prelaunch" if "-S" in call.words else "running"
    program = Program(call.words, space=call.space, files=files, taps=taps, vnc=vnc, status=status)
    return Answer(stays=program, in_background="-daemonize" in call.words)


def _options(words: tuple[str, ...]) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {name: [] for name in WITH_VALUE}
    rest = iter(words[1:])
    for word in rest:
        if word in WITH_VALUE:
            value = next(rest, None)
            if value is None:
                raise Refusal(f"{NAME}: {word}: requires an argument")
            options[word].append(value)
        elif word not in FLAGS:
            raise Refusal(f"{NAME}: {word}: invalid option")
    return options


def _value(word: str, key: str) -> str:
    return dict(part.partition("=")[::2] for part in word.split(",")).get(key, "")


def _require_tap(host: HostState, space: str, name: str) -> None:
    """An account without rights may only open a TAP that was made for it, and one QEMU at a time has it."""
    device = host.space(space).devices.get(name)
    if device is None or device.kind != "tap":
        raise Refusal(f"{NAME}: -netdev tap: could not configure /dev/net/tun ({name}): Operation not permitted")
    if any(name in program.taps for program in host.programs.values()):
        raise Refusal(f"{NAME}: -netdev tap: could not configure /dev/net/tun ({name}): Device or resource busy")


def _open_disk(host: HostState, drive: str) -> str:
    path = _value(drive, "file")
    where = f"{NAME}: -drive {drive}:"
    if not host.real(path).is_file():
        raise Refusal(f"{where} Could not open '{path}': No such file or directory")
    if qemu_img.read_header(host.real(path)) is None:
        raise Refusal(f"{where} Image is not in qcow2 format")
    if any(program.files.get("disk") == path for program in host.programs.values() if program.is_machine):
        host.violations.append(f"{host.ip}: two QEMUs on {path}")
        raise Refusal(f'{where} Failed to get "write" lock\nIs another process using the image [{path}]?')
    return path


def _require_port(host: HostState, word: str) -> str:
    address, _, display = word.partition(",")[0].rpartition(":")
    listens = f"{address}:{FIRST_VNC_PORT + int(display)}"
    if any(program.vnc == listens for program in host.programs.values()):
        raise Refusal(f"{NAME}: -vnc {word}: Failed to find an available port: Address already in use")
    return listens


def command(program: Program, message: dict[str, object]) -> tuple[dict[str, object], str]:
    """What a machine answers to one QMP command, and how it then ends: "", `quit` or `powerdown`."""
    name, arguments = str(message.get("execute")), message.get("arguments") or {}
    match name:
        case "qmp_capabilities":
            return {"return": {}}, ""
        case "query-uuid":
            return {"return": {"UUID": program.words[program.words.index("-uuid") + 1]}}, ""
        case "query-status":
            return {"return": {"status": program.status, "running": program.status == "running"}}, ""
        case "cont":
            program.status = "running"
            return {"return": {}}, ""
        case "stop":
            program.status = "paused"
            return {"return": {}}, ""
        case "set_password" if isinstance(arguments, dict):
            if not any(",password=on" in word for word in program.words):
                return _error("GenericError", "Could not set password"), ""
            return {"return": {}}, ""
        case "set_link" if isinstance(arguments, dict):
            device = str(arguments["name"])
            if not any(f"id={device}," in word for word in program.words):
                return _error("DeviceNotFound", f"Device '{device}' not found"), ""
            (program.links_down.discard if arguments["up"] else program.links_down.add)(device)
            return {"return": {}}, ""
        case "system_powerdown":
            return {"return": {}}, "powerdown" if program.status == "running" else ""
        case "quit":
            return {"return": {}}, "quit"
    return _error("CommandNotFound", f"The command {name} has not been found"), ""


def _error(kind: str, text: str) -> dict[str, object]:
    return {"error": {"class": kind, "desc": text}}
