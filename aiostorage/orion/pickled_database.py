"""Oríon's PickledDB: reading its file, and writing a new one.

Oríon is imported by the functions that need it, so that this module can be imported without it.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from aiostorage._core.file_options import checked_path
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, TRIALS
from aiostorage._core.state import PickleCodec
from aiostorage.errors import BackendError, ConfigurationError, NotADatabaseError, PermissionDenied
from aiostorage.operations import Document
from aiostorage.orion.conversion import orion_document, plain_document

__all__ = [
    "COLLECTIONS",
    "Documents",
    "check_destination",
    "decode_state",
    "read_pickled_database",
    "write_pickled_database",
]

COLLECTIONS: Final = (EXPERIMENTS, BENCHMARKS, ALGO, TRIALS)
"""The collections of Oríon, in the order in which they are copied."""

Documents: TypeAlias = dict[str, list[Document]]
"""The content of a database of Oríon's, by collection."""

_PICKLE_START: Final = b"\x80"
"""The first byte of every pickle since protocol 2."""


def read_pickled_database(path: Path) -> Documents:
    """Return the content of a file, with lists in place of tuples.

    Raises
    ------
    ConfigurationError
        There is no such file, or Oríon is not installed.
    NotADatabaseError
        The file is not a PickledDB.
    PermissionDenied
        The file cannot be read.
    """
    with _orion_required():
        from orion.core.io.database.ephemeraldb import EphemeralDB  # noqa: PLC0415
        from orion.core.io.database.pickleddb import PickledDB  # noqa: PLC0415

    checked_path("import-orion", path)
    try:
        _check_pickle(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(f"there is no file {path}") from None
    except PermissionError as error:
        raise PermissionDenied(f"cannot read {path}: {error.strerror}") from error
    except OSError as error:
        raise ConfigurationError(f"{path} leads to no file: {error.strerror}") from error
    try:
        # Without Oríon's lock. The file is always replaced as a whole, so reading needs none; and
        # where locks are files, one that a killed process left would never open.
        database = PickledDB(str(path))._get_database()  # noqa: SLF001
    except Exception as error:  # unpickling can call anything
        raise NotADatabaseError(
            f"{path} is not a PickledDB of Oríon, or needs classes that are not installed: "
            f"{str(error) or type(error).__name__}"
        ) from error
    if not isinstance(database, EphemeralDB):
        raise NotADatabaseError(
            f"{path} is not a PickledDB of Oríon: it holds a {type(database).__name__}"
        )
    return {
        name: [plain_document(name, document) for document in database.read(name)]
        for name in COLLECTIONS
    }


def decode_state(state: Any) -> Any:
    """Return the state of an algorithm from its form in a lock record of Oríon's."""
    return PickleCodec().decode(state) if isinstance(state, bytes) else state


def check_destination(path: Path, overwrite: bool) -> None:
    """Check that a new file may be written, and that Oríon is there to write it.

    Raises
    ------
    ConfigurationError
        Its directory does not exist, it is a directory or a link itself, no file can have its name,
        it exists and `overwrite` is false, or Oríon is not installed.
    NotADatabaseError
        The file that would be replaced is not a pickle.
    """
    checked_path("export-orion", path)
    mode, has_parent = 0, path.parent.is_dir()
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise ConfigurationError(
            f"{str(path)!r:.99} cannot be written: {error.strerror}"
        ) from error
    if not has_parent:
        raise ConfigurationError(f"there is no directory {path.parent}; create it first")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a directory; name a file")
    if stat.S_ISLNK(mode):
        raise ConfigurationError(f"{path} is a link, which would be replaced; name the file itself")
    if mode:
        if not overwrite:
            raise ConfigurationError(f"{path} exists; it was left as it is (overwrite replaces it)")
        _check_pickle(path)  # it could be the very storage that is copied
    with _orion_required():
        import orion.core.io.database.pickleddb  # noqa: PLC0415, F401


def write_pickled_database(
    path: Path, documents: Mapping[str, list[Document]], *, overwrite: bool
) -> None:
    """Write a file with Oríon's own indexes. It gets its name when it is complete.

    Raises
    ------
    ConfigurationError, NotADatabaseError
        As `check_destination`; or Oríon is not installed.
    BackendError
        A document is missing in the written file.
    """
    with _orion_required():
        from orion.core.io.database.pickleddb import PickledDB  # noqa: PLC0415
        from orion.storage.legacy import Legacy  # noqa: PLC0415

    # Oríon makes files that other users may read; in a directory of ours they cannot
    directory = Path(tempfile.mkdtemp(prefix=".export-orion.", dir=path.parent))
    draft = directory / "draft"
    try:
        Legacy(database={"type": "pickleddb", "host": str(draft)})  # makes the indexes
        # All at once, because PickledDB reads and writes the whole file each time.
        with PickledDB(str(draft)).locked_database() as database:
            for name in COLLECTIONS:
                database.write(name, orion_document(documents[name], keys=False))
        _verify(draft, documents)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        check_destination(path, overwrite)
        draft.chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600)
        draft.replace(path)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _verify(path: Path, documents: Mapping[str, list[Document]]) -> None:
    written = read_pickled_database(path)
    for name, expected in documents.items():
        if len(written[name]) != len(expected):
            raise BackendError(
                f"{len(expected)} {name} were written, but {len(written[name])} are there"
            )


def _check_pickle(path: Path) -> None:
    from aiostorage.drivers.sqlite.file_checks import is_sqlite  # noqa: PLC0415  only for this

    # Asked first: to open the file of a storage, and to close it again, would drop SQLite's locks.
    there = path.stat()
    if stat.S_ISREG(there.st_mode) and there.st_size and not is_sqlite(path):
        with path.open("rb") as file:
            if file.read(1) == _PICKLE_START:
                return
    raise NotADatabaseError(f"{path} is not a PickledDB of Oríon: it is not a pickle")


@contextmanager
def _orion_required() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            "Oríon is needed for this, on Python 3.11: "
            f"pip install 'aiostorage-orion[orion]' ({error})"
        ) from error
