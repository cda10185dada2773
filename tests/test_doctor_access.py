"""`doctor access`: what sshd, sudo and the files say, and what is made of it."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudrepo.commands import sshd, sudo
from cloudrepo.doctor import access
from cloudrepo.doctor.access import AccountFact, Facts, PathFact
from cloudrepo.doctor.findings import Finding, Level, worst
from control import doctor as looks
from test_cli_recovery import run

MENU = ("/opt/cloudrepo/cloud", "menu", "--state", "/home/cloud/cluster/database.yaml")
COMMAND = " ".join(MENU)
FACTS = Facts(owner="cloud", owner_uid=1000, menu=MENU)

# `sshd -T` of OpenSSH 9.2 for an account with the lines that are asked for, as far as it matters
GUARDED = f"""\
permittty yes
permituserrc no
allowtcpforwarding yes
allowagentforwarding yes
allowstreamlocalforwarding yes
disableforwarding yes
x11forwarding yes
permittunnel no
permituserenvironment no
forcecommand {COMMAND}
acceptenv LANG
acceptenv LC_*
maxstartups 60:30:120
permitopen any
"""
# `sudo -ll -U ann` of sudo 1.9.13
MAY = f"""\
Matching Defaults entries for ann on vm:
    env_reset, mail_badpass,
    secure_path=/usr/local/sbin\\:/usr/local/bin\\:/usr/sbin\\:/usr/bin\\:/sbin\\:/bin,
    use_pty

User ann may run the following commands on vm:

Sudoers entry:
    RunAsUsers: cloud
    Options: !authenticate
    Commands:
