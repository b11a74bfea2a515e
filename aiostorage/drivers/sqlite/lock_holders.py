"""The processes that have locks on a file, as the Linux kernel lists them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

__all__ = ["LOCKS", "LockHolders", "lock_holders"]

LOCKS: Final = Path("/proc/locks")

_HELD: Final = re.compile(
    r"^\d+: POSIX +\S+ +(READ|WRITE) +([1-9]\d*) ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE
)
"""A line about a lock that is held, not one about a process that waits for it; see proc(5)."""

_Processes: TypeAlias = defaultdict[tuple[int, int] | None, set[int]]


@dataclass(frozen=True, slots=True)
class LockHolders:
    """Processes by the inode and the device of the file on which they have POSIX locks.

    Attributes
    ----------
    all
        Those that have any lock.
    sharing
        Those that have a lock that others may have, too.
    """

    all: _Processes = field(default_factory=lambda: defaultdict(set))
    sharing: _Processes = field(default_factory=lambda: defaultdict(set))


def lock_holders(locks: Path = LOCKS) -> LockHolders | None:
    """Return the processes that have locks; None if the kernel does not list them.

    Processes of other containers are missing.
    """
    try:
        text = locks.read_text()
    except OSError:
        return None
    found = LockHolders()
    for kind, pid, major, minor, inode in _HELD.findall(text):
        file = int(inode), os.makedev(int(major, 16), int(minor, 16))
        found.all[file].add(int(pid))
        if kind == "READ":
            found.sharing[file].add(int(pid))
    return found
