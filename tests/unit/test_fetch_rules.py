"""workers.fetch: what an answer means, when a walk is complete."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import dumps
from common.errors import UpstreamFailed, UpstreamRefused
from schemas.messages import Json
from workers.fetch.answers import Page, Response, check_status, parse_page, retry_after_seconds
from workers.fetch.walk import MAX_BYTES, MAX_ITEMS, MAX_PAGES, MAX_WHOLE_BYTES, Walk, resumed, saved, step

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LIST = "https://api.syncaroo.com/v1/locations/5/resources"
ITEM = f"{LIST}/7"
JSON = "application/json; charset=UTF-8"


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (200, None, ""),
        (429, UpstreamFailed, ""),
        (407, UpstreamFailed, ""),
        (408, UpstreamFailed, ""),
        (425, UpstreamFailed, ""),
        (500, UpstreamFailed, ""),
        (502, UpstreamFailed, ""),
        (503, UpstreamFailed, ""),
        (504, UpstreamFailed, ""),
        (599, UpstreamFailed, ""),
        (404, UpstreamRefused, "not_found"),
        (410, UpstreamRefused, "not_found"),
        (301, UpstreamRefused, "redirected"),
        (302, UpstreamRefused, "redirected"),
        (308, UpstreamRefused, "redirected"),
        (400, UpstreamRefused, "refused"),
        (403, UpstreamRefused, "refused"),
        (422, UpstreamRefused, "refused"),
        (204, UpstreamRefused, "refused"),
        (206, UpstreamRefused, "refused"),
    ],
)
def test_statuses_are_sorted(status: int, kind: type[Exception] | None, reason: str) -> None:
    """T-API-429, T-API-5XX, T-API-404, T-URL-REDIRECT: what passes, what is final."""
    if kind is None:
        check_status(Response(status), NOW)
        return
    with pytest.raises(kind) as caught:
        check_status(Response(status, retry_after="7"), NOW)
    assert getattr(caught.value, "status", None) == status
    assert getattr(caught.value, "reason", "") == reason
    assert getattr(caught.value, "retry_after", 7.0) == 7.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        (" 7 ", 7),
        ("120", 120),
        ("3601", 3600),
        ("9" * 10, 3600),
        ("9" * 400, 3600),
        ("-5", 0),
        ("-", None),
        ("+5", None),
        ("1.5", None),
        ("1e3", None),
        ("٣", None),
        ("soon", None),
        ("Fri, 02 Jan 2026 03:04:35 GMT", 30),
        ("Fri, 02 Jan 2026 04:04:35 +0100", 30),
        ("Fri, 02 Jan 2026 03:04:35", 30),
        ("Friday, 02-Jan-26 03:04:35 GMT", 30),
        ("Fri Jan  2 03:04:35 2026", 30),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 3600),
        ("Fri, 31 Dec 9999 23:59:59 +99999999999999999999", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_retry_after_in_either_form(value: str | None, seconds: float | None) -> None:
    """T-API-429: seconds, a date, huge, negative, garbage; never longer than an hour."""
    assert retry_after_seconds(value, NOW) == seconds


@given(st.text() | st.from_regex(r"(Mon, )?[0-9]{1,3} (Jan|Dec) [0-9]{1,6} [0-9:]{1,9} ?[+-]?[0-9A-Z]{0,9}"))
def test_no_retry_after_is_a_crash(value: str) -> None:
    seconds = retry_after_seconds(value, NOW)
    assert seconds is None or 0 <= seconds <= 3600


def answer(body: Any, content_type: str = JSON) -> Response:
    return Response(200, body if isinstance(body, bytes) else dumps(body), content_type)


@pytest.mark.parametrize(
    ("body", "items", "single"),
    [
        ({"data": [{"ID": 1}], "pages": {}}, [{"ID": 1}], False),
        ({"data": {"ID": 1}}, [{"ID": 1}], True),
        ({"data": []}, [], False),
        ({"data": [1, None], "pages": None}, [1, None], False),
        ({"data": [], "pages": [], "more": 1}, [], False),
    ],
)
def test_pages(body: Json, items: list[Json], single: bool) -> None:
    """The guide: `data` a list; a single object is likely too; `pages` may be missing."""
    assert parse_page(answer(body), LIST) == Page(items, single, None, None, None)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (answer({}), "bad_shape"),
        (answer({"data": None}), "bad_shape"),
        (answer({"data": "x"}), "bad_shape"),
        (answer({"data": [0] * 20_001}), "too_large"),
        (answer([{"ID": 1}]), "bad_shape"),
        (answer(b"null"), "bad_shape"),
        (answer(b"<html>"), "not_json"),
        (answer(b'{"data":[NaN]}'), "not_json"),
        (answer(b'{"data":[],"data":[]}'), "not_json"),
        (answer(b'{"data":' + b"[" * 50 + b"]" * 50 + b"}"), "not_json"),
        (answer({"data": []}, "text/html"), "not_json"),
        (answer({"data": []}, ""), "not_json"),
    ],
)
def test_answers_that_are_none(response: Response, reason: str) -> None:
    """T-API-BODY."""
    with pytest.raises(UpstreamRefused) as caught:
        parse_page(response, LIST)
    assert caught.value.reason == reason


@pytest.mark.parametrize("body", [b"", b"{", b'{"data":[{"ID":1},', b'{"data":[{"ID":"', b'{"data":[]'])
def test_an_answer_that_was_cut_off_passes(body: bytes) -> None:
    """T-API-BODY: where the length is not told, nothing else shows it."""
    with pytest.raises(UpstreamFailed):
        parse_page(answer(body), LIST)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (None, None),
        ("", None),
        (0, None),
        (False, None),
        ([], None),
        (["x"], None),
        (True, None),
        (2, None),
        ("/" + "x" * 9000, None),
        ("https://api.syncaroo.com/x?c=a%2Fb", "https://api.syncaroo.com/x?c=a%2Fb"),
        ("HTTPS://evil.test/", "HTTPS://evil.test/"),
        ("javascript:alert(1)", "javascript:alert(1)"),
        ("?page=2", f"{LIST}?page=2"),
        ("/v1/x?page=2", "https://api.syncaroo.com/v1/x?page=2"),
        ("/v1/x?back=https://other.test/", "https://api.syncaroo.com/v1/x?back=https://other.test/"),
        ("//evil.test/x", "https://evil.test/x"),
        ("//[evil", "//[evil"),
    ],
)
def test_the_next_link(link: Json, expected: str | None) -> None:
    """T-URL-NEXT, T6: relative ones are resolved, absolute ones kept byte for byte; hosts are checked later."""
    page = parse_page(answer({"data": [], "pages": {"next": link, "count": "3", "current": 1.0}}), LIST)
    assert (page.next_url, page.count, page.current) == (expected, 3, None)


@pytest.mark.parametrize(
    ("link", "odd"),
    [(None, False), ("", False), (False, False), (0, False), (2, True), (["x"], True), ("/" * 9000, True)],
)
def test_a_next_link_that_is_none_ends_and_may_be_odd(link: Json, odd: bool) -> None:
    page = parse_page(answer({"data": [], "pages": {"next": link, "count": 1}}), LIST)
    assert (page.next_url, page.odd is not None) == (None, odd)


def test_a_missing_next_link_ends() -> None:
    assert parse_page(answer({"data": [], "pages": {"count": 1, "current": True}}), LIST).next_url is None


def page(
    *ids: int, next_url: str | None = None, current: int | None = None, count: int | None = None, single: bool = False
) -> Page:
    return Page([{"ID": one} for one in ids], single, next_url, current, count)


def walk(pages: Sequence[Page], at: Walk | str | None = LIST) -> Walk:
    """Steps until the walk or the pages end."""
    assert at is not None
    found = Walk(at, 1) if isinstance(at, str) else at
    for one in pages:
        assert found.url, "went on after its end"
        found = step(found, one)
    return found


NEXT = [f"{LIST}?page={number}" for number in range(10)]


@pytest.mark.parametrize(
    ("pages", "complete"),
    [
        ([page(1, current=1, count=1)], True),
        ([page(1, count=1)], True),
        ([page(current=1, count=1)], True),
        # a list of nothing may count no page
        ([page(count=0)], True),
        ([page(current=0, count=0)], True),
        ([page(current=1, count=0)], True),
        ([page(1, next_url=NEXT[2], current=1, count=0), page(current=2, count=0)], False),
        ([page(1, current=0, count=0)], False),
        ([page(current=0, count=1)], False),
        # an item that moved between two reads is no sign of anything missing: its own URL is asked
        ([page(1, 2, next_url=NEXT[2], current=1, count=2), page(2, current=2, count=2)], True),
        ([page(1, 1, current=1, count=1)], True),
        # a next link that is none
        ([replace(page(1, current=1, count=1), odd="the next link is no text")], False),
        ([page(1, next_url=NEXT[2], current=1, count=2), page(2, current=2, count=2)], True),
        # `pages` missing or without a count
        ([page(1)], False),
        ([page(1, current=1)], False),
        ([page(1, next_url=NEXT[2]), page(2)], False),
        # counts that lie
        ([page(1, current=1, count=2)], False),
        ([page(1, current=1, count=0)], False),
        ([page(1, next_url=NEXT[2], current=1, count=1), page(2, current=2, count=1)], False),
        ([page(1, next_url=NEXT[2], current=1, count=3), page(2, current=2, count=2)], False),
        ([page(1, next_url=NEXT[2], current=1, count=2), page(2, current=2)], False),
        # pages that are not in order
        ([page(1, current=2, count=1)], False),
        ([page(1, next_url=NEXT[2], current=1, count=2), page(2, current=3, count=2)], False),
        ([page(1, next_url=NEXT[2], current=1, count=2), page(2, current=1, count=2)], False),
        # loops
        ([page(1, next_url=LIST, current=1, count=1)], False),
        ([page(1, next_url=NEXT[2], current=1, count=2), page(2, next_url=NEXT[2], current=2, count=2)], False),
        ([page(1, next_url=NEXT[2], current=1, count=2), page(2, next_url=LIST, current=2, count=2)], False),
        # an item without an id beside others
        ([Page([{"ID": 1}, {}], False, None, 1, 1)], False),
    ],
)
def test_a_walk_is_complete_only_without_any_anomaly(pages: list[Page], complete: bool) -> None:
    """CONTRACT §5.6, T-PAGE-PARTIAL, T-PAGE-LOOP: only then is absence a sign."""
    found = walk(pages)
    assert found.url == "", "it ends"
    assert found.complete is complete


def test_an_unfinished_walk_is_not_complete() -> None:
    found = walk([page(1, next_url=NEXT[2], current=1, count=1)])
    assert found.url == NEXT[2]
    assert Walk(LIST, 1).complete is False


def test_a_walk_gathers_the_ids_it_saw() -> None:
    pages = [page(1, 2, next_url=NEXT[2], current=1, count=2), page(2, 3, current=2, count=2)]
    assert walk(pages).seen_ids == {"1", "2", "3"}


def test_a_walk_has_an_end_though_every_link_is_new() -> None:
    """T-PAGE-LOOP: a cursor that grows for ever."""
    found = Walk(LIST, 1)
    while found.url:
        found = step(found, page(1, next_url=f"{LIST}?c={found.pages}"))
        assert found.pages <= MAX_PAGES
    assert "too many pages" in found.anomalies


@pytest.mark.parametrize(
    ("so_far", "odd"),
    [
        ({"pages": MAX_PAGES - 2}, None),
        ({"pages": MAX_PAGES - 1}, "too many pages"),
        ({"size": MAX_BYTES - 11}, None),
        ({"size": MAX_BYTES - 10}, "too many bytes"),
        ({"seen_ids": frozenset(map(str, range(MAX_ITEMS - 1)))}, None),
        ({"seen_ids": frozenset(map(str, range(MAX_ITEMS)))}, "too many items"),
    ],
)
def test_a_walk_has_caps(so_far: dict[str, Any], odd: str | None) -> None:
    """A walk that goes over one ends, incomplete."""
    found = step(Walk(LIST, 1, shape="list", **so_far), replace(page(0, next_url=NEXT[9]), size=10))
    assert (found.url, found.anomalies) == (("", (odd,)) if odd else (NEXT[9], ()))


def test_a_list_that_is_one_listing_has_a_size() -> None:
    """T-FR-BIG: the event holds it twice and its patch, and has to fit in one message."""
    rows = Page([{"n": 1}] * 10_000, False, NEXT[2], None, None, size=1000)
    for too_large in (replace(rows, items=[*rows.items, {}]), replace(rows, size=MAX_WHOLE_BYTES)):
        with pytest.raises(UpstreamRefused, match="too_large"):
            step(step(Walk(LIST, 1), rows), too_large)
    assert step(step(Walk(LIST, 1), rows), rows).shape == "whole"


def test_a_walk_is_kept_between_two_pages_and_answers_what_was_wanted_before() -> None:
    found = walk([page(1, next_url=NEXT[2], current=1, count=2)])
    text = saved(found)
    assert resumed(text, 1) == found
    assert resumed(text, 2) is None, "a webhook came after it had begun"
    assert walk([page(2, current=2, count=2)], resumed(text, 1)).complete
    for nothing in (None, "", "{}", "nonsense", '{"url": 1, "first": 2}'):
        assert resumed(nothing, 0) is None


@pytest.mark.parametrize(
    "found",
    [
        Walk(LIST, 1),
        Walk("", 1, pages=1, shape="list"),
        Walk(LIST, 1, pages=1, shape="whole", gathered=({},)),
        Walk(LIST, 1, pages=1, shape="list", seen_ids=frozenset(["x" * 500 + str(n) for n in range(3000)])),
    ],
)
def test_a_walk_that_is_not_kept(found: Walk) -> None:
    """At its beginning or end, of one listing, or too long to be written down."""
    assert saved(found) is None


@pytest.mark.parametrize(
    ("url", "first", "shape"),
    [
        (ITEM, page(7, single=True), "item"),
        (ITEM, page(7), "item"),
        (ITEM, page(), "item"),
        (ITEM, page(7, 8), "list"),
        (LIST, page(7), "list"),
        (LIST, page(), "list"),
        (LIST, page(7, single=True), "item"),
        (f"{ITEM}/availability", Page([{"start": "x"}], False, None, 1, 1), "whole"),
        (f"{ITEM}/availability", Page([{"start": "x"}, {"ID": 1}], False, None, 1, 1), "list"),
        (LIST, Page([None], False, None, 1, 1), "whole"),
    ],
)
def test_how_an_answer_is_read(url: str, first: Page, shape: str) -> None:
    """The guide's example is a list of one; a list whose items carry no ids is one listing."""
    found = step(Walk(url, 1), first)
    assert found.shape == shape
    assert found.complete is (shape == "list" and found.count == 1 and not found.anomalies)


def test_a_list_without_ids_is_gathered_whole() -> None:
    url = f"{ITEM}/availability"
    rows = [Page([{"n": number}], False, NEXT[number] if number < 3 else None, None, None) for number in (1, 2, 3)]
    assert walk(rows, url).gathered == ({"n": 1}, {"n": 2}, {"n": 3})
