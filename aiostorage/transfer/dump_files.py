"""Files of dumps: compressed by their suffix, read by their content, and replaced as a whole.

Everything here blocks, and runs in threads.
"""

from __future__ import annotations

import gzip
import importlib
import io
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast

from aiostorage._core.files.path_options import checked_path, not_there
from aiostorage._core.files.signatures import HEAD_BYTES, SQLITE, kind_of
from aiostorage.errors import ConfigurationError, NotADatabaseError, PermissionDenied

__all__ = ["DraftFile", "DumpFile", "check_output", "imported", "kind_at"]

SQLITE_DATABASE: Final = kind_of(SQLITE)

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"

BUFFER_BYTES: Final = 256 * 1024
"""Bytes per read."""


def check_output(path: Path, overwrite: bool) -> None:
    """Check that a new file may be written.

    Raises
    ------
    ConfigurationError
        Its directory does not exist, it is a link or not a file, no file can have its name, it
        exists and `overwrite` is false, it is a store, or the library that compresses is missing.
    """
    checked_path("dump", path, beside=20)
    mode = 0
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise ConfigurationError(
            f"{str(path)!r:.99} cannot be written: {error.strerror}"
        ) from error
    if not path.parent.is_dir():
        raise not_there(path.parent, directory=True)
    if stat.S_ISLNK(mode):
        raise ConfigurationError(f"{path} is a link, which would be replaced; name the file itself")
    if mode and not stat.S_ISREG(mode):
        raise ConfigurationError(f"{path} is not a file; leave the name out for standard output")
    if mode and not overwrite:
        raise ConfigurationError(f"{path} exists; it was left as it is (overwrite replaces it)")
    if mode:
        _check_replaced(path)
    if path.suffix == ".zst":
        _zstandard()


def _check_replaced(path: Path) -> None:
    """Refuse to replace a store."""
    from aiostorage.drivers.sqlite.file_checks import is_sqlite  # noqa: PLC0415  only for this

    # asked first: to open and close such a file would drop SQLite's locks
    kind = SQLITE_DATABASE if is_sqlite(path) else kind_at(path)
    if kind in (SQLITE_DATABASE, "a Track file"):
        raise ConfigurationError(f"{path} is {kind}, and was left as it is")


def kind_at(path: Path) -> str:
    """Return the apparent kind of a file, for messages."""
    with path.open("rb") as file:
        return kind_of(file.read(HEAD_BYTES))


class DraftFile:
    """A file that gets its name when it is complete.

    Parameters
    ----------
    target
        Its name; or a stream of bytes, which is written as it is.
    overwrite
        Whether it may replace a file.
    """

    def __init__(self, target: Path | IO[bytes], *, overwrite: bool = False) -> None:
        self._overwrite = overwrite
        self._path = target if isinstance(target, Path) else None
        self._draft: Path | None = None
        self._raw: IO[bytes] | None = None
        self.stream: Any = None if isinstance(target, Path) else target
        """The open file."""

    def open(self) -> None:
        """Create the file under a temporary name."""
        if self._path is None:
            return
        check_output(self._path, self._overwrite)
        try:
            number, name = tempfile.mkstemp(
                prefix=f".{self._path.name[:200]}.", suffix=".part", dir=self._path.parent
            )
        except OSError as error:
            raise PermissionDenied(
                f"cannot write in {self._path.parent}: {error.strerror}"
            ) from error
        self._draft = Path(name)
        self._raw = os.fdopen(number, "wb", BUFFER_BYTES)
        self.stream = self._compressed(self._raw, self._path.suffix)

    @staticmethod
    def _compressed(raw: IO[bytes], suffix: str) -> Any:
        match suffix:
            case ".gz":
                return gzip.GzipFile("", "wb", 6, raw, mtime=0)
            case ".zst":
                compressor = _zstandard().ZstdCompressor(level=3, write_checksum=True)
                return compressor.stream_writer(raw, closefd=False)
        return raw

    def write(self, data: bytes) -> None:
        """Append data."""
        self.stream.write(data)

    def commit(self) -> None:
        """Complete the file, and give it its name."""
        if self._path is None:
            self.stream.flush()
            return
        assert self._raw is not None  # noqa: S101  it was opened
        assert self._draft is not None  # noqa: S101  as above
        if self.stream is not self._raw:
            self.stream.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()
        check_output(self._path, self._overwrite)
        if self._path.exists():
            self._draft.chmod(stat.S_IMODE(self._path.stat().st_mode))
        self._draft.replace(self._path)
        self._draft = None

    def discard(self) -> None:
        """Remove the incomplete file; after `commit`, do nothing."""
        if self._draft is not None:
            for file in (self.stream, self._raw):  # what compresses would write to a closed file
                with suppress(OSError, ValueError):
                    if file is not None:
                        file.close()
            self._draft.unlink(missing_ok=True)
            self._draft = None


