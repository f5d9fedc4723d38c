"""What the ingress takes and no struct says: parameters by name, forms, and bodies that are read member by member."""

from __future__ import annotations

from common.broker.topology import STAGES
from ingress.admin.rules import DEFAULT_LIMIT, MAX_LIMIT, MAX_NAME, MAX_PASSWORD
from ingress.documents.operation import Media, json
from ingress.pages.forms import FORM_TYPE
from ingress.parameters import MAX_NUMBER
from schemas.json_schema import Schema

NUMBER: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_NUMBER}
TEXT: Schema = {"type": "string"}
NAME: Schema = TEXT | {"minLength": 1, "maxLength": MAX_NAME}
GIVEN: Schema = TEXT | {"minLength": 1}
ORNULL: Schema = {"type": ["string", "null"]}

PARAMETERS: dict[str, tuple[str, Schema]] = {
    "userId": ("The platform's own id of the user.", TEXT),
    "locationId": ("The platform's own id of the location.", TEXT),
    "connectionId": ("Syncaroo's number of the connection.", NUMBER),
    "listingId": ("Ours, as events tell it.", TEXT),
    "id": ("As the list tells it.", TEXT),
    "after": ("The `next` of the page before.", TEXT),
    "limit": ("At most so many items.", NUMBER | {"maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}),
    "attributeType": ("Such as resources; singular or plural.", TEXT),
    "itemId": ("The item's id in Syncaroo.", TEXT),
    "url": ("A URL of Syncaroo's API, or the path of one.", TEXT),
    "queue": (f"Such as {', '.join(STAGES)}, or the queue's whole name.", TEXT),
    "reason": ("Why it could not be processed, as the list tells it.", TEXT),
    "held": ("The number that was seen: when it is another one by now, nothing is done.", NUMBER),
    "clientId": ("PLATFORM_CLIENT_ID.", TEXT),
    "redirectUri": ("One of PLATFORM_REDIRECT_URIS.", TEXT),
    "responseType": ("How to come back.", {"const": "code"}),
    "codeChallenge": ("PKCE (RFC 7636), enforced when it is given.", TEXT),
    "codeChallengeMethod": ("Of the challenge.", {"const": "S256"}),
    "state": ("Comes back as it is.", TEXT),
    "code": ("Syncaroo's authorization code.", TEXT),
    "error": ("Why Syncaroo did not authorise us.", TEXT),
    "errorDescription": ("The same in words.", TEXT),
    "kind": ("Whole CloudEvents, or messages of our own.", {"enum": ["cloudevents", "messages"]}),
    "name": ("Such as listing.changed.", TEXT),
    "version": ("The schema's version.", NUMBER),
    "revoked": ("The connection that has just been revoked.", TEXT),
    "file": ("Its name.", TEXT),
    "connection": ("The number of one; others are not shown.", TEXT),
    "collection": ("Such as resources; others are not shown.", TEXT),
    "q": ("A listingId, connection/collection/item, a URL or its path, an item's id, or a connection.", TEXT),
    "whole": ("With a body of any length, not only its beginning.", TEXT),
    "v": ("A hash of the content that is wanted: browsers keep it for good.", TEXT),
}

EXAMPLES = {
    "userId": "1",
    "locationId": "1198",
    "connectionId": 99,
    "listingId": "6f0b1a0e-9c57-5d0c-8f9b-4b1f3a0f9e55",
    "url": "/v1/locations/12/resources/7843",
    "attributeType": "resources",
    "kind": "cloudevents",
    "name": "listing.changed",
    "version": 1,
    "file": "style.css",
}
"""Of parameters."""

TOKEN_FORM = Media(
    FORM_TYPE,
    {
        "type": "object",
        "properties": {
            "grantType": {"enum": ["authorization_code", "refresh_token"]},
            "code": TEXT,
            "codeVerifier": TEXT | {"description": "Where the authorization held a codeChallenge (RFC 7636)."},
            "redirectUri": TEXT | {"description": "Of the authorization, if it is told."},
            "refreshToken": TEXT,
            "clientId": TEXT | {"description": "Here or by HTTP Basic."},
            "clientSecret": TEXT | {"description": "Here or by HTTP Basic."},
        },
        "required": ["grantType"],
        "oneOf": [
            {"properties": {"grantType": {"const": "authorization_code"}, "code": GIVEN}, "required": ["code"]},
            {
                "properties": {"grantType": {"const": "refresh_token"}, "refreshToken": GIVEN},
                "required": ["refreshToken"],
            },
        ],
    },
)
LOGIN_OR_DECISION = Media(
    FORM_TYPE,
    {
        "type": "object",
        "description": "What the page's form holds: a login, or a decision.",
        "properties": {
            "csrf": TEXT,
            "login": TEXT,
            "password": TEXT | {"format": "password"},
            "decision": {"enum": ["allow", "deny"]},
        },
    },
)
LOGIN = Media(
    FORM_TYPE,
    {
        "type": "object",
        "description": "What the page's form holds.",
        "properties": {"csrf": TEXT, "login": TEXT, "password": TEXT | {"format": "password"}},
    },
)
REVOCATION = Media(
    FORM_TYPE,
    {
        "type": "object",
        "description": "What the page's form holds. Nobody who is not signed in is told whether it is right.",
        "properties": {"csrf": TEXT, "connectionId": TEXT, "sure": TEXT | {"description": "yes; else one is asked."}},
    },
)
SIGN_OUT = Media(FORM_TYPE, {"type": "object", "properties": {"csrf": TEXT}})
ADMIN_LOGIN = Media(
    FORM_TYPE,
    {
        "type": "object",
        "description": "What the page's form holds.",
        "properties": {"csrf": TEXT, "password": TEXT | {"format": "password", "description": "An ADMIN_TOKEN."}},
    },
)


def _console_form(**fields: str) -> Media:
    """What a form of the console holds; nobody who is not signed in is told whether it is right."""
    described = {name: TEXT | {"description": text} for name, text in fields.items()}
    return Media(FORM_TYPE, {"type": "object", "properties": {"csrf": TEXT, **described}})


CONSOLE_LOGIN = _console_form(password="An ADMIN_TOKEN.", then="Where one was going.")  # noqa: S106  # described
LETTERS = _console_form(
    id="One of them; else `queue` and `reason`: all of those.",
    queue="With `reason`.",
    reason="With `queue`.",
    sure="yes; else one is asked before anything is dropped.",
    seen="How many there were when one was asked; when there are others by now, nothing is dropped.",
    back="front: back to the overview.",
)
HELD_DECISION = _console_form(connectionId="Whose.", held="How many were seen.", decision="approve, or discard.")
RESYNC = _console_form(connectionId="Which.", locationId="Only this one of its locations.")
WEBHOOK = Media(
    "application/json",
    {
        "type": "object",
        "description": "As Syncaroo's guide shows it. Any JSON object is taken; what tells no target is kept for a "
        "person. The Content-Type does not matter.",
        "properties": {
            "connectionId": {"description": "Syncaroo's number of the connection; that of the token."},
            "webhookType": {"description": "data, or what is only counted."},
            "attributeType": {"description": "locations, resources or rates; also inside metaData."},
            "locationId": {"description": "The platform's own id."},
            "metaData": {
                "description": "resourceId, resourceType, attributeType, and apiUrl: where to look.",
            },
            "hash": {"description": "Over the body without it (WEBHOOK_HASH_RECIPE)."},
        },
    },
)
USER = json(
    {
        "type": "object",
        "properties": {
            "userId": NAME | ORNULL | {"description": "That of the address, if it is told."},
            "login": NAME | ORNULL,
            "password": NAME | ORNULL | {"maxLength": MAX_PASSWORD, "format": "password"},
        },
        "additionalProperties": False,
    }
)
