"""The live screen, with textual."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Resize
from textual.widgets import DataTable, Footer, Static

from aiostorage.cli.watch.watch_feed import WatchFeed
from aiostorage.cli.watch.watch_panels import (
    best_panel,
    change_cells,
    counts_line,
    rate_line,
    state_line,
    throughput_panel,
    worker_cells,
    workers_title,
)
from aiostorage.cli.watch.watch_state import SortKey, sorted_workers

__all__ = ["WatchApp"]

REFRESH_INTERVAL: Final = 0.5
"""Seconds between two updates of the screen."""

HANGUP_INTERVAL: Final = 2.0
"""Seconds between two checks of whether the terminal is still there."""

HANGUP_EXIT_CODE: Final = 129
"""The code that a shell reports after a hangup: 128 plus the number of the signal."""

END_TIMEOUT: Final = 5.0
"""Seconds that the end of the feed may take, at most."""

MAX_ROWS: Final = 200
"""Rows of a table, at most."""

SORTS: Final[tuple[SortKey, ...]] = ("heartbeat", "running", "worker", "trial")


class WatchApp(App[BaseException]):
    """Runs a feed and shows its state.

    Its result is the error that ended the feed, or None if the user closed the screen.

    Parameters
    ----------
    location
        The name of the store on the screen.
    lost_after
        Seconds without a heartbeat after which a trial is lost.
    """

    CSS: ClassVar[str] = """
    Screen { layers: base; }
    #state, #counts, #rate { height: 1; padding: 0 1; }
    #head { height: auto; background: $panel; }
    #charts { height: 7; padding: 0 1; }
    #best { width: 3fr; height: 100%; margin-right: 2; }
    #throughput { width: 2fr; height: 100%; }
    #tables { height: 1fr; }
    .title { height: 1; padding: 0 1; color: $text-muted; background: $panel; }
    DataTable { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    #workers { min-height: 3; }
    #changes { min-height: 3; }
    Screen.short #charts { display: none; }
    Screen.shorter #rate, Screen.shorter #workers, Screen.shorter #workers-title { display: none; }
    Screen.narrow #throughput { display: none; }
    Screen.narrow #best { margin-right: 0; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit", priority=True),
        Binding("ctrl+c,ctrl+q", "quit", "Quit", show=False, priority=True),
        Binding("s", "sort", "Sort"),
        Binding("r", "reverse", "Reverse"),
        Binding("p", "pause", "Pause"),
        Binding("tab", "other_table", "Other table", key_display="Tab", priority=True),
        Binding("pagedown", "page(1)", "Page", key_display="PgDn", priority=True),
        Binding("pageup", "page(-1)", "Back", key_display="PgUp", priority=True),
    ]

    ENABLE_COMMAND_PALETTE: ClassVar[bool] = False

    def __init__(self, feed: WatchFeed, location: str, lost_after: float) -> None:
        super().__init__()
        self._feed = feed
        self._location = location
        self._lost_after = lost_after
        self._sort: SortKey = "heartbeat"
        self._descending = False
        self._paused = False
        self._following: asyncio.Task[None] | None = None
        self._drawn_changes = -1
        self._summary_seen: tuple[datetime, float] | None = None

    def compose(self) -> ComposeResult:
        """Make the parts of the screen."""
        with Vertical(id="head"):
            yield Static(id="state", markup=False)
            yield Static(id="counts", markup=False)
            yield Static(id="rate", markup=False)
        with Horizontal(id="charts"):
            yield Static(id="best", markup=False)
            yield Static(id="throughput", markup=False)
        with Vertical(id="tables"):
            yield Static(id="workers-title", classes="title", markup=False)
            yield DataTable(id="workers", cursor_type="row", zebra_stripes=True)
            yield Static(id="changes-title", classes="title", markup=False)
            yield DataTable(id="changes", cursor_type="row", zebra_stripes=True)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin."""
        self._table("workers").add_columns("worker", "trial", "running", "last heartbeat")
        self._table("changes").add_columns("time", "trial", "change", "reason", "worker")
        self._table("changes").focus()
        self._following = asyncio.create_task(self._follow())
        self.set_interval(REFRESH_INTERVAL, self.draw)
        self.set_interval(HANGUP_INTERVAL, self._leave_after_hangup)
        loop = asyncio.get_running_loop()
        for number, end in ((signal.SIGTERM, self.exit), (signal.SIGHUP, self._leave)):
            try:
                loop.add_signal_handler(number, end)
            except (NotImplementedError, RuntimeError, ValueError):
                return  # not the main thread, or a system without these signals
        self.draw()

    async def on_unmount(self) -> None:
        """End the feed before the event loop ends, to which threads of the store report."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following], timeout=END_TIMEOUT)

    async def _follow(self) -> None:
        try:
            await self._feed.run()
        except Exception as error:  # noqa: BLE001  the command reports it
            self.exit(error)

    def _leave_after_hangup(self) -> None:
        """Leave when the server of the browser, or the terminal, is gone."""
        if _has_hung_up():
            self._leave()

    def _leave(self) -> None:
        """End without a terminal: textual would wait forever to write to one that is gone."""
        last_resort = threading.Timer(HANGUP_INTERVAL, os._exit, (HANGUP_EXIT_CODE,))
        last_resort.daemon = True
        last_resort.start()
        self.exit()

    def on_resize(self, event: Resize) -> None:
        """Hide the parts that do not fit."""
        width, height = event.size
        self.screen.set_class(height < 20, "short")
        self.screen.set_class(height < 12, "shorter")
        self.screen.set_class(width < 70, "narrow")
        self.call_after_refresh(self.draw, force=True)

    def action_sort(self) -> None:
        """Sort the workers by the next column."""
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self.draw(force=True)

    def action_reverse(self) -> None:
        """Reverse the order of the workers."""
        self._descending = not self._descending
        self.draw(force=True)

    def action_pause(self) -> None:
        """Freeze the screen, or let it go on."""
        self._paused = not self._paused
        self.draw(force=True)

    def action_other_table(self) -> None:
        """Move the focus to the other table."""
        name = "changes" if self.focused is self._table("workers") else "workers"
        if self._table(name).display:
            self._table(name).focus()

    def action_page(self, pages: int) -> None:
        """Show another page of the table that has the focus."""
        table = self.focused
        if isinstance(table, DataTable):
            (table.action_page_down if pages > 0 else table.action_page_up)()

    def draw(self, *, force: bool = False) -> None:
        """Draw the present state."""
        state = self._feed.state
        away = 0.0 if state.away_since is None else time.monotonic() - state.away_since
        self._show("state", self._with_location(state_line(state, away, paused=self._paused)))
        if self._paused and not force:
            return
        now = self._now()
        self._show("counts", counts_line(state))
        self._show("rate", rate_line(state, now))
        for name, panel in (("best", best_panel), ("throughput", throughput_panel)):
            part = self.query_one(f"#{name}", Static)
            size = part.content_size
            if size.width and size.height:
                part.update(panel(state, now, size.width, size.height))
        title = workers_title(state, self._sort, descending=self._descending)
        self._show("workers-title", Text(title))
        rows = sorted_workers(state.workers, self._sort, descending=self._descending)
        cells = (worker_cells(row, now, self._lost_after) for row in rows[:MAX_ROWS])
        self._fill("workers", cells)
        if force or state.seen != self._drawn_changes:
            self._drawn_changes = state.seen
            self._show("changes-title", Text(f"last changes, {state.seen:,} seen, newest first"))
            last = islice(reversed(state.changes), MAX_ROWS)
            self._fill("changes", map(change_cells, last))

    def _now(self) -> datetime:
        """Return the store's time: that of the last summary, continued by our clock."""
        summary = self._feed.state.summary
        if summary is None:
            return datetime.now(UTC)
        if self._summary_seen is None or self._summary_seen[0] != summary.time:
            self._summary_seen = summary.time, time.monotonic()
        return summary.time + timedelta(seconds=time.monotonic() - self._summary_seen[1])

    def _with_location(self, text: Text) -> Text:
        text.append(f"  {self._location}", "dim")
        text.no_wrap = True
        text.overflow = "ellipsis"
        return text

    def _show(self, name: str, text: Text) -> None:
        text.no_wrap = True
        text.overflow = "ellipsis"
        self.query_one(f"#{name}", Static).update(text)

    def _table(self, name: str) -> DataTable[Any]:
        return self.query_one(f"#{name}", DataTable)

    def _fill(self, name: str, rows: Iterable[tuple[Text, ...]]) -> None:
        """Replace the rows of a table, and keep its scroll position."""
        table = self._table(name)
        row, scroll = table.cursor_row, table.scroll_y
        table.clear()
        for cells in rows:
            table.add_row(*cells)
        if table.row_count:
            table.move_cursor(row=min(row, table.row_count - 1), scroll=False)
            table.scroll_to(y=scroll, animate=False, force=True)


def _has_hung_up() -> bool:
    """Return whether the other end of standard input is closed for good."""
    try:
        poll = select.poll()
        poll.register(sys.__stdin__.fileno(), select.POLLHUP)  # type: ignore[union-attr]
        return any(event & select.POLLHUP for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # there is no standard input
        return False
