"""What the ingress answers, as one table: `openapi.json` is drawn from it, and a test holds it against the routes.

Errors that any address gives for what is too large, encoded or ambiguous are added when it is drawn, and the operator's
401 and the store's 503 where an operation needs them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ingress.account.handler import PATH as ACCOUNT
from ingress.admin.answers import Page
from ingress.admin.connections import ResyncBegun
from ingress.admin.dead_letters import DeadLetter, Replayed
from ingress.admin.handler import ROOT, Status, UnmatchedWebhook
from ingress.admin.held import Decided
from ingress.admin.store.connections import Connection
from ingress.admin.store.held import HeldListing
from ingress.admin.store.listings import Change, KnownListing, Listing
from ingress.admin.store.targets import Attempt, Target
from ingress.admin.store.users import User
from ingress.connect.handler import STATUS_PATH
from ingress.connect.rules import View
from ingress.console.rules import ROOT as CONSOLE
from ingress.documents.index import SchemaIndex
from ingress.documents.inputs import (
    ADMIN_LOGIN,
    CONSOLE_LOGIN,
    HELD_DECISION,
    LETTERS,
    LOGIN,
    LOGIN_OR_DECISION,
    RESYNC,
    REVOCATION,
    SIGN_OUT,
    TOKEN_FORM,
    USER,
    WEBHOOK,
)
from ingress.documents.operation import NOTHING, PAGE, PROBLEM, Answer, Media, Operation, json
from ingress.documents.place import Place
from ingress.health.handler import Alive, Ready, Unready
from ingress.inventory import Location
from ingress.oauth.check import UsersListings
from ingress.oauth.exchange import Refusal, TokenPair
from ingress.pages.static import STATIC_PATH
from ingress.webhook.handler import Accepted
from schemas.json_schema import Schema

REFUSAL = json(Refusal)
METRICS = Media("text/plain", {"type": "string"})
STATIC = tuple(Media(kind, {"type": "string"}) for kind in ("text/css", "text/javascript", "image/svg+xml"))
OBJECT: Schema = {"type": "object"}
SCHEMA_DOCUMENT = Media("application/schema+json", OBJECT)


def operations(place: Place) -> list[Operation]:
    """Everything, where this deployment has it."""
    webhooks = (
        _webhook("receiveWebhook", "~/update", place.webhook_status),
        _webhook("receiveWebhookAtRoot", "/update", place.webhook_status),
    )
    found: dict[tuple[str, str], Operation] = {}
    for one in (*webhooks, *SYNCAROO, *PAGES, *CONSOLE_PAGES, *OPERATORS, *HEALTH, *DOCUMENTS):
        path = one.path.replace("~", place.prefix, 1)
        found.setdefault((one.method, path), replace(one, path=path))
    return list(found.values())


def _webhook(name: str, path: str, success: int) -> Operation:
    answers: dict[int, Answer] = {success: json(Accepted), 400: PROBLEM, 401: PROBLEM, 403: PROBLEM, 503: PROBLEM}
    summary = "Syncaroo tells that something changed; answered when the broker has it."
    return Operation(name, "POST", path, summary, answers, "connection", "", WEBHOOK, uses_store=False, tag="Syncaroo")


def _check(name: str, path: str) -> Operation:
    answers = {200: json(UsersListings), 401: PROBLEM, 403: PROBLEM}
    summary = "Syncaroo asks which listings a connection has; the first success confirms it."
    return Operation(name, "GET", path, summary, answers, "connection", "connectionId!", tag="Syncaroo")


SYNCAROO = (
    _check("checkConnection", "~/check_connection"),
    _check("checkConnectionAtRoot", "/check_connection"),
    Operation(
        "exchangeToken", "POST", "~/oauth/token", "A code or a refresh token for tokens, once each.",
        {
            200: json(TokenPair), 400: (REFUSAL, PROBLEM), 401: REFUSAL, 413: (REFUSAL, PROBLEM), 429: REFUSAL,
            503: REFUSAL,
        },
        "client", "", TOKEN_FORM, tag="Syncaroo",
    ),
)  # fmt: skip

_AUTHORIZE = "connectionId! clientId! redirectUri! responseType! state codeChallenge codeChallengeMethod"
PAGES = (
    Operation(
        "authorize", "GET", "~/oauth/authorize", "The login, or the page that asks for consent.",
        {200: PAGE, 303: NOTHING, 400: (PAGE, PROBLEM), 503: PAGE}, "nothing", _AUTHORIZE, tag="pages",
    ),
    Operation(
        "decide", "POST", "~/oauth/authorize", "A login, or a decision: back to Syncaroo with a code.",
        {303: NOTHING, 400: (PAGE, PROBLEM), 401: PAGE, 403: PAGE, 429: PAGE, 503: PAGE},
        "nothing", _AUTHORIZE, LOGIN_OR_DECISION, tag="pages",
    ),
    Operation(
        "loggedIn", "GET", "/login/callback", "Back from the platform's identity provider, where there is one.",
        {303: NOTHING, 400: (PAGE, PROBLEM), 403: PAGE, 404: PAGE, 503: PAGE},
        "nothing", "state code error", tag="pages",
    ),
    Operation(
        "connect", "GET", "/connect", "On to Syncaroo, to let us into its API; first the login page.",
        {200: PAGE, 302: NOTHING, 503: PAGE}, tag="pages",
    ),
    Operation(
        "logInOperator", "POST", "/connect", "An operator's login; back to /connect.",
        {303: NOTHING, 400: (PAGE, PROBLEM), 401: PAGE, 403: PAGE, 429: PAGE},
        "nothing", "", ADMIN_LOGIN, uses_store=False, tag="pages",
    ),
    Operation(
        "confirm", "GET", "/confirm", "Back from Syncaroo: shows what became of the authorization.",
        {200: PAGE, 400: (PAGE, PROBLEM), 503: PAGE},
        "nothing", "state code error errorDescription", tag="pages",
    ),
    Operation(
        "followConfirm", "GET", STATUS_PATH, "How it stands: what the page of /confirm asks while it is open.",
        {200: json(View)}, "nothing", "state! code!", tag="pages",
    ),
    Operation(
        "account", "GET", ACCOUNT, "A user's connections; first the login.",
        {200: PAGE, 303: NOTHING, 400: (PAGE, PROBLEM), 503: PAGE}, "nothing", "revoked", tag="pages",
    ),
    Operation(
        "logIn", "POST", ACCOUNT, "A user's login; back to /account.",
        {303: NOTHING, 400: (PAGE, PROBLEM), 401: PAGE, 403: PAGE, 429: PAGE, 503: PAGE},
        "nothing", "", LOGIN, tag="pages",
    ),
    Operation(
        "revokeOwn", "POST", f"{ACCOUNT}/revoke", "Asks whether the user is sure, then ends the connection.",
        {200: PAGE, 303: NOTHING, 400: (PAGE, PROBLEM), 401: PAGE, 403: PAGE, 503: PAGE},
        "nothing", "", REVOCATION, tag="pages",
    ),
    Operation(
        "revokeOwnPage", "GET", f"{ACCOUNT}/revoke", "Back to /account.", {303: NOTHING}, uses_store=False, tag="pages",
    ),
    Operation(
        "signOutPage", "GET", f"{ACCOUNT}/sign-out", "Back to /account.", {303: NOTHING}, uses_store=False, tag="pages",
    ),
    Operation(
        "signOut", "POST", f"{ACCOUNT}/sign-out", "The end of a user's session.",
        {303: NOTHING, 400: (PAGE, PROBLEM), 403: PAGE}, "nothing", "", SIGN_OUT, uses_store=False, tag="pages",
    ),
    Operation(
        "signedOut", "GET", f"{ACCOUNT}/signed-out", "Where it leads to.", {200: PAGE}, uses_store=False, tag="pages",
    ),
    Operation(
        "static", "GET", STATIC_PATH, "The pages' style sheet, script and icon.", {200: STATIC, 404: PROBLEM},
        "nothing", "v", uses_store=False, tag="pages",
    ),
)  # fmt: skip


_ASKED: dict[int, Answer] = {303: NOTHING, 400: (PAGE, PROBLEM), 401: PAGE, 403: PAGE, 404: PAGE, 503: PAGE}


def _seen(name: str, path: str, summary: str, query: str = "") -> Operation:
    """A page of the console; whoever is not signed in gets the login."""
    answers: dict[int, Answer] = {200: PAGE, 400: (PAGE, PROBLEM), 404: PAGE, 503: PAGE}
    return Operation(name, "GET", f"{CONSOLE}{path}", summary, answers, query=query, tag="pages")


def _done(name: str, path: str, summary: str, body: Media) -> Operation:
    """What a form of the console does."""
    return Operation(name, "POST", f"{CONSOLE}{path}", summary, {**_ASKED, 200: PAGE}, body=body, tag="pages")


CONSOLE_PAGES = (
    _seen("console", "", "How everything stands and what happens.", "connection collection"),
    Operation(
        "logInAtConsole", "POST", CONSOLE, "An operator's login; back to where they were going.",
        {303: NOTHING, 400: (PAGE, PROBLEM), 401: PAGE, 403: PAGE, 429: PAGE},
        "nothing", "", CONSOLE_LOGIN, uses_store=False, tag="pages",
    ),
    Operation(
        "followConsole", "GET", f"{CONSOLE}/events", "What happens as it happens, to who is signed in at /console.",
        {200: Media("text/event-stream", {"type": "string"}), 401: PROBLEM, 503: PROBLEM},
        "nothing", "connection collection after", tag="pages",
    ),
    _seen("consoleListings", "/listings", "Search for listings.", "q"),
    _seen("consoleListing", "/listings/{listingId}", "A listing and its story.", "whole"),
    _seen("consoleDeadLetters", "/dead-letters", "What could not be processed.", "queue reason connection after"),
    _seen("consoleDeadLetter", "/dead-letters/{id}", "One of them, looked into.", "whole"),
    _done("replayAtConsole", "/replay", "Try one, or all of a queue and reason, again.", LETTERS),
    _done("dropAtConsole", "/drop", "Asks whether one is sure, then forgets them.", LETTERS),
    _seen("consoleHeld", "/held", "Listings that vanished together with too many others.", "connection after"),
    _done("decideAtConsole", "/held", "Approve or discard what a connection holds.", HELD_DECISION),
    _done("resyncAtConsole", "/resync", "Read everything of a connection or location again.", RESYNC),
    Operation(
        "signOutOfConsole", "POST", f"{CONSOLE}/sign-out", "The end of an operator's session.",
        {303: NOTHING, 400: (PAGE, PROBLEM), 403: PAGE}, "nothing", "", SIGN_OUT, uses_store=False, tag="pages",
    ),
)  # fmt: skip


def _operator(name: str, method: str, path: str, summary: str, answers: dict[int, Answer], **more: Any) -> Operation:
    return Operation(name, method, f"{ROOT}/{path}", summary, answers, "operator", **more)


class History(Page[Attempt | Change], frozen=True):
    """Attempts and changes, the newest first."""


_LOCATIONS = json(dict[str, Location])
_HELD = "connections/{connectionId}/held"
_PAGING = "after limit"
OPERATORS = (
    _operator("listUsers", "GET", "users", "Who may connect.", {200: json(Page[User])}, query=_PAGING),
    _operator("putUser", "PUT", "users/{userId}", "Create or change a user who may connect.",
              {200: json(User), 201: json(User), 409: PROBLEM}, body=USER),
    _operator("getUser", "GET", "users/{userId}", "The user, without the password.", {200: json(User), 404: PROBLEM}),
    _operator("deleteUser", "DELETE", "users/{userId}", "Erase the person's data and revoke their connections.",
              {204: NOTHING, 404: PROBLEM}),
    _operator("getLocations", "GET", "users/{userId}/locations", "The user's listings on the platform.",
              {200: _LOCATIONS, 404: PROBLEM}),
    _operator("putLocations", "PUT", "users/{userId}/locations", "Replace them; absent ones become deleted.",
              {200: _LOCATIONS, 404: PROBLEM}, body=_LOCATIONS),
    _operator("putLocation", "PUT", "users/{userId}/locations/{locationId}", "Add or replace one.",
              {200: json(Location), 201: json(Location), 404: PROBLEM}, body=json(Location)),
    _operator("deleteLocation", "DELETE", "users/{userId}/locations/{locationId}", "One becomes deleted.",
              {204: NOTHING, 404: PROBLEM}),
    _operator("listConnections", "GET", "connections", "Who is connected.", {200: json(Page[Connection])},
              query=f"userId {_PAGING}"),
    _operator("getConnection", "GET", "connections/{connectionId}", "One connection.",
              {200: json(Connection), 404: PROBLEM}),
    _operator("revokeConnection", "DELETE", "connections/{connectionId}",
              "Revoke it: tokens are refused, syncing stops, listings are kept.", {204: NOTHING, 404: PROBLEM}),
    _operator("resyncConnection", "POST", "connections/{connectionId}/resync",
              "Read everything known of it, or of one of its locations, again.",
              {202: json(ResyncBegun), 404: PROBLEM, 409: PROBLEM}, query="locationId"),
    _operator("listHeld", "GET", "held", "Listings that vanished together with too many others.",
              {200: json(Page[HeldListing])}, query=f"connectionId {_PAGING}"),
    _operator("approveHeld", "POST", f"{_HELD}/approve", "Agree: each is deleted when its own URL says so, too.",
              {202: json(Decided), 404: PROBLEM, 409: PROBLEM}, query="held"),
    _operator("discardHeld", "POST", f"{_HELD}/discard", "Keep them.",
              {200: json(Decided), 404: PROBLEM, 409: PROBLEM}, query="held"),
    _operator("listListings", "GET", "listings", "The last known truth.", {200: json(Page[Listing])},
              query=f"connectionId locationId attributeType itemId url {_PAGING}"),
    _operator("getListing", "GET", "listings/{listingId}", "One listing, with all that is known of it.",
              {200: json(KnownListing), 404: PROBLEM}),
    _operator("getHistory", "GET", "listings/{listingId}/history", "How it came to be so, newest first.",
              {200: json(History), 404: PROBLEM}, query=_PAGING),
    _operator("listTargets", "GET", "targets", "The URLs that were ever wanted.", {200: json(Page[Target])},
              query=f"connectionId url {_PAGING}"),
    _operator("listAttempts", "GET", "attempts", "The attempts for one URL, newest first.",
              {200: json(Page[Attempt])}, query=f"connectionId! url! {_PAGING}"),
    _operator("listDeadLetters", "GET", "dead-letters", "What could not be processed.",
              {200: json(Page[DeadLetter])}, query=f"queue reason connectionId {_PAGING}"),
    _operator("getDeadLetter", "GET", "dead-letters/{id}", "One of them.", {200: json(DeadLetter), 404: PROBLEM}),
    _operator("replayDeadLetter", "POST", "dead-letters/{id}/replay", "Try it again.",
              {202: json(Replayed), 404: PROBLEM, 409: PROBLEM}),
    _operator("dropDeadLetter", "DELETE", "dead-letters/{id}", "Forget it.", {204: NOTHING, 404: PROBLEM}),
    _operator("listUnmatchedWebhooks", "GET", "unmatched-webhooks", "The last webhooks whose hash did not match.",
              {200: json(Page[UnmatchedWebhook])}, uses_store=False),
    _operator("getStatus", "GET", "status", "How things stand.", {200: json(Status)}),
)  # fmt: skip

HEALTH = (
    Operation("healthz", "GET", "/healthz", "Whether the process runs.", {200: json(Alive)},
              uses_store=False, tag="health"),
    Operation("readyz", "GET", "/readyz", "Whether webhooks can be taken.", {200: json(Ready), 503: json(Unready)},
              uses_store=False, tag="health"),
    Operation("metrics", "GET", "/metrics", "Numbers in Prometheus' text format.", {200: METRICS},
              uses_store=False, tag="health"),
)  # fmt: skip


def _document(name: str, path: str, summary: str, media: Media, *, found: bool = True) -> Operation:
    answers: dict[int, Answer] = {200: media} if found else {200: media, 404: PROBLEM}
    return Operation(name, "GET", path, summary, answers, uses_store=False, tag="documents")


DOCUMENTS = (
    _document("openapi", "~/openapi.json", "This document.", Media("application/vnd.oai.openapi+json", OBJECT)),
    _document("asyncapi", "/asyncapi.json", "Exchanges, queues and messages, in AsyncAPI.",
              Media("application/vnd.aai.asyncapi+json", OBJECT)),
    _document("listSchemas", "/schemas", "Which JSON Schemas there are.", json(SchemaIndex)),
    _document("getDataSchema", "/schemas/{name}/{version}", "Of an event's data: its dataschema.", SCHEMA_DOCUMENT,
              found=False),
    _document("getSchema", "/schemas/{kind}/{name}/{version}", "Of a whole event, or of a message of our own.",
              SCHEMA_DOCUMENT, found=False),
)  # fmt: skip
