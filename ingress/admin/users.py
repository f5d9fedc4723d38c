"""`users/…`: who may connect, and the platform's own listings of each."""

from __future__ import annotations

from aiohttp import web

from ingress.admin.answers import answer, done, missing, path_name, read_json
from ingress.admin.rules import read_user
from ingress.admin.store.users import LoginTaken, UserStore
from ingress.inventory import as_map, read_location, read_locations
from ingress.passwords import Passwords
from ingress.problems import problem


class UserEndpoints:
    """Users and their locations."""

    def __init__(self, store: UserStore, passwords: Passwords) -> None:
        self._store = store
        self._passwords = passwords

    async def put(self, request: web.Request) -> web.Response:
        """Create (201) or change (200) a user; 409 when the login is another's."""
        change = read_user(await read_json(request), path_name(request, "userId"))
        hashed = None if change.password is None else await self._passwords.hash(change.password)
        try:
            created = await self._store.put_user(change, hashed)
        except LoginTaken:
            return problem(409, "/problems/login-taken", "Login taken", "Another user has this login. Choose another.")
        return answer(await self._store.user(change.user_id), 201 if created else 200)

    async def get(self, request: web.Request) -> web.Response:
        """One user, without the password."""
        user = await self._store.user(path_name(request, "userId"))
        return missing("user") if user is None else answer(user)

    async def delete(self, request: web.Request) -> web.Response:
        """Erase a person's data and revoke their connections."""
        return done() if await self._store.erase_user(path_name(request, "userId")) else missing("user")

    async def get_locations(self, request: web.Request) -> web.Response:
        """The map of §3.3."""
        locations = await self._store.locations(path_name(request, "userId"))
        return missing("user") if locations is None else answer(as_map(locations))

    async def put_locations(self, request: web.Request) -> web.Response:
        """Replace the map; what is absent is marked `deleted`."""
        locations = read_locations(await read_json(request))
        kept = await self._store.put_locations(path_name(request, "userId"), locations)
        return missing("user") if kept is None else answer(as_map(kept))

    async def put_location(self, request: web.Request) -> web.Response:
        """Add (201) or replace (200) one location."""
        location = read_location(await read_json(request), path_name(request, "locationId"))
        created = await self._store.put_location(path_name(request, "userId"), location)
        return missing("user") if created is None else answer(location, 201 if created else 200)

    async def delete_location(self, request: web.Request) -> web.Response:
        """Mark one location `deleted`."""
        user_id, location_id = path_name(request, "userId"), path_name(request, "locationId")
        return done() if await self._store.delete_location(user_id, location_id) else missing("location")
