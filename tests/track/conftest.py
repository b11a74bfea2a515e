"""What the tests of Track have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster


@pytest.fixture
def may_block(no_blocking_call: BlockBuster) -> Iterator[None]:
    """Let a test look at files in its event loop; the contract shows that the engine does not."""
    no_blocking_call.deactivate()
    yield
    no_blocking_call.activate()
