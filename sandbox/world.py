"""The world behind the API: a seeded tree of locations, resources and rates, and the operations that change it.

The same seed and the same operations give the same world, ids and prices included.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sandbox import invent
from sandbox.invent import JsonObject

NOUNS = ("locations", "resources", "rates")
CHANGES = ("price", "room", "remove", "restore", "rename", "move", "random")
REMEMBERED_SECONDS = 10.0
"""How far back the API can be behind."""


class UnknownItemError(Exception):
    """No such item, or the operation does not fit it."""


@dataclass
class Node:
    """An item, and what lies under it (resources of a location, rates of a resource), in the order lists show."""

    noun: str
    ident: str
    data: JsonObject
    children: dict[str, "Node"] = field(default_factory=dict)

    def copy(self) -> "Node":
        """One that may be changed without changing this one."""
        return Node(self.noun, self.ident, dict(self.data), dict(self.children))


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an operation did, as a webhook needs to tell it; ids are the world's own."""

    kind: str
    path: str
    location: str
    resource: str | None
    resource_type: str | None
    attribute: str
    deleted: bool = False
    new: bool = False
    gone: tuple[str, ...] = ()
    """Paths of the items that went with it."""


class World:
    """Paths are `/v1/locations/{L}[/resources/{R}[/rates/{X}]]`; an operation without a path picks one itself.

    A change copies the item and what it lies in, and leaves the state before as it was: so the API can be asked for
    what was true a while ago.
    """

    def __init__(self, seed: int = 1, locations: int = 3, resources: int = 5, rates: int = 3) -> None:
        self._rng = Random(seed)
        self._last_id = 1000
        self._root = Node("", "", {})
        self._rates = rates
        self._past: list[tuple[float, Node]] = []
        """States of the last seconds, each with the moment at which it ended."""
        self._shadows: list[tuple[float, Node]] = []
        self._removed: dict[str, Node] = {}
        self._paths: dict[str, list[str]] = {}
        for number in range(locations):
            self._add_location(number, resources)

    # reading

    def item(self, path: str, seen: Node | None = None) -> Node | None:
        """The item at an own path, None when there is none (any more); `seen`: in that state, not in today's."""
        nouns, idents = _split(path)
        return self._walk(nouns, idents, seen) if len(nouns) == len(idents) else None

    def collection(self, path: str, seen: Node | None = None) -> list[Node] | None:
        """The items of a collection's path in its order, None when it or its parent does not exist."""
        nouns, idents = _split(path)
        if len(nouns) != len(idents) + 1 or tuple(nouns) != NOUNS[: len(nouns)]:
            return None
        parent = self._walk(nouns[:-1], idents, seen)
        return None if parent is None else list(parent.children.values())

    def seen_by_api(self, ago: float = 0.0) -> Node:
        """The state that the API shows: today's, that of so many seconds ago, or one that `lag` has kept."""
        now = time.monotonic()
        self._shadows = [shadow for shadow in self._shadows if shadow[0] > now]
        if self._shadows:
            return self._shadows[0][1]
        index = bisect_right(self._past, now - ago, key=_ended)
        return self._past[index][1] if index < len(self._past) else self._root

    def items(self) -> Iterator[tuple[str, Node]]:
        """Every item with its own path, parents first."""
        yield from _descend("/v1", self._root)

    def paths(self, noun: str) -> list[str]:
        return [path for path, node in self.items() if node.noun == noun]

    def describe(self, path: str, kind: str = "told") -> Change:
        """The change that a webhook about this item, or this collection's parent, tells."""
        nouns, idents = _split(path)
        resource = self.item("/v1/" + "/".join(path.strip("/").split("/")[1:5])) if len(idents) > 1 else None
        return Change(
            kind=kind,
            path=path,
            location=idents[0] if idents else "",
            resource=idents[1] if len(idents) > 1 else None,
            resource_type=str(resource.data["type"]) if resource else None,
            attribute=nouns[-1],
        )

    # changing

    def apply(self, kind: str, path: str | None = None, value: Any = None) -> Change:
        """Do one of `CHANGES`. Raises UnknownItemError."""
        doing: dict[str, Callable[[], Change]] = {
            "price": lambda: self.change_price(path, value),
            "room": lambda: self.add_room(path),
            "remove": lambda: self.remove(path),
            "restore": lambda: self.restore(path),
            "rename": lambda: self.rename(path, value),
            "move": lambda: self.move(path),
            "random": self.random_change,
        }
        if kind not in doing:
            raise UnknownItemError(f"no such change: {kind}; known: {', '.join(CHANGES)}")
        return doing[kind]()

    def random_change(self) -> Change:
        """A likely day at a workspace: mostly prices, now and then a rename or a room more or less."""
        kinds = ["price", "rename", "room", "remove"]
        kind = self._rng.choices(kinds, weights=[14, 3, 2, 1])[0]
        spare = len(self.paths("resources")) > 2
        return self.apply(kind if spare or kind != "remove" else "room")

    def change_price(self, path: str | None = None, value: Any = None) -> Change:
        """A new price, always another than before."""
        path, node = self._need(path, "rates", only=True)
        old = node.data["price"]
        while value is None or value == old:
            value = self._rng.choice([f"{self._rng.randint(10, 2000)}.50", self._rng.randint(10, 2000)])
        self._own(path).data["price"] = value
        return self.describe(path, "price")

    def add_room(self, path: str | None = None) -> Change:
        """A room with its rates, at the end of a location's list; `path` is the location's."""
        path, _ = self._need(path, "locations", only=True)
        node = self._own(path, grows=True)
        room = self._add_resource(node, len(node.children) + self._last_id)
        change = self.describe(f"{path}/resources/{room.ident}", "room")
        return _with(change, new=True)

    def remove(self, path: str | None = None) -> Change:
        """The item and everything under it answers 404 from now on; by itself it takes a room."""
        path, node = self._need(path, "resources")
        change = _with(self.describe(path, "remove"), deleted=True, gone=tuple(p for p, _ in _descend(path, node)))
        del self._own(_parent(path), grows=True).children[node.ident]
        self._removed[path] = node
        return change

    def restore(self, path: str | None = None) -> Change:
        """An item that was removed is back under its own path, as it was, at the end of its list; by itself it takes
        the one that was removed last."""
        path = path or next((one for one in reversed(self._removed) if self.item(_parent(one))), "")
        node = self._removed.pop(path, None)
        if node is None or self.item(_parent(path)) is None:
            raise UnknownItemError(f"nothing was removed from {path or 'anywhere'}")
        self._own(_parent(path), grows=True).children[node.ident] = node
        return _with(self.describe(path, "restore"), new=True)

    def rename(self, path: str | None = None, value: Any = None) -> Change:
        """Another name; by itself it takes a location."""
        path, _ = self._need(path, "locations")
        node = self._own(path)
        member = "Name" if "Name" in node.data else "name"
        plain = str(node.data[member]).split(" (no. ")[0]
        node.data[member] = value or f"{plain} (no. {self._rng.randint(10, 999)})"
        return self.describe(path, "rename")

    def move(self, path: str | None = None) -> Change:
        """The item goes to the other end of its list, and so onto another page; its content stays."""
        path, node = self._need(path, "resources")
        siblings = self._own(_parent(path)).children
        first = next(iter(siblings)) == node.ident
        del siblings[node.ident]
        rest = list(siblings.items())
        siblings.clear()
        siblings.update([*rest, (node.ident, node)] if first else [(node.ident, node), *rest])
        return self.describe(path, "move")

    def lag(self, seconds: float) -> None:
        """Call before a change: the API shows today's state for so long."""
        self._shadows.append((time.monotonic() + seconds, self._root))

    # inside

    def _add_location(self, number: int, resources: int) -> None:
        ident = self._new_id()
        node = Node("locations", str(ident), invent.location(self._rng, ident, number))
        self._root.children[node.ident] = node
        for index in range(max(1, resources + self._rng.choice([-1, 0, 1])) if resources else 0):
            self._add_resource(node, index)

    def _add_resource(self, parent: Node, number: int) -> Node:
        ident = self._new_id()
        node = Node("resources", str(ident), invent.resource(self._rng, ident, number, parent.ident))
        parent.children[node.ident] = node
        for index in range(max(1, self._rates - self._rng.choice([0, 0, 1])) if self._rates else 0):
            rate = self._new_id()
            node.children[str(rate)] = Node("rates", str(rate), invent.rate(self._rng, rate, index))
        return node

    def _new_id(self) -> int:
        self._last_id += self._rng.randint(1, 9)
        return self._last_id

    def _need(self, path: str | None, noun: str, *, only: bool = False) -> tuple[str, Node]:
        """The item at `path`, else any item of that noun; `only`: nothing else will do. Raises UnknownItemError."""
        path = path or self._pick(noun)
        node = self.item(path)
        if node is None or (only and node.noun != noun):
            raise UnknownItemError(f"nothing fitting at {path}")
        return path, node

    def _pick(self, noun: str) -> str:
        """Any of them; which, does not depend on the order in which lists show them."""
        paths = self._paths.get(noun) or sorted(self.paths(noun))
        if not paths:
            raise UnknownItemError(f"the world has no {noun}")
        self._paths[noun] = paths
        return self._rng.choice(paths)

    def _own(self, path: str, *, grows: bool = False) -> Node:
        """The item in a new state of the world, to be changed; `grows`: items will be more or fewer."""
        now = time.monotonic()
        del self._past[: bisect_right(self._past, now - REMEMBERED_SECONDS, key=_ended)]
        self._past.append((now, self._root))
        if grows:
            self._paths.clear()
        node = self._root = self._root.copy()
        for ident in _split(path)[1]:
            node.children[ident] = node.children[ident].copy()
            node = node.children[ident]
        return node

    def _walk(self, nouns: list[str], idents: list[str], seen: Node | None) -> Node | None:
        node: Node | None = seen or self._root
        if tuple(nouns) != NOUNS[: len(nouns)]:
            return None
        for ident in idents:
            node = node.children.get(ident) if node else None
        return node


def _ended(state: tuple[float, Node]) -> float:
    return state[0]


def _parent(path: str) -> str:
    """The own path of what the item lies in; `/v1` for a location."""
    return path.rsplit("/", 2)[0]


def _split(path: str) -> tuple[list[str], list[str]]:
    """The nouns and the ids of `/v1/noun/id/noun…`; an odd path gives no nouns, so nothing is found."""
    version, *segments = path.strip("/").split("/")
    return (segments[0::2], segments[1::2]) if version == "v1" else (["?"], [])


def _descend(path: str, node: Node) -> Iterator[tuple[str, Node]]:
    if node.noun:
        yield path, node
    for child in node.children.values():
        own = f"{path}/{child.noun}/{child.ident}"
        yield from _descend(own, child)


def _with(change: Change, **members: Any) -> Change:
    return Change(**{**change.__dict__, **members})
