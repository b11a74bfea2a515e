"""The examination of a store, and the repairs that need no guess.

Engines examine their own files and servers; experiments, trials and locks are examined here, for
all engines alike.
"""

from aiostorage.doctor.examination import examine, repair
from aiostorage.findings import Examination, Finding, Repair

__all__ = ["Examination", "Finding", "Repair", "examine", "repair"]
