"""The boot of the machine that a process runs in."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Final

__all__ = ["boot_id"]

_LINUX: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return the id of this boot; an empty text where the system has none."""
    try:
        return _LINUX.read_text().strip()
    except OSError:
        return _boot_session()


def _boot_session() -> str:
    """Return the id of this boot on macOS."""
    if sys.platform != "darwin":
        return ""
    text, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    failed = ctypes.CDLL(None).sysctlbyname(
        b"kern.bootsessionuuid", text, ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    return "" if failed else text.value.decode()
