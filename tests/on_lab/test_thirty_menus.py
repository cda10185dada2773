"""A class at eight in the morning: thirty menus over SSH, for people who get the menu and nothing else.

Half of them come in by the ForceCommand of one account, half by accounts of their own and a rule of sudo; the lines are
those that `doctor access` prints. Hosts have sshd's defaults.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import bcrypt
import pexpect
import pytest

from lab.layout import ORCHESTRATOR_IP
from models import User
from on_lab.cluster import HOSTS, Cluster, wait_until
from on_lab.door import GUARDED, LAX, MENU, OPEN, OWNER, PYTHON, STATE, Door, open_door
from on_lab.intruder import ALLOWED
from on_lab.terminal import CHOOSE, Terminal
from private_sshd import free_port

pytestmark = pytest.mark.lab

INTRUDER = Path(__file__).with_name("intruder.py")
STUDENTS = [f"student{number:02d}" for number in range(1, 31)]
WITH_ACCOUNTS = STUDENTS[15:]
PASSWORD = "orange-seven"
PATIENCE_S = 120  # thirty at once on two cores
WORKER = HOSTS[0]
NO_LEADERS = ("\x1a", "\x1c", "\x18\x05", "\x1b!", "\x1bOP", "\x12")  # Ctrl-Z, Ctrl-\, Ctrl-X Ctrl-E, Esc !, F1, Ctrl-R


@pytest.fixture(scope="module")
def door(module_clusters: Callable[..., Cluster], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """An orchestrator host that thirty students may enter; the guests do not boot: the subject is what comes before."""
    cluster, place = module_clusters(), tmp_path_factory.mktemp("door")
    disk = place / "nothing-on-it.qcow2"
    subprocess.run(("qemu-img", "create", "-q", "-f", "qcow2", str(disk), "8M"), check=True)
    printed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()  # cheap: the hash is not the subject
    with cluster.api.db.transaction() as data:
        for name in STUDENTS:
            data["users"][name] = User(name, printed, quota_vms=2).to_dict()
    cluster.api.db.save()
    with open_door(cluster, place, WITH_ACCOUNTS, disk) as door:
        yield door


def way_in(door: Door, name: str) -> tuple[str, ...]:
    """What a student types on his PC."""
    if name in WITH_ACCOUNTS:
        return door.ssh(name, "-tt", "sudo", "-n", "-u", OWNER, *MENU)
    return door.ssh(OWNER, "-tt")


def open_terminal(door: Door, name: str, stack: ExitStack) -> Terminal:
    child = door.terminal(way_in(door, name), PATIENCE_S)
    stack.callback(child.close, force=True)
    return Terminal(child)


def everyone(terminals: dict[str, Terminal], prompt: str, words: str) -> None:
    """All answer the same question; each as soon as it is asked, none waits for another's hosts."""
    for name, terminal in terminals.items():
        terminal.answer(prompt, words.format(name=name), PATIENCE_S)


def everyone_sees(terminals: dict[str, Terminal], text: str) -> None:
    for terminal in terminals.values():
        terminal.wait(text, PATIENCE_S)


