"""Lake: which table of another lake is compared with which of ours.

tables of the other lake, our declarations ─▶ Pair: the table that ours is made of, else the one of the same name
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lakehouse.core.table.foreign_lake import path_of
from lakehouse.tables.spec import DeltaSource, TableSpec

Match = Literal["source", "name"]
_SILVER = "silver"


@dataclass(frozen=True)
class Pair:
    """A table of the other lake with ours.

    Args:
        path: below the location of the other lake.
        spec: None where none of ours is meant.
        namesake: ours of the same name that is compared with `instead`, another path; where none is, several have the name.
        by: whether it is what ours is made of, or has its name.
        timezone: that is declared of instants in its partition values.
    """

    uri: str
    path: str
    spec: TableSpec | None = None
    by: Match = "name"
    timezone: str = ""
    namesake: str = ""
    instead: str = ""

    @property
    def why(self) -> str:
        """Why it is compared with none of ours; empty where ours has no such table."""
        if not self.namesake:
            return ""
        return f"{self.namesake} is compared with {self.instead}" if self.instead else f"several are called like {self.namesake}"


def pairs(uris: Sequence[str], specs: Sequence[TableSpec], *, location: str) -> Iterator[Pair]:
    """Each table of the other lake, in its order. Of several with the name of ours the one in a folder `silver` counts."""
    made = {
        part.origin.uri: (spec, part.origin.timezone)
        for spec in reversed(specs)  # the first of several counts
        for part in spec.parts
        if isinstance(part.origin, DeltaSource)
    }
    taken = {made[uri][0].silver: path_of(uri, location) for uri in uris if uri in made}
    named = {spec.silver_name: spec for spec in specs}
    for uri in uris:
        path, spec = path_of(uri, location), named.get(_name(uri))
        if uri in made:
            yield Pair(uri, path, made[uri][0], "source", made[uri][1])
        elif spec is None:
            yield Pair(uri, path)
        elif spec.silver in taken:
            yield Pair(uri, path, namesake=str(spec.silver), instead=taken[spec.silver])
        else:
            same = [other for other in uris if other not in made and _name(other) == spec.silver_name]
            chosen = [other for other in same if _SILVER in path_of(other, location).split("/")[:-1]] if len(same) > 1 else same
            if chosen == [uri]:
                yield Pair(uri, path, spec)
            else:
                instead = path_of(chosen[0], location) if len(chosen) == 1 else ""
                yield Pair(uri, path, namesake=str(spec.silver), instead=instead)


def _name(uri: str) -> str:
    from lakehouse.profile.trial import plain_name

    return plain_name(uri.rpartition("/")[2], ())
