"""A file that is always whole: read as it is, and replaced as a whole."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from aiostorage._core.file_options import not_there
from aiostorage.errors import (
    BackendError,
    ConfigurationError,
    PermissionDenied,
    TemporaryBackendError,
)

__all__ = ["LONGEST_ADDITION", "SHORTAGES", "DataFile", "Signature"]

NEW_MODE: Final = 0o600

LONGEST_ADDITION: Final = len("..aiostorage-012345678901.tmp")
"""Bytes that the name of a temporary file has beside that of the file."""

SHORTAGES: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}
)
"""What a machine may lack for a while: room on a disk, open files, memory, a drive."""

RECENT: Final = 2_000_000_000
"""Nanoseconds within which two changes may have the same time, on file systems that round it."""

SWEEP_INTERVAL: Final = 10.0
"""Seconds after which a writer looks for temporary files again."""


class Signature(NamedTuple):
    """What changes when a file is changed, or replaced by another one."""

    inode: tuple[int, int]
    modified: int
    changed: int
    size: int


class DataFile:
    """One file, which writers replace while they hold its lock.

    Parameters
    ----------
    path
        Where it is; a link to it is followed once.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path = Path(os.path.realpath(path))
        self._shown = path
        self._next_sweep = 0.0

    def check(self) -> bool:
        """Return whether there is a file; refuse a path where it cannot be.

        Raises
        ------
        ConfigurationError
            The directory is missing; or the path is a directory, a device or the like, or a file
            with several names, which would part when it is replaced.
        PermissionDenied
            It cannot be read.
        """
        shown = self._shown
        try:
            if not self.path.parent.is_dir():
                raise not_there(self.path.parent, directory=True)
            found = os.stat(shown)  # noqa: PTH116  a loop of links is an error here
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise PermissionDenied(f"cannot look into {shown.parent}: {error.strerror}") from error
        except OSError as error:
            raise ConfigurationError(f"{shown} leads to no file: {error}") from error
        if stat.S_ISDIR(found.st_mode):
            raise ConfigurationError(f"{shown} is a directory; name a file")
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(f"{shown} is not a regular file; Track needs one")
        if found.st_nlink > 1:
            raise ConfigurationError(
                f"{shown} has {found.st_nlink} names (hard links), of which one alone would get "
                "what is written; remove the other names, or use symbolic links"
            )
        if not os.access(self.path, os.R_OK):
            raise PermissionDenied(f"cannot read {shown}")
        return True

    def signature(self) -> Signature | None:
        """Return the signature of the file that is there now; None if there is none."""
        try:
            return _signature(os.stat(self.path))  # noqa: PTH116  half the time
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _read_error(self.path, error) from error

    @property
    def mode(self) -> int:
        """The permissions of the file, or those that a new one gets."""
        try:
            return stat.S_IMODE(self.path.stat().st_mode)
        except OSError:
            return NEW_MODE

    def read(self) -> tuple[bytes, Signature, bool]:
        """Return the bytes of the file, its signature, and whether that will show any change.

        It may not where the file was changed a moment ago: a file system that rounds times would
        give the next change the same time.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise self.gone() from None
        except OSError as error:
            raise _read_error(self.path, error) from error
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise ConfigurationError(f"{self._shown} is not a regular file; Track needs one")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read()
            after = os.fstat(descriptor)
        except OSError as error:
            raise _read_error(self.path, error) from error
        finally:
            os.close(descriptor)
        tells = _signature(before) == _signature(after)
        now, last = time.time_ns(), (after.st_mtime_ns, after.st_ctime_ns)
        tells = tells and all(abs(now - moment) > RECENT for moment in last)
        return data, _signature(before), tells

    def gone(self) -> BackendError:
        """Return the error that the file is not there any more."""
        return BackendError(
            f"the file {self._shown} is gone: it was moved or deleted while it was in use. Put it "
            "back, or close the storage and open it anew"
        )

    def replace(self, data: bytes, known: Signature | None) -> Signature | None:
        """Replace the file, or make it; return the signature of what was written.

        A process that dies here leaves the old file or the new one.

        Parameters
        ----------
        data
            What it gets.
        known
            The signature of the file that `data` was made from, None for a new file. If another
            file is there by now, nothing is done, and None is returned.

        Raises
        ------
        TemporaryBackendError
            The disk is full, for example; `ambiguous` if the file was replaced.
        PermissionDenied
            The directory cannot be written, or the file is for reading only.
        """
        if known is not None and not os.access(self.path, os.W_OK):
            raise PermissionDenied(f"cannot write {self.path}: it may only be read")
        self._sweep()
        temporary = self.path.with_name(f"{self._prefix}{secrets.token_hex(6)}.tmp")
        with _written(temporary, self.path) as descriptor:
            mode, owner = self.mode, self._owner()
            os.fchmod(descriptor, mode)
            if owner is not None:
                with suppress(OSError):  # only root may give files away
                    os.fchown(descriptor, *owner)
                    os.fchmod(descriptor, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            now = time.time_ns()  # finer than that of the file system, and never the same
            modified = now if known is None else max(now, known.modified + 1)
            os.utime(descriptor, ns=(now, modified))
            os.fsync(descriptor)
            if self.signature() != known:
                return None
            temporary.replace(self.path)
            written = _signature(os.fstat(descriptor))
        try:
            self._sync_directory()
        except OSError as error:
            raise TemporaryBackendError(
                f"cannot make sure that {self.path} is on the disk: {error.strerror}",
                ambiguous=True,
            ) from error
        return written

    @property
    def _prefix(self) -> str:
        return f".{self.path.name}.aiostorage-"

    def _owner(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        ours = os.geteuid(), os.getegid()
        return None if (found.st_uid, found.st_gid) == ours else (found.st_uid, found.st_gid)

    def _sweep(self) -> None:
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + SWEEP_INTERVAL
            self.sweep()

    def sweep(self) -> int:
        """Delete what writers have left that were killed; whoever holds the lock is alone."""
        deleted = 0
        for name in self.left_over():
            with suppress(OSError):
                os.unlink(name)  # noqa: PTH108
                deleted += 1
        return deleted

    def left_over(self) -> list[str]:
        """Return the temporary files of writers; one that holds the lock has one of its own."""
        with suppress(OSError), os.scandir(self.path.parent) as entries:
            return [
                entry.path
                for entry in entries
                if entry.name.startswith(self._prefix) and entry.name.endswith(".tmp")
            ]
        return []

    def _sync_directory(self) -> None:
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that cannot, and need not
                raise
        finally:
            os.close(descriptor)


@contextmanager
def _written(temporary: Path, path: Path) -> Iterator[int]:
    """Give the descriptor of a new file, which is deleted unless it was renamed."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, NEW_MODE)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
    except PermissionError as error:
        raise PermissionDenied(f"cannot write {path}: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise PermissionDenied(f"cannot write {path}: {error.strerror}") from error
        raise TemporaryBackendError(f"cannot write {path}: {error.strerror}") from error


def _signature(found: os.stat_result) -> Signature:
    return Signature(
        (found.st_dev, found.st_ino), found.st_mtime_ns, found.st_ctime_ns, found.st_size
    )


def _read_error(path: Path, error: OSError) -> BackendError:
    if isinstance(error, PermissionError):
        return PermissionDenied(f"cannot read {path}: {error.strerror}")
    if error.errno in SHORTAGES:
        return TemporaryBackendError(f"cannot read {path}: {error.strerror}")
    return BackendError(f"cannot read {path}: {error.strerror}")
