"""A mirror in MLflow.

MLflow itself is imported when the tracker is opened, not before.
"""

from aiostorage.trackers.mlflow.tracker import MlflowTracker, tracker_from_url

__all__ = ["MlflowTracker", "tracker_from_url"]
