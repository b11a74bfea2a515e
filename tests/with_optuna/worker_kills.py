"""Processes that optimise one study, while some are killed and one stands still for a while.

Run with a URL and a seed. All workers are children of this process, which ends those alone.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
import warnings

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback

from aiostorage.optuna import OptunaStorage

WORKERS, KILLS, FINISHED = 4, 10, 150

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)


def objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", -5, 5)
    y = trial.suggest_int("y", 1, 9)
    time.sleep(random.uniform(0, 0.03))
    trial.report(x, 0)
    if y == 9:
        raise optuna.TrialPruned
    return x * x + y


def stop(study: optuna.Study, _: optuna.trial.FrozenTrial) -> None:
    if sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)) >= FINISHED:
        study.stop()


def work(url: str, name: str) -> None:
    storage = OptunaStorage(
        url,
        heartbeat_interval=1,
        grace_period=2,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )
    study = optuna.load_study(
        study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler()
    )
    while True:
        try:
            study.optimize(objective, callbacks=[stop])
        except (UpdateFinishedTrialError, ValueError, AssertionError) as error:
            # Optuna's loop asserts that what was declared stale elsewhere cannot have run here
            print(f"late: {error}", flush=True)
        else:
            break
    storage.close()


def start(url: str, name: str) -> int:
    pid = os.fork()
    if pid == 0:
        random.seed()
        code = 1
        try:
            work(url, name)
            code = 0
        except BaseException:  # noqa: BLE001  the parent reads the code, and people this
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return pid


def main() -> int:
    url = sys.argv[1]
    chance = random.Random(int(sys.argv[2]))
    storage = OptunaStorage(url)
    name = optuna.create_study(storage=storage, study_name="tune").study_name
    storage.close()
    pids = [start(url, name) for _ in range(WORKERS)]
    still = chance.choice(pids)
    time.sleep(1)
    os.kill(still, signal.SIGSTOP)
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.1, 0.4))
        place = chance.choice([n for n, pid in enumerate(pids) if pid != still])
        os.kill(pids[place], signal.SIGKILL)
        os.waitpid(pids[place], 0)
        pids[place] = start(url, name)
    time.sleep(1)
    os.kill(still, signal.SIGCONT)
    return sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in pids)


if __name__ == "__main__":
    sys.exit(main())
