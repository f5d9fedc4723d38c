"""common.codec: the one strict JSON codec. Trap T4."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import MAX_DEPTH, canonical, decode, dumps, loads
from common.errors import BadJson
from schemas.messages import ResyncWanted

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"  ",
        b"{",
        b"[1,]",
        b'{"a":1,}',
        b"{'a':1}",
        b"// c\n{}",
        b"{}x",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b'{"a":[-1e999]}',
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"9" * 5000,
        b'{"n":' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'{"\xc0\x80":1}',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'{"a":"\\udc00x"}',
        b'"\\ud800\\u0041"',
        b'"\x00"',
        b'"\n"',
        b'"\\x41"',
        b'"a',
        b"\x00",
        b"[" * 100_000,
        b'{"a":' * 5000,
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
        b'{"a":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"":1,"":2}',
        b'{"x":[{"k":1,"b":":","k":2}]}',
        b'{"\\"":1,"\\u0022":2}',
        b'{":":1,"\\u003a":2}',
        b'{"a":"\\u003A","a":"\\\\u003a"}',
        b'{"a":"\\\\\\u003a","a":1}',
        b'["\\"[",' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"]",
    ],
)
def test_refuses_what_is_not_strict_json(raw: bytes) -> None:
    """T4: an error that says what is wrong, for everything that parsers read differently; never a crash."""
    with pytest.raises(BadJson):
        loads(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a":"{[:,\\"]}:","b:":{"a":1}}', {"a": '{[:,"]}:', "b:": {"a": 1}}),
        (b'[{"a":1},{"a":2}]', [{"a": 1}, {"a": 2}]),
        (b'{"a":{"a":{"a":1}}}', {"a": {"a": {"a": 1}}}),
        (b'"' + b"[" * 100 + b'"', "[" * 100),
        (b'"\\ud83c\\udfe2"', "🏢"),
        (b'"\\u0000"', "\0"),
        (b'"\\\\"', "\\"),
        (b'{"\\u003a":"\\\\u003a\\\\\\u003A"}', {":": "\\u003a\\:"}),
        (b'["[" , "]\\\\", "\\"' + b"[" * 100 + b'"]', ["[", "]\\", '"' + "[" * 100]),
        (b" \n\t[ ] ", []),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
    ],
)
def test_reads_what_only_looks_odd(raw: bytes, value: object) -> None:
    assert value is None or loads(raw) == value
    loads(raw)


@pytest.mark.parametrize("number", [2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**100])
def test_large_numbers_stay_exact(number: int) -> None:
    raw = str(number).encode()
    assert loads(raw) == number
    assert dumps(loads(raw)) == raw
    assert canonical({"n": number}) == f'{{"n":{number}}}'


def test_an_endless_string_costs_no_more_than_its_length() -> None:
    """A body within the size limit must not hold the process: searching its strings first took minutes."""
    began = time.monotonic()
    with pytest.raises(BadJson):
        loads(b'{"a":"' + b'\\"' * 120_000)
    assert time.monotonic() - began < 1


def test_an_error_never_tells_the_input() -> None:
    for raw in (b'{"password":"s3cret', b'{"s3cret":1,"s3cret":2}', b'["s3cret",NaN]', b's3cret"'):
        with pytest.raises(BadJson) as caught:
            loads(raw)
        assert "s3cret" not in str(caught.value)


@given(JSON)
def test_what_goes_out_comes_back_in(value: object) -> None:
    """Also as the standard library reads it."""
    for text in (dumps(value), canonical(value).encode()):
        assert loads(text) == value
        assert json.loads(text) == value


@given(st.dictionaries(TEXT, JSON))
def test_equal_values_have_one_canonical_text(value: dict[str, object]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)


@given(st.dictionaries(TEXT, st.integers(), min_size=1), st.data())
def test_any_member_that_comes_twice_is_refused(value: dict[str, int], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(value)))
    again = json.dumps({name: 0}, ensure_ascii=data.draw(st.booleans()))
    with pytest.raises(BadJson, match="twice"):
        loads((json.dumps(value)[:-1] + "," + again[1:]).encode())


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        value = loads(raw)
    except BadJson:
        return
    assert loads(dumps(value)) == value


def test_a_message_of_another_kind_or_version_is_refused() -> None:
    assert decode(b'{"connectionId":9}', ResyncWanted) == ResyncWanted(connection_id=9)
    for raw in (b"{}", b'{"connectionId":"9"}', b'{"connectionId":9,"v":2}', b'{"connectionId":true}', b"[", b"\xff"):
        with pytest.raises(BadJson):
            decode(raw, ResyncWanted)
