"""What hosts are doing, as it happens: one moving line per host on a terminal, else a line per step."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from cli.redrawing import Redrawing
from cli.screen import BAD, FAINT, GOOD, Screen
from cli.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.live import Live
    from rich.table import Table

    from cloudrepo.progress import Progress

BAR_WIDTH = 16
LONG_S = 100.0  # what is longer is said in minutes
FAILED = "FAILED "
EARLY = 3  # steps that must have ended before the rest is guessed from them


def about(seconds: float) -> str:
    """A time that is only guessed: `9 s`, `4 min`."""
    return f"{seconds:.0f} s" if seconds < LONG_S else f"{seconds / 60:.0f} min"


class ProgressDisplay:
    """A context manager; call it with each `Progress`, from any thread.

    Args:
        screen: where it is drawn.
        hint: a line under the bars: which keys do what.
        clock: what time it is, in seconds.
    """

    def __init__(self, screen: Screen, *, hint: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: dict[str, float] = {}
        self._screen = screen
        self._hint = hint
        self._lock = threading.Lock()
        self._latest: dict[str, Progress] = {}
        self._ended: dict[str, int] = {}
        self._live: tuple[Live, Redrawing] | None = None
        self._is_left = False
        self._began = clock()
        self._over: float | None = None

    def __enter__(self) -> ProgressDisplay:
        self._began = self._clock()
        self.show()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.pause()

    def show(self) -> None:
        """Draw, and go on drawing; also again, after it was left."""
        self._is_left = False
        if self._screen.live and self._live is None:
            from rich.live import Live

            live = Live(
                console=self._screen.console,
                get_renderable=self._table,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            live.start()
            self._live = live, Redrawing(live.refresh)
            self._live[1].news()  # nothing is seen before that: whoever then presses a key finds all in place

    def pause(self) -> None:
        """Leave the last picture standing and draw no more, so that a question can be asked under it."""
        drawn, self._live = self._live, None
        if drawn is not None:
            live, redrawing = drawn
            try:
                redrawing.stop()
            finally:
                live.stop()  # which draws it a last time
            self._screen.lines += len(self._latest) + bool(self._hint)

    def leave(self) -> None:
        """Draw no more and say nothing; what is told is still taken note of."""
        self._is_left = True
        self.pause()

    def end(self) -> None:
        """The work has ended: time stands still."""
        if self._over is None:
            self._over = self._clock()

    @property
    def seconds(self) -> float:
        """Time since the beginning, up to the end."""
        return self._now - self._began

    @property
    def _now(self) -> float:
        return self._clock() if self._over is None else self._over

    @property
    def summary(self) -> str:
        """How far it is in a few words: `12 of 40 steps, about 9 s left`."""
        with self._lock:
            ended, total = sum(self._ended.values()), sum(step.total for step in self._latest.values())
            left = max((self._left_s(host) or 0.0 for host in self._latest), default=0.0)
        steps = f"{ended} of {total} steps" if total else f"{self.seconds:.0f} s"
        return f"{steps}, about {about(left)} left" if left else steps

    def __call__(self, step: Progress) -> None:
        """Take note of one step; prints it at once where nothing can be redrawn."""
        with self._lock:
            before = self._latest.get(step.host)
            if before is not None and self._ended.get(step.host, 0) >= before.total > 0:
                self._ended[step.host], self._first[step.host] = 0, self._clock()  # another message to the same host
            self._latest[step.host] = step
            self._first.setdefault(step.host, self._clock())
            if step.done:
                self._ended[step.host] = self._ended.get(step.host, 0) + 1
            if self._live is None and not self._is_left and not self._screen.live and step.done:
                place = f"{step.step}/{step.total}" if step.total else ""
                mark = "" if step.ok else FAILED
                line = f"{self.seconds:6.2f} s  {step.host:<12} {place:>7}  {mark}{step.label}"
                self._screen.line((line, "" if step.ok else BAD))
        if (drawn := self._live) is not None:
            drawn[1].news()

    def _left_s(self, host: str) -> float | None:
        """Seconds that a host still needs, by what its steps took so far; None = too early to say, or done.

        They count from its first step: what came before, such as a host that was slow to answer, is no step's time.
        """
        ended, total = self._ended.get(host, 0), self._latest[host].total
        if ended < EARLY or ended >= total:
            return None
        return (self._now - self._first[host]) / ended * (total - ended)

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        fine = self._screen.unicode
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        with self._lock:
            widest = max(map(len, self._latest), default=0)
            for width in (widest, BAR_WIDTH, len("100/100"), len("~1000 s")):
                table.add_column(no_wrap=True, width=width)
            table.add_column(no_wrap=True, overflow="ellipsis" if fine else "crop", ratio=1)
            for host in sorted(self._latest):
                step = self._latest[host]
                ended, total = self._ended.get(host, 0), max(step.total, 1)
                has_failed = step.done and not step.ok
                style = BAD if has_failed else GOOD if ended >= step.total else ""
                filled = min(BAR_WIDTH, BAR_WIDTH * ended // total)
                left = self._left_s(host)
                bar = ("━" * filled, "─" * (BAR_WIDTH - filled)) if fine else ("#" * filled, "." * (BAR_WIDTH - filled))
                table.add_row(
                    clean(host),
                    Text(bar[0], BAD if has_failed else GOOD) + Text(bar[1], FAINT),
                    f"{ended}/{step.total}",
                    Text(f"~{about(left)}" if left is not None else "", FAINT),
                    Text(f"{FAILED if has_failed else ''}{clean(step.label)}", style),
                )
        if not self._latest:
            table.add_row("", "", "", "", Text(f"{self.seconds:.0f} s", FAINT))
        if not self._hint or self._over is not None:
            return table
        outer = Table.grid(expand=True)
        outer.add_row(table)
        outer.add_row(Text(self._hint, FAINT))
        return outer
