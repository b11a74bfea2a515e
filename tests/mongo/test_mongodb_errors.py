"""Errors of PyMongo become ours: one clear message each, and never a password in it."""

from __future__ import annotations

import inspect
import logging
import socketserver
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from urllib.parse import quote

import anyio
import bson
import bson.errors
import gridfs.errors
import pytest
from bson import ObjectId
from pymongo import errors as pymongo

from aiostorage import (
    AioStorageError,
    BackendError,
    ConfigurationError,
    DuplicateKeyError,
    EncodingError,
    OperationTimeout,
    PermissionDenied,
    StorageClosedError,
    TemporaryBackendError,
    Trial,
    UnsupportedQuery,
    open_storage,
)
from aiostorage.drivers.mongodb.server_errors import MAPPED, translated
from aiostorage.testing import Mongod

ROOT = ("root", "S3cret:/@")
READER = ("reader", "Qu1et?#%")
SECRETS = (ROOT[1], READER[1], "S3cret", "Qu1et")
SOON = "serverSelectionTimeoutMS=400&connectTimeoutMS=400"


# -------------------------------------------------------------------------------- the mapping


@pytest.mark.parametrize("module", [pymongo, bson.errors, gridfs.errors], ids=lambda m: m.__name__)
def test_every_exception_class_is_mapped(module: ModuleType) -> None:
    classes = {
        value
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Exception)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }
    assert len(classes) >= 3
    assert classes - MAPPED.keys() == set()


def of_code(code: int, **details: Any) -> pymongo.OperationFailure:
    return pymongo.OperationFailure("no", code, {"code": code, **details})


def labelled(label: str, error: pymongo.PyMongoError) -> pymongo.PyMongoError:
    error._add_error_label(label)
    return error


AMBIGUOUS: list[Exception] = [
    pymongo.AutoReconnect("connection closed"),
    pymongo.ConnectionFailure("gone"),
    pymongo.NetworkTimeout("timed out"),
    pymongo.NotPrimaryError("not primary", {"code": 10107}),
    pymongo.ExecutionTimeout("operation exceeded time limit", 50),
    pymongo.WriteConcernError("stepping down", 91),
    pymongo.WTimeoutError("waiting for replication timed out", 64),
    *map(of_code, (50, 91, 189, 262, 10107, 11600, 11602, 13435)),
    pymongo.BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}),
    labelled("UnknownTransactionCommitResult", of_code(64)),
    labelled("UnknownTransactionCommitResult", pymongo.AutoReconnect("gone")),
]
"""What may have happened all the same."""

NOT_DONE: list[Exception] = [
    pymongo.ServerSelectionTimeoutError("no servers"),
    pymongo.WaitQueueTimeoutError("no connection was free"),
    pymongo.CursorNotFound("gone", 43),
    labelled("TransientTransactionError", of_code(112)),
    labelled("TransientTransactionError", of_code(251)),
]
"""What may be tried again without a look."""

FOR_GOOD: list[tuple[Exception, type[AioStorageError]]] = [
    (of_code(13), PermissionDenied),
    (of_code(18), PermissionDenied),
    (of_code(8000), PermissionDenied),
    (of_code(28), UnsupportedQuery),
    (of_code(10334), EncodingError),
    (of_code(17419), EncodingError),
    (of_code(2), BackendError),
    (pymongo.DuplicateKeyError("E11000", 11000, {}), DuplicateKeyError),
    (pymongo.BulkWriteError({"writeErrors": [{"code": 11000}]}), DuplicateKeyError),
    (pymongo.BulkWriteError({"writeErrors": [{"code": 13}]}), PermissionDenied),
    (pymongo.DocumentTooLarge("17 MiB"), EncodingError),
    (bson.errors.InvalidDocument("cannot encode"), EncodingError),
    (bson.errors.InvalidStringData("surrogates"), EncodingError),
    (bson.errors.InvalidBSON("garbage"), BackendError),
    (pymongo.InvalidOperation("Cannot use MongoClient after close"), StorageClosedError),
    (pymongo.InvalidOperation("Cannot use the cursor like that"), BackendError),
    (pymongo.ConfigurationError("bad option"), ConfigurationError),
    (pymongo.InvalidURI("bad URI"), ConfigurationError),
    (pymongo.EncryptionError(Exception("no key")), BackendError),
]


