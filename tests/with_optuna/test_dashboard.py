"""The dashboard over a store: what it serves is what the store has."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState

from aiostorage import Storage, Trial, open_storage
from aiostorage.cli.app import cli
from aiostorage.experiment import Experiment
from aiostorage.optuna import OptunaStorage
from aiostorage.optuna.dashboard_server import dashboard_server
from aiostorage.optuna.dashboard_storage import DashboardStorage
from aiostorage.optuna.space_priors import distribution_of, flat_space, inferred
from tests.cli.support import environment, run
from tests.preloaded import Process, preloaded
from tests.with_optuna.optuna_stores import LIBRARIES, fill

DEADLINE = 100.0

OBJECTIVE = """#!/bin/sh
printf '[{"name": "loss", "type": "objective", "value": %s}]' "$2" > "$ORION_RESULTS_PATH"
"""

HUNT = """
experiment: {name: hunted, max_trials: 3, algorithm: {random: {seed: 1}}}
storage: {type: aiostorage, database: {url: "URL"}}
"""


class Page:
    """Requests to a dashboard."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            text = None if body is None else json.dumps(body)
            sent = {"Content-Type": "application/json", **headers}
            connection.request(method, path, text, sent)
            answer = connection.getresponse()
            found = answer.read()
            return answer.status, json.loads(found) if found[:1] == b"{" else found

    def studies(self) -> dict[str, int]:
        _, found = self.ask("GET", "/api/studies")
        return {study["study_name"]: study["study_id"] for study in found["study_summaries"]}

    def study(self, name: str) -> dict[str, Any]:
        status, found = self.ask("GET", f"/api/studies/{self.studies()[name]}?after=0")
        assert status == 200
        return dict(found)


