"""Make the pictures of ``aiostorage dashboard``: ``dashboard-*.png`` beside this script.

One store has a study of Optuna, an experiment of the demo and one of ``orion hunt``. What the pages
show of their trials is compared with the store first. It needs Oríon, the extra ``dashboard`` and
Chromium::

    pip install --editable '.[dashboard,orion]'
    python docs/pictures/dashboard.py
"""

from __future__ import annotations

import html
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

# started as a script, this folder would be the first where packages are looked for
sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]

import optuna  # noqa: E402
from optuna.trial import FrozenTrial, TrialState  # noqa: E402

from aiostorage import open_storage  # noqa: E402
from aiostorage.optuna import OptunaStorage  # noqa: E402
from aiostorage.optuna.dashboard.server import dashboard_server  # noqa: E402
from aiostorage.optuna.dashboard.storage import DashboardStorage  # noqa: E402

HERE = Path(__file__).parent
SIZE = "1100,660"

OBJECTIVE = """#!/bin/sh
value=$(awk "BEGIN { print ($2 - 1) ^ 2 + 0.3 * $4 / $6 }")
printf '[{"name": "loss", "type": "objective", "value": %s}]' "$value" > "$ORION_RESULTS_PATH"
"""

HUNT = """
experiment: {name: hunted, max_trials: 25, algorithm: {random: {seed: 1}}}
storage: {type: aiostorage, database: {url: "URL"}}
"""

PAGES = {"study": "tune", "demo": "demo", "hunt": "hunted"}
"""Which experiment each picture shows."""


def objective(trial: optuna.Trial) -> float:
    """Evaluate a trial that is pruned if it goes badly."""
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    width = trial.suggest_int("width", 16, 256, log=True)
    trial.suggest_categorical("activation", ["relu", "elu", "gelu"])
    loss = 0.0
    for step in range(8):
        loss = 10 / (1 + step) + abs(lr - 1e-3) ** 0.5 * 20 + 32 / width
        trial.report(loss, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


def fill(url: str, directory: Path) -> None:
    """Make the three experiments."""
    logging.getLogger("optuna").setLevel(logging.ERROR)
    storage = OptunaStorage(url)
    sampler = optuna.samplers.TPESampler(seed=3)
    study = optuna.create_study(storage=storage, study_name="tune", sampler=sampler)
    study.optimize(objective, n_trials=60)
    storage.close()
    run(directory, "aiostorage.cli", "demo", "--url", url, "--quiet", "--trials", "40")
    (directory / "orion.yaml").write_text(HUNT.replace("URL", url))
    script = directory / "objective.sh"
    script.write_text(OBJECTIVE)
    script.chmod(0o755)
    arguments = ["hunt", "-c", "orion.yaml", "--n-workers", "1", "./objective.sh"]
    arguments += ["-x~normal(0, 2)", "--lr~loguniform(1e-4, 1)", "--epochs~fidelity(1, 9, 3)"]
    arguments += ["--w~uniform(0, 1, shape=2)", "--act~choices(['relu', 'elu'])"]
    run(directory, "orion.core.cli", *arguments)


def run(directory: Path, module: str, *arguments: str) -> None:
    """Run the `main` of a command line in a process of its own."""
    code = f"import {module} as command; command.main()"
    subprocess.run(  # noqa: S603  our own
        [sys.executable, "-c", code, *arguments], cwd=directory, check=True, timeout=600
    )


def chromium(directory: Path, page: str, *more: str) -> str:
    """Open a page, give its scripts the time to fill it, and return what is printed."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("there is no chromium")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={directory}/browser", f"--window-size={SIZE}"]
    command += ["--virtual-time-budget=60000", "--timeout=120000", *more, page]
    done = subprocess.run(  # noqa: S603  our own
        command, check=True, timeout=300, capture_output=True, text=True
    )
    return done.stdout


def compare(directory: Path, page: str, trial: FrozenTrial) -> int:
    """Compare what a page says of a trial with the trial; return how many values were compared."""
    source = chromium(directory, f"{page}/trials?numbers={trial.number}", "--dump-dom")
    text = html.unescape(re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<style.*?</style>", "", source)))
    words = " ".join(text.split())
    begin = f"Trial {trial.number} (trial_id={trial._trial_id})"  # noqa: SLF001  as the page has it
    shown = words[words.rindex(begin) :]
    expected = [trial.state.name.capitalize()]
    expected += [f"Value {number(value)}" for value in trial.values or ()]
    expected += [f"{name} {value}" for name, value in trial.params.items()]
    for one in expected:
        if one not in shown:
            sys.exit(f"{page} does not show {one!r}, but {shown[:600]!r}")
    return len(expected)


def number(value: float) -> str:
    """Return a number as JavaScript writes it."""
    return str(int(value)) if value.is_integer() else repr(value)


def main() -> None:
    """Fill a store, compare the pages with it, and take the pictures."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        url = f"sqlite:///{directory}/tune.db"
        fill(url, directory)
        storage = DashboardStorage(open_storage(url))
        server = dashboard_server(storage, "127.0.0.1", 0)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            for picture, experiment in PAGES.items():
                study_id = storage.get_study_id_from_name(experiment)
                page = f"http://127.0.0.1:{server.server_port}/dashboard/studies/{study_id}"
                trials = storage.get_all_trials(study_id)
                complete = [one for one in trials if one.state is TrialState.COMPLETE]
                chosen = [*trials[:3], *complete[-3:], storage.get_best_trial(study_id)]
                compared = sum(compare(directory, page, trial) for trial in chosen)
                file = HERE / f"dashboard-{picture}.png"
                chromium(directory, page, f"--screenshot={file}")
                told = f"{compared} values of {len(chosen)} trials are as in the store"
                print(f"{file.name}: {told}; {file.stat().st_size:,} bytes")
        finally:
            server.shutdown()
            server.server_close()
            storage.close()


if __name__ == "__main__":
    main()
