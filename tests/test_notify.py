"""Telling people: by a real command and a real mail server, with failures that are tried again."""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloudrepo.notify import NotDelivered, Notifier, mail, run_hook, send_mail
from cloudrepo.settings import Settings
from cloudrepo.watched import Notice

DIED = Notice(level="warning", what="vm.died", about="vm 1001", text="VM 1001 (vm1) died", details={"slice": 1000})
DOWN = Notice(level="error", what="worker.down", about="worker 10.0.10.1", text="10.0.10.1 is down: no route")
INFO = Notice(level="info", what="worker.suspect", about="worker 10.0.10.1", text="10.0.10.1 did not answer")


class Mailbox:
    """What a mail server got; it refuses while `refusal` is set."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.refusal = ""
        self.attempts = 0
        self.news = threading.Condition()

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        with self.news:
            self.attempts += 1
            if not self.refusal:
                self.envelopes.append(envelope)
            self.news.notify_all()
        return self.refusal or "250 taken"

    def wait(self, count: int, *, attempts: bool = False) -> None:
        with self.news:
            assert self.news.wait_for(lambda: (self.attempts if attempts else len(self.envelopes)) >= count, 10)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


def serve(mailbox: Mailbox, **options: Any) -> Controller:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    return controller


@pytest.fixture
def server(mailbox: Mailbox) -> Iterator[Controller]:
    controller = serve(mailbox)
    yield controller
    controller.stop()


def settings_for(controller: Controller | int, **changes: Any) -> Settings:
    port = controller if isinstance(controller, int) else controller.port
    values = {"smtp.host": "127.0.0.1", "smtp.port": port, "smtp.to": ["ops@example.org", "b@example.org"], **changes}
    return Settings.of(values)


# ── mail ────────────────────────────────────────────────────────────────────────────────────────────────


def test_changes_of_one_pass_are_one_mail_and_information_is_none(server: Controller, mailbox: Mailbox) -> None:
    notifier = Notifier(settings_for(server), where="/srv/lab/database.yaml")
    notifier.send([INFO])
    notifier.send([INFO, DIED, DOWN])
    mailbox.wait(1)
    notifier.close()
    [envelope] = mailbox.envelopes
    assert envelope.rcpt_tos == ["ops@example.org", "b@example.org"]
    assert isinstance(envelope.content, bytes)
    message = message_from_bytes(envelope.content)
    assert message["Subject"] == "[cloud] 10.0.10.1 is down: no route (and 1 more)"
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert b"warning: VM 1001 (vm1) died" in text and b"error: 10.0.10.1 is down" in text
    assert b"did not answer" not in text
    assert b"/srv/lab/database.yaml" in text


def test_a_server_that_refuses_is_asked_again_and_gets_everything_in_order(
    server: Controller, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    mailbox.refusal = "451 later"
    notifier = Notifier(settings_for(server), first_pause_s=0.01)
    notifier.send([DIED])
    mailbox.wait(2, attempts=True)
    notifier.send([DOWN])
    mailbox.refusal = ""
    mailbox.wait(1)
    notifier.close()
    bodies = b"".join(envelope.content for envelope in mailbox.envelopes if isinstance(envelope.content, bytes))
    assert bodies.index(b"warning: VM 1001") < bodies.index(b"error: 10.0.10.1")
    assert bodies.count(b"warning: VM 1001") == 1
    assert "tried again in 0.01 s" in caplog.text and "tried again in 0.02 s" in caplog.text
    assert "451" in caplog.text


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        smtp = settings_for(taken.getsockname()[1]).smtp
        with pytest.raises(NotDelivered, match=r"127\.0\.0\.1 port .*refused"):
            send_mail(smtp, mail(smtp, [DIED], ""))


def test_a_server_without_encryption_is_refused_where_that_is_wanted(server: Controller, mailbox: Mailbox) -> None:
    smtp = settings_for(server, **{"smtp.starttls": True}).smtp
    with pytest.raises(NotDelivered, match="STARTTLS"):
        send_mail(smtp, mail(smtp, [DIED], ""))
    assert mailbox.attempts == 0


def test_an_encrypted_connection_needs_a_certificate_that_is_trusted(
    mailbox: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    controller = serve(mailbox, tls_context=context, require_starttls=True)
    smtp = settings_for(controller, **{"smtp.starttls": True, "smtp.host": "localhost"}).smtp
    try:
        with pytest.raises(NotDelivered, match="certificate verify failed"):
            send_mail(smtp, mail(smtp, [DIED], ""))
        assert mailbox.attempts == 0
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        send_mail(smtp, mail(smtp, [DIED], ""))
        assert len(mailbox.envelopes) == 1
    finally:
        controller.stop()


def self_signed(folder: Path) -> Path:
    """A key and a certificate for localhost in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_it_logs_in_with_the_password_of_a_private_file(mailbox: Mailbox, tmp_path: Path) -> None:
    logins = []

    def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        logins.append(data.login)
        return AuthResult(success=(data.login, data.password) == (b"cloud", b"secret word"), handled=False)

    controller = serve(mailbox, authenticator=check, auth_require_tls=False)
    password = tmp_path / "password"
    password.write_text("secret word\n")
    values = {"smtp.user": "cloud", "smtp.password_file": str(password)}
    smtp = settings_for(controller, **values).smtp
    try:
        with pytest.raises(NotDelivered, match="chmod 600"):
            send_mail(smtp, mail(smtp, [DIED], ""))
        password.chmod(0o600)
        send_mail(smtp, mail(smtp, [DIED], ""))
        assert (logins, len(mailbox.envelopes)) == ([b"cloud"], 1)
        password.write_text("another")
        with pytest.raises(NotDelivered, match="535"):
            send_mail(smtp, mail(smtp, [DIED], ""))
        password.unlink()
        with pytest.raises(NotDelivered, match="cannot be read"):
            send_mail(smtp, mail(smtp, [DIED], ""))
    finally:
        controller.stop()


