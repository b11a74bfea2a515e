"""A user's script. Arguments: the URL, the executor, the grace, whether to have a guard."""

from __future__ import annotations

import sys

from aiostorage import open_storage, run_worker
from tests.work.worker_functions import blocking


def main() -> None:
    url, executor, grace = sys.argv[1:4]
    report = run_worker(
        open_storage(url, lost_after=5),
        "tune",
        blocking,
        tasks=2,
        executor=executor,  # type: ignore[arg-type]
        grace=float(grace),
    )
    print(report.ended_by, report.signal, report.completed, report.interrupted, flush=True)


if __name__ == "__main__" or sys.argv[4:] == ["unguarded"]:
    main()
