"""The examination of a whole store, by its engine and of its records; and its repair."""

from __future__ import annotations

import platform
import shlex
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import quote

import anyio.to_thread

import aiostorage
from aiostorage._core.delivery.noting import NotingDriver
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage._core.driver_options import hide_credentials
from aiostorage._core.kinds import FLAG, check_values, option
from aiostorage._core.layout import LAYOUT
from aiostorage._core.lost_trials import LostTrials
from aiostorage._core.named_store import NamedStore, named_by, named_store
from aiostorage._core.state import MsgpackCodec
from aiostorage._core.storage import Storage
from aiostorage.doctor.history_checks import history_findings
from aiostorage.doctor.lock_checks import lock_findings
from aiostorage.doctor.record_repairs import RECORD_REPAIRS, repair_records
from aiostorage.doctor.stored_records import StoredRecords, experiments_of
from aiostorage.doctor.trial_checks import ORPHAN_TRIAL, trial_findings
from aiostorage.doctor.upkeep_checks import upkeep_findings
from aiostorage.errors import AioStorageError, ConfigurationError, TemporaryBackendError
from aiostorage.factory import storage_of
from aiostorage.findings import EngineReport, Examination, Finding, Repair
from aiostorage.protocols import Driver, ExaminableDriver

__all__ = ["examine", "repair"]

MAX_ROUNDS: Final = 3
"""How many times to repair, since a repair may bring further findings to light."""

_RANKS: Final = ("error", "warning", "note")
_REPAIR: Final = {"delete_orphans": option(FLAG)}


@dataclass(frozen=True, slots=True)
class _ExaminedStore:
    """The store to examine.

    Attributes
    ----------
    storage
        A storage on it. The caller's is open, or may be opened; any other is not open.
    make
        Makes a storage for the repair; None if the caller's storage is used.
    url
        The URL of the store in commands; None if commands need none.
    """

    storage: Storage
    make: Callable[[], Storage] | None
    url: str | None

    @property
    def driver(self) -> Driver:
        driver = self.storage._gateway.driver  # noqa: SLF001  as an adapter of this package
        return driver.driver if isinstance(driver, NotingDriver) else driver


async def examine(
    storage: Storage | str | Mapping[str, Any] | None = None, **settings: Any
) -> Examination:
    """Return what is wrong with a store; change nothing, and create no file.

    Other processes may use the store meanwhile. All trials and their history are read once.

    Parameters
    ----------
    storage
        A storage, open or not; or what `aiostorage.setup_storage` takes: a URL, a mapping, or None
        for the store that is configured.
    settings
        Options and settings for a URL, such as ``lost_after``.

    Returns
    -------
    Examination
        The findings, the most severe first, and facts such as versions.

    Raises
    ------
    ConfigurationError
        There is no such store, or the URL is that of a storage in memory.
    BackendError
        It cannot be reached.

    Examples
    --------
    >>> found = await examine("sqlite:///tune.db")
    >>> found.healthy
    True
    """
    return await _examined(await _store_to_examine(storage, settings))


async def repair(
    storage: Storage | str | Mapping[str, Any] | None = None,
    *,
    delete_orphans: bool = False,
    **settings: Any,
) -> Examination:
    """Repair a store where no guess is needed; leave everything else alone.

    Parameters
    ----------
    storage, settings
        As for `examine`.
    delete_orphans
        Whether to delete the trials of experiments that do not exist.

    Returns
    -------
    Examination
        The repairs, and the findings that are left.

    Raises
    ------
    ConfigurationError, BackendError
        As for `examine`.
    """
    check_values("repair", _REPAIR, {"delete_orphans": delete_orphans})
    store = await _store_to_examine(storage, settings)
    more = {ORPHAN_TRIAL} if delete_orphans else set()
    done: list[Repair] = []
    found = await _examined(store)
    for _ in range(MAX_ROUNDS):
        todo = [one for one in found.findings if one.repairable or one.code in more]
        fresh = await _repaired(store, todo) if todo else []
        if not fresh:
            break
        done += fresh
        found = await _examined(store)
    return replace(found, repairs=tuple(done))


