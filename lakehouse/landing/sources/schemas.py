"""A schema registry: what Confluent's serialisers write is decoded by the schema that its number names.

    0, four bytes of a number, Avro ─▶ GET <registry>/schemas/ids/<number>, once ─▶ JSON text

A message whose number nobody knows, or whose bytes do not fit, is poison; a registry that does not answer is a source that is
down, since its messages may be good.
"""

import io
import json
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lakehouse.core.errors import SourceDownError, SourceRefusedError
from lakehouse.core.text import one_line
from lakehouse.landing.readers.files import avro
from lakehouse.landing.sources.fetch import Endpoint, ask, new_session, shown
from lakehouse.landing.sources.kafka_values import MAGIC, Decode, PoisonError
from lakehouse.tables.spec import KafkaTopic, SourceSystem
from lakehouse.tables.spec.setting import name_of, plain

_CAP = 16_000_000
_SECONDS = 10.0
_HEAD = struct.Struct(">bI")


@contextmanager
def decoder(system: KafkaTopic, declared: SourceSystem, *, deadline: float) -> Iterator[Decode | None]:
    """What makes JSON of a message's bytes, for the block; None where values are no Avro.

    Raises:
        DeclarationError: the package that reads Avro is not installed.
        SourceDownError: the registry does not answer, or only after `deadline`.
        SourceRefusedError: it refuses.
    """
    if system.value != "avro":
        yield None
        return
    named = declared.registry if isinstance(declared, KafkaTopic) else ""
    setting = name_of(named, f"the registry of source {system.name}")
    avro.library("The values of topic " + system.name)
    with new_session() as session:
        yield _Registry(session, plain(system.registry).rstrip("/"), setting, deadline).decode


class _Registry:
    """The schemas that were asked for, by number; a text says why one cannot be used."""

    def __init__(self, session: Any, url: str, setting: str, deadline: float) -> None:
        self._session, self._url, self._deadline = session, url, deadline
        self._endpoint = Endpoint(f"The schema registry at {shown(url)}", setting, setting)
        self._known: dict[int, Callable[[io.BytesIO], str] | str] = {}

    def decode(self, value: bytes) -> str:
        """The JSON text of a value.

        Raises:
            PoisonError: it has none.
        """
        if len(value) < _HEAD.size or not value.startswith(MAGIC):
            raise PoisonError("Its value does not begin with 0 and the number of a schema.")
        _, number = _HEAD.unpack_from(value)
        if number not in self._known:
            self._known[number] = self._reader(number)
        reader = self._known[number]
        if isinstance(reader, str):
            raise PoisonError(reader)
        content = io.BytesIO(value[_HEAD.size :])
        try:
            found = reader(content)
        except Exception as error:  # noqa: BLE001 - whatever damaged bytes make of fastavro: EOFError, KeyError, IndexError, ...
            raise PoisonError(
                f"Its value does not fit schema {number}: {one_line(str(error) or type(error).__name__)}."
            ) from None
        if content.read(1):
            raise PoisonError(f"Its value goes on behind what schema {number} has.")
        return found

    def _reader(self, number: int) -> Callable[[io.BytesIO], str] | str:
        try:
            found = self._get(f"/schemas/ids/{number}")
        except SourceRefusedError as error:
            if error.status == 404:
                return f"{self._endpoint.shown} has no schema {number}."
            raise
        if found.get("schemaType", "AVRO") != "AVRO":
            return f"Schema {number} is {found['schemaType']!s:.20}, which is not read here."
        try:
            named: dict[str, Any] = {}
            others = [self._referred(each, named) for each in found.get("references") or ()]
            return avro.json_reader(json.loads(found["schema"]), others=others, named=named)
        except (SourceDownError, SourceRefusedError):
            raise
        except Exception as error:  # noqa: BLE001 - a schema is what somebody wrote
            return f"Schema {number} cannot be read: {one_line(str(error) or type(error).__name__)}."

    def _referred(self, reference: Any, named: dict[str, Any]) -> Any:
        """A schema that another one names, with those that it names itself in `named`."""
        from urllib.parse import quote

        found = self._get(f"/subjects/{quote(str(reference['subject']), safe='')}/versions/{int(reference['version'])}")
        for each in found.get("references") or ():
            self._referred(each, named)
        return avro.parsed(json.loads(found["schema"]), named)

    def _get(self, path: str) -> dict[str, Any]:
        seconds = min(_SECONDS, self._deadline - time.monotonic())
        if seconds <= 0:
            raise SourceDownError(f"{self._endpoint.shown} is too slow: the step's time was up.", remedy="Run again later.")
        reply = ask(self._session, self._url + path, self._endpoint, seconds=seconds, cap=_CAP)
        try:
            found = json.loads(reply.body)
        except ValueError:
            found = None
        if not isinstance(found, dict) or "schema" not in found:
            raise SourceRefusedError(
                f"{self._endpoint.shown} answered {path} with something else than a schema.",
                remedy=f"See that {self._endpoint.setting} is a schema registry's URL.",
            )
        return found
