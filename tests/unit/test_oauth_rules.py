"""ingress.oauth.rules and throttle, ingress.parameters: what is asked of us, and what a token is still worth."""

from datetime import timedelta
from ipaddress import ip_network

import pytest

from ingress.forwarded import client_of
from ingress.oauth.rules import (
    Authorization,
    Client,
    CodeGrant,
    Verdict,
    challenge_of,
    expires_text,
    hash_of,
    judge,
    origin_of,
    read_client,
    read_grant,
    way_back,
)
from ingress.oauth.throttle import ACCOUNT, ADDRESS, MAX_ENTRIES, Throttle, of_account, of_address, of_client
from ingress.parameters import BadInput, check_text, one, parse_form, positive_number, singles, snake
from tests.guide import transcript


@pytest.mark.parametrize(
    ("presented", "seconds", "previous", "verdict"),
    [
        (5, 0, 0, Verdict.CURRENT),
        (5, 10**6, 10**7, Verdict.CURRENT),
        (4, 0, 0, Verdict.REPEATED),
        (4, 10**6, 10**7, Verdict.REPEATED),
        (3, 30, 3600, Verdict.RETIRED),
        (3, 31, 3600, Verdict.STOLEN),
        (2, 0, 30, Verdict.RETIRED),
        (2, 0, 31, Verdict.STOLEN),
        (1, 0, 31, Verdict.STOLEN),
        (6, 31, 3600, Verdict.RETIRED),
    ],
)
def test_what_a_refresh_token_is_worth(presented: int, seconds: int, previous: int, verdict: Verdict) -> None:
    assert judge(presented, 5, timedelta(seconds=seconds), timedelta(seconds=previous)) is verdict


@pytest.mark.parametrize(
    ("redirect_uri", "state", "location"),
    [
        ("https://a.example/c", None, "https://a.example/c?connectionId=99&code=x%2By"),
        ("https://a.example/c?k=%2F&l", "", "https://a.example/c?k=%2F&l&connectionId=99&code=x%2By&state="),
        ("https://a.example", "ä &", "https://a.example?connectionId=99&code=x%2By&state=%C3%A4+%26"),
        ("https://a.example/c#f", None, "https://a.example/c?connectionId=99&code=x%2By#f"),
    ],
)
def test_the_way_back(redirect_uri: str, state: str | None, location: str) -> None:
    assert way_back(Authorization(99, "c", redirect_uri, state), code="x+y") == location
    assert origin_of(redirect_uri) == "https://a.example"


def test_the_guide_s_form_and_expires() -> None:
    form = transcript("token-request").form
    assert read_client([], form) == Client("xyz1243", "...", by_basic=False)
    assert read_grant(form) == CodeGrant("one-time-auth-string", None)
    assert expires_text(1245073530) == transcript("token-answer").json["expires"]


def test_basic_is_form_encoded_inside() -> None:
    assert read_client(["basic YSUyNTph"], {}) == Client("a%", "a", by_basic=True)


def test_secrets_are_not_shown() -> None:
    assert "..." not in repr(read_client([], transcript("token-request").form))
    assert "one-time" not in repr(read_grant(transcript("token-request").form))


def test_names_come_in_either_spelling() -> None:
    assert snake("connectionId") == "connection_id"
    assert one({"connection_id": "1"}, "connectionId") == "1"
    assert one({"connection_id": "1", "connectionId": "1"}, "connectionId") == "1"
    assert one({}, "connectionId") is None
    with pytest.raises(BadInput):
        one({"connection_id": "1", "connectionId": "2"}, "connectionId")


def test_forms() -> None:
    assert parse_form(b"a=1&b=&c=%C3%A4+x") == {"a": "1", "b": "", "c": "ä x"}
    for wrong in (b"a=1&a=1", b"a=%FF", b"\xff=1", b"a=%00", b"&".join(b"%d=1" % n for n in range(99))):
        with pytest.raises(BadInput):
            parse_form(wrong)
    with pytest.raises(BadInput):
        singles([("a", "\ud800")])
    assert check_text("ä\n", "a") == "ä\n"


@pytest.mark.parametrize("text", [None, "", "0", "-1", "+1", "1.0", " 1", "\u0661", "1_0", str(2**63), "1" * 5000])
def test_not_a_positive_number(text: str | None) -> None:
    with pytest.raises(BadInput):
        positive_number(text, "n")
    assert positive_number(str(2**63 - 1), "n") == 2**63 - 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_account_waits_after_five_in_a_row_and_longer_each_time() -> None:
    """T-OP-LOGIN"""
    throttle = Throttle(clock := Clock())
    ada, bob = of_account("ada"), of_account("bob")
    for number in range(5):
        assert throttle.wait(ada, of_address("a")) == 0
        throttle.failed(ada, of_address(str(number)))
    assert throttle.wait(ada, of_address("elsewhere")) == 30
    assert throttle.wait(bob, of_address("elsewhere")) == 0
    clock.now += 30
    assert throttle.wait(ada, of_address("a")) == 0
    throttle.failed(ada, of_address("a"))
    assert throttle.wait(ada) == 60
    clock.now += 60
    throttle.succeeded(ada)
    throttle.failed(ada)
    assert throttle.wait(ada) == 0


