"""Start a MongoDB server for the user's own jobs, a replica set of one member; print its URL.

``python start_mongod.py DIRECTORY HOST PORT``: the directory gets the data, the log, the server's
process id, and two secrets. If it has the data of an earlier server, perhaps of another host, the
server goes on with that.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import AutoReconnect, PyMongoError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

USER: Final = "tuner"
SECONDS: Final = 60
"""Seconds within which a step has to succeed."""


def secret(file: Path) -> str:
    """Return the content of a file that only its owner can read; create it if it is missing."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
    return file.read_text()


def become_primary(client: MongoClient[dict[str, Any]], address: str, *, new: bool) -> None:
    """Make the server the only member of a replica set, under its current address."""
    members = [{"_id": 0, "host": address}]
    if new:
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
    else:
        config = client.admin.command("replSetGetConfig")["config"]
        config |= {"members": members, "version": config["version"] + 1}
        client.admin.command("replSetReconfig", config, force=True)


def is_primary(client: MongoClient[dict[str, Any]]) -> None:
    """Raise an error as long as the server cannot be written to."""
    if not client.admin.command("hello")["isWritablePrimary"]:
        raise AutoReconnect("it is not elected yet")


def start(directory: Path, host: str, port: int) -> str:
    """Start the server; return its URL."""
    key, data = directory / "key", directory / "data"
    new = not data.exists()
    data.mkdir(exist_ok=True)
    secret(key)
    password = secret(directory / "password")
    subprocess.run(  # returns when the server listens
        [
            *("mongod", "--dbpath", data, "--bind_ip", f"localhost,{host}", "--port", str(port)),
            *("--replSet", "rs0", "--keyFile", key, "--fork", "--nounixsocket"),
            *("--logpath", directory / "log", "--pidfilepath", directory / "pid"),
            # when it is ended it need not wait for another member to take over
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    patiently = Retrying(
        retry=retry_if_exception_type(PyMongoError),
        stop=stop_after_delay(SECONDS),
        wait=wait_fixed(0.1),
        reraise=True,
    )
    user = "" if new else f"{USER}:{password}@"
    client: MongoClient[dict[str, Any]]
    with MongoClient(f"mongodb://{user}localhost:{port}/?directConnection=true") as client:
        patiently(become_primary, client, f"{host}:{port}", new=new)
        patiently(is_primary, client)
        if new:  # as long as there is no user, a client on this host may make one
            patiently(client.admin.command, "createUser", USER, pwd=password, roles=["root"])
    return f"mongodb://{USER}:{password}@{host}:{port}/tuning?replicaSet=rs0&authSource=admin"


if __name__ == "__main__":
    try:
        print(start(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
    except (PyMongoError, subprocess.CalledProcessError) as error:
        sys.exit(f"no server: {error}")
