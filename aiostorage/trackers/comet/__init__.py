"""The mirror in Comet ML: online, or as archives for ``comet upload``.

``comet_ml`` is imported when a tracker is opened, not before.
"""

from __future__ import annotations

from aiostorage.trackers.comet.location import tracker_from_url

__all__ = ["tracker_from_url"]