async def _store_to_examine(
    given: Storage | str | Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> _ExaminedStore:
    if isinstance(given, Storage):
        if settings:
            raise ConfigurationError("a storage has its settings; pass a URL to choose others")
        return _ExaminedStore(given, None, _url_of(given))
    named = await anyio.to_thread.run_sync(named_store, given)
    lasting = NamedStore(named.options, named.origin)  # of which no directory is made
    make = partial(storage_of, lasting.without_tracker(), **settings)
    storage = await anyio.to_thread.run_sync(make)
    if named.engine == "memory":
        error = ConfigurationError("a storage in memory ends with its process: nothing to examine")
        raise named_by(error, named.origin)
    url = named.options.get("url")
    if named.origin is not None:
        return _ExaminedStore(storage, partial(storage_of, lasting, **settings), None)
    shown = hide_credentials(str(url)) if url is not None else _url_of(storage)
    return _ExaminedStore(storage, partial(storage_of, lasting, **settings), shown)


def _url_of(storage: Storage) -> str:
    location, name = storage.location, storage._gateway.driver.name  # noqa: SLF001  as above
    return location if "://" in location else f"{name}:///{quote(location)}"


# ------------------------------------------------------------------------------- examination


async def _examined(store: _ExaminedStore) -> Examination:
    driver = store.driver
    report = EngineReport()
    if isinstance(driver, ExaminableDriver):
        try:
            report = await driver.examine(LAYOUT)
        except AioStorageError as error:
            raise named_by(error, store.storage._gateway.origin)  # noqa: B904, SLF001  the same error
    findings = list(report.findings)
    facts: dict[str, str | int | float | None] = {
        "aiostorage": aiostorage.__version__,
        "python": platform.python_version(),
        **report.facts,
    }
    if report.readable:
        async with _readable(store) as gateway:
            findings += await _of_records(store, gateway, facts)
    findings.sort(key=lambda one: _RANKS.index(one.severity))
    addressed = tuple(_addressed(one, store.url) for one in findings)
    return Examination(store.storage.location, driver.name, facts, addressed)


@asynccontextmanager
async def _readable(store: _ExaminedStore) -> AsyncIterator[Gateway]:
    """Yield a gateway to the records, with a driver that only reads if the engine has one."""
    gateway, driver = store.storage._gateway, store.driver  # noqa: SLF001  as above
    if isinstance(driver, ExaminableDriver):
        gateway = Gateway(driver.reader(), gateway.policy, gateway.origin)
    elif store.make is None:
        await gateway.open()
        yield gateway
        return
    try:
        await gateway.open()
        yield gateway
    finally:
        await gateway.aclose()


async def _of_records(
    store: _ExaminedStore, gateway: Gateway, facts: dict[str, str | int | float | None]
) -> list[Finding]:
    """Return the findings about the records; a failure to read them is a finding, too."""
    try:
        records = await _records(store, gateway)
        findings, trials = await trial_findings(records)
        facts |= {"experiments": len(records.labels), "trials": trials}
        findings += records.unreadable
        findings += await lock_findings(records)
        findings += await upkeep_findings(gateway)
        findings += await history_findings(gateway)
    except (TemporaryBackendError, ConfigurationError):
        raise
    except AioStorageError as error:
        what = f"the records cannot be read: {error}"
        location, command = gateway.driver.location, "aiostorage doctor{url} --debug"
        return [Finding("unreadable-records", "error", what, location, command)]
    return findings


async def _records(store: _ExaminedStore, gateway: Gateway) -> StoredRecords:
    storage = store.storage
    codec = MsgpackCodec(storage._max_inflated)  # noqa: SLF001  as above
    return await experiments_of(gateway, LostTrials(storage._lost_after), codec)  # noqa: SLF001


def _addressed(finding: Finding, url: str | None) -> Finding:
    """Return a finding whose command names the store."""
    shown = "" if url is None else shlex.quote(url)
    places: dict[Literal["url", "storage", "from"], str] = {
        "url": shown and f" {shown}",
        "storage": shown and f" --storage {shown}",
        "from": f" {shown or 'SOURCE'}",
    }
    command = finding.command
    for name, text in places.items():
        command = command.replace(f"{{{name}}}", text)
    return replace(finding, command=command)


# ------------------------------------------------------------------------------------ repair


async def _repaired(store: _ExaminedStore, findings: list[Finding]) -> list[Repair]:
    driver = store.driver
    done: list[Repair] = []
    codes = {one.code for one in findings}
    if isinstance(driver, ExaminableDriver) and codes - RECORD_REPAIRS.keys():
        done += await driver.repair(LAYOUT, findings)
    codes &= RECORD_REPAIRS.keys()
    if codes:
        async with _writable(store) as storage:
            records = await _records(store, storage._gateway)  # noqa: SLF001  as above
            done += await repair_records(storage, records, codes)
    return done


@asynccontextmanager
async def _writable(store: _ExaminedStore) -> AsyncIterator[Storage]:
    if store.make is None:
        await store.storage.open()
        yield store.storage
        return
    storage = await anyio.to_thread.run_sync(store.make)
    async with storage:
        yield storage
