"""Telling people: the log, a command, and mail. Nobody waits for a slow one; a failed one is tried again, less often.

Each way has a thread and a queue of its own. What could not be told when the process ends is kept for the next one
that watches (`cloudrepo/untold.py`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import smtplib
import ssl
import stat
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

from cloudrepo import untold
from cloudrepo.settings import Settings, Smtp
from cloudrepo.watched import Notice

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
KEPT = 1000  # notices that wait for a way that fails; the oldest go first
FIRST_PAUSE_S, LONGEST_PAUSE_S = 15.0, 900.0
CLOSE_WAIT_S = 2.0
LEVELS = {"info": logging.INFO, "notice": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

Deliver = Callable[[Sequence[Notice]], None]


class NotDelivered(Exception):
    """A way refused or did not answer; the text says why."""


class Notifier:
    """All ways that the settings name.

    Args:
        settings: the groups `monitor` and `smtp`.
        where: names the installation in a mail: the path of its state file.
        ways: by name, in place of those of the settings.
        first_pause_s: pause after the first failure of a way; it doubles with each.
        folder: where notices are kept that this process could not tell; None = nowhere.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        where: str = "",
        ways: dict[str, tuple[Deliver, int]] | None = None,
        first_pause_s: float = FIRST_PAUSE_S,
        folder: Path | None = None,
    ) -> None:
        self.folder = folder
        chosen = ways_of(settings, where) if ways is None else ways
        self.ways = [_Way(name, deliver, at_once, first_pause_s) for name, (deliver, at_once) in chosen.items()]

    def send(self, notices: Iterable[Notice]) -> None:
        """Log all of them, and have those told that are more than information. Returns at once."""
        told = list(notices)
        for notice in told:
            log.log(LEVELS[notice.level], "%s: %s", notice.what, notice.text)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        worth_it = [replace(notice, time=now) for notice in told if notice.level != "info"]
        if worth_it:
            for way in self.ways:
                way.put(worth_it)

    def take_up(self) -> None:
        """Have told what processes that ended could not tell, each by the way it was to go. Returns at once."""
        if self.folder is None:
            return
        ways = {way.name: way for way in self.ways}
        for name, notices in untold.take(self.folder).items():
            if name in ways:
                ways[name].put(notices)
            else:
                log.error("%s notices are not told by %s, which the settings do not name", len(notices), name)

    def close(self) -> None:
        """End all ways, and keep what they could not tell; what is on its way may take a moment more."""
        for way in self.ways:
            way.end()
        left = {way.name: rest for way in self.ways if (rest := way.rest(CLOSE_WAIT_S))}
        for name, notices in left.items():
            log.error("%s notices were not told by %s before the end", len(notices), name)
        if left and self.folder is not None:
            try:
                untold.keep(self.folder, left)
            except OSError as error:
                log.error("what was not told cannot be kept in %s: %s", self.folder, error)


def ways_of(settings: Settings, where: str) -> dict[str, tuple[Deliver, int]]:
    """By name, how it delivers and how many notices at once: a hook hears of one at a time, a mail has many."""
    ways: dict[str, tuple[Deliver, int]] = {}
    hook, smtp = settings.monitor.hook, settings.smtp
    if hook:
        timeout_s = settings.monitor.hook_timeout
        ways["hook"] = (lambda notices: run_hook(hook, notices[0], where, timeout_s), 1)
    if smtp.host and smtp.to:
        ways["mail"] = (lambda notices: send_mail(smtp, mail(smtp, notices, where)), KEPT)
    return ways


