"""Make the pictures of `aiostorage watch` and `aiostorage plot`: ``watch.svg``, ``plot-*.png``.

A real search by three worker processes runs meanwhile. It needs the extras ``watch`` and ``plot``,
and Chromium for the plots::

    pip install --editable '.[plot,watch]'
    python docs/pictures/watch.py
"""

from __future__ import annotations

import math
import random
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import anyio

# started as a script, this folder would be the first where packages are looked for
sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]

from aiostorage import Storage, Trial, open_storage  # noqa: E402
from aiostorage.cli.existing import open_named  # noqa: E402
from aiostorage.cli.watch.feed import WatchFeed  # noqa: E402
from aiostorage.cli.watch.screen import WatchApp  # noqa: E402
from aiostorage.cli.watch.shown_state import WatchState  # noqa: E402
from aiostorage.experiment import Experiment  # noqa: E402
from aiostorage.plot import (  # noqa: E402
    PlotOptions,
    history_figure,
    parallel_figure,
    read_plot_rows,
    slice_figure,
    write_picture,
)

HERE = Path(__file__).parent
TRIALS = 400
PICTURED = 240
"""How many trials are completed when the picture of the screen is taken."""


async def fill(url: str) -> None:
    """Register the trials of a search."""
    chance = random.Random(3)  # noqa: S311  it is a picture
    async with open_storage(url) as storage:
        config = {"name": "tune", "max_trials": TRIALS, "space": {"lr": "loguniform(1e-5, 1e-1)"}}
        experiment = await storage.create_experiment(config)
        trials = []
        for number in range(TRIALS):
            good = chance.random() < number / TRIALS
            params = {
                "lr": 10 ** (chance.gauss(-3, 0.4) if good else chance.uniform(-5, -1)),
                "net": {"width": chance.choice([64, 128] if good else [16, 32, 64, 128])},
                "activation": chance.choice(["relu", "elu", "gelu"]),
            }
            trials.append(Trial(experiment=experiment.id, params=params))
        await storage.register_trials(trials)


async def work(url: str, seed: int) -> None:
    """Evaluate trials, three at the same time, as a process of its own."""
    chance = random.Random(seed)  # noqa: S311
    async with open_storage(url) as storage:
        [config] = await storage.fetch_experiments({"name": "tune"})
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(evaluate, storage, Experiment.from_config(config), chance)
            for _ in range(20):
                async with storage.acquire_algorithm_lock(config, timeout=60):
                    await anyio.sleep(chance.uniform(0.3, 2))
                await anyio.sleep(chance.uniform(0.1, 1))


async def evaluate(storage: Storage, experiment: Experiment, chance: random.Random) -> None:
    """Evaluate one trial after the other."""
    while True:
        async with storage.reserved_trial(experiment, heartbeat=2) as trial:
            if trial is None:
                return
            await anyio.sleep(chance.uniform(0.3, 2.5))
            if chance.random() < 0.04:
                await storage.set_trial_status(trial, "broken")
                continue
            loss = abs(math.log10(trial.params["lr"]) + 3) + 16 / trial.params["net"]["width"]
            loss += 0.1 * (trial.params["activation"] == "relu") + chance.expovariate(6)
            await storage.complete_trial(trial, {"validation loss": loss})


async def watch(url: str) -> None:
    """Take the picture of the screen."""
    feed = WatchFeed(partial(open_named, url), WatchState("tune", "minimize"))
    app = WatchApp(feed, "tune.db", 120)
    async with app.run_test(size=(104, 32)) as pilot:
        while feed.state.summary is None or feed.state.summary.completed < PICTURED:  # noqa: ASYNC110
            await anyio.sleep(0.1)
        app.draw(force=True)
        await pilot.pause()
        picture = app.export_screenshot(title="aiostorage watch tune")
    # readers have a font of their own, and the picture asks no server for one
    picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    await anyio.Path(HERE / "watch.svg").write_text(picture, encoding="utf-8")


async def plot(url: str) -> None:
    """Take the pictures of the plots."""
    async with open_storage(url) as storage:
        [config] = await storage.fetch_experiments({"name": "tune"})
        rows = await read_plot_rows(storage, config)
    makers = {"history": history_figure, "parallel": parallel_figure, "slice": slice_figure}
    for kind, make in makers.items():
        figure = make(rows, PlotOptions(label="validation loss (nats)"))
        write = partial(write_picture, HERE / f"plot-{kind}.png", figure, width=1000)
        await anyio.to_thread.run_sync(write)


def main() -> None:
    """Run a search, and take the pictures."""
    if len(sys.argv) > 1:
        anyio.run(work, sys.argv[1], int(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/tune.db"
        anyio.run(fill, url)
        command = [sys.executable, __file__, url]
        workers = [subprocess.Popen([*command, str(n)]) for n in range(3)]  # noqa: S603
        anyio.run(watch, url)
        for worker in workers:
            worker.wait()
        anyio.run(plot, url)


if __name__ == "__main__":
    main()
