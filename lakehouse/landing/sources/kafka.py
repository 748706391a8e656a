"""A Kafka topic: what is there since the last landed offsets becomes landed files of bounded size, each message once.

    names of landed files ─▶ positions ─┐
    brokers ─▶ id, begins, ends ────────┴▶ parts, one after the other ─▶ consume ─▶ rows ─▶ a file ─▶ raw/<folder>/<span>.parquet
                                                                    afterwards: the positions to the group, for lag to be seen

A run ends at the ends that it saw when it began, of committed transactions alone. Partitions are assigned, so no other consumer
of the group takes them away; where a run began is in the names of landed files (`kafka_spans.py`), whatever the group's offsets
are. A kill leaves whole files, and the next run goes on behind them. One partition is read at a time, into one open file, so
memory does not grow with what there is. Does not belong here: what a message becomes (`kafka_values.py`).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lakehouse.core import kafka
from lakehouse.core.errors import SourceDownError, SourceRefusedError
from lakehouse.core.store import files
from lakehouse.core.store.storage import Storage
from lakehouse.core.text import one_line
from lakehouse.landing.sources.extract import Landed
from lakehouse.landing.sources.kafka_file import MessageFile
from lakehouse.landing.sources.kafka_spans import Span, Spans
from lakehouse.landing.sources.kafka_values import Decode, Layout, rows
from lakehouse.tables.spec import KafkaTopic
from lakehouse.tables.spec.kafka import Value
from lakehouse.tables.spec.setting import plain

_ASK_SECONDS = 10.0
#: So long brokers are asked again before they are down, or a log cut back.
_CHANGE_SECONDS = 5.0
#: So long a batch is waited for; messages of one batch, and their bytes.
_BATCH_SECONDS, _BATCH, _BATCH_BYTES = 0.25, 10_000, 8_000_000
_FIRST_BATCH = 100
#: What a broker answers while another one takes over a group, or a new one loads it; seconds until it is asked again.
_MOVING = frozenset(("NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"))
_PAUSES = (0.2, 0.5, 1.0, 2.0)
_CONSUMER = {
    "auto.offset.reset": "error",
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "fetch.wait.max.ms": 50,
    "isolation.level": "read_committed",
    "queued.max.messages.kbytes": 32_768,
}


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic that can be asked for. `setting` is what messages call the brokers' address; `shared` lets its group know how far
    landing is."""

    bootstrap: str
    name: str
    folder: str
    setting: str
    group: str = "lakehouse"
    shared: bool = True
    key: str = ""
    value: Value = "json"
    decode: Decode | None = None
    max_messages: int | None = None
    max_silence: float = 30.0
    file_bytes: int = 64_000_000
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        return f"Topic {self.name} of Kafka at {self.bootstrap}"


@dataclass(frozen=True)
class Log:
    """What the brokers have of a topic: its id, and by partition the first offset and the one after the last committed."""

    id: str
    begins: Mapping[int, int]
    ends: Mapping[int, int]
    leaderless: tuple[int, ...] = ()


@dataclass
class Part:
    """A partition's share of a run: from `at`, which moves as files land, to `end`.

    Args:
        lost: the first offset that had expired, until a file tells of it.
        marked: the position is to be in a name even when there is no message.
    """

    number: int
    at: int
    end: int
    lost: int | None = None
    marked: bool = False

    @property
    def waiting(self) -> int:
        return max(self.end - self.at, 0)


@dataclass
class Taken:
    """What a run has landed, and what it leaves: `behind` counts offsets, `positions` are by partition."""

    epoch: int
    messages: int = 0
    files: list[str] = field(default_factory=list)
    behind: int = 0
    lost: int = 0
    positions: dict[int, int] = field(default_factory=dict)
    committed: str = ""

    @property
    def landed(self) -> Landed:
        return Landed(self.messages, self.messages, tuple(self.files), None)


