"""``python -m aiostorage`` is the command ``aiostorage``."""

from aiostorage.cli import main

if __name__ == "__main__":
    main()
