"""Consoles and screens: whose they are, the password of a screen, and the words for a person on another PC."""

from __future__ import annotations

import copy
import getpass
import io
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli import vnc
from cli.screen import Screen
from cloudrepo import screen_password
from cloudrepo.commands import qemu
from cloudrepo.doctor import access
from cloudrepo.doctor.access import AccountFact, Facts
from cloudrepo.errors import SettingsError
from cloudrepo.resources import HostFacts, Machine
from cloudrepo.settings import Settings
from cloudrepo.state import ShapeError, normalise
from fakes.orchestrator import hosts_of, orchestrator
from models import User
from orchestrator_api import OrchestratorAPI
from test_doctor_access import FACTS, login
from vm_launcher import vm_resources
from worlds import WORKER, host, vm

FACTS_OF_A_HOST = HostFacts(datapath="system", has_bridge=True, uplinks=("trunk0",))

PEOPLE = {"sam": "student", "sue": "student", "ines": "instructor", "ivo": "instructor", "ada": "admin"}


@pytest.fixture
def api(tmp_path: Path) -> OrchestratorAPI:
    made = orchestrator(tmp_path)
    with made.db.transaction() as data:
        for name, role in PEOPLE.items():
            data["users"][name] = User(name, "no hash").to_dict() | {"role": role}
    return made


def running(api: OrchestratorAPI, owner: str = "sam") -> dict[str, Any]:
    """A slice of one VM that runs: the VM's record."""
    done, made = api.create_slice(owner, "lab")
    assert done, made
    assert api.add_vm_to_slice(owner, made["slice_id"], "web", "cirros", 1)[0]
    done, answer = api.deploy_slice(owner, made["slice_id"])
    assert done, answer
    return record(api, made["slice_id"])


def record(api: OrchestratorAPI, slice_id: int) -> dict[str, Any]:
    found: dict[str, Any] = (api.db.get_slice(slice_id) or {})["vms"][0]
    return found


# ── whose it is ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("call", ["console_target", "vnc_target"])
def test_a_console_is_its_owners_and_of_those_who_help_him_which_is_logged(api: OrchestratorAPI, call: str) -> None:
    made = running(api)
    may = {name: getattr(api, call)(name, made["vm_id"])[0] for name in PEOPLE}
    assert may == {"sam": True, "sue": False, "ines": True, "ivo": True, "ada": True}
    events = [event for event in api.context.events.read() if event.what == call]
    assert [(one.who, one.outcome, one.details.get("owner")) for one in events] == [
        ("sam", "done", None),
        ("sue", "refused", None),  # who may not is not told whose it is
        ("ines", "done", "sam"),
        ("ivo", "done", "sam"),
        ("ada", "done", "sam"),
    ]
    theirs = running(api, "ines")
    assert not getattr(api, call)("ivo", theirs["vm_id"])[0], "instructors help students, not one another"


@pytest.mark.parametrize("call", ["console_target", "vnc_target"])
def test_a_console_of_what_does_not_run_or_is_not_yours_says_so(api: OrchestratorAPI, call: str) -> None:
    made = running(api)
    done, said = getattr(api, call)("sue", made["vm_id"])
    assert (done, said.code) == (False, "vm.unknown") and f"you have no VM {made['vm_id']}" in said
    assert getattr(api, call)("sue", 9999)[1] == said.replace(str(made["vm_id"]), "9999"), "as if there were none"
    assert api.stop_vm("sam", 1000, made["vm_id"])[0]
    done, said = getattr(api, call)("sam", made["vm_id"])
    assert (done, said.code) == (False, "vm.state")
    assert str(said) == f"VM {made['vm_id']} (web) does not run: it is stopped. Deploy its slice first"


# ── the password ────────────────────────────────────────────────────────────────────────────────────────


def test_each_vm_has_a_password_that_its_machine_is_told_and_nobody_else(api: OrchestratorAPI, tmp_path: Path) -> None:
    made = running(api)
    password = made["vnc_password"]
    assert len(password) == 8 and set(password) <= set(screen_password.LETTERS)
    assert running(api)["vnc_password"] != password
    machine = next(iter(hosts_of(api)[made["worker_ip"]].processes.values()))
    assert machine.password == password
    assert not any(password in word for word in machine.words)
    done, target = api.vnc_target("sam", made["vm_id"])
    assert done and (target["password"], target["bind"]) == (password, "127.0.0.1")
    shown = [api.get_slice("sam", 1000), api.list_slices("sam"), api.list_all_slices("ines"), api.cluster_status()]
    assert password not in str(shown), "what lists VMs does not tell it"
    for name in ("events.jsonl", "cloudrepo.log"):
        assert not (tmp_path / name).exists() or password not in (tmp_path / name).read_text()
    assert password not in str([one.files for one in hosts_of(api).values()]), "nor does a mark on a disk"


