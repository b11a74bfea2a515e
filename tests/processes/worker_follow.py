"""Those who change trials, and one who follows them; each may be killed at any moment.

Arguments: ``work``, the URL of the store, the experiment, a file that is there as soon as they may
end, how many trials there are, a seed; or ``follow``, the URL, the experiment, and the file that
keeps what has been seen.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

from aiostorage import Storage, TrialLost, open_storage
from aiostorage.trial_change import OLDEST, TrialChange

TASKS = 2
LOST_AFTER = 0.6


def as_line(change: TrialChange) -> str:
    """Return a change as a line of the file, with its cursor at the end."""
    fields = (change.kind, change.trial, change.before, change.after, change.worker)
    time = change.time.isoformat()
    return json.dumps([*fields, change.attempt, time, change.reason, change.cursor])


def whole_lines(text: str) -> list[str]:
    """Return the lines of a file, but not the one at whose writing its writer was killed."""
    return text.split("\n")[:-1]


async def work(
    storage: Storage, experiment: str, may_end: Path, total: int, draw: random.Random
) -> None:
    """Change trials in every way until all are completed; begin anew until we may end."""
    there = {"_id": experiment}
    while True:
        try:
            trial = await storage.reserve_trial(there)
            if trial is None:
                if await storage.count_completed_trials(there) == total:
                    if may_end.exists():
                        return
                    await storage.update_trials(
                        there, where={"status": "completed"}, status="suspended"
                    )
                    await storage.update_trials(there, where={"status": "suspended"}, status="new")
                await storage.recover_lost_trials(there)
                await storage.update_trials(there, where={"status": "broken"}, status="new")
                await asyncio.sleep(0.03)
                continue
            await asyncio.sleep(draw.uniform(0.0, 0.05))
            fate = draw.random()
            if fate < 0.7:
                await storage.complete_trial(trial, 1.0)
                print("completed", flush=True)
            elif fate < 0.8:
                await storage.set_trial_status(trial, "broken", reason="bad\nluck")
            elif fate < 0.9:
                await storage.set_trial_status(trial, "interrupted")
            # else it is left to be lost
        except TrialLost:
            continue


async def follow(storage: Storage, experiment: str, path: Path) -> None:
    """Append each change to a file, and go on behind the last one that is there as a whole."""
    text = path.read_text() if path.exists() else ""
    lines = whole_lines(text)
    with path.open("r+" if path.exists() else "w") as file:
        file.truncate(sum(len(line) + 1 for line in lines))
        file.seek(0, 2)
        since = json.loads(lines[-1])[-1] if lines else OLDEST
        async for change in storage.watch_trials({"_id": experiment}, since=since):
            # in two parts, so that it may be killed between them
            line = as_line(change)
            for part in (line[:20], line[20:] + "\n"):
                file.write(part)
                file.flush()
            print("seen", flush=True)


async def main() -> None:
    task, url, experiment, *rest = sys.argv[1:]
    async with open_storage(url, lost_after=LOST_AFTER) as storage:
        if task == "follow":
            await follow(storage, experiment, Path(rest[0]))
        may_end, total, seed = Path(rest[0]), int(rest[1]), rest[2]
        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                draw = random.Random(f"{seed} {number}")
                group.create_task(work(storage, experiment, may_end, total, draw))


if __name__ == "__main__":
    asyncio.run(main())
