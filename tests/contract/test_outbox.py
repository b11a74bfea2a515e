"""The laws of the outbox on every engine, and what a storage without one does not pay."""

from __future__ import annotations

import pytest

from aiostorage.testing.contract.outbox_laws import OutboxLaws
from tests.contract.conftest import UNCLOSED

pytestmark = UNCLOSED


class TestOutbox(OutboxLaws): ...
