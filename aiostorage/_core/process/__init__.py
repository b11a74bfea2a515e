"""The process that a storage is used in: its machine, its loop, its end, what is abandoned."""
