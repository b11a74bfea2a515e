"""``aiostorage watch``: what happens in an experiment, as it happens."""
