"""A reservation as a value: what a service keeps between two requests of a worker."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final, Self

from aiostorage._core.holders import fingerprint, named_holder
from aiostorage.errors import InvalidReservation

__all__ = ["Reservation"]

_PREFIX: Final = "r1."
"""The prefix of a text: the version of its form."""

_LONGEST: Final = 8192
"""Maximum number of characters of a text."""

_INTS: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True, repr=False)
class Reservation:
    """The reservation of one trial; `Trial.reservation` makes it.

    It can be pickled. `to_text` returns it as text for a URL, a header, JSON or a session, and
    `from_text` reads that. Whoever has the text or the token can write to the trial as its worker
    does. Neither is in ``repr()``.

    Parameters
    ----------
    experiment
        The id of the experiment.
    trial
        The ``id`` of the trial.
    token
        The token with which the worker of the trial writes, ``trial.worker``.

    Raises
    ------
    InvalidReservation
        One of the values is invalid.

    Examples
    --------
    >>> text = trial.reservation.to_text()
    >>> trial = await storage.resume_reservation(text)
    """

    experiment: str | int
    trial: str
    token: str

    def __post_init__(self) -> None:
        for name in ("trial", "token"):
            value = getattr(self, name)
            if not (_is_text(value) and value.isprintable()):  # messages show the trial as it is
                raise InvalidReservation(
                    f"the {name} of a reservation is printable text, not empty"
                )
        uid = self.experiment
        if not (_is_text(uid) or (isinstance(uid, int) and uid.__class__ is int and uid in _INTS)):
            raise InvalidReservation(
                "the experiment of a reservation is its id, a text or a 64-bit int"
            )

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that name the reservation in messages, but do not allow to write."""
        return fingerprint(self.token)

    def to_text(self) -> str:
        """Return the reservation as a string of letters, digits, ``-``, ``_`` and ``.``."""
        named = [self.experiment, self.trial, self.token]
        fields = json.dumps(named, ensure_ascii=False, separators=(",", ":"))
        return _PREFIX + base64.urlsafe_b64encode(fields.encode()).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the reservation in a text from `to_text`.

        Raises
        ------
        InvalidReservation
            The text is not a reservation, or only part of one.
        """
        if not isinstance(text, str):
            raise InvalidReservation(
                f"the text of a reservation is a str, not of type {type(text).__name__}"
            )
        if len(text) > _LONGEST or not text.startswith(_PREFIX):
            raise InvalidReservation
        encoded = text.removeprefix(_PREFIX)
        try:
            raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
            fields: Any = json.loads(raw.decode())
        except (ValueError, binascii.Error, RecursionError):
            raise InvalidReservation from None  # the cause would show what the text has
        if not isinstance(fields, list) or len(fields) != 3:
            raise InvalidReservation
        return cls(*fields)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of trial {self.trial} of experiment {self.experiment!r} by "
            f"{named_holder(self.token)}>"
        )


def _is_text(value: object) -> bool:
    """Return whether this is a text that a store can have."""
    if not isinstance(value, str) or not value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
