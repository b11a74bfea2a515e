"""Kinds of values that arguments may be, and the error for a value of another kind.

Whatever a caller can pass wrongly is refused by a `Kind`, so that every such error says which call
and which argument it was, what that argument is, and what was passed instead.
"""

from __future__ import annotations

import inspect
import math
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from numbers import Integral, Real
from typing import Any, Final

from aiostorage._core.normalise import type_name
from aiostorage.errors import AioStorageError, ConfigurationError, InvalidArgument

__all__ = [
    "ANYTHING",
    "COUNT",
    "FLAG",
    "FUNCTION",
    "INTERVAL",
    "ITEMS",
    "KEY",
    "LIMIT",
    "MAPPING",
    "MAX_COUNT",
    "MUTABLE_MAPPING",
    "PATH",
    "SECONDS",
    "TEXT",
    "TIME",
    "URL",
    "WAIT",
    "WHOLE",
    "Kind",
    "check_values",
    "choice",
    "having",
    "is_key",
    "option",
    "optional",
    "shown",
]

NoneType: Final = type(None)

_MAX_INT: Final = 2**63

MAX_COUNT: Final = _MAX_INT - 1
"""How many of something can be asked for."""

_reprs: Final = reprlib.Repr()
_reprs.maxstring = _reprs.maxother = 60


def _no_hint(_method: str, _value: Any) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Kind:
    """What an argument may be.

    Parameters
    ----------
    wants
        What it is, for messages: "a str".
    accepts
        Returns whether a value is of this kind.
    classes
        Classes whose instances are of this kind, whatever their value.
    error
        The class of the error.
    hint
        Returns what else to say of a wrong value, from the name of the call and the value.
    secret
        Whether a value may contain a password, so that messages show its class alone.
    """

    wants: str
    accepts: Callable[[Any], bool]
    classes: frozenset[type] = frozenset()
    error: type[AioStorageError] = InvalidArgument
    hint: Callable[[str, Any], str] = field(default=_no_hint)
    secret: bool = False

    def refusal(self, call: str, argument: str, value: Any) -> AioStorageError:
        """Return the error for a value that is not of this kind."""
        hint = self.hint(call, value)
        if not hint and inspect.isawaitable(value):
            hint = "; await it first"
        found = f"a {type_name(value)}" if self.secret else shown(value)
        message = f"{call}: {argument} is {self.wants}, not {found}{hint}"
        if issubclass(self.error, InvalidArgument):
            return self.error(message, call=call, argument=argument)
        return self.error(message)

    def check(self, call: str, argument: str, value: Any) -> None:
        """Raise the error for a value that is not of this kind."""
        if not self.accepts(value):
            raise self.refusal(call, argument, value)


def check_values(call: str, kinds: Mapping[str, Kind], values: Mapping[str, Any]) -> None:
    """Check values by their names; those without a kind may be anything."""
    for name, value in values.items():
        kind = kinds.get(name)
        if kind is not None:
            kind.check(call, name, value)


def optional(kind: Kind) -> Kind:
    """Return the kind that None is of, too."""
    return replace(
        kind,
        wants=f"{kind.wants}, or None",
        accepts=lambda value: value is None or kind.accepts(value),
        classes=kind.classes | {NoneType} if kind.classes else kind.classes,
    )


def option(kind: Kind) -> Kind:
    """Return the kind of an option: what is of another kind is an error of the configuration."""
    return replace(kind, error=ConfigurationError)


def having(wants: str, *attributes: str) -> Kind:
    """Return the kind of objects that have these attributes and are not classes."""
    return Kind(
        wants,
        lambda value: not isinstance(value, type) and all(hasattr(value, a) for a in attributes),
    )


def choice(*values: object) -> Kind:
    """Return the kind of these values alone."""
    listed = [repr(value) for value in values]
    wants = " or ".join(listed) if len(listed) < 3 else f"one of {', '.join(listed)}"
    return Kind(wants, lambda value: _is_hashable(value) and value in values)


def shown(value: Any) -> str:
    """Return a value for a message: in one line, and not long."""
    try:
        text = _reprs.repr(value)
    except Exception:  # noqa: BLE001  an int of many digits, or any `__repr__` of the caller's
        text = f"<{type_name(value)}>"
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:100]}…{text[-15:]}"


def is_key(value: Any) -> bool:
    """Return whether a value can be the ``_id`` of a record: a str, or an int of 64 bits."""
    if isinstance(value, str):
        return value.isascii() or _is_encodable(value)
    return _is_whole(value)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


# To ask whether something is of an abstract class takes a microsecond: first the usual ones.


def _is_whole(value: Any) -> bool:
    if value.__class__ is int:
        return bool(-_MAX_INT <= value < _MAX_INT)
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and -_MAX_INT <= int(value) < _MAX_INT


def _is_number(value: Any) -> bool:
    if value.__class__ is float:
        return not math.isnan(value)
    if value.__class__ is int:
        return bool(-_MAX_INT <= value < _MAX_INT)
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return not math.isnan(float(value))
    except (OverflowError, TypeError, ValueError):
        return False


def _is_flag(value: Any) -> bool:
    if value.__class__ is bool:
        return True
    if isinstance(value, Integral):
        return value in (0, 1)
    # a bool of numpy's, without importing it
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    return kind == "b" and getattr(value, "ndim", None) == 0


def _is_path(value: Any) -> bool:
    if not isinstance(value, str | os.PathLike):
        return False
    return isinstance(os.fspath(value), str)


def _is_items(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


ANYTHING: Final = Kind("anything", lambda _value: True)
"""What is checked where its content is: states, results."""


def _about_url(call: str, value: Any) -> str:
    is_path = call == "open_storage" and isinstance(value, os.PathLike)
    return "; of a path, write f'sqlite:///{path}'" if is_path else ""


TEXT: Final = Kind(
    "a str", lambda value: isinstance(value, str) and (value.isascii() or _is_encodable(value))
)
URL: Final = replace(TEXT, error=ConfigurationError, secret=True, hint=_about_url)
FUNCTION: Final = Kind("a function", callable)
KEY: Final = Kind("a str or an int of 64 bits", is_key)
WHOLE: Final = Kind("an int of 64 bits", _is_whole)
COUNT: Final = Kind("an int of 64 bits, at least 1", lambda value: _is_whole(value) and value >= 1)
LIMIT: Final = Kind(
    "an int, at least 0",
    lambda v: not isinstance(v, bool) and isinstance(v, Integral) and int(v) >= 0,
)
SECONDS: Final = Kind("a number of seconds", _is_number)
WAIT: Final = Kind("a number of seconds, at least 0", lambda v: _is_number(v) and v >= 0)
INTERVAL: Final = Kind("a positive number of seconds", lambda v: _is_number(v) and v > 0)
FLAG: Final = Kind("a bool", _is_flag, frozenset({bool}))
TIME: Final = Kind("a datetime", lambda v: isinstance(v, datetime), frozenset({datetime}))
MAPPING: Final = Kind(
    "a mapping", lambda v: v.__class__ is dict or isinstance(v, Mapping), frozenset({dict})
)
MUTABLE_MAPPING: Final = Kind(
    "a dict", lambda value: isinstance(value, MutableMapping), frozenset({dict})
)
ITEMS: Final = Kind("a list", _is_items)
PATH: Final = Kind("the path of a file (a str or a Path)", _is_path)
