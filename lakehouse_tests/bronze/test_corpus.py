"""The hostile landing as a whole: every file has its stated outcome, and no neighbour loses a record to it."""

from collections import Counter

from lakehouse.bronze.ingest import READABLE_FILES, READABLE_RECORDS
from lakehouse.tables.spec import AirbyteStream, Column, TableSpec
from lakehouse_tests.bronze import corpus
from lakehouse_tests.conftest import Lake

SPEC = TableSpec(
    name=corpus.STREAM,
    source=AirbyteStream(corpus.STREAM),
    columns=(Column("id", "bigint"), Column("nome", "string")),
    key=("id",),
    order=("nome",),
)


def test_every_file_of_the_corpus_has_its_stated_outcome(lake: Lake) -> None:
    deliveries = corpus.corpus()
    corpus.write(lake.folder / "landing", deliveries)
    batch = lake.ingest(SPEC)
    entry = batch.entry
    written, quarantined = lake.rows(SPEC.bronze), lake.quarantined(SPEC)
    assert entry is not None and entry.balanced
    landed = {delivery.name: delivery for delivery in deliveries}
    assert len(landed) == len(deliveries)
    found = {name: Counter[str]() for name in landed}
    for row in written:
        found[row["_source_file"].removeprefix("raw/itens/")][row["_airbyte_raw_id"]] += 1
    assert found == {name: Counter(delivery.ids) for name, delivery in landed.items()}
    assert (len(written), entry.written) == (sum(len(d.ids) for d in deliveries),) * 2

    kept: dict[str, list[tuple[str | None, str]]] = {name: [] for name in landed}
    for row in quarantined:
        kept[row["source_file"].removeprefix("raw/itens/")].append((row["record"], row["reason"]))
        assert row["rules"] == (corpus.READABLE_FILE if row["record"] is None else corpus.READABLE_RECORD)
        assert row["reason"] and str(lake.folder) not in row["reason"]
    assert not {name: kept[name] for name, delivery in landed.items() if corpus.missed(delivery, kept[name])}
    assert {name for name, rows in kept.items() if None in dict(rows)} == {d.name for d in deliveries if d.reason}
    whole, records = sum(d.reason is not None for d in deliveries), sum(len(d.records) for d in deliveries)
    assert (entry.quarantined, entry.records_in) == (records, entry.written + records)

    values = {row["_airbyte_raw_id"]: row for row in written}
    for raw_id, fields in (pair for delivery in deliveries for pair in delivery.fields):
        assert {name: values[raw_id][name] for name in fields} == fields
    counts = {finding.rule: finding.failed for finding in batch.findings}
    assert (counts[READABLE_FILES], counts[READABLE_RECORDS]) == (whole, records)
    assert lake.ingest(SPEC).candidate is None, "neither what was read nor what is in quarantine is tried again"
    assert lake.quarantined(SPEC) == quarantined
