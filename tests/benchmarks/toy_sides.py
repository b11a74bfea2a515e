"""Sides that measure nothing: they note what happens to them, or fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.definitions import Block, Figures, Setting


@contextmanager
def noted(setting: Setting) -> Iterator[Block]:
    """Write down what happens."""
    notes = setting.directory / "notes"

    def note(what: str) -> None:
        with notes.open("a") as file:
            file.write(f"{setting.store} {what}\n")

    def block() -> Figures:
        note("block")
        return Figures(setting.count, 1.0, 0.5)

    note(f"begin {setting.size}")
    yield block
    note("end")


@contextmanager
def failing(setting: Setting) -> Iterator[Block]:
    """Fail in the second block."""
    blocks = iter([Figures(setting.count, 1.0, 0.5)])

    def block() -> Figures:
        for figures in blocks:
            return figures
        raise RuntimeError("it is busy\nand more")

    yield block


@contextmanager
def unready(setting: Setting) -> Iterator[Block]:
    """Fail before the first block."""
    if setting.count:
        raise RuntimeError("no such file")
    yield lambda: Figures(0, 1.0, 0.5)


@contextmanager
def dying(_: Setting) -> Iterator[Block]:
    """End the process in a block."""
    yield lambda: os._exit(3)


@contextmanager
def large(setting: Setting) -> Iterator[Block]:
    """Take many bytes."""

    def block() -> Figures:
        taken = bytearray(64 * 2**20)
        return Figures(len(taken), 1.0, 0.5)

    yield block


@contextmanager
def earlier(_: Setting) -> Iterator[Block]:
    """Count as many operations as the imported code says."""
    import aiostorage

    count: int = vars(aiostorage)["EARLIER"]
    yield lambda: Figures(count, 1.0, 0.5)
