"""The OpenAPI 3.1 document, drawn from the table of operations and the answers' own types. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ingress.documents.inputs import EXAMPLES, NAME, PARAMETERS, TEXT
from ingress.documents.operation import PAGE, PROBLEM, Answer, Media, Needs, Operation
from ingress.documents.operations import operations
from ingress.documents.place import VERSION, Place
from ingress.problems import phrase_of
from schemas.json_schema import DIALECT, Schema, components

Json = dict[str, Any]

SCHEMAS = "#/components/schemas/{name}"

ABOUT = """\
Addresses are answered with and without a trailing slash, and however many slashes there are. Names are camelCase;
the same names in snake_case are taken, too. Bodies of more than 256 KiB are refused. Errors are problem documents
(RFC 9457), save those of the token endpoint (RFC 6749) and of pages. With `OPS_PORT`, `/admin` and `/metrics` are
served there only."""

TAGS = {
    "Syncaroo": "What Syncaroo calls.",
    "pages": "What people see.",
    "operation": "What operators call.",
    "health": "What watches processes.",
    "documents": "What describes all this.",
}

SECURITY: dict[Needs, list[Json]] = {
    "nothing": [],
    "operator": [{"operator": []}],
    "connection": [{"connection": []}],
    "client": [{"client": []}, {}],
}
SCHEMES: Json = {
    "operator": {"type": "http", "scheme": "bearer", "description": "A token of ADMIN_TOKEN."},
    "connection": {"type": "http", "scheme": "bearer", "description": "A connection's access token, issued by us."},
    "client": {"type": "http", "scheme": "basic", "description": "PLATFORM_CLIENT_ID and its secret; or in the body."},
}

HEADERS: Json = {
    "RetryAfter": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
    "Challenge": {"description": "How to do better.", "schema": {"type": "string"}},
    "Location": {"description": "Where to go on.", "schema": {"type": "string"}},
}
_HEADERS_OF = {
    302: {"Location": "Location"},
    303: {"Location": "Location"},
    401: {"WWW-Authenticate": "Challenge"},
    429: {"Retry-After": "RetryAfter"},
    503: {"Retry-After": "RetryAfter"},
}
PROBLEMS = (400, 401, 403, 404, 408, 409, 413, 415, 503)
"""Answers that are the same wherever they are nothing but a problem document."""


def openapi(place: Place) -> Json:
    """The document of a deployment."""
    table = operations(place)
    names, schemas = _schemas(table)
    paths: dict[str, Json] = {}
    for one in table:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, names)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": DIALECT,
        "info": {"title": "Syncaroo Gateway", "version": VERSION, "description": ABOUT},
        "servers": [{"url": place.site_uri}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {_name(status): _described(status, PROBLEM, names) for status in PROBLEMS},
            "headers": HEADERS,
            "securitySchemes": SCHEMES,
        },
    }


Names = dict[Any, Schema]
"""Each model's schema, mostly a reference."""


def _schemas(table: Iterable[Operation]) -> tuple[Names, dict[str, Schema]]:
    models = list(dict.fromkeys(media.model for media in _all_media(table) if not isinstance(media.model, dict)))
    roots, named = components(models, SCHEMAS)
    return dict(zip(models, roots, strict=True)), named


def _all_media(table: Iterable[Operation]) -> Iterator[Media]:
    yield PROBLEM
    for one in table:
        yield from () if one.body is None else (one.body,)
        for answer in one.answers.values():
            yield from _media(answer)


def _media(answer: Answer) -> tuple[Media, ...]:
    return (answer,) if isinstance(answer, Media) else answer


# --- one operation -------------------------------------------------------------------------------------------------


def _operation(one: Operation, names: Names) -> Json:
    described: Json = {
        "operationId": one.name,
        "tags": [one.tag],
        "summary": one.summary,
        "security": SECURITY[one.needs],
        "parameters": [*_path_parameters(one.path), *_query_parameters(one.query)],
    }
    if one.body is not None:
        described["requestBody"] = {"required": True, "content": _content([one.body], names)}
    answers = dict(sorted({**_errors(one), **one.answers}.items()))
    return described | {"responses": {str(status): _response(status, answers[status], names) for status in answers}}


def _errors(one: Operation) -> dict[int, Answer]:
    """What the table leaves out because so many give it."""
    found: dict[int, Answer] = {400: PROBLEM, 413: PROBLEM, 415: PROBLEM}
    if one.body is not None:
        found[408] = PROBLEM
    if one.tag == "pages" and one.body is not None:
        found |= {status: (*_media(found[status]), PAGE) for status in (408, 413, 415)}
    if one.needs == "operator":
        found[401] = PROBLEM
    if one.uses_store:
        found[503] = PROBLEM
    return found


def _path_parameters(path: str) -> Iterator[Json]:
    for name in re.findall(r"{(\w+)}", path):
        parameter = _parameter(name)
        schema = NAME if parameter["schema"] == TEXT else parameter["schema"]
        yield {"name": name, "in": "path", "required": True, **parameter, "schema": schema}


def _query_parameters(query: str) -> Iterator[Json]:
    for word in query.split():
        name = word.removesuffix("!")
        yield {"name": name, "in": "query", "required": word != name, **_parameter(name)}


def _parameter(name: str) -> Json:
    description, schema = PARAMETERS[name]
    example = {"example": EXAMPLES[name]} if name in EXAMPLES else {}
    return {"description": description, "schema": schema, **example}


def _response(status: int, answer: Answer, names: Names) -> Json:
    shared = answer == PROBLEM and status in PROBLEMS
    return {"$ref": f"#/components/responses/{_name(status)}"} if shared else _described(status, answer, names)


def _name(status: int) -> str:
    return phrase_of(status).replace(" ", "")


def _described(status: int, answer: Answer, names: Names) -> Json:
    headers = {name: {"$ref": f"#/components/headers/{kind}"} for name, kind in _HEADERS_OF.get(status, {}).items()}
    content = _content(_media(answer), names)
    parts = {"description": phrase_of(status), "headers": headers, "content": content}
    return {name: part for name, part in parts.items() if part}


def _content(media: Sequence[Media], names: Names) -> Json:
    return {one.type: {"schema": one.model if isinstance(one.model, dict) else names[one.model]} for one in media}