class DumpFile:
    """A dump to read: plain, or compressed by gzip or Zstandard, whatever its name is.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._raw: BinaryIO | None = None
        self._stream: IO[bytes] | None = None

    def open(self) -> None:
        """Open the file, or start again from the beginning.

        Raises
        ------
        ConfigurationError
            There is no such file, or the library that decompresses it is missing.
        PermissionDenied
            It cannot be read.
        NotADatabaseError
            It is a SQLite database.
        """
        from aiostorage.drivers.sqlite.file_checks import is_sqlite  # noqa: PLC0415  only for this

        self.close()
        checked_path("load", self.path)
        try:
            there = self.path.stat()
            if not stat.S_ISREG(there.st_mode):
                raise ConfigurationError(f"{self.path} is not a file")
            if there.st_size and is_sqlite(self.path):  # to close it would drop SQLite's locks
                raise NotADatabaseError(
                    f"{self.path} is a SQLite database, not a dump; copy it with `aiostorage copy`"
                )
            self._raw = raw = cast(BinaryIO, self.path.open("rb"))
        except (FileNotFoundError, NotADirectoryError):
            raise not_there(self.path) from None
        except PermissionError as error:
            raise PermissionDenied(f"cannot read {self.path}: {error.strerror}") from error
        head = raw.read(4)
        raw.seek(0)
        if head[:2] == _GZIP:
            self._stream = io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=raw)), BUFFER_BYTES)
        elif head == _ZSTD:
            decompressor = _zstandard().ZstdDecompressor()
            reader = decompressor.stream_reader(raw, read_across_frames=True, closefd=False)
            self._stream = io.BufferedReader(reader, BUFFER_BYTES)
        else:
            self._stream = raw

    @property
    def is_compressed(self) -> bool:
        """Whether the file is compressed."""
        return self._stream is not self._raw

    def line(self, limit: int = -1) -> bytes:
        """Return the next line, or its beginning; empty at the end of the file.

        Raises
        ------
        NotADatabaseError
            The compressed data is damaged.
        """
        assert self._stream is not None  # noqa: S101  it was opened
        with self._decompressing():
            return self._stream.readline(limit)

    @contextmanager
    def _decompressing(self) -> Iterator[None]:
        try:
            yield
        except EOFError as error:
            raise NotADatabaseError(
                f"{self.path} is damaged: it was cut off, so load none of it"
            ) from error
        except (zlib.error, gzip.BadGzipFile) as error:
            raise NotADatabaseError(f"{self.path} is damaged: {error}") from error
        except Exception as error:
            if type(error).__name__ != "ZstdError":  # a library that may not be there
                raise
            raise NotADatabaseError(f"{self.path} is damaged: {error}") from error

    def close(self) -> None:
        """Close the file."""
        raw, self._raw, self._stream = self._raw, None, None
        if raw is not None:
            raw.close()


def _zstandard() -> Any:
    return imported("zstandard", "zstd")


def imported(library: str, extra: str) -> Any:
    """Return a library that an extra of this package brings.

    Raises
    ------
    ConfigurationError
        It is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ConfigurationError(
            f"{library} is needed for this: pip install 'aiostorage-orion[{extra}]' ({error})"
        ) from error
