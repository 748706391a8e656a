"""Polled feeds as sources: answers that are captured as they came, and land several at a time."""

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Literal

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name
from lakehouse.tables.spec.member import check_member
from lakehouse.tables.spec.setting import Setting
from lakehouse.tables.spec.sources import AirbyteStream
from lakehouse.tables.spec.system import SourceSystem

#: `json`: an object or array with records; `gtfs_realtime`: GTFS-Realtime's FeedMessage in protobuf, each entity a record.
Answered = Literal["json", "gtfs_realtime"]


@dataclass(frozen=True)
class Captured:
    """What a feed's answers list: one stream."""

    name: str
    folder: str

    full_refresh: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class CapturedFeed(SourceSystem):
    """A feed that shows the present alone, so that each answer is stored before anything is made of it.

        landing/<name>_captura: one answer, in the buffer ─▶ landing/<name>_csv: the records of `buffer` answers in one CSV

        BRT = CapturedFeed("brt", url=setting("LAKEHOUSE_BRT_URL"), records="veiculos", lands="brt_gps")
        TableSpec(name="brt_gps", source=BRT.captures, ...)

    Its url may be `file:///folder`, with recorded answers.

    Args:
        lands: the folder below `raw/` of its CSVs.
        records: the field of an answer that lists its records, for `json`.
        answers: the form of an answer.
        buffer: captures that make one CSV; a setting, too.
        fresh: the newest capture is at most so old.
        skew: so far this machine's clock and the feed's may be apart.
    """

    kind: ClassVar[str] = "json"

    lands: str
    records: str = ""
    answers: Answered = "json"
    buffer: int | Setting = 10
    fresh: timedelta = timedelta(minutes=5)
    skew: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.lands, "folder")
        check_member(self.answers, Answered, f"Feed {self.name!r}: answers")
        if (self.answers == "json") != bool(self.records):
            raise DeclarationError(
                f"Feed {self.name!r}: records {self.records!r} do not go with answers {self.answers!r}.",
                remedy="Name the field that lists the records of a JSON answer, and none of another.",
            )
        if not isinstance(self.buffer, Setting) and self.buffer < 1:
            raise DeclarationError(f"Feed {self.name!r} has a buffer of {self.buffer}.", remedy="Give 1 or more.")

    @property
    def streams(self) -> tuple[Captured, ...]:
        return (Captured(self.lands, self.lands),)

    @property
    def captures(self) -> AirbyteStream:
        """Its records as the source of a table."""
        return AirbyteStream(self.lands, made_by=f"{self.name}_csv", connector=self)