def topic_of(system: KafkaTopic, *, setting: str, decode: Decode | None = None, shared: bool = True) -> Topic:
    """A declared topic with the values of its settings."""
    return Topic(
        bootstrap=plain(system.url),
        name=plain(system.topic),
        folder=system.folder(system.streams[0]),
        setting=setting,
        group=system.group,
        shared=shared,
        key=system.key,
        value=system.value,
        decode=decode,
        max_messages=system.max_messages,
        max_silence=system.max_silence.total_seconds(),
        file_bytes=system.file_mb * 1_000_000,
        options={name: plain(value) for name, value in system.options.items()},
    )


class _OvertakenError(Exception):
    """Retention has removed what is to be read next."""


def look(topic: Topic) -> Log:
    """Ask the brokers what the topic has.

    Raises:
        SourceDownError: they do not answer.
        SourceRefusedError: the topic does not exist, or may not be seen.
        DeclarationError: the client library is not installed.
    """
    if not kafka.is_address(topic.bootstrap):
        raise SourceRefusedError(
            f"{topic.setting} is {topic.bootstrap[:80]!r}, which no brokers have.", remedy="Write host:port, with commas between."
        )
    with _reported(topic):
        asked = kafka.admin(topic.bootstrap, topic.options)
        found = asked.list_topics(timeout=_ASK_SECONDS).topics.get(topic.name)
        if found is None or found.error is not None:
            reported = f" ({found.error.str()})" if found is not None else ""
            raise SourceRefusedError(
                f"{topic.shown} does not exist, or may not be read{one_line(reported, limit=80)}.",
                remedy=f"Fix the topic in lakehouse/tables/, or {topic.setting}.",
            )
        described = asked.describe_topics(kafka.client("TopicCollection")([topic.name]), request_timeout=_ASK_SECONDS)
        topic_id = described[topic.name].result(_ASK_SECONDS).topic_id
        led = [number for number, part in found.partitions.items() if part.leader >= 0]
        begins = kafka.offsets(asked, topic.name, led, "earliest", _ASK_SECONDS)
        ends = kafka.offsets(asked, topic.name, led, "latest", _ASK_SECONDS, committed=True)
    words = (topic_id.get_most_significant_bits(), topic_id.get_least_significant_bits())
    identity = "".join(f"{word & (1 << 64) - 1:016x}" for word in words)
    return Log(identity, begins, ends, tuple(sorted(found.partitions.keys() - set(led))))


def behind(log: Log, spans: Spans) -> int:
    """Offsets that are there and have not landed."""
    return sum(part.waiting for part in _parts(log, spans))


def take(topic: Topic, storage: Storage, scratch: Path, *, stop: float) -> Taken:
    """Land what is there. The caller has the folder's lock.

    Args:
        scratch: a folder of this machine for files that are being written.
        stop: `time.monotonic()` at which reading ends; what was read until then lands.

    Raises:
        SourceDownError: the brokers give nothing, or a partition has no leader; what was read before has landed.
        SourceRefusedError: another try will not help.
    """
    spans = Spans(storage.landed(topic.folder))
    log = _whole(topic, spans)
    parts = _parts(log, spans)
    cut = spans.knows(log.id) and any(_is_cut(log, spans, number) for number in log.ends)
    taken = Taken(spans.epoch(log.id) + cut)
    run = _Run(topic, storage, scratch, log, taken)
    with run.opened():
        # The share of time and messages that a partition leaves is the next one's: those with the fewest come first.
        for position, part in enumerate(sorted(parts, key=lambda part: part.waiting)):
            left = len(parts) - position
            run.read(part, until=_share(stop, left), most=_most(topic, taken, left))
        taken.behind = sum(part.waiting for part in parts)
        taken.positions = {part.number: part.at for part in sorted(parts, key=lambda part: part.number)}
        taken.committed = run.commit(taken.positions) if topic.shared else "not given to its group"
    if log.leaderless:
        raise SourceDownError(
            f"{topic.shown}: partition {log.leaderless[0]} has no leader. The others have landed.", remedy="Look at its brokers."
        )
    return taken


def _whole(topic: Topic, spans: Spans) -> Log:
    """What the brokers have. For some seconds they are asked again: when a leader changes they do not answer, or the end is
    before what has landed.
    """
    ends = time.monotonic() + _CHANGE_SECONDS
    while True:
        late = time.monotonic() > ends
        try:
            log = look(topic)
            if late or not any(_is_cut(log, spans, number) for number in log.ends):
                return log
        except SourceDownError:
            if late:
                raise
        time.sleep(1)