@pytest.mark.cost(seconds=75)
def test_thirty_menus_log_in_design_deploy_and_delete_at_once(door: Door) -> None:
    cluster = door.cluster
    for ip in HOSTS:  # as Debian ships it
        assert "maxstartups 10:30:100" in cluster.host(ip, "sshd", "-T").lower()
        assert "maxsessions 10\n" in cluster.host(ip, "sshd", "-T").lower()
    with ExitStack() as stack:
        terminals = {name: open_terminal(door, name, stack) for name in STUDENTS}
        everyone(terminals, "Username: ", "{name}")
        everyone(terminals, "Password: ", PASSWORD)
        everyone_sees(terminals, "Welcome, student")
        everyone(terminals, CHOOSE, "2")
        everyone(terminals, "Slice name: ", "lab of {name}")
        everyone(terminals, CHOOSE, "3")
        everyone(terminals, "Slice ID", "")
        for prompt, words in (("VM name: ", "web"), ("Flavor: ", "1"), ("Data interfaces: ", "1")):
            everyone(terminals, prompt, words)
        everyone(terminals, "Internet access (y/n): ", "y")
        everyone_sees(terminals, "VM added! ID: ")
        everyone(terminals, CHOOSE, "6")
        everyone(terminals, "Slice ID", "")
        for terminal in terminals.values():  # no prompt is there now that could swallow them
            terminal.child.send("\x1a\x1c")
        everyone_sees(terminals, "Slice deployed successfully")

        records = cluster.api.db.list_slices()
        vms = [vm for record in records for vm in record["vms"]]
        assert {record["owner"]: record["status"] for record in records} == dict.fromkeys(STUDENTS, "running")
        assert len({vm["vm_id"] for vm in vms}) == len({vm["vnc_port"] for vm in vms}) == 30
        assert len({vm["interfaces"][0]["ip_config"]["ip"] for vm in vms}) == 30
        assert Counter(vm["worker_ip"] for vm in vms) == dict.fromkeys(HOSTS, 10)
        for vm in vms:
            assert cluster.host(vm["worker_ip"], "cat", f"/proc/{vm['pid']}/comm").startswith("qemu-system")

        everyone(terminals, CHOOSE, "7")
        everyone(terminals, "Slice ID", "")
        everyone(terminals, "(y/N): ", "y")
        everyone_sees(terminals, "Slice deleted")
        everyone(terminals, CHOOSE, "0")
        for terminal in terminals.values():
            terminal.child.expect(pexpect.EOF, timeout=PATIENCE_S)
            terminal.child.close()
    assert {terminal.child.exitstatus for terminal in terminals.values()} == {0}
    assert cluster.api.db.list_slices() == []


# ---------------------------------------------------------------------------------------- the boundary is looked at


def doctor(door: Door, *words: str) -> tuple[int, dict[str, str]]:
    """`./cloud doctor access` as root there: the exit status, and each finding that is not fine by its code."""
    options = ("--state", STATE, "--sshd-config", "/opt/sshd_config", "--json")
    done = door.run(MENU[0], "doctor", "access", *options, *words)
    assert done.stdout, done.stderr
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, {one["code"]: one["text"] for one in findings if one["level"] != "ok"}


@pytest.mark.cost(seconds=8)
def test_the_doctor_finds_nothing_wrong_with_its_own_lines_and_names_what_is(door: Door) -> None:
    named = [word for name in (OWNER, WITH_ACCOUNTS[0]) for word in ("--account", name)]
    assert doctor(door, *named) == (0, {})
    status, found = doctor(door, "--port", str(LAX))
    assert (status, set(found)) == (1, {"access.sshd.acceptenv"})
    status, found = doctor(door, "--port", str(OPEN), *named)
    assert (status, set(found)) == (1, {"access.account.open"})
    folder = door.cluster.folder
    folder.chmod(0o755)
    try:
        status, found = doctor(door)
    finally:
        folder.chmod(0o700)
    assert (status, set(found)) == (1, {"access.files.secret"})


# ---------------------------------------------------------------------------------------- no way out of the menu


@pytest.mark.cost(seconds=8)
def test_no_key_leads_out_of_the_menu(door: Door) -> None:
    with ExitStack() as stack:
        terminals = [open_terminal(door, name, stack) for name in (STUDENTS[0], WITH_ACCOUNTS[0])]
        for name, terminal in zip((STUDENTS[0], WITH_ACCOUNTS[0]), terminals, strict=True):
            terminal.answer("Username: ", name, PATIENCE_S)
            terminal.answer("Password: ", PASSWORD, PATIENCE_S)
            for keys in NO_LEADERS:
                terminal.wait("Choose:", PATIENCE_S)
                terminal.child.send(
                    f"{keys}\x07\x15!sh\r"
                )  # Ctrl-G, Ctrl-U: whatever begun is given up, and typed anew
                terminal.wait("in the menu.", PATIENCE_S)
        states = {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in door.menus()}
        assert len(door.menus()) == 2
        assert not states & {"T", "t", "Z"}, "a menu was stopped, and holds what it holds against all others"
        for pid in door.menus():
            assert Path(f"/proc/{pid}/limits").read_text().count("Max core file size        0") == 1
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            assert children == "", "a program was started from the menu"
        for terminal in terminals:
            terminal.answer(CHOOSE, "0", PATIENCE_S)
            terminal.child.expect(pexpect.EOF, timeout=PATIENCE_S)


