"""``aiostorage watch``: shows the events in an experiment as they happen."""
