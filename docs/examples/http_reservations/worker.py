"""A worker that has nothing but HTTP: it needs httpx, not aiostorage.

    WORKER_TOKEN=… python worker.py http://head:8000 tune mymodule:objective

The objective gets the params, and returns the objective value, or a mapping with ``objective`` and
statistics. One more argument is how many seconds to wait for a trial, 20 if it is left out.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from types import FrameType
from typing import Any, Final, NoReturn

import httpx

GIVE_UP: Final = 600.0
"""Seconds without an answer of the server after which the worker ends."""

PAUSE: Final = 1.0
"""Seconds before a request is repeated."""


REFUSED: Final = (HTTPStatus.CONFLICT, HTTPStatus.GONE)
"""The trial is another worker's, or finished: continue with the next one."""


def post(client: httpx.Client, path: str, **request: Any) -> httpx.Response:
    """Send a request, repeatedly while there is no server, or none that can answer."""
    end = time.monotonic() + GIVE_UP
    while True:
        try:
            answer = client.post(path, **request)
        except httpx.TransportError:
            if time.monotonic() > end:
                raise
        else:
            if answer.status_code in REFUSED:
                return answer
            if not answer.is_server_error or time.monotonic() > end:
                return answer.raise_for_status()
        time.sleep(PAUSE)


@contextmanager
def heartbeats(client: httpx.Client, held: Mapping[str, str], seconds: float) -> Iterator[None]:
    """Send heartbeats from a thread, until the block ends or the reservation is lost."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(seconds):
            with suppress(httpx.TransportError):  # the next one may arrive
                answer = client.post("/reservation/heartbeat", headers=held)
                if answer.status_code in REFUSED:
                    return  # the answer to the results will say the same

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def outcome_of(results: Any) -> dict[str, Any]:
    """Return what an objective has returned, as the server takes it."""
    if not isinstance(results, Mapping):
        return {"objective": results}
    statistics = {name: value for name, value in results.items() if name != "objective"}
    return {"objective": results["objective"], "statistics": statistics}


def evaluate_one(
    client: httpx.Client, experiment: str, objective: Callable[..., Any], wait: float
) -> bool:
    """Evaluate a trial; return False if there is none for so many seconds."""
    answer = post(client, f"/experiments/{experiment}/reservations", params={"wait": wait})
    if answer.status_code == HTTPStatus.NO_CONTENT:
        return False
    reserved = answer.json()
    trial, held = reserved["trial"], {"Reservation": reserved["reservation"]}
    try:
        try:
            with heartbeats(client, held, reserved["heartbeat"]):
                outcome = outcome_of(objective(**reserved["params"]))
                answer = post(client, "/reservation/complete", headers=held, json=outcome)
        except httpx.TransportError:
            raise
        except Exception as error:  # noqa: BLE001  whatever the objective raises, or a bad result
            print(trial, "is broken:", repr(error), file=sys.stderr)
            answer = post(client, "/reservation/release", headers=held, json={"status": "broken"})
    except BaseException:  # SIGTERM, Ctrl-C, or a server that does not come back
        with suppress(httpx.TransportError):
            client.post("/reservation/release", headers=held, json={"status": "interrupted"})
        raise
    told = answer.json()
    print(trial, told.get("error") or told["status"], flush=True)
    return True


def stop(_number: int, _frame: FrameType | None) -> NoReturn:
    """End by an exception, so that the trial is handed back."""
    raise SystemExit(143)


def main() -> None:
    """Work until there is nothing to do."""
    address, experiment, named, *more = sys.argv[1:]
    wait = float(more[0]) if more else 20.0
    module, _, function = named.partition(":")
    objective = getattr(importlib.import_module(module), function)
    signal.signal(signal.SIGTERM, stop)
    token = {"Authorization": f"Bearer {os.environ['WORKER_TOKEN']}"}
    with httpx.Client(base_url=address, headers=token, timeout=wait + 40) as client:
        while evaluate_one(client, experiment, objective, wait):
            pass


if __name__ == "__main__":
    main()
