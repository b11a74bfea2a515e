"""A reservation that goes on in another call, process or machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiostorage._core.documents import equal
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage._core.layout import TRIALS
from aiostorage._core.record_reader import TrialReader
from aiostorage._core.reservations import RESERVED, Reservations
from aiostorage.errors import InvalidReservation
from aiostorage.operations import Find
from aiostorage.reservation import Reservation
from aiostorage.trial import Trial

__all__ = ["resume"]


@dataclass(frozen=True, slots=True)
class _ResumedTrial:
    """The trial of a reservation that is resumed; it satisfies `aiostorage._core.turn.Held`."""

    experiment: Any
    id: str
    worker: str


async def resume(
    gateway: Gateway, reservations: Reservations, reservation: Reservation | str
) -> Trial:
    """Return the reserved trial; the contract is `AsyncStorageProtocol.resume_reservation`."""
    if isinstance(reservation, str):
        reservation = Reservation.from_text(reservation)
    elif not isinstance(reservation, Reservation):
        raise InvalidReservation(
            f"a reservation is a Reservation or its text, not of type {type(reservation).__name__}"
        )
    held = _ResumedTrial(reservation.experiment, reservation.trial, reservation.token)
    where = equal(experiment=held.experiment, id=held.id, status=RESERVED, worker=held.worker)
    while True:
        await reservations.beat(held)  # raises if it is lost or finished
        # it may be lost between the two; then the next heartbeat finds that out
        if found := await gateway.execute(Find(TRIALS, where, limit=1)):
            return TrialReader(gateway).read(found[0])
