"""Whether the documents that the repository keeps are those that the code makes, and which may be replaced. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from schemas.catalogue import Published
from schemas.compatibility import breaking

History = Mapping[str, Sequence[str]]
"""By a schema's file everything that it has said since it was first committed."""


@dataclass(frozen=True)
class Comparison:
    """Names of files, and a line for each thing that breaks under the version that it has."""

    missing: list[str]
    changed: list[str]
    stray: list[str]
    broken: list[str]

    @property
    def same(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.missing or self.changed or self.stray or self.broken)


def compare(
    kept: Mapping[str, str], made: Mapping[str, str], published: Iterable[Published], history: History | None = None
) -> Comparison:
    """The kept files against those that the code makes, and every schema against all that it has ever said.

    What no model makes any more stays, because events of it stay in the log; without a `history` nobody can tell it
    from what was never published.
    """
    schemas = {f"{one.place}.json": one for one in published}
    changed = [name for name in made if name in kept and kept[name] != made[name]]
    past = {} if history is None else history
    said = {name: [*past.get(name, ()), *([kept[name]] if name in changed else ())] for name in (*schemas, *past)}
    return Comparison(
        missing=[name for name in made if name not in kept],
        changed=changed,
        stray=sorted(name for name in kept if name not in made or _unknown(name, schemas, history)),
        broken=list(dict.fromkeys(line for name in said for line in _broken(name, said[name], schemas.get(name)))),
    )


def _unknown(name: str, schemas: Mapping[str, Published], history: History | None) -> bool:
    """Neither made today nor ever published."""
    return history is not None and name in schemas and not schemas[name].current and name not in history


def _broken(name: str, said: Sequence[str], today: Published | None) -> Iterator[str]:
    place = name.removesuffix(".json")
    if today is None:
        yield f"{place}: it was published and is gone; what was written by it is still read"
        return
    for text in said:
        yield from (f"{place}: {line}" for line in breaking(msgspec.json.decode(text), today.schema, today.readers))
