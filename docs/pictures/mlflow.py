"""Make the picture of MLflow's page with runs of ours: ``mlflow.png`` beside this script.

It needs the whole of MLflow, which has the page, and Chromium. In an environment of its own::

    pip install mlflow && pip install --editable .
    python docs/pictures/mlflow.py
"""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import anyio

# started as a script, this folder would be the first where packages are looked for
sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]

from aiostorage import Trial, open_storage  # noqa: E402

PICTURE = Path(__file__).with_suffix(".png")
SIZE = "1280,620"


async def search(directory: Path, tracker: str) -> None:
    """Evaluate some trials; one is broken, one interrupted, and one runs."""
    chance = random.Random(7)  # noqa: S311  it is a picture
    async with open_storage(f"sqlite:///{directory}/tune.db", tracker=tracker) as storage:
        config = {"name": "tune", "metadata": {"user": "ada"}}
        experiment = await storage.create_experiment(config)
        for _ in range(12):
            params = {
                "lr": round(10 ** chance.uniform(-5, -1), 6),
                "net": {
                    "width": chance.choice([32, 64, 128]),
                    "act": chance.choice(["relu", "elu"]),
                },
            }
            await storage.register_trial(Trial(experiment=experiment.id, params=params))
        for number in range(11):
            trial = await storage.reserve_trial(experiment)
            assert trial is not None  # noqa: S101
            await anyio.sleep(chance.uniform(0.1, 0.6))
            if number in (4, 8):
                await storage.set_trial_status(trial, "broken" if number == 4 else "interrupted")
                continue
            loss = abs(math.log10(trial.params["lr"]) + 3) + 16 / trial.params["net"]["width"]
            await storage.complete_trial(trial, {"loss": round(loss, 4), "epochs": 5 + number})
        await storage.reserve_trial(experiment)
        await storage.flush_tracker(timeout=120)


def main() -> None:
    """Start a server, fill it, and take the picture."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("there is no chromium")
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        command = [sys.executable, "-m", "mlflow", "server", "--port", url.rpartition(":")[2]]
        command += ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db", "--workers", "1"]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
        server = subprocess.Popen(  # noqa: S603  our own
            command, cwd=directory, env=environment, start_new_session=True
        )
        try:
            wait_for(url)
            anyio.run(search, directory, f"mlflow+{url}")
            take_picture(browser, f"{url}/#/experiments/1/runs", directory)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_for(url: str) -> None:
    """Return when the server answers."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310
            return
        time.sleep(0.5)
    sys.exit("the server does not start")


def take_picture(browser: str, page: str, directory: Path) -> None:
    """Take the picture of a page when its scripts have had time to fill it."""
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={directory}/browser", f"--window-size={SIZE}"]
    command += ["--virtual-time-budget=60000", "--timeout=120000", f"--screenshot={PICTURE}", page]
    subprocess.run(command, check=True, timeout=300)  # noqa: S603  our own
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
