"""The process of a side: it opens its store, and does a block whenever it is told to.

A process of its own has only the memory and the imports of its side. It imports aiostorage late, so
that it can be told to take another checkout.
"""

from __future__ import annotations

import logging
import pickle
import resource
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.definitions import Figures, Setting, Side

__all__ = ["Done", "SideError", "SideProcess", "peak_memory"]

ANSWER_TIMEOUT = 900.0
"""Seconds after which a process that does not answer is given up."""


class SideError(Exception):
    """A side could not be measured."""


@dataclass(frozen=True)
class Done:
    """A block that was done.

    Attributes
    ----------
    memory, idle
        The greatest size of the process in bytes, and what it was before the first block.
    """

    figures: Figures
    memory: int
    idle: int


def peak_memory() -> int:
    """Return the greatest number of bytes that this process had in memory at one time."""
    # Linux hands `ru_maxrss` of a parent down to what it executes
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


class SideProcess:
    """A process of a side, as its parent sees it.

    Parameters
    ----------
    tree
        A checkout whose aiostorage is measured; None for the one that is imported here.
    """

    def __init__(self, side: Side, setting: Setting, tree: Path | None = None) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        packed = pickle.dumps((side, setting))
        self._process = context.Process(target=_serve, args=(theirs, tree, packed), daemon=True)
        self._process.start()
        theirs.close()

    def await_ready(self) -> None:
        """Wait until the store is open and filled."""
        self._answer()

    def begin_block(self) -> None:
        """Have a block done."""
        with suppress(OSError):  # it has ended, as `end_block` will say
            self._pipe.send(True)

    def end_block(self) -> Done:
        """Return what the block measured."""
        answer = self._answer()
        if not isinstance(answer, Done):
            raise SideError(f"it answered {answer!r}")
        return answer

    def end(self) -> None:
        """Have the store closed, and wait for the end of the process."""
        with suppress(OSError):
            self._pipe.send(False)
        self._process.join(60)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()

    def _answer(self) -> object:
        try:
            if not self._pipe.poll(ANSWER_TIMEOUT):
                self._process.kill()
                raise SideError(f"no answer for {ANSWER_TIMEOUT:.0f} s")
            answer: object = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(60)
            raise SideError(f"its process ended with {self._process.exitcode}") from None
        if isinstance(answer, SideError):
            raise answer
        return answer


def _serve(pipe: Connection, tree: Path | None, packed: bytes) -> None:
    logging.disable(logging.WARNING)  # a slow disk is what is measured
    warnings.simplefilter("ignore")  # Oríon's imports warn
    try:
        if tree is not None:
            _import_from(tree)
        side: Side
        setting: Setting
        side, setting = pickle.loads(packed)  # noqa: S301  the parent's
        with side.begin(setting) as block:
            idle = peak_memory()
            pipe.send(None)
            while pipe.recv():
                pipe.send(Done(block(), peak_memory(), idle))
    except EOFError:
        return  # the parent has gone
    except Exception as error:  # noqa: BLE001  whatever a side raises
        pipe.send(SideError(f"{type(error).__name__}: {error}"))


def _import_from(tree: Path) -> None:
    sys.path.insert(0, str(tree))
    import aiostorage  # noqa: PLC0415  the one of the checkout

    if not Path(aiostorage.__file__).is_relative_to(tree):
        raise SideError(f"{tree} has no aiostorage")
