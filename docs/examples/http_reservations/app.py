"""Reservations over HTTP, for workers that cannot reach the store.

    AIOSTORAGE_URL=sqlite:////data/tune.db WORKER_TOKEN=… uvicorn --factory app:create_app

`AIOSTORAGE_URL` names the store, and `WORKER_TOKEN` is what every worker sends as a bearer token.
`LOST_AFTER` is after how many seconds without a heartbeat a trial is lost, 120 if it is not set.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

from aiostorage import (
    EncodingError,
    FailedUpdate,
    InvalidReservation,
    InvalidResult,
    Storage,
    TemporaryBackendError,
    Trial,
    TrialLost,
    open_storage,
)

LONGEST_WAIT: Final = 30.0
"""Seconds that a request may wait for a trial; less than the time limit of proxies."""


class Reserved(BaseModel):
    """A trial for this worker alone."""

    trial: str = Field(description="the id of the trial, for logs")
    params: dict[str, Any]
    reservation: str = Field(description="a secret; send it in the header Reservation")
    heartbeat: float = Field(description="send a heartbeat every so many seconds")


class Outcome(BaseModel):
    """The results of an evaluation."""

    objective: float
    statistics: dict[str, Any] = {}


class Released(BaseModel):
    """What becomes of a trial that was not completed."""

    status: Literal["interrupted", "broken"] = Field(
        "interrupted", description="`interrupted`: another worker gets it; `broken`: none does"
    )


class State(BaseModel):
    """The status of a trial after a request."""

    status: str


class Problem(BaseModel):
    """Why a request failed, and the status of the trial if that is why."""

    error: str
    status: str | None = None


async def storage_of(request: Request) -> Storage:
    """Return the storage that the application has open."""
    storage: Storage = request.app.state.storage
    return storage


async def known_worker(
    request: Request,
    sent: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> None:
    """Refuse a caller without the token."""
    token: str = request.app.state.token
    if sent is None or not secrets.compare_digest(sent.credentials.encode(), token.encode()):
        raise HTTPException(401, "a worker's token is needed", {"WWW-Authenticate": "Bearer"})


Store = Annotated[Storage, Depends(storage_of)]


async def held_trial(reservation: Annotated[str, Header()], storage: Store) -> Trial:
    """Return the trial of the reservation in the header; this is a heartbeat."""
    return await storage.resume_reservation(reservation)


Held = Annotated[Trial, Depends(held_trial)]


LOST: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "this is not a reservation"},
    409: {"model": Problem, "description": "the reservation is lost; stop the evaluation"},
    410: {"model": Problem, "description": "the trial is finished; `status` tells how"},
}

router = APIRouter(dependencies=[Depends(known_worker)])


@router.post(
    "/experiments/{name}/reservations",
    status_code=201,
    response_model=Reserved,
    responses={204: {"description": "there is nothing to do"}},
)
async def reserve(
    name: str,
    request: Request,
    storage: Store,
    version: int = 1,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT)] = 0.0,
) -> Reserved | Response:
    """Reserve a trial of an experiment, if there is one within `wait` seconds."""
    found = await storage.fetch_experiments({"name": name, "version": version})
    if not found:
        raise HTTPException(404, f"there is no experiment {name!r} of version {version}")
    trial = await storage.reserve_trial(found[0], wait=wait)
    if trial is None or trial.reservation is None:
        return Response(status_code=204)
    if await request.is_disconnected():  # the answer would not be read
        await storage.set_trial_status(trial, "interrupted")
        return Response(status_code=204)
    return Reserved(
        trial=trial.id,
        params=trial.params,
        reservation=trial.reservation.to_text(),
        heartbeat=request.app.state.lost_after / 5,
    )


@router.post("/reservation/heartbeat", responses=LOST)
async def heartbeat(trial: Held) -> State:
    """Keep the trial; without heartbeats it is lost, and another worker gets it."""
    return State(status=trial.status)


@router.post("/reservation/complete", responses=LOST)
async def complete(outcome: Outcome, trial: Held, storage: Store) -> State:
    """Store the results, and end the reservation."""
    await storage.complete_trial(trial, {**outcome.statistics, "objective": outcome.objective})
    return State(status=trial.status)


@router.post("/reservation/release", responses=LOST)
async def release(released: Released, trial: Held, storage: Store) -> State:
    """Hand the trial back without results, and end the reservation."""
    await storage.set_trial_status(trial, released.status)
    return State(status=trial.status)


def answer_to(code: int) -> Any:
    """Return what makes an answer with this code of an error of the storage."""

    async def answer(_request: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, FailedUpdate) else None
        problem = Problem(error=str(error), status=status)
        headers = {"Retry-After": "5"} if code == 503 else None
        return JSONResponse(problem.model_dump(), code, headers)

    return answer


ANSWERS: Final[dict[type[Exception], int]] = {
    InvalidReservation: 400,
    TrialLost: 409,
    FailedUpdate: 410,  # `TrialLost` is one, but has an answer of its own
    EncodingError: 422,
    InvalidResult: 422,
    TemporaryBackendError: 503,
}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have the storage open while the application runs."""
    state = app.state
    state.token = os.environ["WORKER_TOKEN"]
    state.lost_after = float(os.environ.get("LOST_AFTER", "120"))
    url = os.environ["AIOSTORAGE_URL"]
    async with open_storage(url, lost_after=state.lost_after) as state.storage:
        yield


def create_app() -> FastAPI:
    """Make the application; it opens the storage when it starts."""
    app = FastAPI(title="Reservations", lifespan=lifespan)
    app.include_router(router)
    for error, code in ANSWERS.items():
        app.add_exception_handler(error, answer_to(code))
    return app
