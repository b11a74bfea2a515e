"""The command ``aiostorage demo``: many workers in several processes on one experiment."""
