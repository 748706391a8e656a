"""Sender: from the outbox `ops/events` to Kafka's topic `lakehouse.events`, in order, each under its id.

The number of the last event that the brokers have is an application transaction of `ops/event_deliveries`, committed after
they acknowledged, so an outage loses none. A batch that was cut off (an outage, a kill) may have arrived in part: with the
number go the topic's offsets, and before it sends the next sender looks which ids are in the topic behind them.
"""

import json
import time
from datetime import UTC, datetime

from lakehouse.core.errors import BusyError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import open_existing, open_table
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.observability import events, outbox
from lakehouse.observability.kafka import arrived, produce

TOPIC = "lakehouse.events"
SENT_TABLE = TableRef("ops", "event_deliveries")
COLUMNS = {
    "number_from": "bigint",
    "number_to": "bigint",
    "events": "bigint",
    "topic": "string",
    "offsets": "string",
    "sent_at": "timestamp",
    "seconds": "double",
    "oldest_published_at": "timestamp",
}
_BATCH = 10_000
#: Seconds for each of up to four calls: with the alerts' 20 a tick must end within Dagster's 60.
TIMEOUT = 8.0


def send_events(storage: Storage, bootstrap: str, *, topic: str = TOPIC, timeout: float = TIMEOUT) -> int:
    """Send the events that the brokers do not have yet; how many.

    Raises:
        KafkaError: the brokers did not acknowledge all of them; they are sent again by the next call.
    """
    if waiting(storage) == 0:
        return 0
    try:
        # Two senders at once would send the same events twice, so only one is at work.
        with lock(storage.uri(SENT_TABLE), wait=0.0):
            return _send(storage, bootstrap, topic, timeout)
    except BusyError:
        return 0


def waiting(storage: Storage) -> int:
    """How many events no broker has acknowledged."""
    there = open_existing(storage.uri(events.EVENTS_TABLE))
    sent = open_existing(storage.uri(SENT_TABLE))
    last = there.watermark(outbox.NUMBER) if there else 0
    return last - (sent.watermark(outbox.NUMBER) if sent else 0)


def _send(storage: Storage, bootstrap: str, topic: str, timeout: float) -> int:
    table = open_table(storage.uri(SENT_TABLE), COLUMNS)
    with outbox.small_session(storage) as session:
        after = table.watermark(outbox.NUMBER)
        rows = outbox.read(session, storage, events.EVENTS_TABLE, columns=events.COLUMNS, after=after)[:_BATCH]
        if not rows:
            return 0
        began = time.monotonic()
        offsets = {int(partition): offset for partition, offset in json.loads(table.provenance.facts.get(topic, "{}")).items()}
        there = arrived(bootstrap, topic, offsets, timeout=timeout)
        missing = [(row["id"], row["subject"], events.message(row)) for row in rows if row["id"] not in there]
        ends = produce(bootstrap, topic, missing, timeout=timeout) if missing else {}
        offsets |= ends
        record = {
            "number_from": rows[0]["number"],
            "number_to": rows[-1]["number"],
            "events": len(rows),
            "topic": topic,
            "offsets": json.dumps(offsets),
            "sent_at": datetime.now(UTC),
            "seconds": round(time.monotonic() - began, 3),
            "oldest_published_at": min(row["published_at"] for row in rows),
        }
        add = session.write(session.table([record], COLUMNS), table.uri, columns=COLUMNS)
        done = {outbox.NUMBER: rows[-1]["number"]}
        made = Provenance(facts={topic: json.dumps(offsets)})
        commit_staged(Transaction(table=table, add=add, watermarks=done, provenance=made))
    return len(rows)
