"""Kafka topics as sources: what a message's value is, and how much one run reads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Literal

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import AIRBYTE, column_name
from lakehouse.tables.spec.member import check_member
from lakehouse.tables.spec.setting import Setting, setting
from lakehouse.tables.spec.sources import AirbyteStream
from lakehouse.tables.spec.system import SourceSystem

Value = Literal["json", "avro", "text"]
#: Fields that every message has beside those of its value; columns are called so without the first underscore.
OF_MESSAGE = (
    *("_kafka_partition", "_kafka_offset", "_kafka_timestamp", "_kafka_key", "_kafka_headers"),
    *("_kafka_epoch", "_kafka_deleted"),
)
#: The field that a text is in.
TEXT = "value"
_LEGAL = r"[A-Za-z0-9._-]{1,249}"
#: What the client is configured with here, so that a message lands once.
_FIXED = frozenset(
    (
        *("bootstrap.servers", "group.id", "isolation.level", "auto.offset.reset", "enable.partition.eof"),
        *("enable.auto.commit", "enable.auto.offset.store"),
    )
)
_BROKERS: Setting = setting("LAKEHOUSE_KAFKA_BOOTSTRAP")


@dataclass(frozen=True)
class Messages:
    """What lands of a topic: all of its partitions, in one folder."""

    name: str
    folder: str

    full_refresh: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class KafkaTopic(SourceSystem):
    """A topic, whose messages land once each.

        COTACOES = KafkaTopic("cotacoes", topic="financial-data-stream", key="symbol")
        TableSpec(name="cotacoes", source=COTACOES.messages(), key=("symbol",), order=("kafka_epoch", "kafka_offset"), ...)

    Args:
        url: the brokers, `host:port` with commas between them.
        topic: as the brokers call it.
        key: the field that the message's key is, where the value does not have it: a tombstone has no value.
        value: a JSON object; Avro as Confluent's serialisers write it; or a text, which becomes the field `value`.
        group: the consumer group whose offsets tell how far landing is. Nothing is read from them.
        registry: the schema registry's URL, for Avro.
        max_messages: so many at most land in one run; all that are there by default.
        max_seconds: so long one run reads at most; four fifths of `timeout` by default.
        max_silence: brokers that give nothing for so long are down.
        file_mb: values of so many megabytes make a landed file.
        options: of librdkafka, such as `{"security.protocol": "SASL_SSL", "sasl.password": setting(..., secret=True)}`.
        folder_name: where below `raw/` it lands, when that is not its name.
    """

    kind: ClassVar[str] = "kafka"

    url: str | Setting = _BROKERS
    topic: str | Setting
    key: str = ""
    value: Value = "json"
    group: str = "lakehouse"
    registry: str | Setting = ""
    max_messages: int | None = None
    max_seconds: float | None = None
    max_silence: timedelta = timedelta(seconds=30)
    file_mb: int = 64
    options: Mapping[str, str | Setting] = field(default_factory=dict)
    folder_name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        what = f"Topic {self.name!r}"
        for one, text in (("topic", self.topic), ("group", self.group)):
            if isinstance(text, str) and (not re.fullmatch(_LEGAL, text) or text in (".", "..")):
                raise DeclarationError(
                    f"{what}: {text[:80]!r} cannot be a {one}.", remedy="Give letters, digits, `.`, `_` and `-`."
                )
        check_member(self.value, Value, f"{what}: value")
        if (self.value == "avro") != bool(self.registry):
            raise DeclarationError(f"{what}: Avro and a registry go together.", remedy='Give both value="avro" and registry.')
        taken = {*OF_MESSAGE, *AIRBYTE, *([TEXT] if self.value == "text" else [])}
        if self.key and (self.key in taken or column_name(self.key) is None or not self.key.isprintable()):
            raise DeclarationError(f"{what}: {self.key[:80]!r} cannot be the key's field.", remedy="Give the name of a field.")
        bounds = (self.max_messages, self.max_seconds, self.max_silence.total_seconds(), self.file_mb)
        if any(bound is not None and bound <= 0 for bound in bounds):
            raise DeclarationError(
                f"{what}: a bound is not above zero.", remedy="Fix max_messages, max_seconds, max_silence, file_mb."
            )
        if fixed := sorted(_FIXED & self.options.keys()):
            raise DeclarationError(f"{what}: option {fixed[0]} is not free.", remedy="Leave it out; see docs/sources.md.")

    @property
    def streams(self) -> tuple[Messages, ...]:
        return (Messages(self.name, self.folder_name or self.name),)

    def messages(self) -> AirbyteStream:
        """The topic as the source of a table."""
        return self.stream(self.name)