def test_an_address_waits_after_twenty_and_what_is_right_for_one_account_does_not_help_it() -> None:
    """T-OP-LOGIN"""
    throttle = Throttle(clock := Clock())
    for number in range(20):
        assert throttle.wait(of_account("x"), of_address("a")) == 0
        throttle.failed(of_account(str(number)), of_address("a"))
        throttle.succeeded(of_account("my own"))
    assert throttle.wait(of_account("x"), of_address("a")) == 30
    assert throttle.wait(of_account("x"), of_address("b")) == 0
    clock.now += 3601
    throttle.failed(of_account("y"), of_address("a"))
    assert throttle.wait(of_address("a")) == 0


def test_a_client_waits_for_a_minute_at_most_and_what_is_right_forgives() -> None:
    """T-OP-CLIENT"""
    throttle = Throttle(Clock())
    waits = []
    for _ in range(60):
        throttle.failed(of_client("a"))
        waits.append(throttle.wait(of_client("a")))
    assert waits == [*[0] * 49, 1, 2, 4, 8, 16, 32, *[60] * 5]
    throttle.succeeded(of_client("a"))
    throttle.failed(of_client("a"))
    assert throttle.wait(of_client("a")) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "x", False),
    ],
)
def test_whose_guesses_count_together(one: str, other: str, same: bool) -> None:
    assert (of_address(one) == of_address(other)) is same


def test_waits_end_and_memory_does_too() -> None:
    assert [ACCOUNT.wait_after(5 + number) for number in (0, 1, 4, 5, 10**9)] == [30, 60, 480, 900, 900]
    throttle = Throttle(Clock())
    for number in range(MAX_ENTRIES):
        throttle.failed(of_account(str(number)), of_address(str(number)))
    throttle.failed(of_account("one more"), of_address("one more"))
    assert {limit: len(entries) for limit, entries in throttle._entries.items()} == {
        ACCOUNT: MAX_ENTRIES,
        ADDRESS: MAX_ENTRIES,
    }


def test_a_flood_of_wrong_ones_frees_nobody_who_waits() -> None:
    """T-OP-LOGIN: neither of another kind, which may be cheaper, nor of the same, as long as some block nobody."""
    throttle = Throttle(clock := Clock())
    ada = of_account("ada")
    for _ in range(ACCOUNT.wrong):
        throttle.failed(ada)
    for number in range(MAX_ENTRIES + 100):
        throttle.failed(of_client(str(number)))
    assert throttle.wait(ada) == ACCOUNT.first
    for number in range(MAX_ENTRIES + 100):
        throttle.failed(of_account(str(number)))
    assert throttle.wait(ada) == ACCOUNT.first
    clock.now += ACCOUNT.first
    throttle.failed(of_account("one more"))
    throttle.failed(ada)
    assert throttle.wait(ada) == 0, "its time was over: the oldest that blocked nobody"


def test_where_all_wait_the_newest_is_counted_all_the_same() -> None:
    throttle = Throttle(Clock())
    for name in [*range(MAX_ENTRIES), "one more"]:
        for _ in range(ACCOUNT.wrong):
            throttle.failed(of_account(str(name)))
    assert throttle.wait(of_account("one more")) == ACCOUNT.first
    assert throttle.wait(of_account("0")) == 0


# --- proxies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remote", "forwarded", "client"),
    [
        ("198.51.100.1", [], "198.51.100.1"),
        ("198.51.100.1", ["1.2.3.4"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6", "1.2.3.4,10.0.0.2"], "1.2.3.4"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["1.2.3.4, unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("", ["1.2.3.4"], ""),
        ("10.0.0.1", ["6.6.6.6:1, 1.2.3.4:5678, 10.0.0.2:443"], "1.2.3.4"),
        ("10.0.0.1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1:443"], "2001:db8::1:443"),
        ("10.0.0.1", ["1.2.3.4, unknown:80"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4, [::1"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4, :80"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4, 5.6.7.8:http"], "10.0.0.1"),
    ],
)
def test_whom_a_request_comes_from(remote: str, forwarded: list[str], client: str) -> None:
    """Only what a proxy of ours has appended is believed."""
    assert client_of(remote, forwarded, [ip_network("10.0.0.0/8")]) == client
    assert client_of(remote, forwarded, []) == remote


# --- PKCE ----------------------------------------------------------------------------------------------------------


def test_s256_is_that_of_the_rfc() -> None:
    """T-OP-PKCE: RFC 7636, appendix B."""
    assert challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_a_code_is_found_with_its_own_verifier_alone() -> None:
    """T-OP-PKCE"""
    challenge = challenge_of("v")
    known = hash_of("code", challenge)
    assert CodeGrant("code", None, "v").code_hash == known
    assert CodeGrant("code", None).code_hash == hash_of("code", None)
    for code, verifier in (("code", None), ("code", ""), ("code", "w"), (f"{challenge}:code", None)):
        assert CodeGrant(code, None, verifier).code_hash != known
