"""The batch scripts of `docs/how-to/hpc.md`, run as SLURM would run them.

`test_http_reservations` has the one for workers of a server.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from aiostorage import SyncStorage, open_storage
from aiostorage.testing import find_mongod
from aiostorage.testing.mongodb.mongod_command import ENGINE_OPTIONS
from tests.docs.batch_jobs import EXAMPLES, TRIALS, BatchJob, programs


def test_nodes_with_a_store_each(tmp_path: Path) -> None:
    """One of two nodes runs into its time limit, is requeued, and goes on."""
    with programs(tmp_path) as start:
        slurm = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "2"}
        jobs = [BatchJob(start, "node.sbatch", number, **slurm) for number in range(2)]
        limited, whole = jobs[0].run(HANG="0.5"), jobs[1].run()
        limited.waited(lambda: "0.5" in [x for x, _ in jobs[0].evaluated])
        assert limited.terminate() == 0, limited.printed
        whole.succeed()
        assert [job.requeued for job in jobs] == [["requeue 1000"], []]
        with SyncStorage(
            open_storage(f"sqlite:///{tmp_path / 'results' / 'node-0.db'}")
        ) as storage:
            [experiment] = storage.fetch_experiments({"name": "tune"})
            by_x = {trial.params["x"]: trial for trial in storage.fetch_trials(experiment) or []}
            assert by_x[0.5].status == "interrupted"
            assert "reserved" not in {trial.status for trial in by_x.values()}

        jobs[0].run().succeed()
        evaluated = [x for job in jobs for x, _ in job.evaluated]
        assert len(evaluated) == TRIALS + 1  # that of the time limit twice
        assert not list(tmp_path.glob("job-*/disk/*"))
        files = sorted(tmp_path.glob("results/*"))
        assert [file.name for file in files] == ["node-0.db", "node-1.db"]
        merge = start([sys.executable, EXAMPLES / "hpc" / "merge.py", "sqlite:///all.db", *files])
        assert merge.succeed() == f"{TRIALS} trials of 2 files, {TRIALS} completed\n"


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


SRUN = """#!/bin/sh
# as many tasks as the test asks for, which get the signals of this process
shift
for task in $(seq "$SLURM_NTASKS"); do "$@" & tasks="$tasks $!"; done
trap 'kill -TERM $tasks' TERM
wait || wait
"""


@pytest.mark.timeout(300)
def test_a_mongodb_server_in_the_job(tmp_path: Path) -> None:
    """The job is requeued, and the data goes on; the workers are processes of this machine."""
    with programs(tmp_path) as start:
        job = BatchJob(start, "mongod.sbatch", 0, SLURM_NTASKS="2", PORT=str(free_port()))
        job.add_program("srun", SRUN)
        quick = f"--oplogSize 64 --wiredTigerEngineConfigString '{ENGINE_OPTIONS}'"
        job.add_program("mongod", f'#!/bin/sh\nexec {find_mongod()} {quick} "$@"\n')
        job.add_program("hostname", "#!/bin/sh\necho 127.0.0.1\n")
        limited = job.run(HANG="0.5")
        limited.waited(lambda: "0.5" in [x for x, _ in job.evaluated])
        assert limited.terminate() == 0, limited.printed
        assert job.requeued == ["requeue 1000"]
        job.add_program("hostname", "#!/bin/sh\necho localhost\n")
        job.run().succeed()
        evaluated = [x for x, _ in job.evaluated]
        assert len(evaluated) == len(set(evaluated)) + 1 == TRIALS + 1
