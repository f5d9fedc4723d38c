"""What a module's own gateway stands on: a virtual host and a database that all tests of the module share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ops.broker import PrivateNode
from tests.acceptance.world import has_postgresql, needs_postgresql, parameters
from tests.fixtures.broker import Vhosts
from tests.fixtures.postgresql import database

NewDatabase = Callable[[], AbstractContextManager[str]]
"""Makes databases on PostgreSQL, dropped at the end → `DATABASE_URL`."""


@pytest.fixture(autouse=True)
def _its_database(request: pytest.FixtureRequest) -> None:
    """Skips what is played on a PostgreSQL that cannot be had; the others of its module are played without it."""
    if any(map(needs_postgresql, parameters(request.node).values())):
        request.getfixturevalue("postgresql")


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
def postgresql_url(postgresql: str) -> Iterator[str]:
    """`DATABASE_URL` of an empty database on PostgreSQL; skips where there is no PostgreSQL."""
    with database(postgresql, "gateway_test") as url:
        yield url


@pytest.fixture(scope="module")
def urls(request: pytest.FixtureRequest, sqlite_url: str) -> Mapping[str, str]:
    """By kind, `DATABASE_URL` of an empty database, of each kind that can be had."""
    there = {"postgresql": request.getfixturevalue("postgresql_url")} if has_postgresql(request) else {}
    return {"sqlite": sqlite_url} | there


@pytest.fixture(scope="module")
def best_url(urls: Mapping[str, str]) -> str:
    """`DATABASE_URL` of an empty database on PostgreSQL; of a SQLite file where there is no PostgreSQL."""
    return urls.get("postgresql", urls["sqlite"])


@pytest.fixture(scope="module")
def new_database(request: pytest.FixtureRequest) -> NewDatabase:
    """For modules with several gateways; nobody asks where there is no PostgreSQL."""
    return lambda: database(request.getfixturevalue("postgresql"), "gateway_test")
