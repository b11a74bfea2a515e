"""The contract on reservations that another call, process or machine goes on with."""

from __future__ import annotations

import pickle

import pytest

from aiostorage.errors import FailedUpdate, TrialLost
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.reservation import Reservation
from aiostorage.testing.contract.helpers import lose, reserved, stored

__all__ = ["ResumptionLaws"]


class ResumptionLaws:
    """Law 8: a reservation is a value, and fenced wherever it goes on."""

    async def test_a_reservation_goes_on_elsewhere(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        trial = await reserved(storage, "carried")
        reservation = trial.reservation
        assert reservation is not None
        copied: Reservation = pickle.loads(pickle.dumps(reservation))  # noqa: S301  our own
        for form in (reservation, reservation.to_text(), copied):
            again = await other.resume_reservation(form)
            assert again.to_dict() == (await stored(other, trial)).to_dict()
            assert again.reservation == reservation
            assert again.heartbeat is not None
            assert trial.heartbeat is not None
            assert again.heartbeat >= trial.heartbeat
        await storage.update_heartbeat(trial)  # the first copy is as good as before
        await other.complete_trial(again, 1.0)
        assert again.reservation is None
        with pytest.raises(FailedUpdate) as raised:
            await storage.resume_reservation(reservation)
        assert not isinstance(raised.value, TrialLost)
        assert raised.value.status == "completed"

    async def test_a_lost_reservation_is_not_resumed(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        trial = await reserved(storage, "lost")
        reservation, experiment = trial.reservation, {"_id": trial.experiment}
        assert reservation is not None
        await lose(storage, trial)
        again = await storage.resume_reservation(reservation)  # no other worker has it: alive again
        assert await storage.fetch_lost_trials(experiment) == []
        await lose(storage, again)
        await other.recover_lost_trials(experiment)
        with pytest.raises(TrialLost) as raised:
            await storage.resume_reservation(reservation)
        assert raised.value.status == "interrupted"
        successor = await other.reserve_trial(experiment)
        assert successor is not None
        with pytest.raises(TrialLost) as raised:
            await storage.resume_reservation(reservation)
        assert raised.value.holder == successor.worker
        assert str(successor.worker) not in str(raised.value)
        assert str(trial.worker) not in str(raised.value)
        await other.delete_trials(experiment)
        with pytest.raises(TrialLost) as raised:
            await storage.resume_reservation(reservation)
        assert raised.value.status is None

    async def test_a_forged_reservation(self, storage: AsyncStorageProtocol) -> None:
        trial = await reserved(storage, "forged")
        assert trial.experiment is not None
        before = (await stored(storage, trial)).to_dict()
        forged = Reservation(trial.experiment, trial.id, "worker-1")
        with pytest.raises(TrialLost):
            await storage.resume_reservation(forged)
        assert (await stored(storage, trial)).to_dict() == before
