"""check_connection: Syncaroo asks which listings a connection has, at first and again and again (CONTRACT §3.3).

Documented by Syncaroo: the request, the answer's shape and its `Content-Type`. Ours: the first success confirms the
connection, and 401 and 403.
"""

from __future__ import annotations

import msgspec
from aiohttp import hdrs, web

from common.access_tokens import AccessToken, AccessTokens
from common.clock import wall_seconds
from common.codec import dumps
from ingress.bearer import bearer_token, other_connection, unauthorized
from ingress.inventory import Location, as_map
from ingress.oauth.store import OAuthStore
from ingress.parameters import one, positive_number, singles
from ingress.platform.listings import Listings


class UsersListings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whose connection it is, and the user's locations by `ID`; the names are the guide's."""

    connection_id: int
    user_id: str
    locations: dict[str, Location]


class CheckEndpoint:
    """Answers with the user's listings."""

    def __init__(self, store: OAuthStore, tokens: AccessTokens, listings: Listings) -> None:
        self._store = store
        self._tokens = tokens
        self._listings = listings

    async def check(self, request: web.Request) -> web.Response:
        """GET: 200 with the listings, 401 for a token that is worth nothing, 403 for another connection's."""
        token = self._tokens.read(bearer_token(request) or "", wall_seconds())
        if not isinstance(token, AccessToken):
            return unauthorized("The access token is missing, wrong or expired. Use the refresh token to get another.")
        connection_id = positive_number(one(singles(request.query.items()), "connectionId"), "connectionId")
        if token.connection_id != connection_id:
            return other_connection()
        checked = await self._store.check(token)
        if checked is None:
            return unauthorized("The connection was revoked. The user has to authorize it again.")
        locations = await self._listings.of(checked.user_id, checked.connection_id, checked.locations)
        body = UsersListings(connection_id=checked.connection_id, user_id=checked.user_id, locations=as_map(locations))
        headers = {hdrs.CONTENT_TYPE: "application/json; charset=UTF-8", hdrs.CACHE_CONTROL: "no-store"}
        return web.Response(body=dumps(body), headers=headers)