EVIL = "/opt/evil"  # a folder of the host that anybody may write
#: What a client may bring along, and what it would reach if a program went by it.
VARIABLES = {
    **{"CLOUDREPO_STATE": f"{EVIL}/database.yaml", "CLOUDREPO_VENV": EVIL, "CLOUDREPO_PYTHON": f"{EVIL}/python"},
    **{"CLOUDREPO_MONITOR_HOOK": f"[touch, {EVIL}/reached]", "CLOUDREPO_SSH_USER": "root"},
    **{"PYTHONPATH": EVIL, "PYTHONSTARTUP": f"{EVIL}/sitecustomize.py", "PYTHONINSPECT": "1"},
    **{"LESS": "+!sh", "PAGER": "sh", "EDITOR": "sh", "VISUAL": "sh", "COLUMNS": "7", "HOME": EVIL},
}


@pytest.mark.cost(seconds=5)
def test_no_variable_of_a_client_is_listened_to_even_where_sshd_takes_it(door: Door) -> None:
    evil = door.place / "opt/evil"
    (evil / "bin").mkdir(parents=True)
    evil.chmod(0o777)
    (evil / "sitecustomize.py").write_text(f"open('{EVIL}/reached', 'w')\n")
    (evil / "bin/python").write_text(f"#!/bin/sh\ntouch {EVIL}/reached\n")
    (evil / "bin/python").chmod(0o755)
    send = [word for name in VARIABLES for word in ("-o", f"SendEnv={name}")]
    control = door.client(*door.ssh(OWNER, *send, "env", port=OPEN), variables=VARIABLES).stdout
    taken = {name: value for name, value in VARIABLES.items() if name != "HOME"}  # that is sshd's own to say
    assert all(f"{name}={value}\n" in control for name, value in taken.items())
    door.client(*door.ssh(OWNER, *send, PYTHON, "-c", "0", port=OPEN), variables=VARIABLES)
    assert (evil / "reached").exists(), "a Python that goes by them reaches something"
    (evil / "reached").unlink()
    with ExitStack() as stack:
        child = door.terminal(door.ssh(OWNER, "-tt", *send, port=LAX), PATIENCE_S, variables=VARIABLES)
        stack.callback(child.close, force=True)
        terminal = Terminal(child)
        terminal.answer("Username: ", STUDENTS[0], PATIENCE_S)
        terminal.answer("Password: ", PASSWORD, PATIENCE_S)
        terminal.wait(f"Welcome, {STUDENTS[0]}", PATIENCE_S)  # of the true state
        [pid] = door.menus()
        entries = [entry.partition("=") for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if entry]
        assert {name for name, _, _ in entries} <= {"PATH", "LANG", "TERM", "SSH_CONNECTION"}
        assert EVIL not in str(entries)
        terminal.answer(CHOOSE, "0", PATIENCE_S)
        terminal.child.expect(pexpect.EOF, timeout=PATIENCE_S)
    assert not (evil / "reached").exists()


# ---------------------------------------------------------------------------------------- no way beside the menu

TOKEN = "reached-it"


def attempts(door: Door, port: int, folder: Path) -> dict[str, bool]:
    """What a client does beside the menu, by a name: whether it reached anything."""
    kept, batch, target = folder / f"got-{port}", folder / "batch", f"{OWNER}@{ORCHESTRATOR_IP}"
    batch.write_text(f"get {STATE} {kept}\n")

    def said(*words: str, stdin: str = "") -> str:
        return door.client(*door.ssh(OWNER, *words, port=port), stdin=stdin).stdout

    def fetched(program: str, *words: str) -> bool:
        kept.unlink(missing_ok=True)
        door.client(*door.ssh(OWNER, *words, port=port, program=program))
        return kept.exists() and kept.stat().st_size > 0

    return {
        "a command": TOKEN in said("echo", TOKEN),
        "a command on a terminal": TOKEN in said("-tt", "echo", TOKEN),
        "a shell's input": TOKEN in said("-T", stdin='echo reached-""it\nexit\n'),
        "scp": fetched("scp", f"{target}:{STATE}", str(kept)),
        "scp by the old protocol": fetched("scp", "-O", f"{target}:{STATE}", str(kept)),
        "sftp": fetched("sftp", "-b", str(batch), target),
        "a worker by -W": said("-W", f"{WORKER}:22").startswith("SSH-2.0"),
        "a worker by -L": leads_on(door, port, "-L", f"{WORKER}:22"),
        "a worker by -D": leads_on(door, port, "-D", ""),
        "a socket by -L": leads_on(door, port, "-L", "/opt/here.sock"),
        "a port by -R": listens_there(door, port),
    }


