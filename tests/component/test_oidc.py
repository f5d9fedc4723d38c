"""ingress.oidc: users log in at the platform's own identity provider, or are told why not."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from html import unescape
from typing import Any

import pytest
from aiohttp import ClientResponse
from structlog.testing import capture_logs
from yarl import URL

from ingress.oidc.client import OidcClient
from ingress.oidc.provider import KEPT_SECONDS, IdentityProvider
from ingress.oidc.rules import Client
from schemas.messages import Json
from schemas.tables import ConnectionRow, UserRow
from tests.component.gateway_parts import LOCATIONS, Clock, Gateway, authorize, first_form, query_of, running
from tests.oidc_provider import CLIENT_ID, CLIENT_SECRET, FakeProvider, provider, signing_key

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""What a database has to do with it is in test_login.py."""
REDIRECT_URI = "https://gateway.example/login/callback"


@dataclass
class World:
    gateway: Gateway
    provider: FakeProvider
    clock: Clock
    identities: IdentityProvider = field(repr=False)

    async def get(self, address: str) -> ClientResponse:
        return await self.gateway.http.get(address, allow_redirects=False)

    async def leave(self, address: str | None = None) -> str:
        """Off to the provider: where the browser is sent."""
        answer = await self.get(address or authorize())
        assert answer.status == 303
        return answer.headers["Location"]

    async def log_in(self, address: str | None = None) -> ClientResponse:
        """To the provider and back."""
        return await self.get(self.provider.come_back(await self.leave(address)))

    def another_browser(self) -> None:
        self.gateway.http.session.cookie_jar.clear()

    async def users(self) -> list[str]:
        return sorted(row.user_id for row in await self.gateway.rows(UserRow))


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with provider(REDIRECT_URI) as fake:
        clock = Clock()
        client = Client(fake.issuer, CLIENT_ID, CLIENT_SECRET, REDIRECT_URI)
        identities = IdentityProvider(client, clock, http=OidcClient())
        async with running(database_url, identities) as gateway:
            yield World(gateway, fake, clock, identities)


async def test_to_the_provider_and_back_to_consent_and_syncaroo(world: World) -> None:
    address = authorize(state="s & t")
    back = await world.log_in(address)
    assert (back.status, query_of(back.headers["Location"])) == (303, query_of(address))
    assert back.headers["Location"].startswith("/api/oauth/authorize?")
    consent = await world.get(address)
    assert consent.status == 200
    assert "user-7" in await consent.text()
    sent = await world.gateway.submit(address, decision="allow")
    code = query_of(sent.headers["Location"])["code"]
    _, pair = await world.gateway.redeem(code)
    checked = await (await world.gateway.check(pair["accessToken"])).json()
    assert checked == {"connectionId": 99, "userId": "user-7", "locations": {}}


async def test_a_user_whom_the_platform_has_told_us_of_is_the_same_one(world: World) -> None:
    status, _ = await world.gateway.admin("PUT", "users/user-7", {"login": "ada"})
    assert status == 201
    await world.gateway.admin("PUT", "users/user-7/locations", LOCATIONS)
    await world.log_in()
    text = await (await world.get(authorize())).text()
    assert "ada" in text
    assert "Demo Meeting Room - London" in text
    assert await world.users() == ["user-7"]


async def test_no_password_opens_anything(world: World) -> None:
    await world.gateway.add_user()
    for address in (authorize(), "/account"):
        data = {"login": "ada", "password": "ada-password"}
        assert await leads_back_to(address, await world.gateway.http.post(address, data=data, allow_redirects=False))
        assert (await world.get(address)).status == 303


async def leads_back_to(address: str, answer: ClientResponse) -> bool:
    """A page with a link: no redirect after a form may lead to the provider, which our form-action does not name."""
    text = await answer.text()
    assert (answer.status, answer.content_type) == (401, "text/html")
    assert "session has ended" in text
    (link,) = re.findall(r'<a href="([^"]*)">', text)
    return URL(unescape(link)) == URL(address)


async def test_who_answers_a_page_after_the_session_s_end_is_told_and_led_back(world: World) -> None:
    address = authorize(state='a"b&c')
    await world.log_in(address)
    decision = first_form(await (await world.get(address)).text()).fields | {"decision": "allow"}
    revocation = {"connectionId": "99", "sure": "yes", "csrf": decision["csrf"]}
    world.another_browser()
    post = world.gateway.http.post
    assert await leads_back_to(address, await post(address, data=decision, allow_redirects=False))
    assert await leads_back_to("/account", await post("/account/revoke", data=revocation, allow_redirects=False))
    assert URL((await world.log_in(address)).headers["Location"]) == URL(address)
    assert await world.gateway.rows(ConnectionRow) == []


