"""Avro files as JSON lines: Airbyte's destination writes records flat, so what comes out is read like its flattened JSONL.

Record by record, so memory is bounded by the file's blocks. Instants and days become ISO texts, decimals and bytes texts. They
are made of the stored numbers here, value by value: one that no calendar has costs its record, not the file.
"""

import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from lakehouse.core.errors import DeclarationError, install
from lakehouse.landing.readers.files.refused import Refused

_EPOCH = dt.datetime(1970, 1, 1)
_UNITS = {"millis": 1_000, "micros": 1, "nanos": 0}
#: The types of Avro that a value of Python may be of.
_PYTHON = {"boolean": bool, "int": int, "long": int, "float": float, "double": float, "string": str, "enum": str}
_PYTHON |= {"bytes": bytes, "fixed": bytes, "array": list, "map": dict, "record": dict, "error": dict, "null": type(None)}
Convert = Callable[[Any], Any]


def to_json_lines(path: str, target: Path, refused: Refused) -> None:
    """Write the records of an Avro file as JSON lines; those with a value that its type does not allow go to `refused`.

    Raises:
        ValueError: it is no Avro file, is cut off, or is packed in a way that cannot be read here; the message says which.
        DeclarationError: the package that reads Avro is not installed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8") as out:
        try:
            for number, (record, convert) in enumerate(records(path), start=1):
                try:
                    line = json.dumps(convert(record), default=_text, ensure_ascii=False)
                except NoValueError as error:
                    whole = json.dumps(record, default=_text, ensure_ascii=False)
                    refused.add(f"Record {number}: {error}", whole)
                    continue
                out.write(line + "\n")
        except (OSError, DeclarationError):
            raise
        except Exception as error:  # whatever a damaged block makes of fastavro: KeyError, IndexError, zlib.error, ...
            raise ValueError(f"It cannot be read as Avro: {str(error) or type(error).__name__}") from error


class NoValueError(Exception):
    """A stored value that its type does not allow."""


def records(path: str) -> Iterator[tuple[Any, Convert]]:
    """Each record as stored, and what makes its values of it."""
    fastavro = library(Path(path).name)
    with Path(path).open("rb") as source:
        blocks: Any = fastavro.block_reader(source)
        schema = blocks.writer_schema
        stored = fastavro.parse_schema(_stored(schema))
        convert = _Types(schema).convert(schema)
        for block in blocks:
            content = block.bytes_
            for _ in range(block.num_records):
                yield fastavro.schemaless_reader(content, stored, None), convert


def library(what: str) -> Any:
    """The package that reads Avro.

    Raises:
        DeclarationError: it is not installed.
    """
    try:
        import fastavro
    except ModuleNotFoundError:
        raise DeclarationError(
            f"{what} is Avro, and fastavro, which reads it, is not installed.", remedy=f"{install('ingest')}."
        ) from None
    return fastavro


def parsed(schema: Any, named: dict[str, Any]) -> Any:
    """A schema whose types have their full names; those with a name join `named`, and may be of it."""
    return library("A schema").parse_schema(schema, named_schemas=named, _write_hint=False)


def json_reader(schema: Any, *, others: Sequence[Any] = (), named: dict[str, Any]) -> Callable[[IO[bytes]], str]:
    """What reads one value without a file around it, as JSON text.

    Args:
        others: schemas by `parsed` whose types this one names; `named` has them.
    """
    fastavro = library("A schema")
    full = parsed(schema, named)
    stored_names: dict[str, Any] = {}
    for other in others:
        fastavro.parse_schema(_stored(other), named_schemas=stored_names, _write_hint=False)
    stored = fastavro.parse_schema(_stored(full), named_schemas=stored_names)
    convert = _Types([*others, full]).convert(full)
    return lambda content: json.dumps(
        convert(fastavro.schemaless_reader(content, stored, None)), default=_text, ensure_ascii=False
    )


def _stored(schema: Any) -> Any:
    """A schema without what its values mean."""
    if isinstance(schema, Mapping):
        left_out = ("logicalType", "default")
        return {name: _stored(part) for name, part in schema.items() if name not in left_out and not name.startswith("__")}
    return [_stored(part) for part in schema] if isinstance(schema, list) else schema


class _Types:
    """The types of one schema, those with a name by it."""

    def __init__(self, schema: Any) -> None:
        self._named: dict[str, Any] = {}
        self._collect(schema)
        self._made: dict[str, Convert] = {}

    def _collect(self, schema: Any) -> None:
        if isinstance(schema, list):
            for part in schema:
                self._collect(part)
        elif isinstance(schema, Mapping):
            if (
                isinstance(schema.get("name"), str)
                and "type" in schema
                and schema["type"] in ("record", "error", "enum", "fixed")
            ):
                self._named[schema["name"]] = schema
            for part in (schema.get("items"), schema.get("values"), schema.get("type")):
                if not isinstance(part, str):
                    self._collect(part)
            for of in schema.get("fields", ()):
                self._collect(of["type"])

    def convert(self, schema: Any) -> Convert:
        """What makes values of stored ones."""
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            # A record may hold itself: it is looked up when it is met.
            return (lambda value: self._of_name(schema)(value)) if schema in self._named else _same  # noqa: PLW0108
        if not isinstance(schema["type"], str):
            return self.convert(schema["type"])
        return _logical(schema) or self._nested(schema)

    def _nested(self, schema: Any) -> Convert:
        kind = schema["type"]
        if kind in ("record", "error"):
            return self._record(schema)
        if kind == "array":
            of = self.convert(schema["items"])
            return lambda value: [of(part) for part in value]
        if kind == "map":
            of = self.convert(schema["values"])
            return lambda value: {name: of(part) for name, part in value.items()}
        return self.convert(kind) if kind in self._named else _same

    def _of_name(self, name: str) -> Convert:
        if name not in self._made:
            self._made[name] = self.convert(self._named[name])
        return self._made[name]

    def _record(self, schema: Any) -> Convert:
        fields = {of["name"]: self.convert(of["type"]) for of in schema["fields"]}

        def convert(value: Any) -> dict[str, Any]:
            out = {}
            for name, part in value.items():
                try:
                    out[name] = fields[name](part)
                except NoValueError as error:
                    raise NoValueError(f"the value of {name} is none: {error}") from error
            return out

        return convert

    def _union(self, schema: list[Any]) -> Convert:
        branches = [(*self._looks(branch), self.convert(branch)) for branch in schema]

        def convert(value: Any) -> Any:
            fit = [of for kind, names, of in branches if type(value) is kind and (names is None or names == value.keys())]
            if len(fit) > 1 and any(of is not _same for of in fit):
                raise NoValueError(f"{value!r:.40} may be of more than one of its types")
            return fit[0](value) if fit else value

        return convert

    def _looks(self, schema: Any) -> tuple[type | None, set[str] | None]:
        """The type of Python of a value of a type, and the fields of a record."""
        kind = self._named.get(schema, schema) if isinstance(schema, str) else schema
        if not isinstance(kind, Mapping):
            return _PYTHON.get(kind), None
        if kind["type"] in ("record", "error"):
            return dict, {of["name"] for of in kind["fields"]}
        return self._looks(kind["type"])


def _same(value: Any) -> Any:
    return value


def _logical(schema: Mapping[str, Any]) -> Convert | None:
    """What makes values of a type that means more than it stores; None for one that does not."""
    logical, stored = schema.get("logicalType"), schema["type"]
    kind, _, unit = str(logical).rpartition("-")
    if logical == "date" and stored == "int":
        return lambda value: _at(value * 86_400_000_000).date()
    if kind == "time" and unit in ("millis", "micros") and stored in ("int", "long"):
        return lambda value: _time(value * _UNITS[unit])
    if kind in ("timestamp", "local-timestamp") and unit in _UNITS and stored == "long":
        zone = dt.UTC if kind == "timestamp" else None
        return lambda value: _at(value * _UNITS[unit] if unit != "nanos" else value // 1_000).replace(tzinfo=zone)
    if logical == "decimal" and stored in ("bytes", "fixed"):
        scale = int(schema.get("scale", 0))
        return lambda value: Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale)
    if logical == "uuid" and stored == "fixed":
        return lambda value: uuid.UUID(bytes=value)
    return None


def _at(micros: int) -> dt.datetime:
    try:
        return _EPOCH + dt.timedelta(microseconds=micros)
    except OverflowError:
        raise NoValueError(f"{micros:,} microseconds from 1970 are in no year from 1 to 9999") from None


def _time(micros: int) -> dt.time:
    if not 0 <= micros < 86_400_000_000:
        raise NoValueError(f"{micros:,} microseconds are no time of a day")
    return (_EPOCH + dt.timedelta(microseconds=micros)).time()


def _text(value: Any) -> str:
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)
