"""Reservations as values, and what a message shows of their tokens."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any

import pytest

from aiostorage import InvalidReservation, LockedAlgorithmState, Reservation, Trial
from aiostorage._core.holders import named_holder
from aiostorage._core.ids import new_token

TOKEN = "node-3:4711:0123456789abcdef"


def text_of(fields: Any) -> str:
    return "r1." + base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


@pytest.mark.parametrize("experiment", ["6b0b4861", 7, -(2**63), "Oríon/é 😀"])
def test_every_form_comes_back(experiment: str | int) -> None:
    made = Reservation(experiment, "a" * 32, TOKEN)
    text = json.loads(json.dumps(made.to_text()))
    assert Reservation.from_text(text) == made == pickle.loads(pickle.dumps(made))
    assert hash(Reservation.from_text(text)) == hash(made)
    assert text.isascii()
    assert text.replace(".", "").replace("-", "").replace("_", "").isalnum()


def test_a_part_of_a_text_is_none() -> None:
    text = Reservation("e", "a" * 32, TOKEN).to_text()
    for end in range(len(text)):
        with pytest.raises(InvalidReservation):
            Reservation.from_text(text[:end])


OTHER_FIELDS: list[Any] = [
    ["e", "\x1b[2J" + "a" * 32, TOKEN],
    ["e", "a" * 32, "\0"],
    *({}, [], "abc", 5, None, ["e", "t"], ["e", "t", "w", 1]),
    *(["", "t", "w"], ["e", "", "w"], ["e", "t", ""]),
    *([None, "t", "w"], [True, "t", "w"], [1.5, "t", "w"], [2**63, "t", "w"]),
    *(["e", 5, "w"], ["e", "t", None], ["\ud800", "t", "w"], ["e", ["t"], "w"]),
]
OTHER_TEXTS: list[Any] = [
    *("", "r1.", "r1", "r2.W10", "r1.W10", "r1.é", "r1.!!!!", "r1.////", " r1.W10"),
    *("r1." + "W" * 9999, "r1." + base64.urlsafe_b64encode(b"[" * 3000).decode()),
    *(None, 5, b"r1.W10", ["r1.W10"]),
]


@pytest.mark.parametrize("text", [*OTHER_TEXTS, *map(text_of, OTHER_FIELDS)])
def test_what_is_no_text_of_a_reservation(text: Any) -> None:
    with pytest.raises(InvalidReservation) as raised:
        Reservation.from_text(text)
    assert isinstance(raised.value, ValueError)
    assert raised.value.__cause__ is None  # it would show the text


def test_a_trial_has_one_while_it_is_reserved() -> None:
    trial = Trial(experiment="e", params={"x": 1}, status="reserved", worker=TOKEN)
    assert trial.reservation == Reservation("e", trial.id, TOKEN)
    trial.status = "completed"
    assert trial.reservation is None
    for missing in ({"worker": TOKEN}, {"experiment": "e"}):
        assert Trial(params={"x": 1}, status="reserved", **missing).reservation is None


def test_nothing_shows_a_token() -> None:
    made = Reservation("e", "t", TOKEN)
    state = LockedAlgorithmState(None, {}, owner=TOKEN)
    for shown in (repr(made), str(made), f"{made}", repr(state), named_holder(TOKEN)):
        assert TOKEN not in shown
        assert "0123456789abcdef" not in shown
        assert "process 4711 on node-3 (fingerprint " in shown
        assert made.fingerprint in shown


def test_a_token_of_our_own_says_where_its_holder_runs() -> None:
    assert named_holder(new_token()).startswith("process ")
    for other in (
        "w1",
        "a:b:c",
        "evil\x1b[2J:1:0123456789abcdef",
        "h:1:0123456789abcdeg",
        "\ud800",
    ):
        assert named_holder(other).startswith("an unknown process (fingerprint ")
    assert named_holder(None) == "an unknown process"
