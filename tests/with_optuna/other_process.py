"""What another process sees of a study."""

from __future__ import annotations

import anyio
import optuna
from optuna.trial import FrozenTrial

from aiostorage.optuna import OptunaStorage

__all__ = ["stored"]


async def stored(file: str) -> list[FrozenTrial]:
    """Return the trials of the study `tune`, read by a storage of its own."""

    def read() -> list[FrozenTrial]:
        storage = OptunaStorage(file)
        try:
            return optuna.load_study(study_name="tune", storage=storage).trials
        finally:
            storage.close()

    return await anyio.to_thread.run_sync(read)
