"""Reading: what a table's declaration says of its landed files, and whether a file is one of the table's.

Here: names. Not here: bytes (`prepare.py`), guesses why a file is another one (`causes.py`).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote

from lakehouse.core.names import column_name
from lakehouse.landing.readers.files.fields import DATA, ENVELOPE_NAMES
from lakehouse.tables.spec import EXTRA, AirbyteStream, Csv, PlainFiles, TableSpec

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Reading:
    """How landed files are read. Without declared fields any file is one of the table's.

    Args:
        hive: whether a part `name=value` of a path is a field.
        order: the bronze names of the declared fields that files bring.
        key: those of them that make the key.
    """

    csv: Csv = field(default_factory=Csv)
    sheet: str = ""
    hive: bool = False
    order: tuple[str, ...] = ()
    key: frozenset[str] = frozenset()

    @property
    def fields(self) -> frozenset[str]:
        return frozenset(self.order)

    def parts(self, path: str) -> dict[str, str | None]:
        """The values in a landed file's path, by declared field."""
        found: dict[str, str | None] = {}
        for part in PurePosixPath(path).parent.parts if self.hive else ():
            name, equals, value = part.partition("=")
            column = column_name(name)
            if equals and column is not None and column in self.fields:
                found[column] = None if value == _NO_VALUE else unquote(value)
        return found

    def missing(self, names: Iterable[str], path: str) -> list[str]:
        """The declared fields without which a header is that of another table; none when it is one of this table."""
        delivered = [*names]
        if DATA in delivered or not self.fields or ENVELOPE_NAMES.issuperset(delivered):
            return []
        there = columns(delivered) | {*self.parts(path)}
        found = len(self.fields & there)
        enough = 2 * found >= len(self.fields) and (not self.key or bool(self.key & there))
        return [] if enough else sorted(self.fields - there)

    def without_key(self, names: Collection[str], path: str) -> bool:
        """Whether records that have these fields between them, and no others, have none of the key."""
        there = columns(names) | {*self.parts(path)}
        return bool(names) and bool(self.key) and not self.key & there


def reading(spec: TableSpec) -> Reading:
    """How the landed files of a table with one source are read."""
    origin = spec.origin
    given = origin.csv if isinstance(origin, AirbyteStream | PlainFiles) else None
    delivered = [column for column in spec.of_record if column.bronze_name not in {*spec.values, EXTRA}]
    own_key = set(spec.record_key) <= {column.name for column in delivered}
    return Reading(
        csv=given or Csv(),
        sheet=origin.sheet if isinstance(origin, PlainFiles) else "",
        hive=isinstance(origin, PlainFiles),
        order=tuple(dict.fromkeys(column.bronze_name for column in delivered)),
        key=frozenset(column.bronze_name for column in delivered if column.name in spec.record_key) if own_key else frozenset(),
    )


def columns(names: Iterable[str]) -> set[str]:
    """The bronze names of fields."""
    return {column for name in names if (column := column_name(name)) is not None}
