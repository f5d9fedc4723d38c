"""An applier of JSON patches that is not the gateway's own: what a subscriber would do with `patch`."""

from copy import deepcopy
from typing import Any

from schemas.messages import Json


def applied(patch: list[dict[str, Any]], document: Json) -> Json:
    """RFC 6902 by the letter, for add, remove and replace; refuses what the RFC refuses, leaves `document` alone."""
    document = deepcopy(document)
    for operation in patch:
        assert set(operation) <= {"op", "path", "value"}
        tokens = [one.replace("~1", "/").replace("~0", "~") for one in operation["path"].split("/")[1:]]
        if not tokens:
            assert operation["op"] == "replace"
            document = operation["value"]
            continue
        parent = document
        for token in tokens[:-1]:
            parent = parent[int(token)] if isinstance(parent, list) else parent[token]
        last = tokens[-1]
        if isinstance(parent, list):
            if operation["op"] == "add":
                parent.insert(len(parent) if last == "-" else int(last), operation["value"])
                continue
            assert 0 <= int(last) < len(parent), "the target must exist"
        else:
            assert (last in parent) != (operation["op"] == "add"), "add what is new, change what is there"
        key: Any = int(last) if isinstance(parent, list) else last
        if operation["op"] == "remove":
            del parent[key]
        else:
            parent[key] = operation["value"]
    return document
