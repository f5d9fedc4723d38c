"""common.crypto and common.ids: rotation, constant-time comparison of anything, ids in order."""

import ast
import itertools
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from common.crypto import Signer, TokenCipher, any_secret, same_secret
from common.errors import Permanent
from common.ids import new_id
from tests.keys import NEW, OLD


def test_rotation_of_what_is_sealed() -> None:
    """Append everywhere, then move to the front: at each step everybody opens what anybody seals."""
    steps = [TokenCipher(keys) for keys in ([OLD], [OLD, NEW], [NEW, OLD])]
    for sealing, opening in itertools.pairwise(steps):
        assert opening.open(sealing.seal(b"pair")) == b"pair"
        assert sealing is steps[0] or sealing.open(opening.seal(b"pair")) == b"pair"
    assert Fernet(NEW).decrypt(steps[2].seal(b"pair")) == b"pair", "the newest seals"
    with pytest.raises(Permanent, match="unreadable_secret"):
        TokenCipher([NEW]).open(TokenCipher([OLD]).seal(b"pair"))


@pytest.mark.parametrize("sealed", ["", "x", "gAAAAA", "é", "\ud800", "=" * 9])
def test_what_was_never_sealed_is_unreadable_and_no_crash(sealed: str) -> None:
    with pytest.raises(Permanent, match="unreadable_secret"):
        TokenCipher([OLD]).open(sealed)


def test_rotation_of_what_is_signed() -> None:
    steps = [Signer(keys, "access") for keys in ([OLD], [OLD, NEW], [NEW, OLD])]
    for signing, verifying in itertools.pairwise(steps):
        assert verifying.verify(b"m", signing.sign(b"m"))
        assert signing is steps[0] or signing.verify(b"m", verifying.sign(b"m"))
    assert steps[2].sign(b"m") == Signer([NEW], "access").sign(b"m"), "the newest signs"
    assert not Signer([NEW], "access").verify(b"m", Signer([OLD], "access").sign(b"m"))


def test_a_signature_holds_for_one_message_and_one_purpose() -> None:
    signature = Signer([OLD], "access").sign(b"m")
    assert not Signer([OLD], "access").verify(b"n", signature)
    assert not Signer([OLD], "refresh").verify(b"m", signature)
    for other in (b"", signature[:-1], signature + b"x", bytes(32)):
        assert not Signer([OLD], "access").verify(b"m", other)


def test_nothing_secret_shows() -> None:
    for one in (TokenCipher([OLD]), Signer([OLD], "access")):
        assert OLD[:8] not in repr(one) + str(one)


@pytest.mark.parametrize("text", ["", "a", "é", "🏢", "\udcff"])
def test_any_text_is_compared(text: str) -> None:
    """T-ING-SIG, T5: `compare_digest` of texts raises for what is not ASCII; headers may even bring lone surrogates."""
    assert same_secret(text, text)
    assert not same_secret(text, text + "x")
    assert not same_secret("secret", text)
    assert any_secret(text, ["other", text])
    assert not any_secret(text, [])


SECRET = re.compile(r"(secret|token|password|passphrase|digest|signature|hash|csrf|verifier|nonce)s?$", re.I)
PLACES = ("common", "ingress", "workers")
NO_SECRETS = {"_DIGESTS"}
"""Of the static files."""


def test_no_secret_is_compared_by_the_language_s_own_means() -> None:
    """T-ING-SIG. `==` ends at the first difference, `in` asks it of one after the other: `same_secret`, `any_secret`.

    Literals are no secrets, and what a database compares it has found by a hash.
    """
    root = Path(__file__).parents[2]
    sources = [path for place in PLACES for path in sorted((root / place).rglob("*.py"))]
    assert len(sources) > 100
    found = {f"{path.relative_to(root)}: {one}" for path in sources for one in naive_comparisons(path.read_text())}
    assert found == set()


def test_a_naive_comparison_would_be_found() -> None:
    naive = ["token == given", "given != self._secret", "digest(m) == given", "a.nonce == b[0]", "it in admin_tokens"]
    fine = ["grant_type == 'refresh_token'", "t.c.code_hash == code_hash", "key in found", "connection.id == token.id"]
    assert list(naive_comparisons("\n".join([*naive, *fine]))) == naive


def naive_comparisons(source: str) -> Iterator[str]:
    """Those that may compare a secret, by the names of what they compare."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare) or isinstance(node.ops[0], ast.Is | ast.IsNot):
            continue
        sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Constant) or ".c." in ast.unparse(side) for side in sides):
            continue
        asked = sides[1:] if isinstance(node.ops[0], ast.In | ast.NotIn) else sides
        if any(SECRET.search(name) and name not in NO_SECRETS for name in map(own_name, asked)):
            yield ast.unparse(node)


def own_name(node: ast.AST) -> str:
    """Of what is compared, the last word: `a.b.c` → `c`, `f(x)` → `f`, `a[0]` → `a`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=of) | ast.Subscript(value=of) | ast.Await(value=of):
            return own_name(of)
        case _:
            return ""


def test_ids_are_uuids_of_version_7_and_in_order_of_time() -> None:
    ids = [new_id() for _ in range(5000)]
    parsed = [uuid.UUID(one) for one in ids]
    assert {one.version for one in parsed} == {7}
    assert {one.variant for one in parsed} == {uuid.RFC_4122}
    assert len(set(ids)) == len(ids)
    millis = [one.int >> 80 for one in parsed]
    assert millis == sorted(millis)
    assert [str(one) for one in parsed] == ids