@contextmanager
def served(url: str, *, read_only: bool = False, direction: str = "MINIMIZE") -> Iterator[Page]:
    """Serve a store in a thread."""
    storage = DashboardStorage(open_storage(url), StudyDirection[direction])
    server = dashboard_server(storage, "127.0.0.1", 0, read_only=read_only)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Page(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        storage.close()


def stored(url: str, name: str) -> list[Trial]:
    async def read() -> list[Trial]:
        async with open_storage(url) as storage:
            [config] = await storage.fetch_experiments({"name": name})
            return await storage.fetch_trials(config) or []

    return anyio.run(read)


def params_of(trial: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["param_external_value"] for one in trial["params"]}


def attrs_of(trial: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: one["value"] for one in trial["user_attrs"]}


def by_id(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {attrs_of(trial)["trial"]: trial for trial in shown["trials"]}


def test_a_study_is_shown_as_it_is_and_can_be_changed(tmp_path: Path) -> None:
    """All of Optuna's pages read it through `OptunaStorage`; notes go into the store."""
    url = f"sqlite:///{tmp_path}/tune.db"
    own = OptunaStorage(url)
    fill(own)
    with served(url) as page:
        for study in own.get_all_studies():
            shown = page.study(study.study_name)
            trials = own.get_all_trials(study._study_id)
            assert [trial["number"] for trial in shown["trials"]] == [t.number for t in trials]
            for one, trial in zip(shown["trials"], trials, strict=True):
                assert one["state"].upper() == trial.state.name
                assert params_of(one) == {n: str(v) for n, v in trial.params.items()}
                values = None if trial.values is None else list(trial.values)
                assert [float(v) for v in one.get("values", [])] == (values or [])
        study_id = page.studies()["multi"]
        note = {"version": 1, "body": "seen"}
        assert page.ask("PUT", f"/api/studies/{study_id}/note", note)[0] == 204
        assert page.study("multi")["note"]["body"] == "seen"
        assert page.ask("DELETE", f"/api/studies/{page.studies()['empty']}", {})[0] == 204
        assert "empty" not in page.studies()
    attrs = own.get_study_system_attrs(own.get_study_id_from_name("multi"))
    assert "seen" in str(attrs)
    with served(url, read_only=True) as page:
        status, refused = page.ask("DELETE", f"/api/studies/{page.studies()['multi']}", {})
        assert (status, "--read-only" in refused["reason"]) == (403, True)
        status, _ = page.ask(
            "POST", "/api/studies", {"study_name": "x", "directions": ["minimize"]}
        )
        assert status == 403
        assert sorted(page.studies()) == ["multi", "tune/1.x"]
    own.close()


def test_an_experiment_of_the_demo_is_shown_and_cannot_be_changed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/aiostorage-demo.db"
    space = ("--space", "x=0.5:2.0", "--space", "n=1:5", "--space", "kind=a,b")
    objective = ("--objective", "builtins:len", *space)
    outcome = run(tmp_path, "demo", *objective, "--trials", "8", "--quiet")
    assert outcome.code == 0, outcome.err
    with served(url) as page:
        assert list(page.studies()) == ["demo"]
        shown = page.study("demo")
        trials = {t.id: t for t in stored(url, "demo")}
        assert by_id(shown).keys() == trials.keys()
        for uid, one in by_id(shown).items():
            objective_value = trials[uid].objective
            assert objective_value is not None
            assert one["values"] == [objective_value.value]
            assert params_of(one) == {n: str(v) for n, v in trials[uid].params.items()}
            assert one["state"] == "Complete"
        kinds = {one["name"]: one["distribution"] for one in shown["trials"][0]["params"]}
        assert kinds["x"] | {"step": None} == {
            "type": "FloatDistribution",
            "low": 0.5,
            "high": 2.0,
            "step": None,
            "log": False,
        }
        assert (kinds["n"]["low"], kinds["n"]["high"]) == (1, 5)
        assert [choice["value"] for choice in kinds["kind"]["choices"]] == ["a", "b"]
        study_id, trial_id = page.studies()["demo"], shown["trials"][0]["trial_id"]
        for method, path, body in (
            ("DELETE", f"/api/studies/{study_id}", {}),
            ("PUT", f"/api/studies/{study_id}/note", {"version": 1, "body": "x"}),
            ("PUT", f"/api/studies/{study_id}/{trial_id}/note", {"version": 1, "body": "x"}),
            ("POST", f"/api/studies/{study_id}/rename", {"study_name": "other"}),
            ("POST", f"/api/trials/{trial_id}/user-attrs", {"user_attrs": {"a": 1}}),
            ("POST", f"/api/trials/{trial_id}/tell", {"state": "Fail"}),
        ):
            status, refused = page.ask(method, path, body)
            assert (status, "not a study of Optuna" in refused["reason"]) == (403, True), path
        assert list(page.studies()) == ["demo"]
        assert page.ask("GET", f"/csv/{study_id}")[1].count(b"\n") == 9
        assert page.ask("GET", "/api/studies", Host="elsewhere")[0] == 403
        assert page.ask("GET", "/api/studies", Origin="http://elsewhere")[0] == 403


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Oríon 0.2.7 does not run there")
def test_an_experiment_of_a_hunt_is_shown(tmp_path: Path) -> None:
    """Its priors become distributions, also those of a fidelity and of a shape."""
    url = f"sqlite:///{tmp_path}/tune.db"
    (tmp_path / "orion.yaml").write_text(HUNT.replace("URL", url))
    script = tmp_path / "objective.sh"
    script.write_text(OBJECTIVE)
    script.chmod(0o755)
    arguments = ["hunt", "-c", "orion.yaml", "--n-workers", "1", "./objective.sh"]
    arguments += ["-x~normal(0, 2)", "--lr~loguniform(1e-5, 1)", "--epochs~fidelity(1, 9, 3)"]
    arguments += ["--w~uniform(0, 1, shape=2)", "--act~choices(['relu', 'elu'])"]
    subprocess.run(
        [sys.executable, "-c", "import orion.core.cli as orion; orion.main()", *arguments],
        cwd=tmp_path,
        env=environment(),
        check=True,
        capture_output=True,
        timeout=DEADLINE,
    )
    with served(url, direction="MAXIMIZE") as page:
        shown = page.study("hunted")
        trials = {trial.id: trial for trial in stored(url, "hunted")}
        assert shown["directions"] == ["maximize"]
        assert by_id(shown).keys() == trials.keys()
        complete = 0
        for uid, one in by_id(shown).items():
            params = trials[uid].params
            own = {name.lstrip("/"): value for name, value in params.items()}
            expected = {n: str(v) for n, v in own.items() if n != "w"}
            expected |= {f"w[{place}]": str(value) for place, value in enumerate(own["w"])}
            assert params_of(one) == expected
            if one["state"] == "Complete":
                complete += 1
                assert one["values"] == [own["x"]]
        assert complete >= 3
        kinds = {one["name"]: one["distribution"] for one in shown["trials"][0]["params"]}
        assert kinds["lr"]["log"]
        assert (kinds["epochs"]["type"], kinds["epochs"]["high"]) == ("IntDistribution", 9)
        assert (kinds["w[1]"]["low"], kinds["w[1]"]["high"]) == (0.0, 1.0)
        best = max(own["values"][0] for own in shown["trials"] if "values" in own)
        assert [one["values"][0] for one in shown["best_trials"]] == [best]


async def odd(storage: Storage) -> None:
    """Make an experiment of trials of each status, some of them odd, without a space."""
    experiment = await storage.create_experiment({"name": "odd"})
    assert isinstance(experiment, Experiment)
    trials = [
        Trial(experiment=experiment.id, params={"net": {"width": 2**n}, "x": [0.5, n], "y": n == 1})
        for n in range(7)
    ]
    await storage.register_trials(trials)
    await storage.create_experiment({"name": "odd", "version": 2})
    reserved = [await storage.reserve_trial(experiment) for _ in range(6)]
    statuses = ("completed", "broken", "interrupted", "suspended", "nan")
    for status, trial in zip(statuses, reserved, strict=False):
        assert trial is not None
        if status in ("completed", "nan"):
            await storage.complete_trial(
                trial, {"objective": float("nan") if status == "nan" else 1.0, "size": 3}
            )
        else:
            await storage.set_trial_status(trial, status)


def test_every_status_has_a_state_and_values_without_a_prior_a_distribution(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tune.db"

    async def make() -> None:
        async with open_storage(url, nan="completed") as storage:
            await odd(storage)

    anyio.run(make)
    with served(url) as page:
        assert list(page.studies()) == ["odd", "odd@2"]
        assert page.study("odd@2")["trials"] == []
        shown = page.study("odd")
    states = {(attrs_of(trial)["status"], trial["state"]) for trial in shown["trials"]}
    assert states == {
        ("completed", "Complete"),
        ("completed", "Fail"),  # its objective is a NaN
        ("broken", "Fail"),
        ("interrupted", "Waiting"),
        ("suspended", "Waiting"),
        ("reserved", "Running"),
        ("new", "Waiting"),
    }
    kinds = {one["name"]: one["distribution"] for one in shown["trials"][0]["params"]}
    assert kinds["net.width"] == {
        "type": "IntDistribution",
        "low": 1,
        "high": 64,
        "step": 1,
        "log": False,
    }
    assert kinds["y"]["type"] == "CategoricalDistribution"
    assert (kinds["x[1]"]["low"], kinds["x[1]"]["high"]) == (0, 6)
    best = shown["best_trials"]
    assert [(one["values"], attrs_of(one)["size"]) for one in best] == [([1.0], "3")]


@pytest.mark.parametrize(
    ("prior", "values", "expected"),
    [
        ("uniform(-3, 5)", [], FloatDistribution(-3, 5)),
        ("uniform(0, 4, discrete=True)", [1], IntDistribution(0, 4)),
        ("+uniform(0, 1, precision=3)", [0.5], FloatDistribution(0, 1)),
        ("uniform(0, 1)", [1.5], FloatDistribution(0, 1.5)),
        ("loguniform(1e-5, 1)", [], FloatDistribution(1e-5, 1, log=True)),
        ("reciprocal(1, 8, discrete=True)", [], IntDistribution(1, 8, log=True)),
        ("loguniform(0.5, 8, discrete=True)", [], IntDistribution(0, 8)),
        ("normal(1, 2)", [9.5], FloatDistribution(-5, 9.5)),
        ("gaussian(0, 1, low=-2, high=2)", [], FloatDistribution(-2, 2)),
        ("fidelity(1, 16, base=4)", [], IntDistribution(1, 16, log=True)),
        ("fidelity(1, 16, 1)", [], IntDistribution(1, 16)),
        ("choices('a', 'b')", [], CategoricalDistribution(["a", "b"])),
        ("choices({'a': 0.2, 'b': 0.8})", ["c"], CategoricalDistribution(["a", "b", "c"])),
        ("choices([1, True, [2, 3]])", [], CategoricalDistribution([1, True, "[2, 3]"])),
        ("uniform(0, 1)", ["text"], None),
        ("poisson(mu=3)", [], None),
        ("uniform(0, np.pi)", [], None),
        ("__import__('os').abort()", [], None),
        ("uniform(", [], None),
        ("", [], None),
    ],
)
def test_priors_become_distributions(
    prior: str, values: list[Any], expected: BaseDistribution | None
) -> None:
    assert distribution_of(prior, values) == expected


def test_what_has_no_prior_is_inferred() -> None:
    assert inferred([1e-4, 1e-3, 0.1]) == FloatDistribution(1e-4, 0.1, log=True)
    assert inferred([1, 2.5]) == FloatDistribution(1, 2.5)
    assert inferred([-1, 4]) == IntDistribution(-1, 4)
    assert inferred([True, 1, "a", True]) == CategoricalDistribution([True, 1, "a"])
    assert inferred([float("inf"), 1.0]) == CategoricalDistribution([float("inf"), 1.0])
    nested = {"/net": {"width": "uniform(1, 2)"}, "/lr": "uniform(0, 1)", "x/y": "choices([1])"}
    assert list(flat_space(nested)) == ["net.width", "lr", "x/y"]


BOOT = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from aiostorage.cli import main; sys.argv[0] = 'aiostorage'; main()"
)


def start(folder: Path, *arguments: str) -> Process:
    return preloaded((), *LIBRARIES).start(
        *(BOOT, "dashboard", *arguments),
        directory=folder,
        environment=environment(),
        stdin=subprocess.DEVNULL,
    )


def test_the_command_warns_of_other_addresses_and_ends_with_a_signal(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        url = f"sqlite:///{tmp_path}/tune.db"
        missing = CliRunner().invoke(cli, ["dashboard", url])
        assert (missing.exit_code, "there is no " in missing.stderr) == (2, True)
        assert list(tmp_path.iterdir()) == []

        async def make() -> None:
            async with open_storage(url) as storage:
                await storage.create_experiment({"name": "tune"})

        anyio.run(make)
        busy = CliRunner().invoke(cli, ["dashboard", url, "--port", port])
        assert (busy.exit_code, f"port {port} cannot be used" in busy.stderr) == (2, True)
    for number, host in ((signal.SIGINT, "127.0.0.1"), (signal.SIGTERM, "0.0.0.0")):
        process = start(tmp_path, "sqlite:///tune.db", "--port", port, "--host", host)
        try:
            wait_for(int(port))
            assert list(Page(int(port)).studies()) == ["tune"]
        finally:
            process.send_signal(number)
            _, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, errors
        assert ("there is no password" in errors) == (host == "0.0.0.0")
        assert f"http://{host}:{port}" in errors


def wait_for(port: int) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the dashboard does not listen")


@pytest.mark.parametrize(("direction", "best"), [("MINIMIZE", 1), ("MAXIMIZE", 2)])
def test_the_storage_of_the_dashboard_reads_an_experiment_as_a_study(
    direction: str, best: int
) -> None:
    storage = DashboardStorage(open_storage("memory://"), StudyDirection[direction])
    store = storage._storage
    for name in ("ours", "empty"):
        store.create_experiment({"name": name, "space": {"x": "uniform(0, 9)"}})
    [config] = store.fetch_experiments({"name": "ours"})
    for number, value in enumerate((2, 1, 3, 1)):
        store.register_trial(Trial(experiment=config["_id"], params={"x": number + 0.5}))
        trial = store.reserve_trial(config)
        assert trial is not None
        store.complete_trial(trial, value)
    ours, empty = (storage.get_study_id_from_name(name) for name in ("ours", "empty"))
    assert {study._study_id for study in storage.get_all_studies()} == {ours, empty}
    assert storage.get_study_name_from_id(ours) == "ours"
    assert storage.get_study_directions(ours) == [StudyDirection[direction]]
    assert storage.get_study_user_attrs(ours)["space"] == {"x": "uniform(0, 9)"}
    assert storage.get_study_system_attrs(ours) == {}
    trials = storage.get_all_trials(ours)
    assert [(trial.number, trial.value) for trial in trials] == [(0, 2), (1, 1), (2, 3), (3, 1)]
    assert storage.get_all_trials(ours, states=(TrialState.RUNNING,)) == []
    assert storage.get_trial(trials[2]._trial_id).params == {"x": 2.5}
    assert storage.get_best_trial(ours).number == best
    with pytest.raises(ValueError, match="No trials are completed"):
        storage.get_best_trial(empty)
    assert (storage.is_foreign(ours), storage.is_foreign(ours + 1)) == (True, False)
    own = storage.create_new_study([StudyDirection.MINIMIZE], "own")
    assert not storage.is_foreign(own)
    for ask in (
        lambda: storage.get_trial(trials[3]._trial_id + 1),
        lambda: storage.get_study_id_from_name("none"),
        lambda: storage.get_all_trials(ours + 1),
        lambda: storage.set_study_user_attr(ours, "a", 1),
        lambda: storage.create_new_trial(ours),
    ):
        with pytest.raises(KeyError):
            ask()
    storage.close()
