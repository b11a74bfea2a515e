"""Run Oríon's own tests on aiostorage: every storage that they make is one of ours.

    python tools/orion_tests.py CHECKOUT [--server URL] [PYTEST ARGUMENTS]

CHECKOUT is a copy of Oríon's repository at the version that is installed; pytest-mock has to be
installed, too. Without ``--server`` each database is a SQLite file, with it a database of that
MongoDB server: ``--server mongodb://localhost/``. Name the tests that reach the storage, such as
``tests/unittests/storage tests/unittests/client``; run them without this tool to compare.

Some of them can pass only on databases that pickle Python objects, or on Oríon's own classes; see
"Where it differs from Oríon's own storage" in ``docs/how-to/with-orion.md``.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orion.core
import orion.storage.base
import pytest


class OnAioStorage:
    """A pytest plugin: it makes a storage of ours where Oríon would make one of its own."""

    def __init__(self, server: str | None) -> None:
        self._server = server
        self._in_memory = tempfile.mkdtemp(prefix="orion-tests-")

    def pytest_configure(self) -> None:
        """Take the place of Oríon's factory."""
        factory = orion.storage.base.storage_factory
        create: Callable[..., Any] = factory.create

        def replaced(of_type: str, *args: Any, **options: Any) -> Any:
            if of_type.lower() != "legacy":
                return create(of_type, *args, **options)
            return create("aiostorage", database={"url": self._url(options.get("database"))})

        factory.create = replaced

    def _url(self, database: Mapping[str, Any] | None) -> str:
        """Return the URL of what takes the place of one of Oríon's databases."""
        given = {**orion.core.config.storage.database.to_dict(), **(database or {})}
        if str(given.get("type")).lower() == "ephemeraldb":  # no two of them are the same
            given["host"] = f"{self._in_memory}/{secrets.token_hex(6)}"
        host = Path(given.get("host") or f"{self._in_memory}/default").absolute()
        if self._server is None:
            return f"sqlite:///{host}?synchronous=NORMAL"
        place, _, query = self._server.partition("?")
        name = hashlib.sha1(bytes(host), usedforsecurity=False).hexdigest()[:16]
        return f"{place.rstrip('/')}/orion_{name}?{query}"


def main(checkout: str, *arguments: str) -> int:
    """Run the tests; return pytest's exit code."""
    given = list(arguments)
    server = None
    if given[:1] == ["--server"]:
        server = given[1]
        del given[:2]
    os.chdir(checkout)
    return pytest.main(["-W", "ignore", *given], plugins=[OnAioStorage(server)])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
