"""`GET /v1/…`: locations, resources and rates as the guide answers them, strict about headers, paged, breakable.

A call flows: record → faults that replace the answer → bearer and Accept → item or page → faults that bend the answer.
"""

import asyncio
import contextlib
from typing import Any

from aiohttp import web
from multidict import CIMultiDictProxy

from sandbox import breakage, paging
from sandbox.config import Single
from sandbox.invent import JsonObject
from sandbox.records import CallRecord
from sandbox.state import SANDBOX, Sandbox, json_answer
from sandbox.world import Node, UnknownItemError

SUMMARY = ("ID", "id", "syncarooId", "Name", "name", "type", "price", "period")
"""What lists hold of an item under `summaries`."""


def routes() -> list[web.RouteDef]:
    return [web.route("*", "/v1/{rest:.*}", call)]


async def call(request: web.Request) -> web.StreamResponse:
    """Any call to the API, with its record."""
    sandbox = request.app[SANDBOX]
    record = sandbox.records.call_began(
        request.method, sandbox.url(request.raw_path), request.headers.get("Host", ""), bearer(request.headers) or ""
    )
    response = await Call(sandbox, request, record).answer()
    if record.order_ended is None:
        sandbox.records.ended(record, response.status)
    return response


def bearer(headers: CIMultiDictProxy[str]) -> str | None:
    """The token of `Authorization: Bearer …`, exactly so; None without it."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token if scheme == "Bearer" and token and " " not in token else None


class Call:
    """One call, answered step by step; a step that refuses gives the answer, else None."""

    def __init__(self, sandbox: Sandbox, request: web.Request, record: CallRecord) -> None:
        self._sandbox = sandbox
        self._request = request
        self._record = record
        raw_path, _, self._query = request.raw_path.partition("?")
        self._path = "/" + raw_path.strip("/")
        self._url = sandbox.url(self._path)
        self._page = paging.asked(self._url, self._query)

    async def answer(self) -> web.StreamResponse:
        refused = self._replaced() or self._unauthorised() or self._refused()
        response = refused or self._content()
        await self._slow()
        if refused is None and response.status == 200:
            return await self._broken(response)
        return response

    # faults

    def _strikes(self, kind: str) -> Any:
        fault = self._sandbox.faults.take(kind, self._record.url, self._page)
        if fault is not None:
            self._record.fault = f"{self._record.fault} {kind}".strip()
        return fault

    def _replaced(self) -> web.Response | None:
        if fault := self._strikes("api_status"):
            return breakage.refusal(fault)
        if fault := self._strikes("api_redirect"):
            return web.Response(
                status=302, headers={"Location": fault.url or self._sandbox.config.foreign_url + self._path}
            )
        if self._strikes("api_html"):
            return breakage.html()
        return None

    async def _slow(self) -> None:
        if fault := self._strikes("api_slow"):
            await asyncio.sleep(fault.seconds)

    async def _broken(self, response: web.Response) -> web.StreamResponse:
        if self._strikes("api_reset"):
            self._sandbox.records.ended(self._record, 0)
            return breakage.reset(self._request)
        if self._strikes("api_truncate"):
            self._sandbox.records.ended(self._record, response.status)
            return await breakage.truncated(self._request, response)
        return response

    # strictness

    def _unauthorised(self) -> web.Response | None:
        if self._request.host != self._sandbox.config.netloc:
            self._violation("foreign_host", f"a call came to {self._request.host}, which is not our host")
        token = bearer(self._request.headers)
        state = self._sandbox.grants.access_state(token or "")
        if token is None:
            self._violation("no_bearer", "Authorization: Bearer <token> is missing or spelt otherwise")
        elif token in self._sandbox.platform_tokens():
            self._violation("mixed_tokens", "the platform's own token was sent to our API")
        elif state == "unknown":
            self._violation("unknown_token", "a token that we never issued")
        if state == "live":
            return None
        return json_answer({"error": "unauthorized"}, 401, {"WWW-Authenticate": "Bearer"})

    def _refused(self) -> web.Response | None:
        if self._request.method != "GET":
            self._violation("method", f"the API is read with GET, not {self._request.method}")
            return json_answer({"error": "method not allowed"}, 405, {"Allow": "GET"})
        if self._request.headers.get("Accept") != "application/json":
            self._violation("accept", "Accept must be application/json")
            return json_answer({"error": "not acceptable"}, 406)
        if self._page is None:
            self._violation("altered_link", f"a link that we did not prepare: {self._path}?{self._query}")
            return json_answer({"error": "bad page"}, 400)
        return None

    def _violation(self, kind: str, text: str) -> None:
        self._sandbox.records.violation(kind, f"API: {text}")

    # content

    def _content(self) -> web.Response:
        fault = self._strikes("api_stale")
        seen = self._sandbox.world.seen_by_api(fault.seconds * self._sandbox.faults.dice("api_stale") if fault else 0.0)
        item = self._sandbox.world.item(self._path, seen)
        if item is not None:
            return self._single(item)
        nodes = self._sandbox.world.collection(self._path, seen)
        if nodes is None:
            return json_answer({"error": "not found"}, self._sandbox.config.removed_status)
        return self._list(nodes)

    def _single(self, item: Node) -> web.Response:
        whole = paging.Page(1, 1, 0, 1)
        listed = self._sandbox.config.single is Single.LIST
        return self._enveloped([item.data] if listed else item.data, whole)

    def _list(self, nodes: list[Node]) -> web.Response:
        page = paging.cut(len(nodes), self._sandbox.config.page_size, self._page or 1)
        if page is None:
            return json_answer({"error": "not found"}, 404)
        data = [self._listed(node.data) for node in nodes[page.start : page.stop]]
        answer = self._enveloped(data, page)
        if nodes and self._strikes("api_move"):
            with contextlib.suppress(UnknownItemError):  # it is gone already, where the answer is of a while ago
                self._sandbox.world.move(f"{self._path}/{nodes[0].ident}")
        return answer

    def _listed(self, data: JsonObject) -> JsonObject:
        if not self._sandbox.config.summaries:
            return data
        return {name: value for name, value in data.items() if name in SUMMARY}

    def _enveloped(self, data: Any, page: paging.Page) -> web.Response:
        body = {"data": data, "pages": paging.pages(self._url, page)}
        if self._strikes("api_no_pages"):
            del body["pages"]
            return json_answer(body)
        if fault := self._strikes("api_count"):
            body["pages"]["count"] += int(fault.value or "1")
        if fault := self._strikes("api_next"):
            self._bend_next(body["pages"], page, fault.value, fault.url)
        return json_answer(body)

    def _bend_next(self, pages: dict[str, Any], page: paging.Page, value: str, url: str) -> None:
        bent = {
            "null": None,
            "empty": "",
            "repeated": paging.link(self._url, page.current),
            "loop": paging.link(self._url, 1),
            "foreign": url or self._sandbox.config.foreign_url + self._path,
        }
        if value == "absent":
            del pages["next"]
        else:
            pages["next"] = bent[value]
