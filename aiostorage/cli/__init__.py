"""The command ``aiostorage``."""

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process, and exit with its code."""
    # not at the top: the demo's worker processes import this package and need no command line
    from aiostorage.cli.app import cli  # noqa: PLC0415

    cli()