def test_a_text_with_line_ends_adds_no_header() -> None:
    smtp = settings_for(25).smtp
    evil = Notice(level="error", what="x", about="vm 1", text="boot\r\nBcc: everybody@example.org\x1b[2J ñ")
    message = message_from_bytes(mail(smtp, [evil], "").as_bytes())
    assert message["Bcc"] is None
    assert "Bcc: everybody" in str(mail(smtp, [evil], "")["Subject"])


# ── the hook ────────────────────────────────────────────────────────────────────────────────────────────

KEEP = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"


def test_the_hook_gets_one_notice_at_a_time_as_json(tmp_path: Path) -> None:
    path = tmp_path / "got; touch hacked"
    notifier = Notifier(Settings.of({"monitor.hook": [sys.executable, "-c", KEEP, str(path)]}), where="/s.yaml")
    notifier.send([DIED, INFO, DOWN])
    until = time.monotonic() + 30
    while not (path.exists() and path.read_text().count("\n") == 2) and time.monotonic() < until:
        time.sleep(0.01)
    notifier.close()
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    found_s = (datetime.now(UTC) - datetime.fromisoformat(first.pop("time"))).total_seconds()
    assert 0 <= found_s < 60
    assert first == {
        **{"schema_version": 1, "state": "/s.yaml", "level": "warning", "what": "vm.died", "about": "vm 1001"},
        **{"text": "VM 1001 (vm1) died", "details": {"slice": 1000}},
    }
    assert second["what"] == "worker.down"
    assert os.listdir(tmp_path) == ["got; touch hacked"]  # no shell read the words


def test_a_hook_that_fails_says_why() -> None:
    code = "import sys; print('no pager here', file=sys.stderr); sys.exit(3)"
    with pytest.raises(NotDelivered, match=r"status 3\. no pager here"):
        run_hook([sys.executable, "-c", code], DIED, "", 10)
    with pytest.raises(NotDelivered, match="cannot be run: No such file"):
        run_hook(["/no/such/hook"], DIED, "", 10)
    run_hook([sys.executable, "-c", "pass"], DIED, "", 10)  # it need not read


def test_a_hook_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    path = tmp_path / "child"
    start = f"open({str(path)!r}, 'w').write(str(subprocess.Popen(['sleep', '600'], stderr=-3).pid))"
    code = f"import subprocess, time; {start}; time.sleep(20)"
    with pytest.raises(NotDelivered, match=r"took longer than 0\.3 s"):
        run_hook([sys.executable, "-c", code], DIED, "", 0.3)
    state = Path(f"/proc/{path.read_text()}/stat")
    until = time.monotonic() + 30
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z" and time.monotonic() < until:
        time.sleep(0.01)
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


# ── all ways ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_way_that_hangs_holds_up_neither_the_caller_nor_the_others(caplog: pytest.LogCaptureFixture) -> None:
    told, free = threading.Event(), threading.Event()

    def hang(notices: Sequence[Notice]) -> None:
        free.wait(60)

    def tell(notices: Sequence[Notice]) -> None:
        told.set()

    notifier = Notifier(Settings(), ways={"slow": (hang, 1), "quick": (tell, 1)})
    with caplog.at_level(logging.INFO):
        notifier.send([DIED, DOWN])
    assert told.wait(30)
    assert "vm.died: VM 1001 (vm1) died" in caplog.messages
    free.set()
    notifier.close()


