"""Captures: the answers of a polled source, kept as they came until a CSV in landing holds their records.

    <landing>/captures/<source>/pending/<ms>.json.gz (.pb.gz)             captured, in no CSV yet: the buffer
    <landing>/captures/<source>/exported/data=<day>/<ms>.json.gz          in a CSV, kept as delivered
    <landing>/captures/<source>/failed/data=<day>/<ms>.json               a capture that failed: when, and why
    <landing>/raw/<stream>/data=<day>/hora=<HH>/<first>_<last>.csv        the records of several captures, Airbyte's v2 columns

`<ms>` is the capture's instant in milliseconds since 1970; days and hours are America/Sao_Paulo. There is no bookkeeping that
could be wrong: a pending capture is exported when a CSV that begins with a pending capture holds its records. Captures leave
`pending` newest first, so as long as one of a CSV is left, its first is too. A kill between any two steps loses and doubles
nothing, and what is listed is the buffer and its hours, however many days are stored.

Whoever works on captures holds `Captures.folder` (`core/store/storage.py`). Here is no HTTP and nothing of a table.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from lakehouse.core.clock import zone
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import AIRBYTE, check_name, is_remote
from lakehouse.core.store import files
from lakehouse.landing.sources.answers import records
from lakehouse.landing.sources.fetch import Answer
from lakehouse.tables.spec.feed import Answered

_STORED = re.compile(r"(\d{13})\.(?:json|pb)\.gz")
_RECORDED = re.compile(r"(\d{13})\.(?:json|pb)(\.gz)?")
_CSV = re.compile(r"(\d{13})_(\d{13})\.csv")
#: Of gzip: 9 takes four times as long for 7 % less.
_LEVEL = 6
#: How much of a refused answer is kept with the reason.
_HEAD = 2_000


@dataclass(frozen=True)
class Export:
    """A CSV that is in landing, and the captures whose records it holds."""

    uri: str
    captures: int
    records: int


@dataclass(frozen=True)
class Captures:
    """The captures of one source.

    Args:
        landing: the place that holds `raw/` and `captures/`.
        source: what is captured.
        stream: the landing stream that CSVs are exported to.
        field: the field of a JSON answer that lists its records.
        form: of an answer.
    """

    landing: str
    source: str
    stream: str
    field: str
    form: Answered = "json"

    def __post_init__(self) -> None:
        check_name(self.source, "source name")
        check_name(self.stream, "stream name")

    @property
    def folder(self) -> str:
        return f"{self.landing.rstrip('/')}/captures/{self.source}"

    def check(self, body: bytes) -> None:
        """Refuse a body that is no answer, with ValueError."""
        records(body, form=self.form, field=self.field)

    # --- capturing ---------------------------------------------------------------------------------------------------

    def persist(self, answer: Answer) -> int:
        """Make an answer durable in the buffer. Returns its instant: a millisecond later than asked where one is there."""
        at, body = answer.at, gzip.compress(answer.body, _LEVEL, mtime=0)
        while _exists(self._exported(at)) or not files.put(self._pending(at), body, new=True):
            at += 1
        return at

    def fail(self, at: int, *, reason: str, body: bytes = b"") -> str:
        """Record that a capture failed. Returns where."""
        uri = f"{self.folder}/failed/data={_day(at)}/{at}.json"
        note = {"at": _iso(at), "reason": reason, **({"begins": body[:_HEAD].decode(errors="replace")} if body else {})}
        files.put(uri, json.dumps(note, ensure_ascii=False, indent=1).encode())
        return uri

    def recorded(self, folder: str, *, setting: str = "the feed's url") -> Answer | None:
        """The next of the answers recorded in a folder, `<ms>.json` or `<ms>.json.gz`, in the order of their names; None when
        every one was captured, or failed, before. It is not checked.

        Raises:
            DeclarationError: there is no such folder.
        """
        names = sorted(name for name in files.names_in(folder) if _RECORDED.fullmatch(name))
        if not names and not is_remote(folder) and not Path(folder).is_dir():
            raise DeclarationError(f"There is no folder {folder}.", remedy=f"Set {setting} to one, or to the feed.")
        pending = set(self.pending())

        @cache
        def known(day: str) -> set[int]:
            found = (f"{self.folder}/{state}/data={day}" for state in ("exported", "failed"))
            return {int(match[1]) for folder in found for name in files.names_in(folder) if (match := _RECORDED.fullmatch(name))}

        for name in names:
            at = int(name[:13])
            if at not in pending and at not in known(_day(at)):
                content = files.read(f"{folder}/{name}")
                return Answer(content, at)
        return None

    def pending(self) -> list[int]:
        """The instants of the captures in the buffer, oldest first."""
        found = (_STORED.fullmatch(name) for name in files.names_in(f"{self.folder}/pending"))
        return sorted(int(match[1]) for match in found if match)

    def newest(self, *, now: int) -> int | None:
        """The instant of the newest capture; None when there is none of today or yesterday."""
        if pending := self.pending():
            return pending[-1]
        for day in (_day(now), _day(now - 86_400_000)):
            names = files.names_in(f"{self.folder}/exported/data={day}")
            if found := [int(match[1]) for name in names if (match := _STORED.fullmatch(name))]:
                return max(found)
        return None

    # --- exporting ---------------------------------------------------------------------------------------------------

    def export(self, *, buffer: int) -> list[Export]:
        """Put the records of every `buffer` captures into a CSV of landing, oldest first. Fewer stay where they are.

        What a run that died had put there before it could say so is returned too.
        """
        done = self._finalise()
        group: dict[int, list[Mapping[str, Any]]] = {}
        for at in self.pending():
            body = b""
            try:
                body = _unpacked(files.read(self._pending(at)))
                group[at] = records(body, form=self.form, field=self.field)
            except ValueError as error:  # it was checked before it was kept: the disk has changed it
                self.fail(at, reason=f"The kept answer cannot be read: {error}", body=body)
                files.remove([self._pending(at)])
                continue
            if len(group) == buffer:
                done.append(self._export(group))
                group = {}
        return done

    def _export(self, group: Mapping[int, Sequence[Mapping[str, Any]]]) -> Export:
        first, last = min(group), max(group)
        uri = f"{self._hour(first)}/{first}_{last}.csv"
        instants = set(group)
        if not files.put(uri, _csv_text(group).encode("utf-8", errors="backslashreplace"), new=True):
            instants = set(_instants(files.read(uri)))
        self._put_away(instants & set(group))
        return Export(uri, len(instants), sum(map(len, group.values())))

    def _finalise(self) -> list[Export]:
        """Put away the captures that a CSV holds and that are still pending: a run died after it had put the CSV there."""
        done = []
        pending = set(self.pending())
        for folder in sorted({self._hour(at) for at in pending}):
            for name in sorted(files.names_in(folder)):
                match = _CSV.fullmatch(name)
                if match and int(match[1]) in pending:
                    rows = list(_instants(files.read(f"{folder}/{name}")))
                    self._put_away(set(rows) & pending)
                    done.append(Export(f"{folder}/{name}", len(set(rows)), len(rows)))
        return done

    def _put_away(self, instants: set[int]) -> None:
        for at in sorted(instants, reverse=True):
            files.put(self._exported(at), files.read(self._pending(at)), new=True)
            files.remove([self._pending(at)])

    # --- places ------------------------------------------------------------------------------------------------------

    def _pending(self, at: int) -> str:
        return f"{self.folder}/pending/{at}.{self._ending}.gz"

    def _exported(self, at: int) -> str:
        return f"{self.folder}/exported/data={_day(at)}/{at}.{self._ending}.gz"

    @property
    def _ending(self) -> str:
        return "json" if self.form == "json" else "pb"

    def _hour(self, at: int) -> str:
        return f"{self.landing.rstrip('/')}/raw/{self.stream}/data={_day(at)}/hora={_local(at):%H}"


def _csv_text(group: Mapping[int, Sequence[Mapping[str, Any]]]) -> str:
    """The CSV of some captures: it follows from them alone. `_airbyte_raw_id` is `<ms>-<n>`: the capture, and the record's
    place in it. A missing or null field is empty, an empty text is `""`.
    """
    names = list(dict.fromkeys(name for at in sorted(group) for record in group[at] for name in record))
    out = StringIO()
    # A field that is called like the envelope, or not at all, would make the header ambiguous.
    header = [f"field{name}" if not name or name in AIRBYTE else name for name in names]
    out.write(",".join([*AIRBYTE, *map(_quoted, header)]) + "\n")
    for at in sorted(group):
        for number, record in enumerate(group[at], start=1):
            cells = [f"{at}-{number}", str(at), '"{""changes"":[]}"', "0", *(_cell(record.get(name)) for name in names)]
            out.write(",".join(cells) + "\n")
    return out.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return _quoted(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=float))
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _instants(content: bytes) -> Iterator[int]:
    """The capture of each row of a CSV."""
    for row in csv.DictReader(StringIO(content.decode(), newline="")):
        yield int(row[AIRBYTE[0]].partition("-")[0])


def _unpacked(content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{error}.") from error


def _exists(uri: str) -> bool:
    try:
        files.stat(uri)
    except FileNotFoundError:
        return False
    return True


def _local(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, tz=zone())


def _day(at: int) -> str:
    return f"{_local(at):%Y-%m-%d}"


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, tz=UTC).isoformat(timespec="milliseconds")
