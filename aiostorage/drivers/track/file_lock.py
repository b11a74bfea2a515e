"""The lock of a Track file: who writes it next.

It is that of the package filelock, on a file beside the data, which the original Track locks as
well. It is never deleted here; the original deletes it when it ends, which is noticed. A waiting
process touches it: so one that has just written sees that, and lets the others go first.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from filelock import lock_descriptor, unlock_descriptor

from aiostorage.drivers.track.data_file import SHORTAGES
from aiostorage.errors import BackendError, PermissionDenied, TemporaryBackendError

__all__ = ["FileLock"]

POLL_INTERVAL: Final = 0.002
"""Seconds between two attempts to get the lock."""

YIELD_DELAY: Final = 3 * POLL_INTERVAL
"""Seconds that a process leaves to those who wait for the lock after it has written."""

_held: Final[set[int]] = set()
"""The descriptors of this process that have a lock, or try to get it.

A forked child must not keep them open.
"""


class FileLock:
    """The lock of a file that one driver writes.

    Parameters
    ----------
    path
        The data file, without links.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path = path.with_name(f"{path.name}.lock")
        self._descriptor = -1
        self._touched = 0

    def acquire(self, timeout: float, mode: int, unwanted: Callable[[], bool] = bool) -> None:
        """Wait for the lock.

        Parameters
        ----------
        timeout
            Seconds to wait.
        mode
            What the mode of the lock's file has to allow.
        unwanted
            Returns whether no caller wants to write any more.

        Raises
        ------
        TemporaryBackendError
            Others had it all the time, or until it was not wanted any more.
        """
        deadline = time.monotonic() + timeout
        while not self._try(mode):
            left = deadline - time.monotonic()
            if left <= 0 or unwanted():
                raise TemporaryBackendError(
                    f"waited {timeout - max(left, 0.0):.3g} s for {self.path}: another process "
                    "holds that lock"
                )
            time.sleep(min(POLL_INTERVAL, left))

    def release(self) -> bool:
        """Release the lock; return whether another process waits."""
        descriptor, self._descriptor = self._descriptor, -1
        waits = os.fstat(descriptor).st_mtime_ns != self._touched
        unlock_descriptor(descriptor)
        _close(descriptor)
        return waits

    @property
    def holds(self) -> bool:
        """Whether the lock's file is still the one that is locked."""
        return self._descriptor >= 0 and self._is_there(self._descriptor)

    def _try(self, mode: int) -> bool:
        descriptor = self._open(mode)
        _held.add(descriptor)
        try:
            if not lock_descriptor(descriptor, blocking=False):
                with suppress(OSError):  # it may be another user's
                    os.utime(descriptor)
                _close(descriptor)
                return False
        except OSError as error:
            _close(descriptor)
            raise BackendError(f"cannot lock {self.path}: {error.strerror}") from error
        if not self._is_there(descriptor):  # deleted meanwhile: another one locks another file
            unlock_descriptor(descriptor)
            _close(descriptor)
            return False
        found = os.fstat(descriptor)
        self._descriptor, self._touched = descriptor, found.st_mtime_ns
        if mode & ~found.st_mode:  # who may use the file by now has to use its lock as well
            with suppress(OSError):  # it may be another user's
                os.fchmod(descriptor, stat.S_IMODE(found.st_mode) | mode)
        return True

    def _open(self, mode: int) -> int:
        flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        for access in (os.O_RDWR, os.O_RDONLY):  # another user's may be read, which is enough
            try:
                return os.open(self.path, flags | access, mode)
            except OSError as error:
                if error.errno in SHORTAGES:
                    raise TemporaryBackendError(
                        f"cannot lock {self.path}: {error.strerror}"
                    ) from error
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise BackendError(f"cannot lock {self.path}: {error.strerror}") from error
                refused = error
        raise PermissionDenied(f"cannot lock {self.path}: {refused.strerror}") from refused

    def _is_there(self, descriptor: int) -> bool:
        ours = os.fstat(descriptor)
        try:
            there = self.path.stat()
        except OSError:
            return False
        return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def _close(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _leave() -> None:
    """In a forked child: close the parent's locks, which stay the parent's."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave)