def test_what_waits_is_bounded_and_what_was_not_told_is_said(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(notices: Sequence[Notice]) -> None:
        raise NotDelivered("no")

    notifier = Notifier(Settings(), ways={"broken": (refuse, 10)})
    notifier.send([DIED] * 600)
    notifier.send([DOWN] * 600)
    notifier.close()
    assert "200 notices were not told by broken: too many wait" in caplog.messages
    assert "1000 notices were not told by broken before the end" in caplog.messages


def test_without_settings_there_is_the_log_alone() -> None:
    notifier = Notifier(Settings())
    notifier.send([DIED])
    assert notifier.ways == []
    notifier.close()


# ── what could not be told before the end ───────────────────────────────────────────────────────────────


class Way:
    """A way that may be broken; what it told, by text."""

    def __init__(self, *, is_broken: bool = False) -> None:
        self.is_broken = is_broken
        self.told: list[Notice] = []
        self.news = threading.Condition()

    def __call__(self, notices: Sequence[Notice]) -> None:
        with self.news:
            if self.is_broken:
                raise NotDelivered("no")
            self.told += notices
            self.news.notify_all()

    def wait(self, count: int) -> list[Notice]:
        with self.news:
            assert self.news.wait_for(lambda: len(self.told) >= count, 10)
            return self.told


def ended(folder: Path, *notices: Notice, **ways: Way) -> Notifier:
    """A process that was to tell something and has ended."""
    notifier = Notifier(Settings(), ways={name: (way, 10) for name, way in ways.items()}, folder=folder)
    notifier.send(notices)
    notifier.close()
    return notifier


def test_what_could_not_be_told_before_the_end_is_told_by_the_next_process_in_order(tmp_path: Path) -> None:
    folder = tmp_path / ".cloudrepo"
    ended(folder, DIED, INFO, mail=Way(is_broken=True), hook=Way())
    ended(folder, DOWN, mail=Way(is_broken=True), hook=Way())
    kept = sorted(folder.iterdir())
    assert len(kept) == 2 and all(path.stat().st_mode & 0o777 == 0o600 for path in kept)
    mail_way, hook_way = Way(), Way()
    notifier = Notifier(Settings(), ways={"mail": (mail_way, 10), "hook": (hook_way, 1)}, folder=folder)
    notifier.take_up()
    told = mail_way.wait(2)
    assert [(one.what, one.text, one.details) for one in told] == [
        (one.what, one.text, one.details) for one in (DIED, DOWN)
    ]
    assert told[0].time and told[0].time in str(mail(settings_for(25).smtp, told, ""))  # said how late it is
    notifier.take_up()
    notifier.close()
    assert (hook_way.told, len(mail_way.told), list(folder.iterdir())) == ([], 2, [])


def test_nothing_is_kept_where_all_was_told(tmp_path: Path) -> None:
    way = Way()
    notifier = Notifier(Settings(), ways={"mail": (way, 10)}, folder=tmp_path / "f")
    notifier.take_up()  # also where there is no folder yet
    notifier.send([DIED])
    way.wait(1)
    notifier.close()
    assert not (tmp_path / "f").exists()


def test_what_is_kept_is_bounded_in_number_and_in_age(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        ended(tmp_path, *[DIED] * 600, mail=Way(is_broken=True))
    ended(tmp_path, *[DOWN] * 600, mail=Way(is_broken=True))
    for path in sorted(tmp_path.iterdir())[:2]:
        text = path.read_text()
        day = json.loads(text)["ways"]["mail"][0]["time"][:10]
        path.write_text(text.replace(day, f"{datetime.now(UTC) - timedelta(days=2):%Y-%m-%d}"))
    caplog.clear()
    notifier = ended(tmp_path, mail=Way(is_broken=True))
    notifier.take_up()
    [way] = notifier.ways
    waiting = way.rest(0)
    assert [one.what for one in waiting] == ["vm.died"] * 400 + ["worker.down"] * 600
    assert "1200 notices are not told by mail: older than 1 day" in caplog.text and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 2, "ways": {}}', '{"schema_version": 1}'])
def test_a_damaged_file_is_said_once_and_holds_up_nothing(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "untold-1-1.json").write_text(text)
    way = Way()
    ended(tmp_path, DIED, mail=Way(is_broken=True))
    notifier = Notifier(Settings(), ways={"mail": (way, 10)}, folder=tmp_path)
    caplog.clear()
    notifier.take_up()
    notifier.take_up()
    assert [one.what for one in way.wait(1)] == ["vm.died"]
    notifier.close()
    assert caplog.text.count("untold-1-1.json are not told") == 1 and list(tmp_path.iterdir()) == []


def test_notices_of_a_way_that_is_no_more_are_dropped_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended(tmp_path, DIED, mail=Way(is_broken=True))
    way = Way()
    notifier = Notifier(Settings(), ways={"hook": (way, 1)}, folder=tmp_path)
    notifier.take_up()
    notifier.close()
    assert "1 notices are not told by mail, which the settings do not name" in caplog.text
    assert (way.told, list(tmp_path.iterdir())) == ([], [])


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    ended(tmp_path / "file", DIED, mail=Way(is_broken=True))
    assert "what was not told cannot be kept" in caplog.text
