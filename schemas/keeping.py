"""Whether the documents that the repository keeps are those that the code makes, and which may be replaced. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from schemas.catalogue import Published
from schemas.compatibility import breaking


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
        return not (self.missing or self.changed or self.stray)


def compare(kept: Mapping[str, str], made: Mapping[str, str], published: Iterable[Published]) -> Comparison:
    """The kept files against those that the code makes; earlier versions of what there still is may stay."""
    schemas = {f"{one.place}.json": one for one in published}
    names = {one.name for one in schemas.values()}
    changed = [name for name in made if name in kept and kept[name] != made[name]]
    return Comparison(
        missing=[name for name in made if name not in kept],
        changed=changed,
        stray=sorted(name for name in kept if name not in made and name.rpartition("/")[0] not in names),
        broken=[line for name in changed if name in schemas for line in _broken(name, kept[name], schemas[name])],
    )


def _broken(name: str, kept: str, made: Published) -> list[str]:
    lines = breaking(msgspec.json.decode(kept), made.schema, made.readers)
    return [f"{name.removesuffix('.json')}: {line}" for line in lines]
