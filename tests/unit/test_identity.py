"""common.identity: one listing however it is found (DESIGN, Identity and order)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.identity import NOUNS, as_segment, item_id_of, item_url, listing_id_of, own_id, place_of, plural
from common.store.targets import collections_around
from schemas.messages import Json
from workers.reconcile.rules import listing_for

API = "https://api.syncaroo.com"


@pytest.mark.parametrize(
    ("url", "scope", "segment"),
    [
        ("/v1/locations", "/v1/locations", None),
        ("/v1/locations/12", "/v1/locations", "12"),
        ("/v1/locations/12/", "/v1/locations", "12"),
        ("/v1//locations///12?page=2#x", "/v1/locations", "12"),
        ("/v1/locations/12/resources", "/v1/locations/12/resources", None),
        ("/v1/locations/12/resources/7", "/v1/locations/12/resources", "7"),
        ("/v1/locations/12/resources/7/rates/3/extras", "/v1/locations/12/resources/7/rates/3/extras", None),
        ("/v1/locations/12/resources/7/availability?start=x", "/v1/locations/12/resources/7/availability", None),
        ("/v1/locations/12/photos/9", "/v1/locations", "12/photos/9"),
        ("/v1/things/5", "/v1/things/5", None),
        ("/", "/", None),
        ("", "/", None),
        ("/v1/locations/a%20b", "/v1/locations", "a%20b"),
        ("/v1/locations/%61%2Fb", "/v1/locations", "a%2Fb"),
        ("/v1/locations/a:b@c", "/v1/locations", "a:b@c"),
        ("/v1/locations/%ff", "/v1/locations", "%FF"),
    ],
)  # fmt: skip
def test_where_a_url_points(url: str, scope: str, segment: str | None) -> None:
    place = place_of(API + url)
    assert (place.scope, place.segment) == (scope, segment)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"ID": "7", "id": "8", "syncarooId": "9"}, "7"),
        ({"id": 8, "syncarooId": "9"}, "8"),
        ({"syncarooId": 9}, "9"),
        ({"ID": "", "id": 0}, "0"),
        ({"ID": None, "id": "x"}, "x"),
        ({"ID": True}, None),
        ({"ID": 7.0}, None),
        ({"ID": ["7"]}, None),
        ({"ID": "a\0b"}, None),
        ({"ID": "a\nb"}, None),
        ({"ID": 10**4000}, None),
        ({"name": "x"}, None),
        ([], None),
        ("7", None),
        (None, None),
    ],
)
def test_the_id_an_item_carries(item: Json, expected: str | None) -> None:
    """D11: what a URL or PostgreSQL cannot hold is no id."""
    assert own_id(item) == expected


@pytest.mark.parametrize(
    ("item", "path", "expected"),
    [
        ({"ID": 7}, "/v1/locations/5/resources/9", "7"),
        ({}, "/v1/locations/5/resources/9", "9"),
        ([{}], "/v1/locations/5/availability", "availability"),
        ({}, "/v1/things/5", "5"),
    ],
)
def test_the_item_id(item: Json, path: str, expected: str) -> None:
    """CONTRACT §4: the item's own, else the segment after the noun, else the last segment."""
    assert item_id_of(item, place_of(API + path)) == expected


@pytest.mark.parametrize("item_id", ["7", 7, "room 7/a", "7?x=1#y", "é", "50%", "..", "a%2Fb", "a:b"])
def test_an_item_its_collection_and_a_resync_meet_in_one_listing(item_id: Json) -> None:
    collection = f"{API}/v1/locations/5/resources"
    own_url = f"{collection}/{as_segment(str(item_id))}"
    alone = listing_for(99, own_url, {"ID": str(item_id)}, "item", None)
    listed = listing_for(99, collection + "?page=2", {"ID": item_id}, "list", None)
    assert (alone.listing_id, alone.own_path) == (listed.listing_id, listed.own_path)
    assert collection in collections_around(own_url)
    assert item_url(listed.own_path, collection + "/?page=3") == own_url
    assert listing_for(98, own_url, {"ID": item_id}, "item", None).listing_id != alone.listing_id


def test_the_public_id_never_changes() -> None:
    """Subscribers keep it: this one was written down."""
    assert listing_id_of(99, "/v1/locations/5/resources", "7") == "f81ba640-8d4e-52d6-8fd0-5ec01c688f9c"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda one: one not in NOUNS))
def test_an_id_is_one_segment_of_its_url(item_id: str) -> None:
    """But for an item that is called like a collection: by its URL it is one."""
    segment = as_segment(item_id)
    assert segment.isascii()
    assert not set("/?# ") & set(segment)
    assert place_of(f"{API}/v1/locations/{segment}").segment == segment


@pytest.mark.parametrize(
    ("url", "around"),
    [
        ("/v1/locations", []),
        ("/v1/locations/5", ["/v1/locations/5/resources"]),
        ("/v1/locations/5/resources", ["/v1/locations/5/resources"]),
        ("/v1/locations/5/resources/7", ["/v1/locations/5/resources/7/rates", "/v1/locations/5/resources"]),
        ("/v1/locations/5/resources/7/rates/1", ["/v1/locations/5/resources/7/rates"]),
        ("/v1/things/1", []),
    ],
)
def test_a_resync_reads_collections_but_never_all_locations(url: str, around: list[str]) -> None:
    assert collections_around(API + url) == [API + path for path in around]


@pytest.mark.parametrize(
    ("given_", "ours"),
    [("resource", "resources"), ("Resources", "resources"), (" RATE ", "rates"), ("availability", "availability"),
     ("location", "locations"), ("booking", "bookings"), ("unicorn", "unicorn"), ("", None), (None, None)],
)  # fmt: skip
def test_attribute_types_are_plural_and_lower_case(given_: str | None, ours: str | None) -> None:
    assert plural(given_) == ours
