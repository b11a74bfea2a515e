"""What the machine is on which a run was made, and which versions the software has."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

__all__ = ["fsync_seconds", "machine"]

PACKAGES: Final = {
    "aiostorage": "aiostorage-orion",
    "Oríon": "orion",
    "Optuna": "optuna",
    "motor": "motor",
    "PyMongo": "pymongo",
}


def machine(directory: Path) -> dict[str, str]:
    """Return the names and values of what a reader has to know to judge the figures.

    Parameters
    ----------
    directory
        Where the files of the run go.
    """
    found = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "file system": _file_system(directory),
        "fsync": f"{fsync_seconds(directory) * 1000:.2f} ms (4 KiB appended; median)",
        "load before the run": f"{os.getloadavg()[0]:.1f}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": sqlite3.sqlite_version,
    }
    for name, package in PACKAGES.items():
        with suppress(PackageNotFoundError):
            found[name] = version(package)
    commit = _commit()
    if commit:
        found["aiostorage"] += f", commit {commit}"
    return found


def fsync_seconds(directory: Path, count: int = 100) -> float:
    """Return the median seconds of making 4 KiB durable at the end of a file."""
    file, seconds = directory / "fsync", []
    with file.open("wb", buffering=0) as writer:
        for _ in range(count):
            begin = time.perf_counter()
            writer.write(bytes(4096))
            os.fsync(writer.fileno())
            seconds.append(time.perf_counter() - begin)
    file.unlink()
    return statistics.median(seconds)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _file_system(directory: Path) -> str:
    """Return the type of the file system of a directory, from the longest mount point above it."""
    place = directory.resolve()
    with suppress(OSError):
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
        mounts = {mount: kind for _, mount, kind, *_ in map(str.split, lines)}
        return max(
            ((mount, kind) for mount, kind in mounts.items() if place.is_relative_to(mount)),
            key=lambda found: len(found[0]),
        )[1]
    return "unknown"


def _commit() -> str:
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],  # noqa: S607  the one on the PATH
            cwd=Path(__file__).parent,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    return ""