async def test_the_session_is_a_fresh_one_and_ends_with_the_user(world: World) -> None:
    """T-OP-LOGIN, T-OP-REVOKE"""
    await world.leave()
    before = {cookie.key: cookie.value for cookie in world.gateway.http.session.cookie_jar}
    await world.log_in()
    after = {cookie.key: cookie.value for cookie in world.gateway.http.session.cookie_jar}
    assert before["gateway"] != after["gateway"]
    assert (await world.get(authorize())).status == 200
    await world.gateway.admin("DELETE", "users/user-7")
    assert (await world.get(authorize())).status == 303
    world.another_browser()
    await world.log_in()  # who is erased and comes again is a new user
    world.gateway.http.session.cookie_jar.clear()
    world.gateway.http.session.cookie_jar.update_cookies(after)
    assert (await world.get(authorize())).status == 303, "the session of the user that was erased"


# --- what is refused -----------------------------------------------------------------------------------------------


async def test_a_state_is_used_once_and_by_the_browser_that_began(world: World) -> None:
    back = world.provider.come_back(await world.leave())
    mine = {cookie.key: cookie.value for cookie in world.gateway.http.session.cookie_jar}
    for changed in (back.replace("state=", "state=x"), back.replace("state=", "other=")):
        assert (await world.get(changed)).status == 400
    world.another_browser()
    await world.leave()
    assert (await world.get(back)).status == 400, "of another session"
    world.another_browser()
    assert (await world.get(back)).status == 400, "of none"
    world.gateway.http.session.cookie_jar.update_cookies(mine)
    assert (await world.get(back)).status == 303
    assert (await world.get(back)).status == 400, "replayed"
    assert world.provider.asked.count("/token") == 1


async def test_several_sign_ins_of_one_browser_do_not_mix(world: World) -> None:
    one, two = authorize(1), authorize(2)
    first, second = await world.leave(one), await world.leave(two)
    back = await world.get(world.provider.come_back(first))
    assert query_of(back.headers["Location"])["connectionId"] == "1"
    # Logging in began a fresh session: what was begun before it is over, and not needed any more.
    late = await world.get(world.provider.come_back(second))
    text = await late.text()
    assert late.status == 400
    assert "You are signed in already" in text
    assert '<a href="/account">' in text
    world.another_browser()
    assert "signed in already" not in await (await world.get(world.provider.come_back(second))).text()


async def test_an_address_that_no_cookie_can_hold_is_refused_and_many_are_bounded(world: World) -> None:
    assert (await world.get(authorize(state="s" * 3000))).status == 400
    for number in range(8):
        await world.leave(authorize(number + 1, state="s" * 900))
    (cookie,) = world.gateway.http.session.cookie_jar
    assert len(cookie.value) < 4000
    assert (await world.log_in()).status == 303


LIES: list[tuple[str, dict[str, Any]]] = [
    ("another issuer", {"claims": {"iss": "https://evil.example"}}),
    ("no issuer", {"claims": {"iss": ...}}),
    ("another audience", {"claims": {"aud": "somebody else"}}),
    ("another audience in a list", {"claims": {"aud": ["somebody else"]}}),
    ("several audiences, made for none", {"claims": {"aud": [CLIENT_ID, "somebody else"]}}),
    ("made for another", {"claims": {"aud": [CLIENT_ID, "b"], "azp": "b"}}),
    ("another audience, for our use", {"claims": {"aud": "somebody else", "azp": CLIENT_ID}}),
    ("other audiences, for our use", {"claims": {"aud": ["a", "b"], "azp": CLIENT_ID}}),
    ("no audience", {"claims": {"aud": ...}}),
    ("expired", {"claims": {"exp": 1}}),
    ("never expires", {"claims": {"exp": ...}}),
    ("from the future", {"claims": {"iat": 9_999_999_999}}),
    ("expires in words", {"claims": {"exp": "tomorrow"}}),
    ("another nonce", {"claims": {"nonce": "x"}}),
    ("no nonce", {"claims": {"nonce": ...}}),
    ("of another access token", {"claims": {"at_hash": "x"}}),
    ("nobody", {"claims": {"sub": ""}}),
    ("nobody at all", {"claims": {"sub": ...}}),
    ("a number", {"claims": {"sub": 7}}),
    ("NUL", {"claims": {"sub": "a\0b"}}),
    ("too long", {"claims": {"sub": "x" * 300}}),
    ("not signed", {"unsigned": True}),
    ("signed by another key", {"key": signing_key("first")}),
    ("signed by an unknown key", {"key": signing_key("unknown")}),
    ("not a token", {"answer": {"id_token": "a.b"}}),
]


