"""Spans: which messages of a topic have landed, as the names of its landed files say it. There is no other state.

    raw/<folder>/<topic id>_<epoch>_<partition>_<begin>_<end>[_lost_<first>].parquet

A file has the messages of one partition from offset `begin` to before `end`; offsets without a message in between are those of
other transactions, of markers, and of what was compacted. `lost` tells that the offsets from `first` to before `begin` had
expired before they were read. A topic that is made again has another id; its messages are of a later epoch, as are those of a
topic whose log was cut back. Names are made here and nowhere else. Pure.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath

from lakehouse.core.store.storage import LandedFile

_NAME = re.compile(
    r"(?P<topic>[0-9a-f]{32})_(?P<epoch>\d{4,})_(?P<partition>\d{6,})_(?P<begin>\d{19})_(?P<end>\d{19})(_lost_(?P<lost>\d{19}))?\.parquet"
)
#: For so long after it landed a loss fails its check.
REPORTED = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, order=True)
class Span:
    """The messages of one landed file. `lost` is the first offset that had expired before it, None where none had."""

    topic: str
    epoch: int
    partition: int
    begin: int
    end: int
    lost: int | None = None

    @property
    def name(self) -> str:
        lost = f"_lost_{self.lost:019}" if self.lost is not None else ""
        return f"{self.topic}_{self.epoch:04}_{self.partition:06}_{self.begin:019}_{self.end:019}{lost}.parquet"


@dataclass(frozen=True)
class Loss:
    """Offsets of a partition that expired before they were read."""

    partition: int
    first: int
    last: int

    @property
    def offsets(self) -> int:
        return self.last - self.first + 1


class Spans:
    """All landed files of a topic."""

    def __init__(self, landed: Iterable[LandedFile]) -> None:
        self._found = [(span, file.modified) for file in landed if (span := _span(file)) is not None]

    def epoch(self, topic: str) -> int:
        """The epoch of a topic by its id: the one that it has, or the next."""
        own = [span.epoch for span, _ in self._found if span.topic == topic]
        return max(own) if own else 1 + max((span.epoch for span, _ in self._found), default=-1)

    def knows(self, topic: str) -> bool:
        """Whether anything has landed of a topic of this id."""
        return any(span.topic == topic for span, _ in self._found)

    def position(self, topic: str, partition: int) -> int | None:
        """The offset after the last one that has landed; None where nothing has."""
        own = [(span.epoch, span.end) for span, _ in self._found if (span.topic, span.partition) == (topic, partition)]
        return max(own)[1] if own else None

    def losses(self, *, since: float = 0.0) -> list[Loss]:
        """What had expired, of files that landed since an instant, in seconds since 1970."""
        return [Loss(span.partition, span.lost, span.begin - 1) for span in self._since(since) if span.lost is not None]

    def remade(self, *, since: float = 0.0) -> bool:
        """Whether the newest epoch is not the first, and began to land since an instant."""
        newest = max((span.epoch for span, _ in self._found), default=0)
        begun = min((at for span, at in self._found if span.epoch == newest), default=0.0)
        return len({span.epoch for span, _ in self._found}) > 1 and begun >= since

    def _since(self, since: float) -> Iterator[Span]:
        yield from (span for span, at in sorted(self._found) if at >= since)


def _span(file: LandedFile) -> Span | None:
    found = _NAME.fullmatch(PurePosixPath(file.path).name)
    if found is None:
        return None
    lost = found["lost"]
    return Span(
        topic=found["topic"],
        epoch=int(found["epoch"]),
        partition=int(found["partition"]),
        begin=int(found["begin"]),
        end=int(found["end"]),
        lost=int(lost) if lost is not None else None,
    )
