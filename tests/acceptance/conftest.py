"""What a module's own gateway stands on: a virtual host and a database that all tests of the module share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import pytest

from ops.broker import PrivateNode
from tests.fixtures.broker import Vhosts
from tests.fixtures.database import KINDS
from tests.fixtures.postgresql import database

NewDatabase = Callable[[], AbstractContextManager[str | None]]
"""Makes databases on PostgreSQL, dropped at the end → `DATABASE_URL`; None where there is no PostgreSQL."""


@pytest.fixture(scope="module")
def amqp_url(vhosts: Vhosts) -> Iterator[str]:
    """A virtual host of the module's own."""
    taken = vhosts.take()
    yield taken.url
    vhosts.give_back(taken)


@pytest.fixture(scope="module")
def node(_node: PrivateNode) -> Iterator[PrivateNode]:
    """A broker that the module may stop and freeze."""
    yield _node
    _node.resume()
    _node.start()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's processes run and log."""
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def sqlite_url(directory: Path) -> str:
    """`DATABASE_URL` of a SQLite file that is not there yet."""
    return f"sqlite+aiosqlite:///{directory / 'gateway.db'}"


@pytest.fixture(scope="module")
def postgresql_url(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[str]:
    """`DATABASE_URL` of an empty database on PostgreSQL; of a SQLite file where there is no PostgreSQL."""
    if "postgresql" not in KINDS:
        yield sqlite_url
        return
    with database(request.getfixturevalue("postgresql"), "gateway_test") as url:
        yield url


@pytest.fixture(scope="module")
def new_database(request: pytest.FixtureRequest) -> NewDatabase:
    """For modules with several gateways."""
    if "postgresql" not in KINDS:
        return nullcontext
    return partial(database, request.getfixturevalue("postgresql"), "gateway_test")
