"""Where a Syncaroo token may go: every way of smuggling another host past the list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from common.errors import ForbiddenHost, SettingsError
from common.urls import AllowedHosts

HTTPS = AllowedHosts(["api.syncaroo.com", "API2.Syncaroo.com:8443", "[2001:db8::1]:8444"], allow_http=False)
SANDBOX = AllowedHosts(["127.0.0.1:8081", "localhost"], allow_http=True)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.syncaroo.com/v1/locations/12",
        "https://api.syncaroo.com",
        "https://api.syncaroo.com?page=2",
        "https://api.syncaroo.com:443/v1/locations/12?cursor=a%2Fb",
        "HTTPS://API.SYNCAROO.COM/v1/locations",
        "https://api2.syncaroo.com:8443/v1/locations",
        "https://[2001:db8::1]:8444/v1/locations",
        "https://api.syncaroo.com/v1/x?next=https://user@evil.test/",
        "https://api.syncaroo.com/@evil.test",
    ],
)
def test_passes_exactly_the_listed_hosts(url: str) -> None:
    HTTPS.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.syncaroo.com/v1",
        "//api.syncaroo.com/v1",
        "/v1/locations",
        "http://api.syncaroo.com/v1",
        "ftp://api.syncaroo.com/v1",
        "file:///etc/passwd",
        "https:api.syncaroo.com/v1",
        "https:///api.syncaroo.com/v1",
        "https://evil.test/v1",
        "https://api.syncaroo.com.evil.test/v1",
        "https://evil.test/api.syncaroo.com",
        "https://evil.test#api.syncaroo.com",
        "https://evil.test?api.syncaroo.com",
        "https://xapi.syncaroo.com/v1",
        "https://sub.api.syncaroo.com/v1",
        "https://api.syncaroo.com./v1",
        "https://api.syncaroo.com:8443/v1",
        "https://api.syncaroo.com:80/v1",
        "https://api.syncaroo.com:/v1",
        "https://api.syncaroo.com:0/v1",
        "https://api.syncaroo.com:99999/v1",
        "https://api.syncaroo.com:443x/v1",
        "https://api2.syncaroo.com/v1",
        "https://api.syncaroo.com@evil.test/v1",
        "https://user@api.syncaroo.com/v1",
        "https://user:word@api.syncaroo.com/v1",
        "https://@api.syncaroo.com/v1",
        "https://:@api.syncaroo.com/v1",
        "https://evil.test\\@api.syncaroo.com/v1",
        "https://api.syncaroo.com\\.evil.test/v1",
        "https://api.syncaroo.com\\v1",
        "https://api.syncaroo.com\t.evil.test/v1",
        "https://api.syncaroo.com/v1\t",
        " https://api.syncaroo.com/v1",
        "https://api.syncaroo.com/v1 ",
        "https://api.syncaroo.com/a b",
        "https://api.syncaroo.com/v1\r\nX: y",
        "https://api.syncaroo.com/\x00",
        "https://api.syncaroo.com/\x7f",
        "https://api.syncaroo。com/v1",
        "https://api.syncaroo.com。evil.test/v1",
        "https://\u0430pi.syncaroo.com/v1",
        "https://api.syncaroo.com/é",
        "https://api%2esyncaroo.com/v1",
        "https://api.syncaroo.com%2eevil.test/v1",
        "https://api.syncaroo.com%00.evil.test/v1",
        "https://[::1]/v1",
        "https://[api.syncaroo.com]/v1",
        "https://127.0.0.1/v1",
        "https://2130706433/v1",
        "https://169.254.169.254/latest/meta-data",
        "https://api.syncaroo.com,evil.test/v1",
        "https://evil.test;api.syncaroo.com/v1",
    ],
)
def test_refuses_everything_else(url: str) -> None:
    with pytest.raises(ForbiddenHost):
        HTTPS.check(url)


def test_http_passes_only_where_it_is_allowed() -> None:
    SANDBOX.check("http://127.0.0.1:8081/v1/locations")
    SANDBOX.check("http://localhost/v1")
    SANDBOX.check("https://localhost/v1")
    for url in ("http://127.0.0.1/v1", "http://localhost:443/v1", "https://localhost:80/v1", "ws://localhost/v1"):
        with pytest.raises(ForbiddenHost):
            SANDBOX.check(url)


@pytest.mark.parametrize(
    "entry", ["https://api.syncaroo.com", "api.syncaroo.com/v1", "u@h", "h:x", "h h", "é.test", "*"]
)
def test_an_entry_that_is_no_host_is_a_wrong_setting(entry: str) -> None:
    with pytest.raises(SettingsError, match="SYNCAROO_API_HOSTS"):
        AllowedHosts([entry], allow_http=False)


@given(st.sampled_from("/?#"), st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\")))
def test_whatever_follows_a_listed_host_it_is_still_the_host_that_would_be_asked(mark: str, rest: str) -> None:
    url = f"https://api.syncaroo.com{mark}{rest}"
    HTTPS.check(url)
    sent = URL(url, encoded=True)
    assert (sent.scheme, sent.raw_host, sent.port, sent.raw_user) == ("https", "api.syncaroo.com", 443, None)
