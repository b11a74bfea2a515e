"""Which processes have locks on a file, as the kernel of Linux tells it."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Final

__all__ = ["LOCKS", "lock_holders"]

LOCKS: Final = Path("/proc/locks")

_HELD: Final = re.compile(
    r"^\d+: POSIX +\S+ +\S+ +([1-9]\d*) ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE
)
"""A line about a lock that is held, not one about a process that waits for it; see proc(5)."""


def lock_holders(locks: Path = LOCKS) -> defaultdict[tuple[int, int] | None, set[int]] | None:
    """Return the processes that have POSIX locks on each file, by its inode and device.

    None where the kernel does not tell. Processes of other containers are missing.
    """
    try:
        text = locks.read_text()
    except OSError:
        return None
    holders: defaultdict[tuple[int, int] | None, set[int]] = defaultdict(set)
    for pid, major, minor, inode in _HELD.findall(text):
        device = os.makedev(int(major, 16), int(minor, 16))
        holders[int(inode), device].add(int(pid))
    return holders
