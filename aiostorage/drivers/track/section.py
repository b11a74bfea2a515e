"""What the project of aiostorage says of a whole file: its layout, and the boot of its times."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiostorage._core.driver_options import upgrade_command
from aiostorage.drivers.track.contents import COUNTER_LIMIT
from aiostorage.errors import NotADatabaseError, SchemaVersionError

__all__ = ["boot_of", "version_of"]


def version_of(tree: Any, path: Path, oldest: int, known: int) -> int | None:
    """Return the version of the layout, None for a file of Track's own.

    Parameters
    ----------
    tree
        What stands in the file.
    path
        The file.
    oldest, known
        The versions that can be read, from the first to the last.

    Raises
    ------
    SchemaVersionError
        It is another version.
    """
    if tree is None:
        return None
    if type(tree) is not int or tree > known:
        raise SchemaVersionError(
            f"{path} was laid out by a newer aiostorage (layout {repr(tree)[:20]}, this one knows "
            f"{known}); upgrade the package"
        )
    if tree < oldest:
        raise SchemaVersionError(
            f"{path} has layout {repr(tree)[:20]}, this aiostorage needs {known}; end all workers "
            f"that use it, and run: {upgrade_command('track:///' + quote(str(path)))}"
        )
    return tree


def boot_of(tree: Any, path: Path) -> tuple[int, str] | None:
    """Return the number and the id of the last boot in which a file was written.

    Raises
    ------
    NotADatabaseError
        The number is none that aiostorage writes.
    """
    number, name = (tree.get("number"), tree.get("id")) if isinstance(tree, dict) else (None, None)
    if type(number) is not int or not isinstance(name, str):
        return None
    if not 0 <= number < COUNTER_LIMIT:
        raise NotADatabaseError(
            f"{path} is damaged, and was left as it is: the number of the boot is none that "
            "aiostorage writes"
        )
    return number, name