def test_a_machine_that_is_started_again_is_told_the_same(api: OrchestratorAPI) -> None:
    made = running(api)
    assert api.stop_vm("sam", 1000, made["vm_id"])[0] and api.start_vm("sam", 1000, made["vm_id"])[0]
    [machine] = hosts_of(api)[made["worker_ip"]].processes.values()
    assert machine.password == made["vnc_password"]


@pytest.mark.parametrize("of_a_slice", [True, False])
def test_a_record_without_one_gets_one_when_its_vm_starts(api: OrchestratorAPI, of_a_slice: bool) -> None:
    made = running(api)
    stop, start = ("stop_slice", "start_slice") if of_a_slice else ("stop_vm", "start_vm")
    what = (1000,) if of_a_slice else (1000, made["vm_id"])
    assert getattr(api, stop)("sam", *what)[0]
    with api.db.transaction() as data:
        data["slices"]["1000"]["vms"][0].pop("vnc_password")
    assert getattr(api, start)("sam", *what)[0]
    assert len(record(api, 1000)["vnc_password"]) == 8


def test_a_password_that_somebody_wrote_as_a_number_is_refused_by_name(api: OrchestratorAPI) -> None:
    running(api)
    raw = copy.deepcopy(api.db.data)
    assert normalise(raw)
    raw["slices"]["1000"]["vms"][0]["vnc_password"] = 12345678
    with pytest.raises(ShapeError, match="vnc_password: a text is wanted, found a number"):
        normalise(raw)


# ── another PC ──────────────────────────────────────────────────────────────────────────────────────────


WORD = "k7Qm2xRt"


class Tunnels:
    """An executor whose tunnels end at once, as by Ctrl-C; ports in `taken` are in use."""

    def __init__(self, *taken: int) -> None:
        self.taken = taken
        self.opened: list[tuple[str, int, int]] = []

    def open_tunnel(self, host: str, remote_port: int, *, local_port: int = 0) -> Any:
        if local_port in self.taken:
            raise OSError(98, "Address already in use")
        self.opened.append((host, remote_port, local_port))
        return _Tunnel(local_port or 40123)


class _Tunnel:
    def __init__(self, port: int) -> None:
        self.port, self.address = port, f"127.0.0.1:{port}"

    def __enter__(self) -> _Tunnel:
        return self

    def __exit__(self, *error: object) -> None: ...


class OneScreen:
    """A façade with one running VM."""

    def __init__(
        self, *, bind: str = "127.0.0.1", tunnels: str = "", password: str = WORD, taken: tuple[int, ...] = ()
    ) -> None:
        self.executor = Tunnels(*taken)
        self.settings = Settings.of({"vnc.tunnels": tunnels})
        self.target = {"worker_ip": "10.0.10.2", "port": 5901, "bind": bind, "password": password, "name": "web"}
        self.target |= {"vm_id": 1001}

    def vnc_target(self, username: str, vm: int | str) -> tuple[bool, Any]:
        return True, self.target


def shown(monkeypatch: pytest.MonkeyPatch, api: OneScreen, **environ: str) -> tuple[bool, list[str]]:
    """What `vnc` prints before Ctrl-C."""

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    monkeypatch.setattr(vnc, "in_lab", lambda: False)
    monkeypatch.setattr(os, "environ", environ)
    stream = io.StringIO()
    done = vnc.open_vnc(api, "sam", 1001, Screen(stream, width=80))  # type: ignore[arg-type] # stands in for it
    return done, stream.getvalue().splitlines()


def test_who_came_by_ssh_is_told_both_hops(monkeypatch: pytest.MonkeyPatch) -> None:
    api = OneScreen()
    came = {"SSH_CONNECTION": "198.51.100.7 50122 192.0.2.1 2222", "SUDO_USER": "sam"}
    assert shown(monkeypatch, api, **came) == (
        True,
        [
            "Screen of web: 127.0.0.1:40123   (vncviewer 127.0.0.1::40123)",
            "Password: k7Qm2xRt",
            "From another PC, in a second window there:",
            "  ssh -N -L 5901:127.0.0.1:40123 -p 2222 sam@192.0.2.1",
            "  vncviewer 127.0.0.1::5901",
            "Ctrl-C closes it.",
            "",
            "Closed.",
        ],
    )
    assert api.executor.opened == [("10.0.10.2", 5901, 0)]


