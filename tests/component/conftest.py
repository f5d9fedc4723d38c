"""What tests of stores share: a store on each database, as one process sees it and as another does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.store.engine import Store


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """On a database of this test's own."""
    opened = Store(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Store]:
    """A second process's view of the same database."""
    opened = Store(database_url)
    yield opened
    await opened.close()
