"""The collections that aiostorage keeps: Oríon's four, and its own."""

from __future__ import annotations

from aiostorage.operations import Collection, Compare, Field, Index, Layout, Logged
from aiostorage.values import TrialStatus

__all__ = [
    "ALGO",
    "BENCHMARKS",
    "CHANGES",
    "DELIVERERS",
    "EXPERIMENTS",
    "LAYOUT",
    "MIRRORED",
    "OUTBOX",
    "PENDING",
    "RECEIPTS",
    "SCRATCH",
    "SETTINGS",
    "TRIALS",
    "WAITERS",
]

EXPERIMENTS = "experiments"
TRIALS = "trials"
ALGO = "algo"
BENCHMARKS = "benchmarks"
WAITERS = "lock_waiters"
RECEIPTS = "receipts"
"""The answers of the last writes, for callers who did not get them."""

OUTBOX = "outbox"
"""The changes that have yet to be sent to a tracker."""

MIRRORED = "mirrored"
"""Where a tracker has each experiment and trial."""

DELIVERERS = "deliverers"
"""The lease of the process that sends to the tracker."""

CHANGES = "trial_changes"
"""The history of the trials: a row for each change."""

SETTINGS = "settings"
"""What holds for all who use the store, such as how long the history is kept."""

SCRATCH = "test"
"""Where `orion db test` writes a document and deletes it again."""

PENDING = Compare(
    "status",
    "in",
    (TrialStatus.NEW.value, TrialStatus.SUSPENDED.value, TrialStatus.INTERRUPTED.value),
)
"""The condition that a worker may reserve a trial."""

LAYOUT = Layout(
    version=2,  # what changes in stored documents is in `upgrade_steps`
    collections=(
        Collection(
            EXPERIMENTS,
            fields=(Field("name", "key", required=True), Field("version", "key")),
            indexes=(Index(("name", "version"), unique=True),),
            references=("refers.root_id", "refers.parent_id"),
        ),
        Collection(
            TRIALS,
            fields=(
                Field("experiment", "key", required=True),
                Field("id", "key", required=True),
                Field("status", "key", required=True),
                Field("worker", "key"),
                Field("submit_time", "time"),
                Field("start_time", "time"),
                Field("end_time", "time"),
                Field("heartbeat", "time", clocked=True),
            ),
            indexes=(
                Index(("experiment", "id"), unique=True),
                Index(("experiment", "submit_time"), where=PENDING),
                Index(("experiment", "status")),
            ),
            references=("experiment",),
            logged=Logged(
                CHANGES,
                owner="experiment",
                name="id",
                state="status",
                holder="worker",
                content="results",
                taken=TrialStatus.RESERVED.value,
            ),
        ),
        Collection(
            ALGO,
            fields=(
                Field("experiment", "key", required=True),
                Field("locked", "key"),
                Field("owner", "key"),
                Field("since", "time"),
                Field("expires", "time", clocked=True),
                Field("heartbeat", "time"),
                Field("state", "bytes"),
            ),
            # Oríon has an ascending one, which is not unique
            indexes=(Index(("experiment",), unique=True, descending=True),),
            references=("experiment",),
        ),
        Collection(
            BENCHMARKS,
            fields=(Field("name", "key", required=True),),
            indexes=(Index(("name",), unique=True),),
        ),
        Collection(
            WAITERS,
            fields=(
                Field("experiment", "key", required=True),
                Field("since", "time", required=True, clocked=True),
                Field("expires", "time", required=True, clocked=True),
            ),
            indexes=(Index(("experiment", "since")),),
            references=("experiment",),
        ),
        Collection(
            RECEIPTS,
            fields=(Field("expires", "time", required=True),),
            indexes=(Index(("expires",)),),
        ),
        # without indexes, which would have to be made in every store, used or not
        Collection(
            OUTBOX,
            fields=(
                Field("experiment", "key", required=True),
                Field("trial", "key"),
                Field("time", "time", required=True),
            ),
            references=("experiment",),
        ),
        Collection(
            MIRRORED,
            fields=(Field("experiment", "key", required=True), Field("trial", "key")),
            references=("experiment",),
        ),
        Collection(
            DELIVERERS,
            fields=(Field("owner", "key"), Field("expires", "time", clocked=True)),
        ),
        Collection(
            CHANGES,
            fields=(
                Field("kind", "key", required=True),
                Field("owner", "key", required=True),
                Field("name", "key", required=True),
                Field("before", "key"),
                Field("after", "key"),
                Field("holder", "key"),
                Field("attempt", "key", required=True),
                Field("time", "time", required=True),
                Field("reason", "key"),
            ),
            indexes=(Index(("owner", "name")),),
            references=("owner",),
        ),
        Collection(SETTINGS, fields=()),
        Collection(SCRATCH, fields=()),
    ),
)