def test_who_sits_at_the_orchestrator_is_told_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "cloud")
    assert vnc.login_here({}) == f"cloud@{socket.gethostname()}"
    assert vnc.login_here({"SSH_CONNECTION": "::1 1 2001:db8::1 22"}) == "cloud@2001:db8::1"


def test_an_open_screen_needs_no_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    api = OneScreen(bind="0.0.0.0")
    done, lines = shown(monkeypatch, api)
    assert done and lines == ["Screen of web: 10.0.10.2:5901   (vncviewer 10.0.10.2::5901)", "Password: k7Qm2xRt"]
    assert api.executor.opened == []
    assert "192.0.2.9:5901" in shown(monkeypatch, OneScreen(bind="192.0.2.9"))[1][0]


def test_a_record_without_a_password_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not in the records" in shown(monkeypatch, OneScreen(password=""))[1][1]


def test_a_tunnel_begins_at_the_ports_that_sshd_lets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    api = OneScreen(tunnels="7001-7003", taken=(7001, 7002))
    assert "127.0.0.1:7003 " in shown(monkeypatch, api)[1][0]
    done, lines = shown(monkeypatch, OneScreen(tunnels="7001-7001", taken=(7001,)))
    assert not done and "ports 7001-7001 of this machine are in use" in lines[0]


@pytest.mark.parametrize("value", ["7001", "7002-7001", "80-90", "7001-70000", "a-b", "7001-7002-7003"])
def test_a_range_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"vnc\.tunnels cannot be"):
        Settings.of({"vnc.tunnels": value})


def test_the_doctor_knows_these_ports() -> None:
    facts = replace(FACTS, tunnels=range(7001, 7003))
    lines = access.lines_for_sshd(facts)
    assert "    AllowTcpForwarding local\n    PermitOpen 127.0.0.1:7001 127.0.0.1:7002\n" in lines

    def judged(facts: Facts, **changed: str) -> set[str]:
        off = {"disableforwarding": "no", "allowstreamlocalforwarding": "no", "allowagentforwarding": "no"}
        account = AccountFact(name="cloud", sshd=login(**off | {"x11forwarding": "no"} | changed))
        found = access.judge(replace(facts, accounts=(account,)))
        return {one.code for one in found if one.code.startswith("access.sshd")}

    local = {"allowtcpforwarding": "local", "permitopen": "127.0.0.1:7001 127.0.0.1:7002"}
    assert judged(facts, **local) == set()
    more = {"allowtcpforwarding": "local", "permitopen": "127.0.0.1:7001 127.0.0.1:22"}
    for wrong in (more, local | {"permitopen": "any"}, local | {"allowtcpforwarding": "yes"}):
        assert judged(facts, **wrong) == {"access.sshd.allowtcpforwarding"}
    assert judged(FACTS, **local) == {"access.sshd.allowtcpforwarding"}, "tunnels begin anywhere"


# ── what QEMU is told ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("password", "bind", "word"),
    [
        ("k7Qm2xRt", "127.0.0.1", "127.0.0.1:1,password=on"),
        ("k7Qm2xRt", "0.0.0.0", "0.0.0.0:1,password=on"),
        ("", "0.0.0.0", "0.0.0.0:1,password=on"),  # nobody gets in
        ("", "127.0.0.1", "127.0.0.1:1"),  # a record from before there were any
    ],
)
def test_the_password_is_in_no_command_line_and_is_set_before_the_guest_runs(
    password: str, bind: str, word: str
) -> None:
    record = vm(1001) | ({"vnc_password": password} if password else {})
    made = vm_resources(
        "1000", record, host(WORKER), FACTS_OF_A_HOST, Settings.of({"vnc.bind": bind}), disk="/d", accelerator="tcg"
    )
    wanted = next(one for one in made if isinstance(one, Machine))
    words = qemu.command(wanted, "/run/x/vm-1001")
    assert words[words.index("-vnc") + 1] == word
    assert "k7Qm2xRt" not in str(words) + repr(wanted)
    told = list(qemu.start_commands(wanted))
    secret = {"execute": "set_password", "arguments": {"protocol": "vnc", "password": password}}
    assert told[0] == secret if password else "set_password" not in str(told)
    assert told[-1] == {"execute": "cont"}
    parsed = qemu.parse_command(words).wiring
    assert parsed is not None and parsed.vnc_port == 5901
