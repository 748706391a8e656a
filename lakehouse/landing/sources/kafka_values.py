"""Messages as rows: Airbyte's layout with the value as JSON text in `_airbyte_data`, and what else a message has beside it.

    messages ─▶ key, value, headers, timestamp ─▶ a batch of Arrow columns, of which each row has its own `_airbyte_raw_id`

A JSON value stays the bytes that were sent: whether it is an object, and which digits its numbers have, is bronze's work. What
cannot become one here (bytes that are no text, Avro that does not fit its schema) is a row all the same, with the cause in
`_airbyte_meta`, for which bronze puts it in quarantine. Pure.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lakehouse.core.text import one_line
from lakehouse.tables.spec.kafka import OF_MESSAGE, TEXT, Value

if TYPE_CHECKING:
    import pyarrow as pa

_META = '{"changes":[]}'
#: What a value has that may have a field of a message's own.
_OWN = b'"_kafka_'
#: The first byte of what Confluent's serialisers write.
MAGIC = b"\0"


class PoisonError(Exception):
    """A message's value cannot be read; the text is a sentence that says why."""


#: The JSON text of bytes; PoisonError where they have none.
Decode = Callable[[bytes], str]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the rows of one partition have in common.

    Args:
        origin: what ids begin with: topic id and, after the first, the epoch.
        named: the topic, for causes.
        key: the field that the message's key is.
        decode: of Avro.
    """

    origin: str
    named: str
    epoch: int
    partition: int
    key: str
    value: Value
    extracted_at: datetime
    decode: Decode | None = None


def rows(messages: Sequence[Any], layout: Layout) -> "pa.RecordBatch":
    """Messages of one partition (`confluent_kafka.Message`) as a batch."""
    import pyarrow as pa
    import pyarrow.compute as pc

    count = len(messages)
    offsets = pa.array([message.offset() for message in messages], pa.int64())
    values, causes = _values([message.value() for message in messages], layout)
    keys = _keys([message.key() for message in messages], layout)
    deleted = pc.is_null(values)
    columns = {
        "_airbyte_raw_id": pc.binary_join_element_wise(f"{layout.origin}-{layout.partition}-", pc.cast(offsets, pa.string()), ""),
        "_airbyte_extracted_at": pa.repeat(pa.scalar(layout.extracted_at, pa.timestamp("us", "UTC")), count),
        "_airbyte_meta": _meta(causes, offsets, layout),
        "_airbyte_generation_id": pa.repeat(pa.scalar(0, pa.int64()), count),
        "_airbyte_data": pc.fill_null(values, "{}") if layout.value != "text" else _texts(causes, values),
        "_kafka_partition": pa.repeat(pa.scalar(layout.partition, pa.int32()), count),
        "_kafka_offset": offsets,
        "_kafka_timestamp": _instants([message.timestamp()[1] for message in messages]),
        "_kafka_key": keys,
        "_kafka_headers": _headers([message.headers() for message in messages]),
        "_kafka_epoch": pa.repeat(pa.scalar(layout.epoch, pa.int32()), count),
        "_kafka_deleted": deleted,
    }
    if layout.key:
        columns[layout.key] = _of_key(keys, layout.key)
    if layout.value == "text":
        columns[TEXT] = _without(values, causes)
    return pa.RecordBatch.from_pydict(columns)


def _values(values: Sequence[bytes | None], layout: Layout) -> "tuple[pa.Array, dict[int, str]]":
    """The texts, null for a tombstone, and by position why one is poison."""
    import pyarrow as pa

    if layout.decode is None:
        try:
            texts = pa.array(values, pa.binary()).cast(pa.string())
            if layout.value == "text" or not _occurs(_OWN, texts):
                return texts, {}
        except pa.ArrowInvalid:
            pass
    found: list[str | None] = []
    causes: dict[int, str] = {}
    for position, value in enumerate(values):
        try:
            found.append(None if value is None else _text(value, layout))
        except PoisonError as error:
            causes[position] = str(error)
            found.append(json.dumps((value or b"").decode("utf-8", "backslashreplace"), ensure_ascii=False))
    return pa.array(found, pa.string()), causes


def _occurs(mark: bytes, texts: "pa.Array") -> bool:
    """Whether bytes occur in a whole array of texts."""
    content = texts.buffers()[2]
    return content is not None and content.to_pybytes().rfind(mark) >= 0  # a third of the time of find, a tenth of Arrow's


def _text(value: bytes, layout: Layout) -> str:
    try:
        text = value.decode() if layout.decode is None else layout.decode(value)
    except UnicodeDecodeError as error:
        raise PoisonError(f"Byte {error.start:,} of its value is not UTF-8.") from None
    if layout.value != "text" and _OWN.decode() in text and (taken := sorted(_names(text) & set(OF_MESSAGE))):
        raise PoisonError(f"Its value has a field {taken[0]!r}, which is the message's own.")
    return text


def _names(text: str) -> set[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return set()  # bronze refuses it
    return set(found) if isinstance(found, dict) else set()


def _texts(causes: dict[int, str], values: "pa.Array") -> "pa.Array":
    """The documents of texts, which are beside them: an empty one, or what is in quarantine."""
    import pyarrow as pa

    if not causes:
        return pa.repeat(pa.scalar("{}"), len(values))
    return pa.array([values[position].as_py() if position in causes else "{}" for position in range(len(values))], pa.string())


def _without(values: "pa.Array", causes: dict[int, str]) -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    if not causes:
        return values
    return pc.if_else(pa.array([position in causes for position in range(len(values))]), pa.scalar(None, pa.string()), values)


def _meta(causes: dict[int, str], offsets: "pa.Array", layout: Layout) -> "pa.Array":
    import pyarrow as pa

    if not causes:
        return pa.repeat(pa.scalar(_META), len(offsets))
    found = [_META] * len(offsets)
    for position, cause in causes.items():
        refused = f"Partition {layout.partition}, offset {offsets[position].as_py()} of {layout.named}: {one_line(cause)}"
        found[position] = json.dumps({"changes": [], "refused": refused}, ensure_ascii=False)
    return pa.array(found, pa.string())


def _keys(keys: Sequence[bytes | None], layout: Layout) -> "pa.Array":
    import pyarrow as pa

    if layout.decode is None:
        try:
            return pa.array(keys, pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:
            pass
    return pa.array([None if key is None else _key(key, layout) for key in keys], pa.string())


def _key(key: bytes, layout: Layout) -> str:
    """A key as text. One that Avro wrote is the text of its value, or the JSON of its record."""
    if layout.decode is not None and key.startswith(MAGIC):
        try:
            found = layout.decode(key)
        except PoisonError:
            return key.decode("utf-8", "backslashreplace")
        value = json.loads(found, parse_float=str, parse_int=str)
        return value if isinstance(value, str) else found
    return key.decode("utf-8", "backslashreplace")


def _of_key(keys: "pa.Array", field: str) -> "pa.Array":
    """The field that the key is: of a key that is a JSON object its field of that name, else the key."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.any(pc.starts_with(keys, "{")).as_py():
        return keys
    return pa.array([_within(key.as_py(), field) for key in keys], pa.string())


def _within(key: str | None, field: str) -> str | None:
    if key is None or not key.startswith("{"):
        return key
    try:
        found = json.loads(key, parse_float=str, parse_int=str)
    except ValueError:
        return key
    value = found.get(field)
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _instants(millis: Sequence[int]) -> "pa.Array":
    """Instants; null where a message has none, which is -1."""
    import pyarrow as pa

    known = pa.array(millis, pa.timestamp("ms", "UTC"))
    return known if -1 not in millis else pa.array([at if at != -1 else None for at in millis], known.type)


def _headers(headers: Sequence[Sequence[tuple[str, bytes | None]] | None]) -> "pa.Array":
    import pyarrow as pa

    if not any(headers):
        return pa.nulls(len(headers), pa.string())
    return pa.array([_object(each) if each else None for each in headers], pa.string())


def _object(headers: Sequence[tuple[str, bytes | None]]) -> str:
    """Headers as a JSON object; the values of a name that comes more than once as an array."""
    found: dict[str, list[str | None]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(None if value is None else value.decode("utf-8", "backslashreplace"))
    return json.dumps({name: each if len(each) > 1 else each[0] for name, each in found.items()}, ensure_ascii=False)
