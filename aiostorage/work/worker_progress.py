"""The progress of a worker in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiostorage.work.worker_report import WorkerEvent

__all__ = ["shown_progress"]


@contextmanager
def shown_progress() -> Iterator[Callable[[WorkerEvent], None]]:
    """Show progress on stderr while the body runs, from the events that the body passes on."""
    from rich.console import Console  # noqa: PLC0415  few workers need rich
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    best: float | None = None
    with progress:
        task = progress.add_task("0 completed")

        def show(event: WorkerEvent) -> None:
            nonlocal best
            if event.name == "completed" and event.trial is not None:
                found = event.trial.objective
                if found is not None and (best is None or found.value < best):
                    best = float(found.value)
            progress.update(task, description=_description(event, best))

        yield show


def _description(event: WorkerEvent, best: float | None) -> str:
    report = event.report
    counts = {
        "completed": report.completed,
        "broken": report.broken,
        "interrupted": report.interrupted,
        "lost": report.lost,
    }
    parts = [f"{n} {name}" for name, n in counts.items() if n or name == "completed"]
    if best is not None:
        parts.append(f"lowest objective {best:g}")
    return ", ".join(parts)
