"""What a commit carries is read back as it was written, also from a lake of an earlier commit."""

import json

from hypothesis import given
from hypothesis import strategies as st

from lakehouse.core.table.provenance import Entry, Provenance, Standing, read_commit, read_provenance

TEXT = st.text(min_size=1, max_size=20)
COUNT = st.integers(0, 2**53)
NAMES = st.dictionaries(TEXT, COUNT, max_size=3)
OWN = st.sampled_from(["types", "absent", "mart_code", "features_hash", "landed_files", "rolled_back_to", "lakehouse.events"])
_ENTRY = Entry(batch_from=0, batch_to=0, records_in=0, written=0, rows_after=0)
#: The form that commit 2e6ab70 wrote, key by key.
OLD = {
    "lakehouse.commit_id": "9f",
    "lakehouse.actions": '{"add": 1, "remove": 0, "txn": 1}',
    "lakehouse.run_id": "r1",
    "lakehouse.asset": "silver/vendas",
    "lakehouse.code_version": "",
    "lakehouse.operation": "release",
    "lakehouse.inputs": '{"bronze/vendas": 3}',
    "lakehouse.input_ids": '{"bronze/vendas": "a-b"}',
    "lakehouse.findings": '{"castable": [true, "quarantine", 0, 9]}',
    "lakehouse.released": "range_valor, matches_nome",
    "lakehouse.reason": "asked Ana",
    **{
        f"lakehouse.{name}": str(n)
        for n, name in enumerate(vars(Entry(batch_from=0, batch_to=0, records_in=0, written=0, rows_after=0)))
    },
    "lakehouse.types": '{"id": "BIGINT"}',
    "timestamp": 1_700_000_000_123,
    "clientVersion": "delta-rs.1.6.6",
}


@st.composite
def provenances(draw: st.DrawFn) -> Provenance:
    figures = st.builds(Entry, **dict.fromkeys(vars(_ENTRY), COUNT))
    return Provenance(
        **{name: draw(st.one_of(st.just(""), TEXT)) for name in ("operation", "maintenance", "run_id", "asset", "reason")},
        inputs=draw(NAMES),
        input_ids=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        findings=draw(st.dictionaries(TEXT, st.builds(Standing, st.booleans(), TEXT, COUNT, COUNT), max_size=3)),
        batches=draw(st.none() | NAMES.filter(bool)),
        figures=draw(st.none() | figures),
        released=tuple(draw(st.lists(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), max_size=2))),
        facts=draw(st.dictionaries(OWN, TEXT, max_size=3)),
    )


@given(provenances())
def test_what_is_written_is_read_back(provenance: Provenance) -> None:
    written = provenance.written()
    assert all(isinstance(value, str) for value in written.values())
    assert read_provenance({**written, "commit_id": "x", "actions": "{}"}) == provenance


def test_a_commit_of_an_earlier_lake_is_read_and_written_again_under_the_same_names() -> None:
    commit = read_commit(7, OLD)
    made = commit.provenance
    assert (commit.version, commit.id, commit.at and commit.at.timestamp()) == (7, "9f", 1_700_000_000.123)
    assert made.released == ("range_valor", "matches_nome") and made.findings["castable"] == Standing(True, "quarantine", 0, 9)
    assert made.figures is not None and (made.figures.batch_from, made.figures.rows_after) == (0, 7)
    assert made.facts == {"types": '{"id": "BIGINT"}'}
    again = {f"lakehouse.{name}": value for name, value in made.written().items()}
    assert {name: _same(value) for name, value in again.items()} == {
        name: _same(value) for name, value in OLD.items() if name.startswith("lakehouse.") and value != "" and name not in (
            "lakehouse.commit_id", "lakehouse.actions",
        )
    }  # fmt: skip


def test_a_commit_of_another_writer_has_no_id_and_states_nothing() -> None:
    commit = read_commit(3, {"operation": "WRITE", "engineInfo": "Apache-Spark"})
    assert (commit.id, commit.at, commit.provenance) == ("", None, Provenance())


def _same(value: object) -> object:
    try:
        return json.loads(str(value))
    except ValueError:
        return value
