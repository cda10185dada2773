"""Every error a person can meet.

::

    CloudError                 what failed, the evidence, what to do next, a stable code
    ├── RefusedError           a call that was refused: nothing was changed anywhere
    ├── SettingsError          settings.yaml or a CLOUDREPO_* variable cannot be used
    ├── StateFileError         the state file cannot be read or written
    ├── HostError              something about one host; carries its address
    │   ├── HostUnreachable    no connection, no login, or the connection was lost
    │   ├── HostKeyError       the host showed another key than the pinned one
    │   ├── MessageRefused     the host's runner would not take the message (lock, old operation)
    │   └── StepFailed         a step ran on the host and its answer was not accepted
    └── ForeignObjectError     an object of ours is wanted where a foreign one stands

The façade turns them into the documented `(False, message)`, where the message is a `Message`.
"""

from __future__ import annotations

from typing import Any


class CloudError(Exception):
    """One sentence for a person, with what stands behind it.

    Args:
        brief: what failed, in one sentence without a trailing full stop.
        evidence: what was found: the tool's own words, the value refused.
        remedy: what to do next, as a sentence or a command.
        code: stable and parseable, such as `host.unreachable`.
        details: further facts for programs; plain types only.
    """

    code = "error"

    def __init__(
        self,
        brief: str,
        *,
        evidence: str = "",
        remedy: str = "",
        code: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(brief)
        self.brief = brief
        self.evidence = evidence
        self.remedy = remedy
        self.code = code or type(self).code
        self.details = details or {}
        self.hint = ""  # beside the sentence, where that is fixed by the documents

    def __str__(self) -> str:
        text = self.brief if not self.evidence else f"{self.brief}: {self.evidence}"
        return text if not self.remedy else f"{text}. {self.remedy}"

    def message(self) -> Message:
        """The form the façade returns beside `False`."""
        return Message(str(self), code=self.code, details=self.details, hint=self.hint or self.remedy)


class RefusedError(CloudError):
    """A call that was refused before anything was changed."""

    code = "refused"


class SettingsError(CloudError):
    """A setting is unknown or has an impossible value."""

    code = "settings"


class StateFileError(CloudError):
    """The state file is damaged, alien, or cannot be written."""

    code = "state.file"


class HostError(CloudError):
    """Something went wrong on, or on the way to, one host."""

    code = "host"

    def __init__(self, host: str, brief: str, **parts: Any) -> None:
        super().__init__(brief, **parts)
        self.host = host
        self.details.setdefault("host", host)

    def __str__(self) -> str:
        return f"{self.host}: {super().__str__()}"


class HostUnreachable(HostError):
    """No connection, no login, or the connection was lost on the way."""

    code = "host.unreachable"


class HostKeyError(HostError):
    """The host showed another key than the one that was pinned at enrolment."""

    code = "host.key"


class MessageRefused(HostError):
    """The host's runner did not begin: another message holds the lock, or a newer one came first."""

    code = "host.refused"


class StepFailed(HostError):
    """A step ran on a host and its answer was not accepted."""

    code = "host.step"


class ForeignObjectError(HostError):
    """Something that is not ours stands under a name we need; it is never touched."""

    code = "host.foreign"


class Message(str):
    """The error string of a `(False, message)` pair: a `str` that also knows its code and its remedy."""

    code: str
    details: dict[str, Any]
    hint: str

    def __new__(  # noqa: D102 - described by its class
        cls, text: str, *, code: str = "error", details: dict[str, Any] | None = None, hint: str = ""
    ) -> Message:
        self = super().__new__(cls, text)
        self.code = code
        self.details = details or {}
        self.hint = hint
        return self
