"""The screen of `aiostorage watch`: by textual's pilot, in a real terminal, and as a page."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from fcntl import ioctl
from functools import partial
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner

from aiostorage import open_storage
from aiostorage._core.cancellation import shielded
from aiostorage.cli.app import cli
from aiostorage.cli.existing import open_named
from aiostorage.cli.watch.feed import WatchFeed
from aiostorage.cli.watch.shown_state import WatchState

from .support import DEADLINE, command, environment
from .test_watch import complete, experiment_with, filled, until

screen = pytest.importorskip("aiostorage.cli.watch.screen")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIOSTORAGE_URL", f"sqlite:///{tmp_path}/aiostorage-demo.db")
    return tmp_path


@pytest.mark.anyio
async def test_the_screen(folder: Path) -> None:  # noqa: PLR0915  one store for all of it
    from textual.widgets import DataTable

    from aiostorage.cli.watch.screen import WatchApp

    url = f"sqlite:///{folder}/aiostorage-demo.db"
    async with open_storage(url) as storage:
        experiment = await experiment_with(storage, 6)
        for value in (3.0, 2.0):
            await complete(storage, experiment, value)
        held = await storage.reserve_trials(experiment, 2)
        feed = WatchFeed(partial(open_named, url), WatchState("tune", "minimize"), interval=0.05)
        app = WatchApp(feed, "tune.db", 120)

        def text(name: str) -> str:
            return str(app.query_one(f"#{name}").render())

        async with app.run_test(size=(80, 24)) as pilot:
            await until(lambda: feed.state.phase == "live" and len(feed.state.workers) == 2)
            await complete(storage, experiment, 1.0)
            await until(lambda: feed.state.seen == 2)
            await until(lambda: "best so far 1" in text("best"))
            app.draw(force=True)
            await pilot.pause()
            assert "tune@1" in text("state")
            assert "reserved 2  completed 3" in text("counts")
            assert "best so far 1" in text("best")
            assert "completed 3" in text("throughput")
            workers = app.query_one("#workers", DataTable)
            changes = app.query_one("#changes", DataTable)
            assert workers.row_count == 2
            assert "reserved → completed" in str(changes.get_row_at(0)[2])

            await pilot.press("s", "s", "s", "r")
            assert "by trial ↓" in text("workers-title")
            shown = [str(workers.get_row_at(row)[1]) for row in range(2)]
            assert shown == sorted((trial.id[:12] for trial in held), reverse=True)
            assert app.focused is changes
            await pilot.press("tab")
            assert app.focused is workers
            await pilot.press("pagedown")
            assert workers.cursor_row == 1
            await pilot.press("pageup", "p")
            assert "paused" in text("state")
            await complete(storage, experiment, 0.5)
            await until(lambda: feed.state.best == 0.5)
            app.draw()
            assert "best so far 1" in text("best")
            await pilot.press("p")
            await pilot.pause()
            assert "best so far 0.5" in text("best")

            await pilot.resize_terminal(40, 8)
            await pilot.pause()
            assert not app.query_one("#charts").display
            assert not workers.display
            await pilot.press("tab")
            await pilot.resize_terminal(200, 60)
            await pilot.pause()
            assert app.query_one("#throughput").display
            await pilot.press("q")
        assert app.return_value is None


@pytest.mark.anyio
async def test_the_end_of_the_feed_is_waited_for() -> None:
    """A call in the store's thread that outlived the event loop would be a traceback."""
    from aiostorage.cli.watch.screen import WatchApp

    begun = ended = False

    class SlowFeed(WatchFeed):
        async def run(self) -> None:
            nonlocal begun, ended
            begun = True
            try:
                await anyio.sleep_forever()
            finally:
                await shielded(None, lambda: anyio.sleep(0.1))  # as a storage is closed
                ended = True

    feed = SlowFeed(partial(open_named, None), WatchState("tune", "minimize"))
    app = WatchApp(feed, "tune.db", 120)
    async with app.run_test() as pilot:
        await until(lambda: begun)
        await pilot.press("q")
    assert ended