def become(error: Exception, *, writing: bool = True) -> AioStorageError:
    with pytest.raises(AioStorageError) as caught:
        with translated("mongodb://h/db", writing=writing):
            raise error
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize("error", AMBIGUOUS, ids=repr)
def test_what_may_have_happened(error: Exception) -> None:
    ours = become(error)
    assert isinstance(ours, TemporaryBackendError)
    assert ours.ambiguous
    timed_out = isinstance(error, pymongo.NetworkTimeout | pymongo.ExecutionTimeout)
    assert isinstance(ours, OperationTimeout) >= timed_out
    reading = become(error, writing=False)
    assert isinstance(reading, TemporaryBackendError)


@pytest.mark.parametrize("error", NOT_DONE, ids=repr)
def test_what_has_not_happened(error: Exception) -> None:
    ours = become(error)
    assert isinstance(ours, TemporaryBackendError)
    assert not ours.ambiguous


@pytest.mark.parametrize(("error", "expected"), FOR_GOOD, ids=repr)
def test_what_fails_for_good(error: Exception, expected: type[AioStorageError]) -> None:
    ours = become(error)
    assert type(ours) is expected


def test_a_class_of_the_future_goes_by_the_one_above_it() -> None:
    class Newer(pymongo.NotPrimaryError): ...

    assert isinstance(become(Newer("not primary", {})), TemporaryBackendError)


def test_what_is_not_pymongos_is_left_alone() -> None:
    with pytest.raises(ZeroDivisionError), translated("h", writing=True):
        raise ZeroDivisionError


def test_a_duplicate_key_says_which() -> None:
    uid = ObjectId()
    found = become(
        pymongo.DuplicateKeyError(
            "E11000 duplicate key error collection: db.trials index: x",
            11000,
            {"keyPattern": {"experiment": 1, "id": 1}, "keyValue": {"experiment": uid, "id": "t"}},
        )
    )
    assert isinstance(found, DuplicateKeyError)
    assert (found.collection, found.fields) == ("trials", ("experiment", "id"))
    assert found.values == (str(uid), "t")


def test_messages_are_brief() -> None:
    text = str(
        become(
            pymongo.ServerSelectionTimeoutError(
                "h:1: refused (configured timeouts: a: 1ms),i:1: refused (configured timeouts: "
                "a: 1ms), Timeout: 1s, Topology Description: <TopologyDescription ...>"
            )
        )
    )
    assert text == "mongodb://h/db: h:1: refused,i:1: refused"


# ------------------------------------------------------------------- servers that refuse


@dataclass
class Guarded:
    """A server with a login, a user who may only read, and a database that is prepared."""

    server: Mongod

    def url(self, user: tuple[str, str] | None, database: str, options: str = SOON) -> str:
        login = "" if user is None else f"{quote(user[0], safe='')}:{quote(user[1], safe='')}@"
        return f"mongodb://{login}{self.server.address}/{database}?authSource=admin&{options}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with Mongod(tmp_path_factory.mktemp("guarded"), login=ROOT) as server:
        with server.client() as client:
            roles = [{"role": "read", "db": name} for name in ("prepared", "empty")]
            client.admin.command("createUser", READER[0], pwd=READER[1], roles=roles)
        yield Guarded(server)


async def refused(url: str, within: float = 5.0, **options: Any) -> AioStorageError:
    """Return the error of opening a storage; it comes once, in time."""
    with anyio.fail_after(within), pytest.raises(AioStorageError) as caught:
        async with open_storage(url, **options):
            pass
    return caught.value


