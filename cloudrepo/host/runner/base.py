"""What every part of the runner uses: its limits, the shape of an answer, words for what went wrong."""

from __future__ import annotations

import json
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]
    Answer = tuple[int, str, str]  # exit status, and what was said on both streams

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_LIMIT = 4 << 20  # bytes kept of each stream of a step
FILE_LIMIT = 1 << 20
OBSERVERS = 4  # observations asked at a time
LONGEST_WAIT_S = 0.02  # between two looks at something that cannot be waited for
DONE, OUT_OF_TIME, NOT_RUN = 0, 124, 255
environment = {"PATH": PATH, "LC_ALL": "C", "HOME": "/"}  # of every command; filled by main()


encode = json.JSONEncoder(separators=(",", ":")).encode


def to_json(value: Any) -> str:
    """A value as JSON whose texts can be printed and stored: half a character is written out by its number."""
    text = encode(value)
    return encode(whole(value)) if "\\ud" in text else text


def whole(value: Any) -> Any:
    """A plain value without half characters, which `os.listdir` makes of bytes of a name that are no UTF-8."""
    if isinstance(value, dict):
        return {whole(key): whole(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [whole(entry) for entry in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def explain(error: BaseException) -> str:
    """What went wrong, in the system's words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def in_parallel(work: Callable[[Any], Any], items: list[Any], at_a_time: int = OBSERVERS) -> list[Any]:
    """The answers of `work` for each item, in order."""
    answers: list[Any] = [None] * len(items)
    todo = iter(range(len(items)))
    turn = threading.Lock()
    failures: list[BaseException] = []

    def worker() -> None:
        while True:
            with turn:
                index = next(todo, None)
            if index is None:
                return
            try:
                answers[index] = work(items[index])
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=worker) for _ in range(min(at_a_time, len(items)) - 1)]
    for thread in threads:
        thread.start()
    worker()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return answers
