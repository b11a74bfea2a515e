"""The tests here get their MongoDB servers from `aiostorage.testing.plugin`."""

from __future__ import annotations

import os
from importlib.util import find_spec

CI = os.environ.get("CI", "").lower() in ("1", "true")

if find_spec("pymongo") is None and not CI:
    collect_ignore_glob = ["test_*.py"]  # they cannot even be imported
