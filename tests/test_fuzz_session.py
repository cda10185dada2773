"""A hostile runner: whatever comes back on the stream, the plan's result is sound, or the host's own error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cloudrepo.errors import CloudError, HostError, HostUnreachable, MessageRefused
from cloudrepo.gate import Gate
from cloudrepo.host import events
from cloudrepo.host.session import PlanSession
from cloudrepo.plan import Plan, PlanResult, Run, Stage, Step, StepEvent
from fuzzing import ODD, changed, fuzz, texts, values
from remote_executor import SerialChannel

PLAN = Plan(
    installation="0a1b2c3d",
    operation=7,
    stages=(
        Stage(name="s", steps=(Step(name="one", label="do one", act=Run(words=("true",))),)),
        Stage(name="t", gate="g", steps=(Step(name="two", label="do two", act=Run(words=("true",))),)),
    ),
    observe=(Step(name="look", label="look at it", act=Run(words=("true",))),),
)
END = {
    "event": "end",
    "observe": False,
    "label": "x",
    "status": 0,
    "out": "",
    "err": "",
    "accepted": True,
    "seconds": 0.125,
}
HONEST: tuple[dict[str, Any], ...] = (
    {"event": "begin", "name": "one", "label": "x"},
    END | {"name": "one"},
    {"event": "gate", "name": "g"},
    {"event": "begin", "name": "two", "label": "x"},
    END | {"name": "two"},
    END | {"name": "look", "observe": True, "out": "seen"},
    {"event": "done", "failed": None, "aborted": ""},
)


class Stream:
    """What a host says, in pieces; then it hangs up."""

    def __init__(self, *pieces: bytes, words: bytes = b"") -> None:
        self.pieces = list(pieces)
        self.words = words
        self.sent = b""

    def receive(self, timeout_s: float) -> tuple[bytes, bytes] | None:
        words, self.words = self.words, b""
        if self.pieces:
            return self.pieces.pop(0), words
        return (b"", words) if words else None

    def send(self, data: bytes) -> None:
        self.sent += data

    def status(self, timeout_s: float) -> int | None:
        return 1

    def close(self) -> None: ...


class Transport:
    """Reaches nothing but a stream."""

    keeps_open = False
    has_helper = False

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def open_message(self, host: str, message: bytes) -> Stream:
        return self.stream

    def environment(self, host: str) -> dict[str, str]:
        return {}


def run(*pieces: bytes, words: bytes = b"", plan: Plan = PLAN) -> tuple[PlanResult, list[StepEvent]]:
    heard: list[StepEvent] = []
    gate = Gate()
    gate.open()
    transport: Any = Transport(Stream(*pieces, words=words))
    return PlanSession(transport, "h", plan, on_event=heard.append, gates={"g": gate}).run(), heard


def lines(*told: Any) -> bytes:
    return b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in told)


def changes(index: int, **parts: Any) -> list[dict[str, Any]]:
    return [one | parts if place == index else one for place, one in enumerate(HONEST)]


def test_an_honest_runner_is_heard() -> None:
    result, heard = run(lines(*HONEST))
    assert result.ok and result.observed["look"].out == "seen" and set(result.steps) == {"one", "two"}
    assert [(one.kind, one.label) for one in heard][:2] == [("begin", "do one"), ("end", "do one")]


def test_a_greeting_before_the_first_line_is_no_event() -> None:
    assert run(b"Welcome to Debian\n\x1b[31m{}\n" + lines(*HONEST))[0].ok


DEEP = b'{"event":' + b"[" * 100_000 + b"\n"
NONSENSE: dict[str, bytes] = {
    "deep nesting": DEEP,
    "no JSON": b'{"event":"end"\n',
    "no event": b'{"event":"end"}\n',
    "NaN": (lines(*HONEST)).replace(b'"seconds":0.125', b'"seconds":NaN'),
    "infinite seconds": lines(*HONEST).replace(b'"seconds":0.125', b'"seconds":1e999'),
    "a number of 5000 digits": lines(*changes(1)).replace(b'"status":0', b'"status":' + b"9" * 5000),
    "a huge status": lines(*changes(1, status=10**30)),
    "a text as status": lines(*changes(1, status="0")),
    "true as status": lines(*changes(1, status=True)),
    "a list as output": lines(*changes(1, out=["x"])),
    "null as output": lines(*changes(5, out=None)),
    "a step of no plan": lines(*changes(1, name="other")),
    "an answer to no question": lines(*changes(5, name="one")),
    "a list as name": lines(*changes(0, name=["one"])),
    "no such gate": lines(*changes(2, name="x\ny")),
    "an answer missing": lines(*HONEST[:5], HONEST[6]),
    "a step failed that never ended": lines(*HONEST[:1], *HONEST[5:6], HONEST[6] | {"failed": "two"}),
    "a dictionary failed": lines(*changes(6, failed={})),
    "aborted by a number": lines(*changes(6, aborted=7)),
    "refused by nothing": lines({"event": "refused"}),
    "refused with an odd code": lines({"event": "refused", "code": "a\x1b[2J", "text": ""}),
    "a number far ahead": lines({"event": "refused", "code": "operation", "text": "", "seen": 10**30}),
    "a negative number": lines({"event": "refused", "code": "operation", "text": "", "seen": -1}),
    "crashed without a word": lines({"event": "crashed"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", NONSENSE)
def test_what_no_runner_of_ours_says_is_the_hosts_error(kind: str) -> None:
    with pytest.raises(HostError) as caught:
        run(NONSENSE[kind])
    assert caught.value.code == "host.nonsense" and caught.value.host == "h"
    assert len(str(caught.value)) < 1000


def test_a_kind_of_event_that_is_not_known_means_nothing() -> None:
    assert run(lines({"event": "beat"}, {"event": ["end"]}, {"event": None}, *HONEST))[0].ok


def test_labels_come_from_the_plan_and_never_from_the_host() -> None:
    told = [one | {"label": "\x1b[2Jowned"} if "label" in one else one for one in HONEST]
    result, heard = run(lines(*told))
    assert {one.label for one in heard if one.kind != "gate"} == {"do one", "do two"}
    assert result.observed["look"].label == "look at it"


def test_half_a_character_in_an_answer_can_be_stored() -> None:
    result, _ = run(lines(*changes(5, out="\ud83d x")))
    assert result.observed["look"].out.encode() == b"\\ud83d x"


def test_bytes_that_are_no_text_are_the_hosts_error() -> None:
    broken = lines(*HONEST).replace(b'"out":"seen"', b'"out":"\xff\xfe"')
    with pytest.raises(HostError, match="does not answer as our runner does"):
        run(broken)


@pytest.mark.parametrize("piece", [b"x" * 1000, b"x\n" * 500, b'{"event":"beat"}\n' * 60])
def test_output_without_end_is_not_read_without_end(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(events, "LINE_LIMIT", 50_000)
    monkeypatch.setattr(events, "LIMIT", 100_000)
    stream = Stream()
    stream.receive = lambda timeout_s: (piece, b"")  # type: ignore[method-assign]
    transport: Any = Transport(stream)
    with pytest.raises(HostError, match="the host says too much") as caught:
        PlanSession(transport, "h", PLAN, gates={"g": Gate()}).run()
    assert caught.value.code == "host.flood"


def test_a_large_answer_of_ours_is_no_flood() -> None:
    result, _ = run(lines(*changes(5, out="y" * 5_000_000)))
    assert len(result.observed["look"].out) == 5_000_000


def test_a_refusal_says_how_far_the_host_is_and_no_further() -> None:
    with pytest.raises(MessageRefused) as caught:
        run(lines({"event": "refused", "code": "operation", "text": "a newer one", "seen": 9}))
    assert caught.value.details["seen"] == 9


@fuzz(150)
@given(data=st.data())
def test_any_stream_gives_a_sound_result_or_the_hosts_error(data: st.DataObject) -> None:
    told = []
    for one in HONEST:
        kind = data.draw(st.integers(0, 9))
        text = json.dumps(one, separators=(",", ":"))
        if kind == 0:
            text = data.draw(changed(text))
        elif kind == 1:
            text = json.dumps(one | {data.draw(st.sampled_from(sorted(one))): _plain(data)}, separators=(",", ":"))
        elif kind == 2:
            text = data.draw(texts)
        told.append(text.encode("utf-8", "surrogatepass"))
    stream = b"\n".join(told) + b"\n"
    cut = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    pieces = [stream[start:end] for start, end in zip([0, *cut], [*cut, len(stream)], strict=True)]
    try:
        result, heard = run(*pieces, words=data.draw(st.binary(max_size=50)))
    except CloudError as error:
        assert getattr(error, "host", "h") == "h"
        str(error)
        return
    assert set(result.steps) <= {"one", "two"} and set(result.observed) == {"look"}
    assert {one.label for one in heard} <= {"do one", "do two", ""}
    for answer in (*result.steps.values(), *result.observed.values()):
        json.dumps([answer.out, answer.err, answer.seconds], allow_nan=False, ensure_ascii=False).encode()


def _plain(data: st.DataObject) -> Any:
    value = data.draw(values)
    try:
        json.dumps(value)
    except ValueError:
        return None
    return value


@fuzz(60)
@given(said=st.lists(st.one_of(st.binary(max_size=30), st.just(b'{"event":"open"}\n'))))
def test_a_serial_port_opens_or_is_the_hosts_error(said: list[bytes]) -> None:
    stream: Any = Stream(*said)
    try:
        SerialChannel("h", "/run/x/serial.sock", stream).receive(0.0)
    except CloudError as error:
        assert isinstance(error, HostError | HostUnreachable)


def test_a_relay_that_never_ends_its_first_line_is_not_read_without_end() -> None:
    stream: Any = Stream()
    stream.receive = lambda timeout_s: (b"x" * 100_000, b"y" * 100_000)
    with pytest.raises(HostError, match="the host says too much"):
        SerialChannel("h", "/run/x/serial.sock", stream)


def test_the_odd_words_hold_what_matters() -> None:
    assert {"\x1b[2J\x1b]0;owned\x07", "\ud83d", "9" * 5000, "[" * 3000} <= set(ODD)
