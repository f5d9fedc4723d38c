"""common.crypto and common.ids: rotation, constant-time comparison of anything, ids in order."""

import itertools
import uuid

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
    """T5: `compare_digest` of texts raises for what is not ASCII; headers may even bring lone surrogates."""
    assert same_secret(text, text)
    assert not same_secret(text, text + "x")
    assert not same_secret("secret", text)
    assert any_secret(text, ["other", text])
    assert not any_secret(text, [])


def test_ids_are_uuids_of_version_7_and_in_order_of_time() -> None:
    ids = [new_id() for _ in range(5000)]
    parsed = [uuid.UUID(one) for one in ids]
    assert {one.version for one in parsed} == {7}
    assert {one.variant for one in parsed} == {uuid.RFC_4122}
    assert len(set(ids)) == len(ids)
    millis = [one.int >> 80 for one in parsed]
    assert millis == sorted(millis)
    assert [str(one) for one in parsed] == ids
