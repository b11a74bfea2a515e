"""Another script here, in a process whose time of day may be set at any moment.

Arguments: a file, the script, its arguments. The file has the seconds by which the time is wrong.
"""

from __future__ import annotations

import runpy
import sys
from datetime import timedelta
from pathlib import Path

from tests.stepped import step

_, file, script, *arguments = sys.argv

step(lambda: timedelta(seconds=float(Path(file).read_text())))
sys.argv = [script, *arguments]
runpy.run_path(str(Path(__file__).parent / script), run_name="__main__")
