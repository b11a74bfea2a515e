"""How many files a call passes through: calls go down, results come up."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "call_path.py"

LIMITS = {
    "reserve_trial": (21, 3),
    "complete_trial": (26, 7),
    "acquire_algorithm_lock": (84, 56),
}
"""Moves between files, and returns to a file already left, as they are.

Half of those of version 0.1.0; one more for a completion, which is logged since, and three for the
lock, which may be handed over.
"""


def test_a_call_moves_between_few_files() -> None:
    done = subprocess.run(
        [sys.executable, TOOL], capture_output=True, text=True, check=True, timeout=60
    )
    found = {
        name: (int(moves), int(returns))
        for name, moves, returns in re.findall(
            r"^(\w+): .* (\d+) moves, (\d+) returns,", done.stdout, re.MULTILINE
        )
    }
    assert found.keys() == LIMITS.keys()
    for name, (moves, returns) in found.items():
        assert moves <= LIMITS[name][0], f"{name}: {moves} moves between files"
        assert returns <= LIMITS[name][1], f"{name}: {returns} returns to a file already left"
