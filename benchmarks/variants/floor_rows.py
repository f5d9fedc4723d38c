"""The floor's table in SQLAlchemy's ORM, and what a page changes in it: for a worker with asyncio and one without."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import JSON, BigInteger, Select, Text, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Of the tables."""


class Listing(Base):
    """What is known."""

    __tablename__ = "floor_listing"

    url: Mapped[str] = mapped_column(Text, primary_key=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    version: Mapped[int] = mapped_column(BigInteger)


def items_of(url: str, page: dict[str, Any]) -> dict[str, Any]:
    """A page's items, by their own URLs."""
    return {f"{url}/{item['ID']}": item for item in page["data"]}


def known(items: Mapping[str, Any]) -> Select[Listing]:
    """Asks for their rows, locked."""
    return select(Listing).where(Listing.url.in_(items)).with_for_update()


def change(rows: Iterable[Listing], items: Mapping[str, Any], add: Callable[[Listing], None]) -> list[dict[str, Any]]:
    """Bring the rows to the items where they differ, `add` those that are missing → what is to be told."""
    by_url, changes = {row.url: row for row in rows}, []
    for url, body in items.items():
        row = by_url.get(url)
        if row is None:
            changes.append({"url": url, "version": 1, "previous": None, "current": body})
            add(Listing(url=url, body=body, version=1))
        elif row.body != body:
            changes.append({"url": url, "version": row.version + 1, "previous": row.body, "current": body})
            row.body, row.version = body, row.version + 1
    return changes
