"""The webhook's way: whose token → read → strict JSON → hash → decide → publish, confirmed → answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from aiohttp import web

from common import tracing
from common.access_tokens import AccessToken, AccessTokens, Expired
from common.broker.outgoing import Outgoing, outgoing, outgoing_dead
from common.clock import monotonic_seconds, utc_now, wall_seconds
from common.codec import dumps, loads
from common.errors import BadJson, BrokerUnavailable, Permanent
from common.ids import new_id
from common.logs import get_logger
from ingress.bearer import bearer_token, other_connection, unauthorized
from ingress.limits import read_body
from ingress.problems import problem
from ingress.webhook.deposit import Deposit
from ingress.webhook.hashes import HashCheck
from ingress.webhook.metrics import WebhookMetrics
from ingress.webhook.rules import Accept, Count, Decision, Forbid, Park, Receipt, Terms, decide

log = get_logger(__name__)


class Accepted(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The broker has the webhook; `delivery_id` is what it is called from here on."""

    status: Literal["accepted"] = "accepted"
    delivery_id: str


class Answered(msgspec.Struct, frozen=True):
    """A response, and the word under which it is counted."""

    outcome: str
    response: web.Response


class WebhookHandler:
    """`POST {API}update` and `POST /update`."""

    def __init__(
        self,
        *,
        prefix: str,
        success_status: int,
        tokens: AccessTokens,
        is_revoked: Callable[[AccessToken], bool],
        terms: Terms,
        hashes: HashCheck,
        deposit: Deposit,
        metrics: WebhookMetrics,
    ) -> None:
        self._prefix = prefix
        self._success_status = success_status
        self._tokens = tokens
        self._is_revoked = is_revoked
        self._terms = terms
        self._hashes = hashes
        self._deposit = deposit
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """Below the API's prefix and at the root: the guide says both."""
        receive = self._receive_traced if tracing.is_on() else self.receive
        return [web.post(path, receive) for path in dict.fromkeys((f"{self._prefix}/update", "/update"))]

    async def _receive_traced(self, request: web.Request) -> web.Response:
        """The trace begins here. One that the request names is a link: nobody outside says what is traced."""
        attributes = {"http.request.method": "POST", "http.route": request.path, "network.protocol.name": "http"}
        links = request.headers.getall(tracing.HEADER, [])[:1]
        with tracing.span("webhook", "server", attributes, links=links):
            response = await self.receive(request)
            tracing.note({"http.response.status_code": response.status})
            return response

    async def receive(self, request: web.Request) -> web.Response:
        """Answer a webhook; success only when the broker has confirmed it."""
        outcome = "malformed"
        try:
            answered = await self._receive(request, monotonic_seconds())
            outcome = answered.outcome
        except BrokerUnavailable:
            outcome = "unavailable"
            raise
        finally:
            self._metrics.webhooks(outcome).inc()
            if tracing.is_on():
                tracing.note({"gateway.outcome": outcome})
        return answered.response

    async def _receive(self, request: web.Request, began: float) -> Answered:
        match self._tokens.read(bearer_token(request) or "", wall_seconds()):
            case None:
                return Answered("unauthorized", unauthorized("The access token is missing or not one of ours."))
            case Expired(token) if not self._is_revoked(token):
                await self._salvage(token, await read_body(request), began)
                return Answered("expired", unauthorized("The access token has expired."))
            case AccessToken() as token if not self._is_revoked(token):
                return await self._accept(token, await read_body(request), began)
            case _:
                return Answered("revoked", unauthorized("The access token was revoked."))

    async def _accept(self, token: AccessToken, raw: bytes, began: float) -> Answered:
        receipt = _receipt(token)
        decision = self._judge(raw, receipt)
        if decision is None:
            return Answered("wrong_hash", _wrong_hash())
        outcome = _outcome(decision)
        if isinstance(decision, Forbid):
            return Answered(outcome, other_connection())
        elapsed = monotonic_seconds() - began
        await self._deposit.put(receipt.connection_id, _messages(decision), elapsed, len(raw))
        # For the many that are as they should be, the next stage has a line of its own.
        tell = log.info if isinstance(decision, Park) else log.debug
        tell("webhook.accepted", outcome=outcome, **_ids(receipt))
        body = dumps(Accepted(delivery_id=receipt.delivery_id))
        response = web.Response(status=self._success_status, body=body, content_type="application/json")
        return Answered(outcome, response)

    async def _salvage(self, token: AccessToken, raw: bytes, began: float) -> None:
        """Nobody will send it again: an authentic webhook that came too late is fetched all the same."""
        receipt = _receipt(token)
        try:
            decision = self._judge(raw, receipt)
            if decision is not None:
                elapsed = monotonic_seconds() - began
                await self._deposit.put(token.connection_id, _messages(decision), elapsed, len(raw))
        except (Permanent, BrokerUnavailable) as error:
            log.warning("webhook.not_salvaged", reason=str(error), **_ids(receipt))

    def _judge(self, raw: bytes, receipt: Receipt) -> Decision | None:
        """The decision; None: the hash forbids one.

        Raises:
            BadJson: the body is not a strict JSON object.
            BadInput: it contradicts itself.
        """
        body = loads(raw)
        if not isinstance(body, dict):
            raise BadJson("not an object")
        verdict = self._hashes.judge(raw, body)
        if verdict is not None:
            self._metrics.hashes(verdict).inc()
        if verdict in ("mismatch", "missing"):
            log.warning("webhook.hash", verdict=verdict, **_ids(receipt))
        return decide(body, receipt, self._terms) if self._hashes.lets_pass(verdict) else None


def _receipt(token: AccessToken) -> Receipt:
    receipt = Receipt(new_id(), token.connection_id, utc_now())
    if tracing.is_on():
        tracing.note({f"gateway.{name}": value for name, value in _ids(receipt).items()})
    return receipt


def _ids(receipt: Receipt) -> dict[str, str | int]:
    """By what it is found in logs and traces."""
    return {"connection_id": receipt.connection_id, "delivery_id": receipt.delivery_id}


def _messages(decision: Decision) -> list[Outgoing]:
    match decision:
        case Accept(message):
            return [outgoing(message, "fetch", message.connection_id)]
        case Park(reason, message, resync):
            dead = outgoing_dead(message, "fetch", reason)
            return [dead] if resync is None else [dead, outgoing(resync, "fetch", resync.connection_id)]
        case _:
            return []


def _outcome(decision: Decision) -> str:
    match decision:
        case Accept():
            return "accepted"
        case Count(kind):
            return kind
        case Park(reason):
            return reason
        case Forbid():
            return "other_connection"


def _wrong_hash() -> web.Response:
    return problem(403, "/problems/wrong-hash", "Wrong hash", "The hash does not match the body.")
