"""Start-up: imports, and the time of a whole script that reserves one trial."""

from __future__ import annotations

from functools import partial

from benchmarks.definitions import BEFORE, Side, Workload
from benchmarks.sides.scripts import imports, scripts

__all__ = ["IMPORTS", "SCRIPTS"]

AIOSTORAGE = "aiostorage"

IMPORTS = Workload(
    "import",
    "Imports",
    "Processor time of the import in a new interpreter that has imported nothing else.",
    "imports",
    (
        Side(AIOSTORAGE, "import", partial(imports, module="aiostorage"), 1),
        Side(BEFORE, "import", partial(imports, module="aiostorage"), 1, needs=("before",)),
        Side("asyncio", "import", partial(imports, module="asyncio"), 1),
        Side("Optuna", "import", partial(imports, module="optuna"), 1, needs=("optuna",)),
        Side("Oríon", "import", partial(imports, module="orion.client"), 1, needs=("orion",)),
    ),
    (AIOSTORAGE, "import"),
    per_second=False,
    rounds=5,
)

SCRIPTS = Workload(
    "start",
    "A script that reserves one trial",
    "A new interpreter opens a SQLite file with 1,000 trials, reserves one, and ends.",
    "scripts",
    (
        Side(AIOSTORAGE, "async", partial(scripts, kind="async"), 1, size=1000),
        Side(AIOSTORAGE, "facade", partial(scripts, kind="facade"), 1, size=1000),
        Side(
            "Optuna",
            "RDB on SQLite",
            partial(scripts, kind="optuna"),
            1,
            size=1000,
            needs=("optuna",),
        ),
    ),
    (AIOSTORAGE, "async"),
    per_second=False,
)
