"""HTTP to the identity provider: no redirect, no retry, answers read up to a cap."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp

from common.bodies import read_at_most
from common.codec import loads
from common.errors import BadJson, IdentityUnavailable
from schemas.messages import Json

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 10.0
LARGEST_ANSWER = 512 * 1024


class OidcClient:
    """Asks; each time over a connection of its own, as logins are rare."""

    async def get(self, url: str) -> Json:
        """The document at `url`.

        Raises:
            IdentityUnavailable: no answer, or none that is a document.
        """
        status, body = await self._ask("GET", url)
        if status != 200:
            raise IdentityUnavailable(f"{url} answered {status}")
        return body

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, Json]:
        """Status and document of the answer to a form.

        Raises:
            IdentityUnavailable: no answer, or 5xx or 429, or none that is a document.
        """
        status, body = await self._ask("POST", url, form, headers)
        if status >= 500 or status == 429:
            raise IdentityUnavailable(f"{url} answered {status}")
        return status, body

    async def _ask(
        self, method: str, url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Json]:
        try:
            async with (
                _session() as session,
                session.request(method, url, data=form, headers=headers, allow_redirects=False) as answer,
            ):
                return answer.status, loads(await read_at_most(answer, LARGEST_ANSWER) or b"")
        except BadJson:
            raise IdentityUnavailable(f"{url} did not answer with JSON") from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # Without the cause: its text holds the request.
            raise IdentityUnavailable(f"{url}: {type(error).__name__}") from None


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=TOTAL_SECONDS, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS),
        headers={"Accept": "application/json"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,  # the environment's proxies are not asked
    )