def _is_cut(log: Log, spans: Spans, number: int) -> bool:
    at = spans.position(log.id, number)
    return at is not None and at > log.ends[number]


def _parts(log: Log, spans: Spans) -> list[Part]:
    known = spans.knows(log.id)
    out = []
    for number, end in sorted(log.ends.items()):
        at, begin = spans.position(log.id, number), log.begins[number]
        if at is None:
            # Whoever reads a topic for the first time has lost nothing; a partition that joined later has.
            out.append(Part(number, begin, end, lost=0 if known and begin else None, marked=begin > 0))
        elif at < begin:
            out.append(Part(number, begin, end, lost=at, marked=True))
        elif at > end:  # its log was cut back, as by a leader that had not seen the last messages
            out.append(Part(number, end, end, marked=True))
        else:
            out.append(Part(number, at, end))
    return out


def _share(stop: float, left: int) -> float:
    now = time.monotonic()
    return now + max(stop - now, 0.0) / left


def _most(topic: Topic, taken: Taken, left: int) -> int | None:
    if topic.max_messages is None:
        return None
    rest = topic.max_messages - taken.messages
    return -(-rest // left) if rest > 0 else 0


class _Run:
    """The consumer of one run, and the file that it fills."""

    def __init__(self, topic: Topic, storage: Storage, scratch: Path, log: Log, taken: Taken) -> None:
        self._topic, self._storage, self._scratch, self._log, self._taken = topic, storage, scratch, log, taken
        self._reported = ""
        self._batch = _FIRST_BATCH
        self._next = -1, -1
        self._began = datetime.now(UTC)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The consumer, for the block."""
        options = {**self._topic.options, **_CONSUMER, "error_cb": self._note}
        with _reported(self._topic):
            self._consumer = kafka.consumer(self._topic.bootstrap, self._topic.group, options)
        try:
            with _reported(self._topic):
                yield
        finally:
            self._consumer.close()

    def _note(self, error: Any) -> None:
        self._reported = error.str()

    def read(self, part: Part, *, until: float, most: int | None) -> None:
        """Land a partition up to its end, an instant or so many messages."""
        epoch = self._taken.epoch
        origin = self._log.id + (f"-{epoch}" if epoch else "")
        layout = Layout(
            origin=origin,
            named=self._topic.name,
            epoch=epoch,
            partition=part.number,
            key=self._topic.key,
            value=self._topic.value,
            extracted_at=self._began,
            decode=self._topic.decode,
        )
        while True:
            if not part.waiting or most == 0:
                if part.marked or part.lost is not None:
                    self._land(MessageFile(self._scratch / f"{part.number}.parquet", part.at), part, layout)
                return
            file = MessageFile(self._scratch / f"{part.number}.parquet", part.at)
            try:
                most = self._fill(file, part, layout, until=until, most=most)
            except _OvertakenError:
                self._land(file, part, layout)
                begins = look(self._topic).begins
                part.lost, part.at = part.at, max(begins.get(part.number, part.end), part.at)
                if part.lost == part.at:
                    raise SourceDownError(
                        f"{self._topic.shown}: partition {part.number} has no offset {part.at}.", remedy="Run again."
                    ) from None
                part.end, part.marked = max(part.end, part.at), True
                continue
            except SourceDownError:
                self._land(file, part, layout)
                raise
            self._land(file, part, layout)
            if time.monotonic() >= until:
                return

    def _fill(self, file: MessageFile, part: Part, layout: Layout, *, until: float, most: int | None) -> int | None:
        """Read until the file is full or the partition's share is; how many messages it may still have."""
        if self._next != (part.number, part.at):  # an assignment gives up what has been fetched ahead
            self._consumer.assign([kafka.client("TopicPartition")(self._topic.name, part.number, part.at)])
        heard = time.monotonic()
        while file.at < part.end and file.size < self._topic.file_bytes and most != 0:
            now = time.monotonic()
            if now >= until:
                break
            if now - heard > self._topic.max_silence:
                raise SourceDownError(
                    f"{self._topic.shown} gave nothing of partition {part.number} after offset {file.at - 1} for "
                    f"{self._topic.max_silence:g} s{f' ({one_line(self._reported, limit=120)})' if self._reported else ''}.",
                    remedy=f"See that its brokers run and {self._topic.setting} is right; the next run goes on there.",
                )
            wanted = min(self._batch, most if most is not None else self._batch, part.end - file.at)
            found = self._consumer.consume(wanted, timeout=_BATCH_SECONDS)
            messages = [message for message in found if message.error() is None]
            if messages:
                self._batch = _following(messages, self._batch, min(_BATCH_BYTES, self._topic.file_bytes // 4))
                file.add(rows(messages, layout), messages[-1].offset() + 1)
                most = most - len(messages) if most is not None else None
            if len(messages) < len(found):
                file.at = max(file.at, self._ended(found, part))
            self._next = part.number, file.at
            heard = time.monotonic() if found else heard
        return most

    def _ended(self, found: Sequence[Any], part: Part) -> int:
        """The offset that a partition ends before, -1 where nothing tells; what is no message is looked at.

        Raises:
            SourceRefusedError: it may not be read.
        """
        code, ended = kafka.client("KafkaError"), -1
        for one in found:
            error = one.error()
            if error is None:
                continue
            if error.code() == code._PARTITION_EOF:
                ended = max(ended, one.offset())
            elif error.code() == code._AUTO_OFFSET_RESET:
                raise _OvertakenError
            elif error.code() in (code.TOPIC_AUTHORIZATION_FAILED, code.GROUP_AUTHORIZATION_FAILED, code._AUTHENTICATION):
                raise SourceRefusedError(
                    f"{self._topic.shown} may not be read: {one_line(error.str(), limit=120)}.",
                    remedy=f"Give group {self._topic.group} the right to read it.",
                )
            else:
                self._reported = error.str()
        return ended

    def _land(self, file: MessageFile, part: Part, layout: Layout) -> None:
        """Put a file under the name of its span; one without messages where offsets without any were passed."""
        if file.at == file.begin and part.lost is None and not part.marked:
            file.close()
            return
        span = Span(
            topic=self._log.id, epoch=self._taken.epoch, partition=part.number, begin=file.begin, end=file.at, lost=part.lost
        )
        if not file.count:
            file.add(rows([], layout), file.at)
        path = file.close()
        name = f"raw/{self._topic.folder}/{span.name}"
        files.put(self._storage.landed_path(name), path, new=True)
        path.unlink(missing_ok=True)
        self._taken.files.append(name)
        self._taken.messages += file.count
        self._taken.lost += file.begin - part.lost if part.lost is not None else 0
        part.at, part.lost, part.marked = file.at, None, False

    def commit(self, positions: Mapping[int, int]) -> str:
        """Give the group the positions; what became of it. They are read by nobody here, so a refusal costs the view of lag."""
        partition = kafka.client("TopicPartition")
        offsets = [partition(self._topic.name, number, at) for number, at in positions.items()]
        for pause in (*_PAUSES, 0.0):
            try:
                done = self._consumer.commit(offsets=offsets, asynchronous=False)
                refused = [part.error for part in done or () if part.error is not None]
            except kafka.client("KafkaException") as error:
                refused = [error.args[0]]
            if not any(error.name() in _MOVING for error in refused):
                break
            time.sleep(pause)
        return f"not taken by group {self._topic.group}: {one_line(refused[0].str(), limit=120)}" if refused else "all"


def _following(messages: Sequence[Any], batch: int, most: int) -> int:
    """How many messages to ask for next, by the size of these, to have at most so many bytes."""
    size = max(sum(map(len, messages)) // len(messages), 1)
    return min(_BATCH, max(most // size, 1), batch * 4)


@contextmanager
def _reported(topic: Topic) -> Iterator[None]:
    """What the library raises in the block, as a source that is down."""
    try:
        with kafka.explained(topic.bootstrap, setting=topic.setting):
            yield
    except kafka.KafkaError as error:
        raise SourceDownError(f"{topic.shown} cannot be read. {error.what}", remedy=error.remedy) from None
