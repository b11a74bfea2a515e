"""The code of the README and of the documentation is well typed.

`tox -e typing` has pyright judge it as well, which takes longer to install than to run.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools.docs_code import ROOT


@pytest.mark.timeout(300)
def test_mypy_finds_nothing() -> None:
    found = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "docs_code.py"), "--only", "mypy"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