class _Way:
    """One way of telling: a queue, and a thread once there is something in it."""

    def __init__(self, name: str, deliver: Deliver, at_once: int, first_pause_s: float) -> None:
        self.name = name
        self.deliver = deliver
        self.at_once = at_once
        self.first_pause_s = first_pause_s
        self._queue: deque[Notice] = deque()
        self._news = threading.Condition()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, notices: Sequence[Notice]) -> None:
        with self._news:
            self._queue.extend(notices)
            dropped = max(0, len(self._queue) - KEPT)
            for _ in range(dropped):
                self._queue.popleft()
            if dropped:
                log.error("%s notices were not told by %s: too many wait", dropped, self.name)
            if self._thread is None and not self._is_over.is_set():
                self._thread = threading.Thread(target=self._run, name=f"notify {self.name}", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def end(self) -> None:
        self._is_over.set()
        with self._news:
            self._news.notify_all()

    def rest(self, seconds: float) -> list[Notice]:
        """What was not told, after so long a wait for what is on its way."""
        if self._thread is not None:
            self._thread.join(seconds)
        with self._news:
            return list(self._queue)

    def _run(self) -> None:
        pause_s = self.first_pause_s
        while batch := self._next():
            try:
                self.deliver(batch)
            except Exception as error:
                # Whatever it was: people are to be told, if later.
                if not isinstance(error, NotDelivered):
                    log.exception("%s failed", self.name)
                log.error("not told by %s, tried again in %g s: %s", self.name, pause_s, error)
                if self._is_over.wait(pause_s):
                    return
                pause_s = min(2 * pause_s, max(LONGEST_PAUSE_S, self.first_pause_s))
                continue
            pause_s = self.first_pause_s
            with self._news:
                for notice in batch:
                    if self._queue and self._queue[0] is notice:  # else it was dropped meanwhile
                        self._queue.popleft()

    def _next(self) -> list[Notice]:
        """The next ones to deliver, which stay in the queue until they are; none at the end."""
        with self._news:
            self._news.wait_for(lambda: bool(self._queue) or self._is_over.is_set())
            return list(self._queue)[: self.at_once]


# ---------------------------------------------------------------------------------------- the hook


def run_hook(words: Sequence[str], notice: Notice, where: str, timeout_s: float) -> None:
    """Run a command, without a shell, with one notice as JSON on its stdin.

    Raises:
        NotDelivered: it cannot be run, took too long, or ended with another status than 0.
    """
    facts = {"schema_version": SCHEMA_VERSION, "state": where, **asdict(notice)}
    text = json.dumps(facts, ensure_ascii=False, default=str) + "\n"
    try:
        process = subprocess.Popen(
            list(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise NotDelivered(f"{words[0]} cannot be run: {error.strerror}") from error
    with process:
        try:
            _, said = process.communicate(text.encode(), timeout_s)
        except subprocess.TimeoutExpired:
            _kill_group(process.pid)
            process.communicate()
            raise NotDelivered(f"{words[0]} took longer than {timeout_s:g} s and was killed") from None
        except BrokenPipeError:  # it did not want to read; its status counts
            said = b""
        finally:
            if process.poll() is None:
                _kill_group(process.pid)
    if process.returncode:
        words_of_it = said.decode("utf-8", "replace").strip()[-300:]
        raise NotDelivered(f"{words[0]} ended with status {process.returncode}. {words_of_it}".strip())


def _kill_group(pid: int) -> None:
    """The command and what it started; it is not reaped yet, so its number is still its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


# ---------------------------------------------------------------------------------------- mail


def mail(smtp: Smtp, notices: Sequence[Notice], where: str) -> EmailMessage:
    """One mail about all of them, the worst in its subject."""
    worst = max(notices, key=lambda notice: LEVELS[notice.level])
    rest = f" (and {len(notices) - 1} more)" if len(notices) > 1 else ""
    message = EmailMessage()
    message["Subject"] = f"[cloud] {_line(worst.text)[:150]}{rest}"
    message["From"] = smtp.sender
    message["To"] = ", ".join(smtp.to)
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=smtp.sender.rpartition("@")[2] or "localhost")
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    lines = [f"{notice.time} {notice.level}: {_line(notice.text)}".lstrip() for notice in notices]
    when = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
    footer = f"State: {where}\nSent: {when}\n`./cloud events` has all that happened, `./cloud status` how it is now."
    message.set_content("\n".join(lines) + f"\n\n-- \n{footer}\n")
    return message


def send_mail(smtp: Smtp, message: EmailMessage) -> None:
    """Hand a mail to the server of the settings.

    Raises:
        NotDelivered: it cannot be reached, refused, or is not to be trusted; or the password cannot be read.
    """
    try:
        password = _password(smtp) if smtp.user else ""
        with smtplib.SMTP(smtp.host, smtp.port, timeout=smtp.timeout) as server:
            if smtp.starttls:
                server.starttls(context=ssl.create_default_context())
            if smtp.user:
                server.login(smtp.user, password)
            server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NotDelivered(f"{smtp.host} port {smtp.port}: {reason}") from error


def _password(smtp: Smtp) -> str:
    path = Path(smtp.password_file).expanduser()
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise NotDelivered(f"{path} holds a password and others may read it; chmod 600 it")
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise NotDelivered(f"smtp.password_file {path} cannot be read: {error.strerror}") from error


def _line(text: str) -> str:
    """On one line, without what a terminal or a mail header would obey."""
    return "".join(character if character.isprintable() else " " for character in text)