\t{COMMAND}
"""
MAY_NOT = "User bob is not allowed to run sudo on vm.\n"


def login(text: str = GUARDED, **changed: str) -> sshd.Settings:
    settings = dict(sshd.parse_effective(text))
    for keyword, value in changed.items():
        settings[keyword] = (value,)
    return settings


def by_ssh(name: str = "cloud", **changed: str) -> AccountFact:
    return AccountFact(name=name, sshd=login(**changed), sudo=sudo.parse_rights(MAY_NOT))


def by_sudo(old: str = "", new: str = "") -> AccountFact:
    assert old in MAY
    plain = login(disableforwarding="no", forcecommand="none")
    return AccountFact(name="ann", sshd=plain, sudo=sudo.parse_rights(MAY.replace(old, new) if old else MAY))


def judged(*accounts: AccountFact, **more: Any) -> dict[str, Finding]:
    """What is not fine, by its code."""
    found = access.judge(replace(FACTS, accounts=accounts, **more))
    return {finding.code: finding for finding in found if finding.level is not Level.OK}


# ── what the tools say ──────────────────────────────────────────────────────────────────────────────────


def test_the_question_to_sshd_names_who_comes_from_where() -> None:
    words = sshd.effective("ann", address="192.0.2.7", port=2222, config="/x", binary="/usr/sbin/sshd")
    where = "user=ann,host=192.0.2.7,addr=192.0.2.7,laddr=127.0.0.1,lport=2222"
    assert words == ("/usr/sbin/sshd", "-T", "-f", "/x", "-C", where)


def test_a_keyword_may_have_several_values_or_none() -> None:
    found = sshd.parse_effective("AcceptEnv LANG\nacceptenv LC_*\n\nbanner\n")
    assert found == {"acceptenv": ("LANG", "LC_*"), "banner": ("",)}
    assert sshd.value(found, "forcecommand", "none") == "none"


def test_sudos_answer_is_read() -> None:
    found = sudo.parse_rights(MAY)
    assert found.entries == (sudo.Entry(run_as=("cloud",), options=("!authenticate",), commands=(COMMAND,)),)
    assert {"env_reset", "use_pty"} < set(found.defaults)
    assert sudo.parse_rights(MAY_NOT) == sudo.Rights()
    two = sudo.parse_rights(
        "Matching Defaults entries for ann on vm:\n    env_reset, use_pty, env_keep+=\"FOO BAR\", env_check=TZ\n\n"
        "Runas and Command-specific defaults for ann:\n    Defaults!/opt/cloudrepo/cloud !use_pty\n\n"
        "User ann may run the following commands on vm:\n\n"
        "Sudoers entry:\n    RunAsUsers: ALL\n    RunAsGroups: ALL\n    Commands:\n\tALL\n\n"
        "Sudoers entry:\n    Options: setenv\n    Commands:\n\t/bin/ls \"\"\n\t/bin/cat\n"
    )  # fmt: skip
    assert sudo.kept_variables(two) == ("FOO", "BAR", "TZ")
    assert sudo.has_flag(two, "env_reset") and not sudo.has_flag(two, "use_pty"), "it is turned off for one command"
    assert [(one.run_as, one.options, one.commands) for one in two.entries] == [
        (("ALL",), (), ("ALL",)),
        (("root",), ("setenv",), ('/bin/ls ""', "/bin/cat")),
    ]


# ── accounts that sshd leads into the menu ──────────────────────────────────────────────────────────────


def test_the_lines_that_are_asked_for_are_right() -> None:
    found = access.judge(replace(FACTS, accounts=(by_ssh(), by_sudo())))
    assert [(one.code, one.level, one.text.split(":")[0]) for one in found] == [
        ("access.account", Level.OK, "cloud"),
        ("access.account", Level.OK, "ann"),
    ]


@pytest.mark.parametrize(
    ("changed", "code", "remedy"),
    [
        ({"allowtcpforwarding": "yes"}, "access.sshd.allowtcpforwarding", "DisableForwarding yes"),
        ({"allowtcpforwarding": "local"}, "access.sshd.allowtcpforwarding", "DisableForwarding yes"),
        ({"allowstreamlocalforwarding": "yes"}, "access.sshd.allowstreamlocalforwarding", "DisableForwarding yes"),
        ({"allowagentforwarding": "yes"}, "access.sshd.allowagentforwarding", "DisableForwarding yes"),
        ({"x11forwarding": "yes"}, "access.sshd.x11forwarding", "DisableForwarding yes"),
        ({"permittunnel": "point-to-point"}, "access.sshd.permittunnel", "DisableForwarding yes"),
        ({"permituserrc": "yes"}, "access.sshd.permituserrc", "PermitUserRC no"),
        ({"permituserenvironment": "LANG"}, "access.sshd.permituserenvironment", "PermitUserEnvironment no"),
        ({"permittty": "no"}, "access.sshd.permittty", "PermitTTY yes"),
        ({"acceptenv": "LANG CLOUDREPO_*"}, "access.sshd.acceptenv", "AcceptEnv LANG LC_*"),
        ({"acceptenv": "*"}, "access.sshd.acceptenv", "AcceptEnv LANG LC_*"),
        ({"forcecommand": "/opt/cloudrepo/cloud"}, "access.sshd.forcecommand", f"ForceCommand {COMMAND}"),
        ({"forcecommand": f"{COMMAND}; sh"}, "access.sshd.forcecommand", f"ForceCommand {COMMAND}"),
        ({"forcecommand": f"LESS=1 {COMMAND}"}, "access.sshd.forcecommand", f"ForceCommand {COMMAND}"),
        ({"forcecommand": f"{COMMAND} $SSH_ORIGINAL_COMMAND"}, "access.sshd.forcecommand", f"ForceCommand {COMMAND}"),
    ],
)
def test_each_line_of_sshd_that_is_missing_is_named(changed: dict[str, str], code: str, remedy: str) -> None:
    off = {"allowtcpforwarding": "no", "allowstreamlocalforwarding": "no", "allowagentforwarding": "no"}
    each = off | {"x11forwarding": "no", "disableforwarding": "no"}
    assert judged(by_ssh(**each)) == {}, "each switch by itself is as good as the one for all"
    found = judged(by_ssh(**each | changed))
    assert set(found) == {code}
    assert (found[code].level, found[code].remedy.count(remedy)) == (Level.WRONG, 1)


def test_an_account_of_ones_own_is_led_in_by_sudo() -> None:
    right = f"sudo -n -u cloud {COMMAND}"
    ann = replace(by_sudo(), sshd=login(forcecommand=right))
    assert judged(ann) == {}
    assert set(judged(replace(ann, sshd=login()))) == {"access.sshd.forcecommand"}, (
        "as herself she cannot read the state"
    )


def test_the_readme_has_these_lines() -> None:
    readme = (looks.CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert access.lines_for_sshd(FACTS) in readme
    assert access.lines_for_sudo(FACTS) in readme


def test_a_class_at_once_is_a_warning() -> None:
    found = judged(by_ssh(maxstartups="10:30:100"))
    assert {code: one.level for code, one in found.items()} == {"access.sshd.maxstartups": Level.WARNING}


# ── accounts that sudo leads into the menu ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("old", "new", "codes"),
    [
        (COMMAND, "/opt/cloudrepo/cloud", {"access.sudo.command"}),
        (COMMAND, f"{MENU[0]} menu *", {"access.sudo.command"}),
        (COMMAND, f"{COMMAND}\n\t/usr/bin/less", {"access.sudo.command"}),
        ("RunAsUsers: cloud", "RunAsUsers: ALL", {"access.sudo.command"}),
        ("RunAsUsers: cloud", "RunAsUsers: cloud, root", {"access.sudo.command"}),
        ("!authenticate", "!authenticate, setenv", {"access.sudo.setenv"}),
        ("env_reset, ", "!env_reset, ", {"access.sudo.env_reset"}),
        ("use_pty", 'env_keep+="LANG"', {"access.sudo.use_pty"}),
        ("use_pty", 'use_pty, env_keep+="LC_ALL PYTHONPATH"', {"access.sudo.env_keep"}),
    ],
)
def test_each_rule_of_sudo_that_allows_more_is_named(old: str, new: str, codes: set[str]) -> None:
    found = judged(by_sudo(old, new))
    assert set(found) == codes
    assert all(one.evidence and one.remedy for one in found.values())


def test_operators_are_left_alone_unless_they_are_named() -> None:
    may_all = MAY.replace(COMMAND, "ALL").replace("RunAsUsers: cloud", "RunAsUsers: ALL")
    eve = AccountFact(name="eve", sshd=login(forcecommand="none"), sudo=sudo.parse_rights(may_all), groups=("docker",))
    assert judged(eve, by_ssh()) == {}
    found = judged(replace(eve, is_named=True), by_ssh())
    assert set(found) == {"access.account.open"}
    assert found["access.account.open"].remedy == f"Write\neve ALL=(cloud) NOPASSWD: {COMMAND}\n"


def test_a_mighty_group_is_named() -> None:
    found = judged(replace(by_sudo(), groups=("students", "docker")))
    assert set(found) == {"access.groups"} and found["access.groups"].evidence == "groups docker"


def test_nobody_who_enters_is_a_warning_with_both_ways() -> None:
    found = judged(AccountFact(name="eve", sshd={}, sudo=sudo.Rights()))
    assert {code: one.level for code, one in found.items()} == {"access.none": Level.WARNING}
    assert access.lines_for_sshd(FACTS) in found["access.none"].remedy
    assert access.lines_for_sudo(FACTS) in found["access.none"].remedy


def test_what_could_not_be_seen_is_said_and_is_not_fine() -> None:
    found = judged(unread=("sudo is silent",))
    assert found["access.unread"].level is Level.UNKNOWN
    assert found["access.unread"].remedy == f"As root: {MENU[0]} doctor access --state {MENU[3]}"
    assert worst(found.values()) is Level.UNKNOWN


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────


def path(kind: Any, uid: int, mode: int, name: str = "/a/b") -> PathFact:
    return PathFact(path=name, kind=kind, uid=uid, mode=mode)


@pytest.mark.parametrize(
    ("fact", "code"),
    [
        (path("secret", 1000, 0o700), None),
        (path("secret", 1000, 0o750), "access.files.secret"),
        (path("secret", 1000, 0o701), "access.files.secret"),
        (path("secret", 0, 0o700), "access.files.owner"),
        (path("trusted", 0, 0o755), None),
        (path("trusted", 1000, 0o664), "access.files.writable"),
        (path("trusted", 1001, 0o755), "access.files.owner"),
        (path("way", 0, 0o755), None),
        (path("way", 0, 0o1777), None),
        (path("way", 0, 0o777), "access.files.writable"),
        (path("way", 1001, 0o755), "access.files.owner"),
        (path("way", 0, 0o700), "access.files.way"),
        (path("way", 1000, 0o700), None),
    ],
)
def test_whose_a_file_is_and_who_may_do_what(fact: PathFact, code: str | None) -> None:
    assert list(judged(paths=(fact,))) == ([code] if code else [])


def test_a_whole_folder_that_is_wrong_is_a_few_findings() -> None:
    paths = tuple(path("trusted", 0, 0o666, f"/opt/x/{number}") for number in range(50))
    found = access.judge(replace(FACTS, paths=paths))
    assert len(found) == access.SHOWN + 1
    assert found[-1].text == "so it is with 47 more under /opt/x"
    assert found[-1].remedy == "chmod -R go-w /opt/x"


def test_roots_own_installation_is_a_warning() -> None:
    found = access.judge(replace(FACTS, owner="root", owner_uid=0))
    assert [(one.code, one.level) for one in found] == [("access.owner", Level.WARNING)]


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation; sshd and sudo say what `ANSWERS` has for an account."""
    tmp_path.chmod(0o700)
    path = tmp_path / "database.yaml"
    path.write_text("users: [")  # it is not opened
    monkeypatch.setattr(looks, "_program", lambda seen: iter(()))
    return path


