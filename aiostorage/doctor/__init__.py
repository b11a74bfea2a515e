"""What is wrong with a store, and the repair of what needs no guess.

Engines say what is wrong with their files and servers; what experiments, trials and locks have to
be is examined here, for all engines alike.
"""

from aiostorage.doctor.examination import examine, repair
from aiostorage.findings import Examination, Finding, Repair

__all__ = ["Examination", "Finding", "Repair", "examine", "repair"]
