"""Stores that aiostorage 0.1.0 has made; see README.md."""
