"""Answers of a captured feed: what one lists, by its form, and what another body looks like.

Pure: no HTTP, no files. Does not belong here: when a feed is asked, and what becomes of its records (`captures.py`).
"""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from lakehouse.core.errors import DeclarationError, install
from lakehouse.landing.sources.bodies import as_text, looks_like
from lakehouse.tables.spec.feed import Answered

Record = Mapping[str, Any]
#: The field of an element that is no object; its text says what was there.
NO_RECORD = "no_record"
#: Of a text that is not in Unicode; Latin-1's letters are a part of it.
_LATIN = "cp1252"
#: More fields are no fields: an object used as a map, which no table should follow.
_FIELDS = 200


def records(body: bytes, *, form: Answered = "json", field: str = "") -> list[Record]:
    """The records of an answer. Numbers with a point are decimals, as written.

    Args:
        field: of a JSON answer `{field: [record, ...]}`.

    Raises:
        ValueError: it is not of that form, or it lists nothing; the text is a sentence.
    """
    if not body.strip():
        raise ValueError("It is empty.")
    found = _READERS[form](body, field)
    if len({name for record in found for name in record}) > _FIELDS:
        raise ValueError(f"Its records have more than {_FIELDS} different fields.")
    return found


def _json(body: bytes, field: str) -> list[Record]:
    try:
        answer = json.loads(as_text(body, declared=_LATIN), parse_float=Decimal, parse_constant=str)
    except RecursionError:
        raise ValueError("It is nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"It is {looks_like(body)} ({error}).") from None
    listed = answer.get(field) if isinstance(answer, dict) else None
    if not isinstance(listed, list):
        raise ValueError(f"It has no list {field!r}.")  # noqa: TRY004 - a wrong value of an answer, as all others here
    if not listed:
        raise ValueError(f"Its list {field!r} is empty.")
    return [record if isinstance(record, dict) else {NO_RECORD: record} for record in listed]


def _gtfs_realtime(body: bytes, field: str) -> list[Record]:
    """The vehicles of a FeedMessage: `entity_id`, and the fields of GTFS-Realtime's VehiclePosition under their path, such as
    `position_latitude` and `trip_route_id`; `timestamp` is in seconds since 1970, that of the feed's header where it has none.
    """
    try:
        from google.transit import gtfs_realtime_pb2
    except ImportError as error:
        raise DeclarationError(
            "A feed of GTFS-Realtime needs the package gtfs-realtime-bindings.", remedy=f"{install('gtfs')}."
        ) from error
    from google.protobuf.message import DecodeError

    message = gtfs_realtime_pb2.FeedMessage()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise ValueError(f"It is no FeedMessage of GTFS-Realtime ({looks_like(body)}; {error}).") from None
    found: list[Record] = [
        {
            "entity_id": entity.id,
            **({"timestamp": message.header.timestamp} if message.header.timestamp else {}),
            **dict(_flat(entity.vehicle, "")),
        }
        for entity in message.entity
        if entity.HasField("vehicle")
    ]
    if not found:
        raise ValueError("It is a FeedMessage of GTFS-Realtime without a vehicle.")
    return found


def _flat(message: Any, before: str) -> list[tuple[str, Any]]:
    """The fields of a protobuf message that are there, those of messages within it under their path."""
    found: list[tuple[str, Any]] = []
    for field, value in message.ListFields():
        name = f"{before}{field.name}"
        if field.is_repeated:
            found.append((name, [str(each) for each in value]))
        elif field.message_type is not None:
            found += _flat(value, f"{name}_")
        elif field.enum_type is not None:
            known = field.enum_type.values_by_number.get(value)
            found.append((name, known.name if known is not None else str(value)))
        elif field.cpp_type == field.CPPTYPE_FLOAT:  # of 32 bits: its shortest text, not that of the double it becomes
            found.append((name, Decimal(_shortest(value))))
        else:
            found.append((name, value))
    return found


def _shortest(value: float) -> str:
    """The shortest decimal text that is this number of 32 bits."""
    import struct

    for digits in range(6, 10):
        text = f"{value:.{digits}g}"
        if struct.unpack("f", struct.pack("f", float(text)))[0] == value:
            return text
    return repr(value)


_READERS: Mapping[Answered, Callable[[bytes, str], list[Record]]] = {"json": _json, "gtfs_realtime": _gtfs_realtime}
