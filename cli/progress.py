"""What hosts are doing, as it happens: one moving line per host on a terminal, else a line per step."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from cli.screen import BAD, FAINT, GOOD, Screen
from cli.text import clean

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from cloudrepo.progress import Progress

BAR_WIDTH = 16
REFRESH_PER_S = 12  # a step's line is up within a tenth of a second


class ProgressDisplay:
    """A context manager; call it with each `Progress`, from any thread."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._lock = threading.Lock()
        self._latest: dict[str, Progress] = {}
        self._ended: dict[str, int] = {}
        self._live: Live | None = None
        self._began = time.monotonic()

    def __enter__(self) -> ProgressDisplay:
        self._began = time.monotonic()
        if self._screen.live:
            from rich.live import Live

            self._live = Live(
                console=self._screen.console,
                get_renderable=self._table,
                refresh_per_second=REFRESH_PER_S,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.pause()

    def pause(self) -> None:
        """Leave the last picture standing and draw no more, so that a question can be asked under it."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return time.monotonic() - self._began

    def __call__(self, step: Progress) -> None:
        """Take note of one step; prints it at once where nothing can be redrawn."""
        with self._lock:
            self._latest[step.host] = step
            if step.done:
                self._ended[step.host] = self._ended.get(step.host, 0) + 1
            if self._live is None and not self._screen.live and step.done:
                place = f"{step.step}/{step.total}" if step.total else ""
                mark = "" if step.ok else "FAILED "
                line = f"{self.seconds:6.2f} s  {step.host:<12} {place:>7}  {mark}{step.label}"
                self._screen.line((line, "" if step.ok else BAD))

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        with self._lock:
            widest = max(map(len, self._latest), default=0)
            for width in (widest, BAR_WIDTH, len("100/100")):
                table.add_column(no_wrap=True, width=width)
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
            for host in sorted(self._latest):
                step = self._latest[host]
                ended, total = self._ended.get(host, 0), max(step.total, 1)
                style = BAD if step.done and not step.ok else GOOD if ended >= step.total else ""
                filled = min(BAR_WIDTH, BAR_WIDTH * ended // total)
                table.add_row(
                    clean(host),
                    Text("━" * filled, GOOD if style != BAD else BAD) + Text("━" * (BAR_WIDTH - filled), FAINT),
                    f"{ended}/{step.total}",
                    Text(clean(step.label), style),
                )
        return table
