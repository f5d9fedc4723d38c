"""`users/…`: who may connect, and the platform's own listings of each."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from common.clock import monotonic_seconds
from common.errors import StoreUnavailable
from common.logs import get_logger
from common.store.erasing import ErasureStore
from ingress.admin.answers import answer, done, missing, page_of, path_name, query_of, read_json
from ingress.admin.rules import UserChange, cursor, read_paging, read_user
from ingress.admin.store.users import LoginTaken, UserStore
from ingress.inventory import as_map, read_location, read_locations
from ingress.passwords import Passwords
from ingress.platform.store import InventoryStore
from ingress.problems import problem

ERASING_SECONDS = 5.0
"""No batch is begun after that: a relay goes on with what is left."""

log = get_logger(__name__)


class UserEndpoints:
    """Users and their locations."""

    def __init__(
        self, store: UserStore, inventory: InventoryStore, erasures: ErasureStore, passwords: Passwords
    ) -> None:
        self._store = store
        self._inventory = inventory
        self._erasures = erasures
        self._passwords = passwords

    async def list(self, request: web.Request) -> web.Response:
        """By id, without passwords."""
        paging = read_paging(query_of(request), str)
        found = await self._store.users(paging)
        return page_of(found, cursor(found[-1].user_id) if len(found) == paging.limit else None)

    async def put(self, request: web.Request) -> web.Response:
        """Create (201) or change (200) a user; 409 when the login is another's."""
        change = read_user(await read_json(request), path_name(request, "userId"))
        try:
            created = await self._store.put_user(change, await self._new_hash(change))
        except LoginTaken:
            return problem(409, "/problems/login-taken", "Login taken", "Another user has this login. Choose another.")
        return answer(await self._store.user(change.user_id), 201 if created else 200)

    async def _new_hash(self, change: UserChange) -> str | None:
        """None: the password stays. The same one hashed anew would end the user's sessions at each PUT."""
        if change.password is None:
            return None
        known = await self._store.password_hash(change.user_id)
        if known is not None and await self._passwords.verify(known, change.password):
            return None
        return await self._passwords.hash(change.password)

    async def get(self, request: web.Request) -> web.Response:
        """One user, without the password."""
        user = await self._store.user(path_name(request, "userId"))
        return missing("user") if user is None else answer(user)

    async def delete(self, request: web.Request) -> web.Response:
        """Erase a person's data and revoke their connections (204); of very much the rest goes later."""
        connections = await self._erasures.erase(path_name(request, "userId"))
        if connections is None:
            return missing("user")
        log.info("user.erased", connections=connections)
        await self._erase_what_is_kept(connections)
        return done()

    async def _erase_what_is_kept(self, connections: Sequence[int]) -> None:
        ends = monotonic_seconds() + ERASING_SECONDS
        try:
            for connection_id in connections:
                while monotonic_seconds() < ends and await self._erasures.erase_some(connection_id):
                    pass
        except StoreUnavailable as error:  # it is written down what is left
            log.warning("erasing.waiting", reason=str(error))

    async def get_locations(self, request: web.Request) -> web.Response:
        """The map of §3.3."""
        locations = await self._inventory.locations(path_name(request, "userId"))
        return missing("user") if locations is None else answer(as_map(locations))

    async def put_locations(self, request: web.Request) -> web.Response:
        """Replace the map; what is absent is marked `deleted`."""
        locations = read_locations(await read_json(request))
        kept = await self._inventory.put_locations(path_name(request, "userId"), locations)
        return missing("user") if kept is None else answer(as_map(kept))

    async def put_location(self, request: web.Request) -> web.Response:
        """Add (201) or replace (200) one location."""
        location = read_location(await read_json(request), path_name(request, "locationId"))
        created = await self._inventory.put_location(path_name(request, "userId"), location)
        return missing("user") if created is None else answer(location, 201 if created else 200)

    async def delete_location(self, request: web.Request) -> web.Response:
        """Mark one location `deleted`."""
        user_id, location_id = path_name(request, "userId"), path_name(request, "locationId")
        return done() if await self._inventory.delete_location(user_id, location_id) else missing("location")