def read_some(terminal: int) -> bytes:
    """Return what a terminal has to show; nothing after a moment without any."""
    ready, _, _ = select.select([terminal], [], [], 0.1)
    return os.read(terminal, 65536) if ready else b""


def test_in_a_terminal_it_leaves_everything_as_it_was(folder: Path) -> None:
    filled(folder)
    main, other = pty.openpty()
    ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(other)
    process = subprocess.Popen(
        command("watch", "tune"),
        stdin=other,
        stdout=other,
        stderr=other,
        env=environment(TERM="xterm-256color"),
        start_new_session=True,
    )
    end = time.monotonic() + DEADLINE
    seen = b""
    try:
        while b"best so far" not in seen or b"\x1b[?1049h" not in seen:
            assert time.monotonic() < end, seen[-2000:]
            seen += read_some(main)
        os.write(main, b"\x03")  # Ctrl-C, which a terminal in raw mode passes on
        while process.poll() is None or b"\x1b[?1049l" not in seen:
            assert time.monotonic() < end, seen[-2000:]
            seen += read_some(main)
        assert process.wait() == 0
        assert seen.index(b"\x1b[?1049h") < seen.rindex(b"\x1b[?1049l")
        assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")  # the cursor is back
        assert termios.tcgetattr(other) == before
    finally:
        process.kill()
        process.wait()
        os.close(main)
        os.close(other)


def wait_until_it_listens(port: int) -> None:
    """Wait for a server that has said where it is going to be."""
    end = time.monotonic() + DEADLINE
    with socket.socket() as client:
        client.settimeout(DEADLINE)
        while client.connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_browser_of_this_machine_can_have_it(folder: Path) -> None:
    pytest.importorskip("textual_serve")
    filled(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        taken = CliRunner().invoke(cli, ["watch", "tune", "--web", str(port)])
        assert taken.exit_code == 2
        assert f"port {port} cannot be used" in taken.stderr
    process = subprocess.Popen(
        command("watch", "tune", "--web", str(port)),
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    try:
        assert process.stderr is not None
        assert f"http://127.0.0.1:{port}" in process.stderr.readline()
        wait_until_it_listens(port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=DEADLINE) as answer:
            assert b"aiostorage watch tune" in answer.read()
            assert "googleapis" not in answer.headers["Content-Security-Policy"]
        for header in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/ws", headers=header)
            with pytest.raises(urllib.error.HTTPError, match="403") as refused:
                urllib.request.urlopen(request, timeout=DEADLINE)
            refused.value.close()
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
            client.sendall(
                f"GET /ws?width=80&height=24 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                f"Origin: http://127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
            )
            seen = b""
            while b"best so far" not in seen:
                more = client.recv(65536)
                assert more, seen[-2000:]
                if b"\x89\x00" in more:  # the server asks whether we are there, and we are
                    client.sendall(b"\x8a\x80\x00\x00\x00\x00")
                seen += more
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) in (0, 130)
    finally:
        process.kill()
        process.communicate()


def test_what_is_not_installed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(folder)
    for name in ("textual.app", "textual_serve.server"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("screen", "browser"):
        monkeypatch.delitem(sys.modules, f"aiostorage.cli.watch.{name}", raising=False)
    monkeypatch.setenv("TEXTUAL_DRIVER", "x")
    for more in ([], ["--web", "8765"]):
        result = CliRunner().invoke(cli, ["watch", "tune", *more])
        assert result.exit_code == 2
        assert "pip install 'aiostorage-orion[watch]'" in result.stderr


def test_a_screen_that_nobody_sees_any_more_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "__stdin__", stdin)
        assert not screen._has_hung_up()
        os.close(writing)
        assert screen._has_hung_up()
    assert not screen._has_hung_up()
