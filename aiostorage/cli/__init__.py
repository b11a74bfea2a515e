"""The command ``aiostorage``."""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process, and exit with its code."""
    # not at the top: the demo's worker processes import this package and need no command line
    from aiostorage.cli.app import cli  # noqa: PLC0415

    # Python has None for what the shell has closed; standard output stays None, since what is
    # written there would be lost without an error
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    cli()