def answering(monkeypatch: pytest.MonkeyPatch, answers: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Has each question about an account answered, by the last word of the question's program."""
    asked: list[tuple[str, ...]] = []

    def answer(words: tuple[str, ...]) -> tuple[str, str]:
        asked.append(words)
        return answers.get(os.path.basename(words[0]), ""), ""

    monkeypatch.setattr(looks, "_run", answer)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name, path: f"/usr/sbin/{name}")
    return asked


def test_the_statuses_and_the_document(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    here = f"{looks.CHECKOUT}/cloud menu --state {state}"
    asked = answering(monkeypatch, {"sshd": GUARDED.replace(COMMAND, here), "sudo": MAY_NOT})
    monkeypatch.setattr(looks, "_people", set)
    monkeypatch.setattr(looks, "_groups", lambda name: ())
    assert run("doctor", "access", "--state", str(state), "--json", "--from", "192.0.2.9") in (0, 3)  # 3: run by root
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] and document["owner"] == me
    assert {one["code"] for one in document["findings"]} <= {"access.files", "access.account", "access.owner"}
    assert {words[0] for words in asked} == {"/usr/sbin/sshd", "sudo"} and "addr=192.0.2.9" in asked[0][-1]

    answering(monkeypatch, {"sshd": GUARDED.replace(COMMAND, here).replace("disableforwarding yes", "")})
    assert run("doctor", "access", "--state", str(state), "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["ok"] and document["error"]["code"] == "access.sshd.allowtcpforwarding"
    assert run("doctor", "access", "--state", str(state)) == 1
    assert "Write `DisableForwarding yes` in its Match block" in capsys.readouterr().out

    assert run("doctor", "access", "--state", str(state), "--account", "nobody-of-that-name") == 1
    assert "there is no account nobody-of-that-name" in capsys.readouterr().out


def test_without_root_what_is_roots_is_unseen(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answering(monkeypatch, {})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run("doctor", "access", "--state", str(state)) == 3
    assert "root's to read" in capsys.readouterr().out
    assert asked == []


def test_a_tool_that_fails_is_unseen(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {})
    monkeypatch.setattr(looks, "_run", lambda words: ("", "no hostkeys available"))
    _owner, findings = looks.access(state)
    assert "no hostkeys available" in " ".join(one.text for one in findings if one.level is Level.UNKNOWN)


def test_a_program_that_others_may_change_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    (program / "cli").mkdir(parents=True)
    (program / "cli/menu.py").touch()
    (program / "cli/menu.py").chmod(0o666)
    (program / ".git").mkdir()
    (program / ".git/x").touch()
    (program / ".git/x").chmod(0o666)
    monkeypatch.setattr(looks, "CHECKOUT", program)
    monkeypatch.setattr(sys, "prefix", str(program))
    found = {fact.path: oct(fact.mode) for fact in looks._program(set())}
    assert found[str(program / "cli/menu.py")] == "0o666"
    assert str(program / ".git/x") not in found


def test_a_program_that_menus_compile_at_each_login_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "cli/menu.py"
    module.parent.mkdir()
    (tmp_path / "main.py").write_text("import cli.menu\n")
    module.write_text("x = 1\n")
    monkeypatch.setattr(looks, "CHECKOUT", tmp_path)
    monkeypatch.setattr(looks, "PACKAGES", ("cli",))
    another = os.getuid() + 1
    assert list(looks._modules()) == [module], "what is started is never kept"
    assert looks._is_kept(module, os.getuid()), "its owner's menu keeps it at the first login"
    assert not looks._is_kept(module, another)
    for part in looks._parts():
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(part)], check=True)
    assert all(looks._is_kept(path, another) for path in looks._modules())
    (tmp_path / "cli/.#menu.py").symlink_to("ann@pc.1234")  # an editor's
    module.write_text("x = 12\n")  # an update
    assert [path for path in looks._modules() if not looks._is_kept(path, another)] == [module]
    if os.getuid() == 0:  # who looked as root had Python make the folder
        os.chown(module.parent, another, another)
        assert not looks._is_kept(module, another)
        os.chown(module.parent / "__pycache__", another, another)
        assert looks._is_kept(module, another)

    words = ("/opt/x/.venv/bin/python", "-m", "compileall", "-q", "/opt/x/cli")
    [found] = access.judge(replace(FACTS, uncompiled=1, compiling=words))
    assert (found.code, found.level) == ("access.program.compiled", Level.WARNING)
    assert found.remedy.endswith(" ".join(words)) and access.judge(FACTS) == []


def test_no_state_file_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "access", "--state", str(tmp_path / "none.yaml")) == 1
    assert "there is no state file" in capsys.readouterr().err
