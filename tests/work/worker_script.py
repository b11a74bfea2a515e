"""A user's script.

Arguments: the URL, the executor, the grace, how many tasks, whether to do without the guard.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from aiostorage import open_storage, run_worker
from tests.work.worker_functions import blocking


def main() -> None:
    url, executor, grace, tasks = sys.argv[1:5]
    report = run_worker(
        open_storage(url, lost_after=5),
        "tune",
        blocking,
        tasks=int(tasks),
        executor=executor,  # type: ignore[arg-type]
        grace=float(grace),
    )
    print(report.ended_by, report.signal, report.completed, report.interrupted, flush=True)


if __name__ == "__main__" or sys.argv[5:] == ["unguarded"]:
    main()