@pytest.mark.parametrize("lie", [lie for _, lie in LIES], ids=[name for name, _ in LIES])
async def test_what_is_not_credible_logs_nobody_in(lie: dict[str, Any], database_url: str) -> None:
    async with provider(REDIRECT_URI) as fake:
        for name, value in lie.items():
            setattr(fake, name, value)
        client = Client(fake.issuer, CLIENT_ID, CLIENT_SECRET, REDIRECT_URI)
        identities = IdentityProvider(client, Clock(), http=OidcClient())
        async with running(database_url, identities) as gateway:
            left = await gateway.http.get(authorize(), allow_redirects=False)
            answer = await gateway.http.get(fake.come_back(left.headers["Location"]), allow_redirects=False)
            assert answer.status == 403
            text = await answer.text()
            assert "could not be verified" in text
            assert 'href="/api/oauth/authorize?' in text, "the way to try again"
            again = await gateway.http.get(authorize(), allow_redirects=False)
            assert again.status == 303, "still nobody"
            assert await gateway.rows(UserRow) == []


async def test_a_secret_of_ours_signs_no_id_token(world: World) -> None:
    """A key that both know proves nothing: HS256 is refused although the provider offers it."""
    from joserfc import jwt
    from joserfc.jwk import OctKey

    location = await world.leave()
    claims = {"iss": world.provider.issuer, "sub": "root", "aud": CLIENT_ID, "iat": 1, "exp": 9_999_999_999}
    claims["nonce"] = query_of(location)["nonce"]
    forged = jwt.encode({"alg": "HS256", "kid": "first"}, claims, OctKey.import_key(CLIENT_SECRET))
    world.provider.answer = {"id_token": forged}
    assert (await world.get(world.provider.come_back(location))).status == 403
    assert await world.users() == []


async def test_an_answer_of_another_issuer_is_refused_before_its_code_is_sent(world: World) -> None:
    back = world.provider.come_back(await world.leave(), iss="https://evil.example")
    assert (await world.get(back)).status == 403
    assert "/token" not in world.provider.asked


async def test_a_code_of_another_sign_in_is_refused(world: World) -> None:
    """The verifier and the nonce are those of the session: a code that was slipped in logs nobody in."""
    stolen = query_of(world.provider.come_back(await world.leave()))["code"]
    world.another_browser()
    back = world.provider.come_back(await world.leave(), code=stolen)
    assert (await world.get(back)).status == 403
    assert await world.users() == []


async def test_what_the_provider_says_instead_is_shown_in_words_and_escaped(world: World) -> None:
    back = world.provider.come_back(
        await world.leave(), code="", error="access_denied", error_description="<script>alert(1)</script>"
    )
    answer = await world.get(back)
    text = await answer.text()
    assert answer.status == 403
    assert "access_denied: &lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert (await world.get(back)).status == 400, "used"
    forged = await world.get("/login/callback?state=x&error=Call+555-1234")
    assert forged.status == 400
    assert "555" not in await forged.text(), "strangers put no words into our mouth"
    assert (await world.get("/login/callback?state=x")).status == 400
    assert (await world.get("/login/callback?state=x&code=a&code=b")).status == 400


# --- a provider that is not there, or not what it should be --------------------------------------------------------


AWAY = "sign-in service does not answer"
NOT_SET_UP = "Signing in is not set up correctly here"


async def is_clearly_unavailable(answer: ClientResponse, why: str = AWAY) -> bool:
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert [words for words in (AWAY, NOT_SET_UP) if words in await answer.text()] == [why]
    return True


async def test_a_provider_that_is_down_is_said_so_and_comes_back(world: World) -> None:
    world.provider.broken = 502
    assert await is_clearly_unavailable(await world.get(authorize()))
    world.provider.broken = None
    location = await world.leave()
    back = world.provider.come_back(location)
    for status in (500, 429):
        world.provider.broken = status
        assert await is_clearly_unavailable(await world.get(back))
    world.provider.broken = None
    assert (await world.get(back)).status == 303, "the same link works once the provider does"


class Silent(OidcClient):
    """Waits for ever: what bounds it is above it."""

    async def get(self, url: str) -> Json:
        await asyncio.Event().wait()


async def test_a_provider_that_hangs_holds_nobody_up(database_url: str) -> None:
    client = Client("https://login.example", CLIENT_ID, CLIENT_SECRET, REDIRECT_URI)
    identities = IdentityProvider(client, Clock(), http=Silent(), seconds=0.3)
    async with running(database_url, identities) as gateway:
        answers = await asyncio.gather(*(gateway.http.get(authorize(), allow_redirects=False) for _ in range(10)))
        assert [await is_clearly_unavailable(answer) for answer in answers] == [True] * 10


