"""The engines, one a module; `aiostorage.factory` imports the one that is asked for."""
