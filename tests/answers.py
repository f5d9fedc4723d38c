"""Answers as fetch publishes them: about room 7 of connection 99, unless told otherwise."""

from datetime import UTC, datetime

from schemas.messages import Json, PageFetched, PlatformIds, Reason, Shape, Source

ROOMS = "https://api.syncaroo.com/v1/locations/5/resources"
ROOM = f"{ROOMS}/7"


def page(
    began: int, *items: Json, url: str = ROOM, shape: Shape = "item", ended: int = 0, reason: Reason = "webhook"
) -> PageFetched:
    return PageFetched(
        connection_id=99,
        source=source(began, url, ended, reason),
        mapping=PlatformIds(),
        shape=shape,
        items=list(items),
        page=1,
    )


def source(began: int, url: str = ROOM, ended: int = 0, reason: Reason = "webhook") -> Source:
    return Source(
        url=url,
        began=began,
        ended=ended or began,
        asked=0,
        attempt=0,
        reason=reason,
        delivery_id="d",
        fetched_at=datetime.now(UTC),
        status=200,
    )
