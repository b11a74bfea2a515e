"""The contract of a storage on its arguments, as tests: subclass `ApiContract`."""

from __future__ import annotations

from aiostorage.testing.contract.argument_laws import WrongArgumentLaws
from aiostorage.testing.contract.fixtures import StorageFixtures
from aiostorage.testing.contract.readable_laws import ReadableLaws
from aiostorage.testing.contract.refusal_laws import ConversionLaws, RefusalLaws, RefusedQueryLaws
from aiostorage.testing.contract.signature_laws import ArgumentLaws, SignatureLaws
from aiostorage.testing.contract.trial_query_laws import RefusedTrialQueryLaws

__all__ = ["ApiContract"]


class ApiContract(
    SignatureLaws,
    ArgumentLaws,
    WrongArgumentLaws,
    ConversionLaws,
    RefusalLaws,
    RefusedQueryLaws,
    RefusedTrialQueryLaws,
    ReadableLaws,
    StorageFixtures,
):
    """The laws of `aiostorage.protocols.AsyncStorageProtocol` that depend on no engine.

    Names and order of arguments, values that are converted or refused, queries that mean nothing:
    `aiostorage.Storage` handles them before it calls a driver. An author of an engine does not need
    this contract; the author of another storage, or of one around it, does. It is used like
    `StorageContract`, and has the same attributes.

    Examples
    --------
    >>> class TestMyWrapper(ApiContract):
    ...     async def open_storage(self, tmp_path, **settings):
    ...         storage = MyWrapper(Storage(MemoryDriver(), **settings))
    ...         await storage.open()
    ...         return storage
    """
