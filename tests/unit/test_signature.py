"""The webhook's hash, against digests of texts typed by hand: never of what our own code serialised."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import loads
from ingress.webhook.signature import RECIPES, cut, matching, parse_recipe, serialise, verify

KEY = "s3cret"

# As it travels: `hash` in the middle, a slash, an umlaut, an emoji, a control character, a number, a nested object.
WEBHOOK = (
    '{"connectionId":99,"webhookType":"data","hash":"HASH","metaData":'
    '{"resourceId":"7","apiUrl":"https://api.example/v1","note":"Zoë 🏢\\n"},"n":1.5,"a":null}'
)
SORTED = (
    '{"a":null,"connectionId":99,"metaData":'
    '{"apiUrl":"https://api.example/v1","note":"Zoë 🏢\\n","resourceId":"7"},"n":1.5,"webhookType":"data"}'
)
COMPACT = (
    '{"connectionId":99,"webhookType":"data","metaData":'
    '{"resourceId":"7","apiUrl":"https://api.example/v1","note":"Zoë 🏢\\n"},"n":1.5,"a":null}'
)
PHP = (
    r'{"connectionId":99,"webhookType":"data","metaData":'
    r'{"resourceId":"7","apiUrl":"https:\/\/api.example\/v1","note":"Zo\u00eb \ud83c\udfe2\n"},"n":1.5,"a":null}'
)
TEXTS = {"sorted": SORTED, "compact": COMPACT, "php": PHP, "cut": COMPACT}


def typed_by_hand(recipe: str, key: str = KEY) -> str:
    """The digest by the standard library alone, over the texts above."""
    algorithm, serialisation, encoding = recipe.split(":")
    text = TEXTS[serialisation].encode()
    name = algorithm.removeprefix("hmac-")
    made = hmac.new(key.encode(), text, name).digest() if algorithm != name else hashlib.new(name, text).digest()
    return made.hex() if encoding == "hex" else base64.b64encode(made).decode()


def webhook(given: str) -> bytes:
    return WEBHOOK.replace("HASH", given).encode()


@pytest.mark.parametrize("recipe", [str(recipe) for recipe in RECIPES])
def test_each_recipe_matches_the_golden_digest_and_no_other(recipe: str) -> None:
    """T-ING-CANON."""
    raw = webhook(typed_by_hand(recipe))
    assert verify(raw, loads(raw), parse_recipe(recipe), ["another", KEY]) == "match"
    assert verify(raw, loads(raw), parse_recipe(recipe), ["another"]) == ("mismatch" if "hmac" in recipe else "match")
    tampered = raw.replace(b'"7"', b'"8"')
    assert verify(tampered, loads(tampered), parse_recipe(recipe), [KEY]) == "mismatch"


def test_two_digests_written_down_once() -> None:
    """T-ING-CANON."""
    body = b'{"b":1,"a":"x","hash":"?"}'
    # printf '{"a":"x","b":1}' | openssl dgst -sha256 -hmac k
    expected = "5fd4480841273ec8336e76e19bbeb1dd7bd9ded2c442c84cdb2786f7e030987b"
    raw = body.replace(b"?", expected.encode())
    assert verify(raw, loads(raw), parse_recipe("hmac-sha256:sorted:hex"), ["k"]) == "match"
    # printf '{"b":1,"a":"x"}' | md5sum
    raw = body.replace(b"?", b"783b851157ab02c1d0419d1502adb8e4")
    assert verify(raw, loads(raw), parse_recipe("md5:cut:hex"), []) == "mismatch"
    assert verify(raw, loads(raw), parse_recipe("md5:cut:hex"), [""]) == "match"


def test_the_probe_names_every_recipe_that_matches() -> None:
    assert matching(webhook(typed_by_hand("hmac-sha1:php:base64")), [KEY]) == ["hmac-sha1:php:base64"]
    assert matching(webhook(typed_by_hand("sha256:cut:hex")), [KEY]) == ["sha256:compact:hex", "sha256:cut:hex"]
    assert matching(webhook("nonsense"), [KEY]) == []


@pytest.mark.parametrize("given", ["", "x", "ü", "🏢", "00" * 32, "0" * 10_000, "\\u0000"])
@pytest.mark.parametrize("recipe", [str(recipe) for recipe in RECIPES])
def test_odd_hashes_are_no_match_and_no_error(given: str, recipe: str) -> None:
    """T-ING-SIG."""
    raw = webhook(given)
    assert verify(raw, loads(raw), parse_recipe(recipe), [KEY, "schlüssel"]) in ("mismatch", "missing")


@pytest.mark.parametrize("value", ["null", "7", "true", "[]", '{"a":1}'])
def test_a_hash_that_is_no_text_never_matches(value: str) -> None:
    """T-ING-SIG."""
    raw = ('{"a":1,"hash":' + value + "}").encode()
    assert verify(raw, loads(raw), RECIPES[0], [KEY]) == ("missing" if value == "null" else "mismatch")


def test_hex_may_be_upper_case() -> None:
    raw = webhook(typed_by_hand("hmac-sha256:sorted:hex").upper())
    assert verify(raw, loads(raw), parse_recipe("hmac-sha256:sorted:hex"), [KEY]) == "match"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('{"a":1,"hash":"x"}', '{"a":1}'),
        ('{"hash":"x","a":1}', '{"a":1}'),
        ('{"a":1,"hash":"x","b":2}', '{"a":1,"b":2}'),
        ('{"hash":"x"}', "{}"),
        ('{ "hash" : "x" }', "{  }"),
        ('{\n  "a": 1,\n  "hash": "x"\n}', '{\n  "a": 1\n}'),
        ('{\n  "hash": "x",\n  "a": 1\n}', '{\n  "a": 1\n}'),
        ('{"a":{"hash":"in"},"hash":"x"}', '{"a":{"hash":"in"}}'),
        ('{"a":["hash",{"hash":1}],"b":"hash","hash":"x"}', '{"a":["hash",{"hash":1}],"b":"hash"}'),
        ('{"a":"\\",\\"hash\\":\\"","hash":"x,}"}', '{"a":"\\",\\"hash\\":\\""}'),
        ('{"a":1,"h\\u0061sh":"x"}', '{"a":1}'),
        ('{"a":1,"hash":{"b":[1,2]},"c":3}', '{"a":1,"c":3}'),
        ('{"a":1}', '{"a":1}'),
        ("{}", "{}"),
    ],
)
def test_cutting_the_member_out_of_the_raw_bytes(raw: str, expected: str) -> None:
    assert cut(raw.encode()).decode() == expected


NAMES = st.text('hash,:{}[]"\\ é', max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["a", "hash", "has", 'h"', "é"]), JSON), st.sampled_from([None, 1]))
def test_cutting_leaves_exactly_the_rest(body: dict[str, object], indent: int | None) -> None:
    """T-ING-CANON."""
    import json

    rest = {name: value for name, value in body.items() if name != "hash"}
    assert json.loads(cut(json.dumps(body, indent=indent).encode())) == rest
    raw = json.dumps(body).encode()
    for how in ("sorted", "compact", "php"):
        assert json.loads(serialise(raw, body, how)) == rest
