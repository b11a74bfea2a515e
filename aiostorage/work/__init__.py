"""Workers: they evaluate the trials of an experiment with a function of their user."""

from aiostorage.work.worker_report import WorkerEvent, WorkerReport
from aiostorage.work.worker_script import run_worker
from aiostorage.work.working import Worker

__all__ = ["Worker", "WorkerEvent", "WorkerReport", "run_worker"]