@contextmanager
def client_of(door: Door, port: int, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A client that forwards, while it is needed."""
    quiet = subprocess.DEVNULL
    client = subprocess.Popen(door.ssh(OWNER, "-N", *words, port=port), stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield client
    finally:
        client.kill()  # told to end, it may wait for what it forwards
        client.wait(30)


def connected(port: int) -> socket.socket | None:
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=20)
    except ConnectionRefusedError:
        return None


def leads_on(door: Door, port: int, option: str, target: str) -> bool:
    """Whether a port of the client leads to a service behind the orchestrator's sshd."""
    local = free_port()
    with client_of(door, port, option, f"127.0.0.1:{local}:{target}".rstrip(":")):
        connection: socket.socket = wait_until(lambda: connected(local), 30, f"{option} on port {local}")
        with connection:
            if not target:  # SOCKS 5: no authentication, then the address
                connection.sendall(b"\5\1\0")
                connection.recv(2)
                connection.sendall(b"\5\1\0\1" + socket.inet_aton(WORKER) + (22).to_bytes(2, "big"))
            return b"SSH-2.0" in until_a_line(connection)


def until_a_line(connection: socket.socket) -> bytes:
    """What is said until a line is whole or the other side ends."""
    said = b""
    with suppress(ConnectionError):
        while b"\n" not in said and (data := connection.recv(1024)):
            said += data
    return said


def listens_there(door: Door, port: int) -> bool:
    """Whether a client can open a port of the orchestrator."""
    there = free_port()
    spec = f"127.0.0.1:{there}:127.0.0.1:9"
    with client_of(door, port, "-o", "ExitOnForwardFailure=yes", "-R", spec) as client:
        found = wait_until(lambda: client.poll() is not None or connected(there), 30, "an answer to -R")
        if isinstance(found, socket.socket):
            found.close()
        return client.poll() is None


@pytest.mark.cost(seconds=10)
def test_neither_commands_nor_files_nor_ports_go_beside_the_menu(door: Door, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(door.place / "opt/here.sock"))
        (door.place / "opt/here.sock").chmod(0o666)
        service.listen()
        threading.Thread(target=greet, args=(service,), daemon=True).start()
        control, guarded = attempts(door, OPEN, tmp_path), attempts(door, GUARDED, tmp_path)
    assert control == dict.fromkeys(control, True)
    assert guarded == dict.fromkeys(control, False)
    refused = door.client(*door.ssh(OWNER, "echo", TOKEN))
    assert (refused.returncode, refused.stdout) == (64, "")
    assert refused.stderr.startswith("This account opens the menu only: no commands and no file transfer.")


def greet(service: socket.socket) -> None:
    """Say who is there to everybody who connects, until the socket is closed."""
    with suppress(OSError):
        while True:
            connection, _ = service.accept()
            with connection:
                connection.sendall(b"SSH-2.0-here\n")


# ---------------------------------------------------------------------------------------- a shell beside the menu


@pytest.mark.cost(seconds=8)
def test_a_students_account_with_python_and_the_checkout_reaches_nothing(door: Door) -> None:
    key = str(Path(STATE).with_name("id_ed25519"))
    words = (PYTHON, "-", STATE, key, WORKER, *MENU)
    with ExitStack() as stack:
        terminal = open_terminal(door, WITH_ACCOUNTS[1], stack)  # whose menu is there to be looked into
        terminal.wait("Username:", PATIENCE_S)

        def reached(account: str) -> dict[str, bool]:
            done = door.client(*door.ssh(account, *words, port=OPEN), stdin=INTRUDER.read_text(), timeout_s=120)
            assert done.returncode == 0, done.stderr
            found: dict[str, bool] = json.loads(done.stdout)
            return found

        theirs, owners = reached(WITH_ACCOUNTS[0]), reached(OWNER)
    assert theirs == {name: name == ALLOWED for name in owners}
    shown = {"state", "settings", "key", "pins", "log", "events", "folder", "home", "a file beside the state"}
    shown |= {"a command with the state", "the façade with the state", "a worker by ssh", "a worker by the executor"}
    shown |= {"environment of a menu", "files of a menu", "a menu signalled"}
    assert {name for name in shown if not owners[name]} == set()
