"""The demo's own problem: the LZMA2 parameters that pack some files best."""

from __future__ import annotations

import hashlib
import lzma
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import anyio
import anyio.to_thread

from aiostorage.cli.demo.space import Categorical, Integer, Space
from aiostorage.errors import ConfigurationError

__all__ = ["SmallestArchive", "sample_of"]

_MODES: Final = {"fast": lzma.MODE_FAST, "normal": lzma.MODE_NORMAL}
_FINDERS: Final = {
    "hc3": lzma.MF_HC3,
    "hc4": lzma.MF_HC4,
    "bt2": lzma.MF_BT2,
    "bt3": lzma.MF_BT3,
    "bt4": lzma.MF_BT4,
}

_SPACE: Final = Space(
    (
        Integer("lc", 0, 4),  # bits of the previous byte that the coding of a literal depends on
        Integer("lp", 0, 2),  # bits of the position that it depends on
        Integer("pb", 0, 2),  # bits of the position that all other coding depends on
        Categorical("dict_size", tuple(2**bits for bits in range(19, 23))),
        Categorical("mode", tuple(_MODES)),
        Categorical("mf", tuple(_FINDERS)),  # how earlier occurrences are found
        Integer("nice_len", 16, 273),  # the search ends at a match of this length
        Categorical("depth", (0, 64, 256)),  # the steps of a search; 0: chosen by liblzma
    ),
    allows=lambda params: params["lc"] + params["lp"] <= 4,  # required by the format
)


class SmallestArchive:
    """Find the filter parameters that make the smallest ``.xz`` of some bytes.

    Compression runs in threads; it releases the interpreter's lock.

    Parameters
    ----------
    data
        The bytes to pack.
    origin
        Where they come from, for people to read.
    """

    unit = "bytes"
    space = _SPACE

    def __init__(self, data: bytes, origin: str) -> None:
        self._data = data
        self.title: str = f"the smallest .xz of {len(data) / 2**20:.2f} MiB from {origin}"
        # the number of workers is the user's choice; nothing else limits the threads
        self._limiter = anyio.CapacityLimiter(math.inf)

    @classmethod
    def of(cls, corpus: Path | None, size: int) -> Self:
        """Make the problem for a sample of the files in a directory; see `sample_of`.

        Parameters
        ----------
        corpus
            The directory; None for the library of the running Python.
        """
        if corpus is not None:
            return cls(sample_of(_files_in(corpus), corpus, size), str(corpus))
        library = Path(lzma.__file__).parent
        modules = (path for path in library.glob("*.py") if path.is_file())
        return cls(sample_of(modules, library, size), "Python's library")

    async def evaluate(self, params: Mapping[str, Any]) -> dict[str, float]:
        """Return the size in bytes, its ratio to the original size, and the seconds it took."""
        chain = {
            **params,
            "id": lzma.FILTER_LZMA2,
            "mode": _MODES[params["mode"]],
            "mf": _FINDERS[params["mf"]],
        }
        begin = time.perf_counter()
        size = await self._size(lambda: lzma.compress(self._data, lzma.FORMAT_XZ, filters=[chain]))
        seconds = time.perf_counter() - begin
        return {"size": size, "ratio": size / len(self._data), "seconds": round(seconds, 4)}

    async def references(self) -> dict[str, float]:
        """Return the sizes that liblzma's presets give for the same bytes."""
        presets = {"preset 6 (the default)": 6, "preset 9 | EXTREME": 9 | lzma.PRESET_EXTREME}
        return {
            name: await self._size(lambda preset=preset: lzma.compress(self._data, preset=preset))
            for name, preset in presets.items()
        }

    async def _size(self, compress: Any) -> int:
        # abandoned: a worker that lost its trial, or must stop, does not wait for the result
        packed: bytes = await anyio.to_thread.run_sync(
            compress, abandon_on_cancel=True, limiter=self._limiter
        )
        return len(packed)


def sample_of(files: Iterator[Path], root: Path, size: int) -> bytes:
    """Join files until there are `size` bytes; the same files give the same bytes.

    The files are taken in the order of a hash of their names, so that all folders contribute.

    Raises
    ------
    ConfigurationError
        All files are empty, or one cannot be read.
    """
    parts, missing = [], size
    for path in sorted(files, key=lambda path: _hash_of(path.relative_to(root))):
        try:
            with path.open("rb") as file:
                parts.append(file.read(missing))
        except OSError as error:
            raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
        missing -= len(parts[-1])
        if not missing:
            break
    if not any(parts):
        raise ConfigurationError(f"the corpus is empty: {root} has no files, or only empty ones")
    return b"".join(parts)


def _hash_of(path: Path) -> bytes:
    return hashlib.sha256(os.fsencode(path.as_posix())).digest()


def _files_in(directory: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise ConfigurationError(
            f"cannot read folder {error.filename}: {error.strerror}"
        ) from error

    for folder, _, names in os.walk(directory, onerror=refuse):
        for name in names:
            path = Path(folder, name)
            if path.is_file():  # not a socket or a pipe
                yield path
