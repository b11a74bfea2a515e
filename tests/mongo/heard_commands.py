"""Commands of the clients that are opened while a test runs."""

from __future__ import annotations

import pytest
from pymongo import monitoring

__all__ = ["CommandHearer", "hear"]


class CommandHearer(monitoring.CommandListener):
    """Hears of each command when it is sent; what comes of it does not matter."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


def hear(hearer: CommandHearer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients tell of their commands that are opened before the end of the test."""
    listeners = monitoring._LISTENERS
    heard = [*listeners.command_listeners, hearer]
    monkeypatch.setattr(monitoring, "_LISTENERS", listeners._replace(command_listeners=heard))
