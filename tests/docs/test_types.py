"""The code of the README and of the documentation is well typed, as a reader's editor judges it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools.docs_code import ROOT


@pytest.mark.timeout(300)
def test_mypy_and_pyright_find_nothing() -> None:
    found = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "docs_code.py")],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