@pytest.fixture(autouse=True)
def no_secret(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that no log, ours or PyMongo's, has a password."""
    caplog.set_level(logging.DEBUG)
    yield
    for secret in SECRETS:
        assert secret not in caplog.text


def check_no_secret(error: BaseException) -> None:
    shown = "".join((str(error), repr(error), *traceback.format_exception(error)))
    for secret in SECRETS:
        assert secret not in shown


@pytest.mark.anyio
async def test_wrong_password(guarded: Guarded, library: str) -> None:
    url = guarded.url((ROOT[0], "S3cret"), "prepared")
    error = await refused(url, client=library)
    assert type(error) is PermissionDenied
    assert str(error) == (
        f"mongodb://{guarded.server.address}/prepared does not let us in: wrong user name or "
        "password, or the wrong authSource"
    )
    check_no_secret(error)


@pytest.mark.anyio
async def test_wrong_password_as_an_option(guarded: Guarded, library: str) -> None:
    storage = open_storage(
        guarded.url(None, "prepared"), client=library, username=ROOT[0], password="S3cret"
    )
    with pytest.raises(PermissionDenied, match="wrong user name or password") as caught:
        await storage.fetch_experiments({})
    await storage.aclose()
    check_no_secret(caught.value)
    assert "S3cret" not in repr(storage)
    async with open_storage(
        guarded.url(None, "prepared"), client=library, username=ROOT[0], password=ROOT[1]
    ) as right:
        assert await right.fetch_experiments({}) == []


@pytest.mark.anyio
async def test_no_user(guarded: Guarded, library: str) -> None:
    error = await refused(guarded.url(None, "prepared"), client=library)
    assert type(error) is PermissionDenied
    assert "requires authentication; the user needs the role readWrite" in str(error)
    assert "without a user, put one into the URL" in str(error)


@pytest.mark.anyio
async def test_who_may_only_read(guarded: Guarded, library: str) -> None:
    reader = guarded.url(READER, "prepared")
    name = f"by {library}"
    async with open_storage(guarded.url(ROOT, "prepared"), client=library) as storage:
        experiment = await storage.create_experiment({"name": name})
        trial = await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
    async with open_storage(reader, client=library) as storage:
        (found,) = await storage.fetch_experiments({"name": name})
        assert await storage.fetch_trials(found) == [trial]
        assert await storage.get_algorithm_lock_info(found) is not None
        for call in (
            storage.create_experiment({"name": "another"}),
            storage.register_trial(Trial(experiment=experiment.id, params={"x": 2})),
            storage.reserve_trial(found),
            storage.acquire_algorithm_lock(found).__aenter__(),
        ):
            with pytest.raises(PermissionDenied, match="needs the role readWrite") as caught:
                await call
            check_no_secret(caught.value)
        assert await storage.fetch_trials(found) == [trial]
    error = await refused(guarded.url(READER, "empty"), client=library)
    assert type(error) is PermissionDenied
    assert "needs the role readWrite on this database" in str(error)
    check_no_secret(error)


@pytest.mark.anyio
async def test_nobody_there(library: str) -> None:
    error = await refused(f"mongodb://root:S3cret@127.0.0.1:1/db?{SOON}", client=library)
    assert type(error) is BackendError
    text = str(error)
    assert text.startswith("no MongoDB server answers at mongodb://127.0.0.1:1/db: ")
    assert text.endswith("; check host, port, replica set name and TLS, and that the server runs")
    assert "Topology" not in text
    check_no_secret(error)


@pytest.mark.anyio
async def test_one_that_hangs(guarded: Guarded, library: str) -> None:
    guarded.server.pause()
    try:
        error = await refused(guarded.url(ROOT, "prepared"), client=library)
    finally:
        guarded.server.resume()
    assert type(error) is BackendError
    assert "no MongoDB server answers" in str(error)
    check_no_secret(error)


@pytest.mark.anyio
async def test_wrong_replica_set(guarded: Guarded, library: str) -> None:
    url = guarded.url(ROOT, "prepared", f"{SOON}&replicaSet=another")
    error = await refused(url, client=library)
    assert type(error) is BackendError
    assert 'replica set name "another"' in str(error)
    check_no_secret(error)


# ------------------------------------------------------------------------- an old server


class _Old(socketserver.BaseRequestHandler):
    """Answers every command as a server of ten years ago answers ``hello``."""

    hello: ClassVar[dict[str, Any]] = {
        "ok": 1.0,
        "ismaster": True,
        "isWritablePrimary": True,
        "helloOk": True,
        "minWireVersion": 0,
        "maxWireVersion": 7,
        "maxBsonObjectSize": 2**24,
        "maxMessageSizeBytes": 48_000_000,
        "maxWriteBatchSize": 100_000,
        "readOnly": False,
    }

    def handle(self) -> None:
        while header := self._read(16):
            length, number, _, code = struct.unpack("<4i", header)
            self._read(length - 16)
            body = bson.encode(self.hello)
            if code == 2004:  # OP_QUERY
                code, body = 1, struct.pack("<iqii", 8, 0, 0, 1) + body
            else:  # OP_MSG
                body = struct.pack("<iB", 0, 0) + body
            self.request.sendall(struct.pack("<4i", 16 + len(body), 1, number, code) + body)

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            try:
                more = self.request.recv(length - len(data))
            except ConnectionError:
                return b""
            if not more:
                return b""
            data += more
        return data


@pytest.fixture
def old_server() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Old) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.anyio
async def test_a_server_that_is_too_old(old_server: str, library: str) -> None:
    error = await refused(f"mongodb://{old_server}/db?{SOON}", client=library)
    assert type(error) is BackendError
    assert f"mongodb://{old_server}/db" in str(error)
    assert "4.4" in str(error)


