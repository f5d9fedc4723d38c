"""`listings/…`: what is known, and how it came to be so."""

from __future__ import annotations

from aiohttp import web

from ingress.admin.answers import answer, missing, page_of, path_name, query_of
from ingress.admin.rules import cursor, read_listing_filter, read_paging
from ingress.admin.store.listings import ListingStore


class ListingEndpoints:
    """Listings and their histories."""

    def __init__(self, store: ListingStore) -> None:
        self._store = store

    async def list(self, request: web.Request) -> web.Response:
        """By connection and id, filtered."""
        query = query_of(request)
        paging = read_paging(query, int, str)
        found = await self._store.listings(read_listing_filter(query), paging)
        more = len(found) == paging.limit
        return page_of(found, cursor(found[-1].connection_id, found[-1].listing_id) if more else None)

    async def get(self, request: web.Request) -> web.Response:
        """One listing as it is now."""
        found = await self._store.listing(path_name(request, "listingId"))
        return missing("listing") if found is None else answer(found)

    async def history(self, request: web.Request) -> web.Response:
        """Every version of one listing and every attempt to read it, newest first."""
        paging = read_paging(query_of(request), int)
        listing = await self._store.listing(path_name(request, "listingId"))
        if listing is None:
            return missing("listing")
        past = await self._store.history(listing, paging)
        more = len(past) == paging.limit
        return page_of([told for _, told in past], cursor(past[-1][0]) if more else None)
