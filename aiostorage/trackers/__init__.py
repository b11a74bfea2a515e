"""Mirrors of experiments and trials in experiment trackers, such as MLflow and Comet ML.

A tracker shows what a store has; the store stays the truth. `Tracker` is what a tracker from
elsewhere implements.
"""

from aiostorage.trackers.protocol import (
    TrackedExperiment,
    TrackedTrial,
    Tracker,
    TrackerRun,
    TrackerSource,
)

__all__ = ["TrackedExperiment", "TrackedTrial", "Tracker", "TrackerRun", "TrackerSource"]