# --------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mongodb://", "reads mongodb://host:port/database"),
        ("mongodb://jo:S3cret@", "needs a host: mongodb://localhost/"),
        ("mongodb://jo:S3cret@/db", "needs a host: mongodb://localhost/db"),
        ("mongodb://jo:S3cret", "an @ stands between a password and the host"),
        ("mongodb://jo:S3cret/x@h/db", "%2F for a /"),
        ("mongodb://jo:S3cret?x@h/db", "%3F for a \\?"),
        ("mongodb://jo:a@S3cret?x@h/db", "%3F for a \\?"),
        ("mongodb://jo:S3cret@x@h/db", "must be escaped"),
        ("mongodb://jo:%S3cret@h/db", "must be escaped"),
        ("mongodb://:S3cret@h/db", "not valid username"),
        ("mongodb://jo:S3cret@h:123456/db", "Port must be an integer"),
        ("mongodb://jo:S3cret@h:a/db", "name:27017"),
        ("mongodb://jo:S3cret@[::1/db", "name:27017"),
        ("mongodb://jo:S3cret@h/a b", "'a b' cannot be the name of a database"),
        ("mongodb://jo:S3cret@h/db?colour=S3cret", "h/db: colour: Unknown option"),
        ("mongodb://jo:S3cret@h/db?lost_after=3", "lost_after, pass it as a keyword"),
        ("mongodb://jo:S3cret@h/db?tls=true&tlsInsecure=S3cret", "tlsInsecure: .*'true' or"),
        ("mongodb://jo:S3cret@h/db?tls=true&tlsCAFile=/no/such/file", "tlsCAFile: .*not readable"),
        ("mongodb://jo:S3cret@h/db?S3cret", r"\*\*\*: MongoDB URI options are key=value"),
        (
            "mongodb://jo:S3cret@h/db?authMechanismProperties=S3cret:x",
            r"authMechanismProperties: \*\*\* is not a supported",
        ),
        ("mongodb://jo:S3cret@h/db?readPreference=secondary", "remove readPreference"),
        ("mongodb+srv://jo:S3cret@h.x.y/db?readPreference=nearest", "remove readPreference"),
        ("mongodb+srv://jo:S3cret@h.x.y/db?colour=S3cret&srvMaxHosts=1", "Unknown option"),
        ("mongodb://jo:S3cret@h/db?w=0", "remove it"),
        ("mongodb://jo:S3cret@h/db?timeout=soon", "timeout is a number of seconds"),
        ("mongodb://jo:S3cret@h/db?client=other", "client is 'motor' or 'pymongo'"),
    ],
)
def test_urls_that_cannot_work(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_storage(url)
    check_no_secret(caught.value)


@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
def test_what_is_shown_of_a_url(scheme: str) -> None:
    storage = open_storage(f"{scheme}://jo%40x:S3cret%3F@h.x.y/db?tls=true&appName=a%40b")
    assert repr(storage) == f"<Storage mongodb at '{scheme}://h.x.y/db'>"


@pytest.fixture
def garbage(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    return path


@pytest.mark.anyio
async def test_a_certificate_that_is_none(garbage: Path, library: str) -> None:
    url = f"mongodb://root:S3cret@127.0.0.1:1/db?tls=true&tlsCAFile={garbage}&{SOON}"
    error = await refused(url, client=library)
    assert type(error) is ConfigurationError
    assert "certificate" in str(error)
    check_no_secret(error)


# ---------------------------------------------------------------------- missing libraries


@pytest.mark.anyio
async def test_motor_is_missing(monkeypatch: pytest.MonkeyPatch, mongodb_url: str) -> None:
    for name in [*(n for n in sys.modules if n.partition(".")[0] == "motor"), "motor"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "motor.motor_asyncio", None)
    error = await refused(mongodb_url)
    assert type(error) is ConfigurationError
    assert "motor is not installed: pip install 'aiostorage-orion[mongodb]'" in str(error)
    assert "client='pymongo'" in str(error)


def test_pymongo_is_missing() -> None:
    code = (
        "import sys; sys.modules['pymongo'] = sys.modules['bson'] = None\n"
        "import aiostorage\n"
        "try: aiostorage.open_storage('mongodb://jo:S3cret@h/db')\n"
        "except aiostorage.ConfigurationError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "needs motor, which is not installed (there is no module " in done.stdout
    assert done.stdout.endswith(": pip install 'aiostorage-orion[mongodb]'\n")
    assert "S3cret" not in done.stdout + done.stderr


def test_the_engine_is_imported_when_it_is_asked_for() -> None:
    code = "import sys, aiostorage.factory; print(*{'pymongo', 'motor'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""
