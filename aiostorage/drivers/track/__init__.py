"""Track: one readable JSON file, in the format of Delaunay's Track."""

from aiostorage.drivers.track.driver import TrackDriver
from aiostorage.drivers.track.track_options import driver_from_options

__all__ = ["TrackDriver", "driver_from_options"]