async def test_without_a_provider_at_that_address(database_url: str) -> None:
    client = Client("http://127.0.0.1:1", CLIENT_ID, CLIENT_SECRET, REDIRECT_URI)
    identities = IdentityProvider(client, Clock(), http=OidcClient())
    async with running(database_url, identities) as gateway:
        assert await is_clearly_unavailable(await gateway.http.get(authorize()))


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"issuer": ...},
        {"authorization_endpoint": "http://login.example/authorize"},
        {"token_endpoint": "http://login.example/token"},
        {"jwks_uri": ...},
        {"jwks_uri": 5},
        {"id_token_signing_alg_values_supported": ["none", "HS256"]},
        {"token_endpoint_auth_methods_supported": ["private_key_jwt"]},
    ],
    ids=str,
)
async def test_a_description_that_we_must_not_follow(metadata: dict[str, Any], database_url: str) -> None:
    async with provider(REDIRECT_URI) as fake:
        fake.metadata = metadata
        client = Client(fake.issuer, CLIENT_ID, CLIENT_SECRET, REDIRECT_URI)
        identities = IdentityProvider(client, Clock(), http=OidcClient())
        async with running(database_url, identities) as gateway:
            assert await is_clearly_unavailable(await gateway.http.get(authorize(), allow_redirects=False), NOT_SET_UP)


async def test_a_wrong_secret_is_our_fault_and_not_the_user_s(world: World) -> None:
    """Nor an outage: waiting does not mend it, and the log says which settings do."""
    location = await world.leave()
    world.identities._client = Client(world.provider.issuer, CLIENT_ID, "wrong", REDIRECT_URI)
    with capture_logs() as logged:
        answer = await world.get(world.provider.come_back(location))
    assert await is_clearly_unavailable(answer, NOT_SET_UP)
    (line,) = [one for one in logged if one["event"] == "oidc.unusable"]
    assert "401 invalid_client: see OIDC_CLIENT_ID, OIDC_CLIENT_SECRET" in line["reason"]
    assert "wrong" not in str(line)


async def test_the_secret_goes_in_the_body_where_the_provider_wants_it_there(world: World) -> None:
    world.provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert (await world.log_in()).status == 303


# --- what is kept --------------------------------------------------------------------------------------------------


async def test_the_description_and_the_keys_are_kept_for_an_hour(world: World) -> None:
    for _ in range(3):
        world.another_browser()
        assert (await world.log_in()).status == 303
    assert [world.provider.asked.count(path) for path in ("/.well-known/openid-configuration", "/jwks")] == [1, 1]
    world.clock.now = KEPT_SECONDS + 1
    world.another_browser()
    assert (await world.log_in()).status == 303
    assert [world.provider.asked.count(path) for path in ("/.well-known/openid-configuration", "/jwks")] == [2, 2]


@pytest.mark.parametrize("name", ["second", "first"])
async def test_the_provider_may_rotate_its_keys_at_any_time(world: World, name: str) -> None:
    """Under another name, and, as some do, under the same."""
    assert (await world.log_in()).status == 303
    world.provider.key = signing_key(name)
    world.provider.published = [world.provider.key]
    world.another_browser()
    assert (await world.log_in()).status == 303
    assert world.provider.asked.count("/jwks") == 2


UNUSABLE: list[Any] = [
    {"kty": "EC", "crv": "P-999", "x": "AA", "y": "AA", "kid": "a curve of tomorrow"},
    {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "not on its curve"},
    {"kty": "AKP", "kid": "of a kind of tomorrow"},
    {"kty": "RSA", "kid": "incomplete"},
    {"kty": ["RSA"]},
    {},
    "text",
    None,
]


@pytest.mark.parametrize("key", UNUSABLE, ids=str)
async def test_a_key_that_we_cannot_use_is_passed_over(world: World, key: Any) -> None:
    """RFC 7517 §5"""
    world.provider.also_published = [key]
    assert (await world.log_in()).status == 303


@pytest.mark.parametrize("keys", [[], UNUSABLE], ids=["empty", "unusable"])
async def test_without_any_key_the_provider_is_of_no_use(world: World, keys: list[Any]) -> None:
    world.provider.published, world.provider.also_published = [], keys
    assert await is_clearly_unavailable(await world.log_in(), NOT_SET_UP)


async def test_without_oidc_nobody_comes_back(database_url: str) -> None:
    async with running(database_url) as gateway:
        assert (await gateway.http.get("/login/callback?code=x&state=y")).status == 404
        assert first_form(await (await gateway.http.get(authorize())).text()).visible == ["text", "password"]
