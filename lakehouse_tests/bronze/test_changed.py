"""A landed file that changed in place: what was taken in before is not taken in again, and what cannot be known is refused."""

import bz2
import gzip
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lakehouse.bronze import changed, ingest
from lakehouse.bronze.ingest import Batch, redrive_files, stage_batch
from lakehouse.core.errors import ConflictError
from lakehouse.core.table.transaction import commit_staged
from lakehouse.tables.spec import AirbyteStream, Column, Csv, TableSpec
from lakehouse_tests.conftest import LANDING_FILES, Lake, few, file_content, touch

SPEC = TableSpec(
    name="vendas_caixa",
    source=AirbyteStream("caixa"),
    columns=(Column("id", "bigint"), Column("nome", "string"), Column("valor", "decimal(12,2)")),
    sync="append",
)
HEAD = "id,nome,valor\n"


def put(lake: Lake, content: str | bytes, name: str = "a.csv") -> Path:
    return lake.put("caixa", name, content)


def rows(lake: Lake, spec: TableSpec = SPEC) -> list[tuple[str, str]]:
    return [(row["id"], row["nome"]) for row in lake.rows(spec.bronze, "id", "nome")]


def reported(batch: Batch) -> list[str]:
    """What the batch says of files that changed, in the check too."""
    (found,) = [finding for finding in batch.findings if finding.rule == "readable_files"]
    assert found.detail["changed_in_place"] == batch.changed
    return batch.changed


def refused(lake: Lake, batch: Batch) -> str:
    """The reason for which the one file of a batch is in quarantine, whole."""
    assert batch.entry is not None and batch.entry.balanced and (batch.entry.written, batch.entry.records_in) == (0, 0)
    (found,) = [finding for finding in batch.findings if finding.rule == "readable_files"]
    assert (found.passed, found.failed) == (False, 1)
    *_, row = sorted(lake.quarantined(SPEC), key=lambda row: row["batch_id"])
    assert row["record"] is None and row["batch_id"] == batch.entry.batch_to
    assert row["reason"].endswith("Land what is new in it as a file of another name.")
    return str(row["reason"])


# --- files that grow ---------------------------------------------------------------------------------------------------


def test_of_a_csv_that_grows_the_tail_is_read_with_the_first_header(lake: Lake) -> None:
    put(lake, HEAD + "1,Ana,10\n2,Bia,20\n")
    assert reported(lake.ingest(SPEC)) == []
    put(lake, HEAD + "1,Ana,10\n2,Bia,20\n3,Caio,30\n")
    batch = lake.ingest(SPEC)
    assert batch.entry is not None and (batch.entry.records_in, batch.entry.written) == (1, 1)
    assert reported(batch) == ["raw/caixa/a.csv has grown: of its 42 bytes the last 10 are taken in"]
    put(lake, HEAD + "1,Ana,10\n2,Bia,20\n3,Caio,30\n4,Davi,40\n5,Eva,50\n")
    lake.ingest(SPEC)
    assert rows(lake) == [("1", "Ana"), ("2", "Bia"), ("3", "Caio"), ("4", "Davi"), ("5", "Eva")]
    assert lake.ingest(SPEC).transaction is None and lake.quarantined(SPEC) == []
    assert [row["_source_file"] for row in lake.rows(SPEC.bronze, "_source_file")] == ["raw/caixa/a.csv"] * 5


def test_of_json_lines_that_grow_the_tail_is_read(lake: Lake) -> None:
    first, second = '{"id": 1, "nome": "Ana"}\n', '{"id": 2, "nome": "Bia", "novo": "x"}\n{no record\n'
    put(lake, first, "a.jsonl")
    lake.ingest(SPEC)
    put(lake, first + second, "a.jsonl")
    batch = lake.ingest(SPEC)
    assert batch.entry is not None and (batch.entry.written, batch.entry.quarantined) == (1, 1)
    assert rows(lake) == [("1", "Ana"), ("2", "Bia")]
    assert [row["record"] for row in lake.quarantined(SPEC)] == ["{no record"]


def test_records_that_a_file_repeats_in_its_tail_count(lake: Lake) -> None:
    put(lake, HEAD + "1,Ana,10\n")
    lake.run(SPEC)
    put(lake, HEAD + "1,Ana,10\n1,Ana,10\n")
    lake.run(SPEC)
    assert len(lake.rows(SPEC.silver)) == 2


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (HEAD + "1,Ana,10", HEAD + "1,Ana,10\n2,Bia,20\n", ["1", "2"]),
        (HEAD + "1,Ana,10", HEAD + "1,Ana,10\r\n2,Bia,20", ["1", "2"]),
        (HEAD + "1,Ana,10", HEAD + "1,Ana,10\n", ["1"]),
        ("id,nome,valor\r\n1,Ana,10\r", "id,nome,valor\r\n1,Ana,10\r\n2,Bia,20\r\n", ["1", "2"]),
        ("id,nome,valor\r1,Ana,10\r", "id,nome,valor\r1,Ana,10\r2,Bia,20\r", ["1", "2"]),
        ("id,nome,valor", HEAD + "1,Ana,10\n", ["1"]),
        (HEAD, HEAD + "1,Ana,10\n", ["1"]),
        ("\ufeff" + HEAD + "1,Ana,10\n", "\ufeff" + HEAD + "1,Ana,10\n2,Bia,20\n", ["1", "2"]),
        ('id,"nome\n",valor\n1,Ana,10\n', 'id,"nome\n",valor\n1,Ana,10\n2,Bia,20\n', ["1", "2"]),
        (HEAD + '1,"A\nna",10\n', HEAD + '1,"A\nna",10\n2,"B\nia",20\n', ["1", "2"]),
        (HEAD + "1,Ana,10\n", HEAD + "1,Ana,10\n\n2,Bia,20\n", ["1", "2"]),
    ],
    ids=["no line end", "other line end", "a line end alone", "between CR and LF", "CR", "header without a line end",
         "header alone", "byte order mark", "header of two lines", "records of two lines", "empty line"],
)  # fmt: skip
def test_where_a_line_of_a_csv_ends(lake: Lake, old: str, new: str, wanted: list[str]) -> None:
    put(lake, old)
    lake.ingest(SPEC)
    put(lake, new)
    batch = lake.ingest(SPEC)
    assert [row["id"] for row in lake.rows(SPEC.bronze, "id")] == wanted and lake.quarantined(SPEC) == []
    assert batch.entry is not None and batch.entry.balanced and len(reported(batch)) == 1
    assert lake.ingest(SPEC).transaction is None


ONE, TWO = {"id": 1}, {"id": 2}
PACKED = gzip.compress(b'{"id": 1}\n')


@pytest.mark.parametrize(
    ("name", "old", "new", "why"),
    [
        ("a.csv", HEAD + "1,Ana,10", HEAD + "1,Ana,100\n", "within a line"),
        ("a.csv", HEAD + "1,An", HEAD + "1,Ana,10\n", "within a line"),
        ("a.csv", "id,nome", HEAD + "1,Ana,10\n", "within a line"),
        ("a.csv", HEAD + '1,"A\n', HEAD + '1,"A\nna",10\n', "between quotes"),
        ("a.jsonl", '{"id": 1}\n{"id"', '{"id": 1}\n{"id": 2}\n', "within a line"),
        ("a.jsonl", '{"id": 1}', '{"id": 1}{"id": 2}\n', "within a line"),
        ("a.csv", HEAD + "1,Ana,10\n", HEAD + "1,Ana,11\n2,Bia,20\n", "not the beginning"),
        ("a.csv", HEAD + "1,Ana,10\n2,Bia,20\n", HEAD + "1,Ana,10\n", "not the beginning"),
        ("a.csv", HEAD + "1,Ana,10\n", "nome,id,valor\nAna,1,10\n", "not the beginning"),
        ("a.csv.gz", gzip.compress(HEAD.encode() + b"1,Ana,10\n"), gzip.compress(HEAD.encode() + b"2,Bia,20\n"), "compressed"),
        ("a.jsonl.gz", PACKED, PACKED + gzip.compress(b'{"id": 2}\n'), "compressed"),
        ("a.parquet", file_content([ONE], "v2-parquet"), file_content([ONE, TWO], "v2-parquet"), "only of JSON"),
    ],
    ids=["longer value", "cut record", "cut header", "open quote", "cut object", "two objects in a line", "changed", "shorter",
         "other header", "gzip", "gzip that grows", "Parquet"],
)  # fmt: skip
def test_what_cannot_be_known_is_refused_whole(lake: Lake, name: str, old: str | bytes, new: str | bytes, why: str) -> None:
    put(lake, old, name)
    lake.ingest(SPEC)
    before = lake.rows(SPEC.bronze)
    put(lake, new, name)
    batch = lake.ingest(SPEC)
    assert why in refused(lake, batch) and reported(batch) == [
        f"raw/caixa/{name} was read before with other content: it is refused"
    ]
    assert lake.rows(SPEC.bronze) == before
    assert lake.ingest(SPEC).transaction is None, "it is said once"
    put(lake, HEAD + "9,Nova,1\n", "b.csv")
    lake.ingest(SPEC)
    assert "9" in [row["id"] for row in lake.rows(SPEC.bronze, "id")], "the way that the reason names"


def test_every_kind_of_packed_file_is_refused_for_what_it_is(tmp_path: Path) -> None:
    from lakehouse.core.ledger import PlannedFile
    from lakehouse.core.store.storage import LandedFile

    for name, pack in (("a.csv.bz2", bz2.compress), ("a.jsonl.zst", bytes), ("a.zip", bytes)):
        (tmp_path / name).write_bytes(pack(b"id\n1\n2\n"))
        file = LandedFile(name, (tmp_path / name).stat().st_size, "v", 0.0)
        found = changed.tails(
            [file], {name: [PlannedFile(name, 1, "u", "0")]}, landing=str(tmp_path), folder=str(tmp_path / "t"), layout=Csv()
        )
        assert [reject.path for reject in found.refused] == [name] and "compressed" in found.refused[0].reason
        assert found.to_read([file]) == []


# --- what was read before ------------------------------------------------------------------------------------------------


def test_a_refused_file_that_is_corrected_is_read_whole(lake: Lake) -> None:
    put(lake, "id,id\n1,1\n")
    lake.ingest(SPEC)
    assert lake.rows(SPEC.bronze) == [] and len(lake.quarantined(SPEC)) == 1
    put(lake, "id,id\n1,1\n2,2\n".replace("id,id", "id,nome"))
    assert reported(lake.ingest(SPEC)) == [], "nothing of it was taken in before"
    assert rows(lake) == [("1", "1"), ("2", "2")]


def test_a_file_that_was_refused_goes_on_from_what_was_taken_in(lake: Lake) -> None:
    one, other, more = HEAD + "1,Ana,10\n", HEAD + "7,Zoe,70\n", "2,Bia,20\n"
    put(lake, one)
    lake.ingest(SPEC)
    put(lake, other)
    lake.ingest(SPEC)
    put(lake, other + more)
    lake.ingest(SPEC)
    assert rows(lake) == [("1", "Ana")], "it begins with what was refused, which is not in bronze"
    put(lake, one)
    assert lake.ingest(SPEC).transaction is None, "as it was taken in"
    put(lake, one + more)
    lake.ingest(SPEC)
    assert rows(lake) == [("1", "Ana"), ("2", "Bia")]


def test_a_redriven_file_that_changed_is_refused_again(lake: Lake) -> None:
    put(lake, HEAD + "1,Ana,10\n")
    lake.ingest(SPEC)
    put(lake, HEAD + "7,Zoe,70\n")
    lake.ingest(SPEC)
    with lake.session() as session:
        assert redrive_files(session, lake.storage, SPEC, run_id="again") == ["raw/caixa/a.csv"]
    assert "not the beginning" in refused(lake, lake.ingest(SPEC))
    assert rows(lake) == [("1", "Ana")] and len(lake.quarantined(SPEC)) == 1


def test_a_touched_file_has_not_changed(lake: Lake) -> None:
    path = put(lake, HEAD + "1,Ana,10\n")
    lake.ingest(SPEC)
    touch(path)
    assert lake.ingest(SPEC).transaction is None


@pytest.mark.parametrize("sync", ["dedup", "overwrite"])
def test_other_tables_read_a_changed_file_again(lake: Lake, sync: str) -> None:
    keyed = {"key": ("id",), "order": ("valor",)} if sync == "dedup" else {}
    spec = replace(SPEC, sync=sync, **keyed)  # type: ignore[arg-type]
    put(lake, HEAD + "1,Ana,10\n")
    lake.ingest(spec)
    put(lake, HEAD + "1,Ana,10\n2,Bia,20\n")
    batch = lake.ingest(spec)
    assert rows(lake, spec) == [("1", "Ana"), ("1", "Ana"), ("2", "Bia")]
    assert reported(batch) == ["raw/caixa/a.csv was read before with other content: it is read again whole"]
    put(lake, HEAD + "1,Ana,11")
    lake.ingest(spec)
    assert len(rows(lake, spec)) == 4 and lake.quarantined(spec) == []


def test_what_changed_is_one_line_of_the_log(lake: Lake) -> None:
    import dagster as dg

    from lakehouse.bronze.assets import bronze_asset
    from lakehouse.resources import build_resources
    from lakehouse.settings import Settings

    resources = build_resources(Settings(root=lake.storage.root, landing_dir=lake.storage.landing))

    def materialise() -> list[str]:
        with dg.instance_for_test() as instance:
            done = dg.materialize([bronze_asset(SPEC)], resources=resources, instance=instance)
            entries = instance.all_logs(done.run_id)
        return [entry.user_message for entry in entries if entry.user_message.startswith("Changed in place")]

    for n in range(7):
        put(lake, HEAD + "1,Ana,10\n", f"{n}.csv")
    assert materialise() == []
    put(lake, HEAD + "1,Ana,10\n2,Bia,20\n", "0.csv")
    (line,) = materialise()
    assert "raw/caixa/0.csv has grown: of its 32 bytes the last 9 are taken in" in line
    for n in range(1, 7):
        put(lake, HEAD + "3,Caio,30\n", f"{n}.csv")
    (line,) = materialise()
    assert "raw/caixa/1.csv was read before with other content: it is refused" in line and line.endswith("; and 1 more.")


# --- runs that end in between --------------------------------------------------------------------------------------------


STEPS = ["_changed_files", "stage", "_check_unchanged", "_quarantine", "_with_columns", "_ready"]


def die_at(lake: Lake, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A run that ends when it calls a function of `ingest`."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, lake.session() as session:
        patch.setattr(ingest, name, die)
        with pytest.raises(KeyboardInterrupt):
            stage_batch(session, lake.storage, SPEC, run_id="dead")


@pytest.mark.parametrize("step", few(STEPS, "_changed_files", "_quarantine", "_ready"))
def test_a_run_that_goes_on_takes_the_same_tail(lake: Lake, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    put(lake, HEAD + "1,Ana,10\n")
    lake.run(SPEC)
    path = put(lake, HEAD + "1,Ana,10\n2,Bia,20\n3,Caio,30\n")
    die_at(lake, monkeypatch, step)
    touch(path)
    put(lake, HEAD + "8,Lia,80\n", "b.csv")
    batch = lake.ingest(SPEC)
    assert batch.entry is not None and batch.entry.written == 2 and batch.entry.balanced
    assert reported(batch) == ["raw/caixa/a.csv has grown: of its 42 bytes the last 19 are taken in"]
    lake.ingest(SPEC)
    assert [number for number, _ in rows(lake)] == ["1", "2", "3", "8"]
    lake.run(SPEC)
    assert len(lake.rows(SPEC.silver)) == 4


def test_a_file_that_grows_on_before_the_run_goes_on_loses_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put(lake, HEAD + "1,Ana,10\n")
    lake.ingest(SPEC)
    put(lake, HEAD + "1,Ana,10\n2,Bia,20\n")
    die_at(lake, monkeypatch, "stage")
    put(lake, HEAD + "1,Ana,10\n2,Bia,20\n3,Caio,30\n")
    lake.ingest(SPEC)
    lake.ingest(SPEC)
    assert [number for number, _ in rows(lake)] == ["1", "2", "3"] and lake.ingest(SPEC).transaction is None


@pytest.mark.parametrize("change", ["grow", "vanish"])
def test_a_file_that_changes_while_its_tail_is_read(lake: Lake, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    put(lake, HEAD + "1,Ana,10\n")
    lake.ingest(SPEC)
    path = put(lake, HEAD + "1,Ana,10\n2,Bia,20\n")
    tails = changed.tails

    def meanwhile(*args: object, **named: object) -> changed.Changed:
        if change == "vanish":
            path.unlink()
        found = tails(*args, **named)  # type: ignore[arg-type]
        if change == "grow":
            path.write_text(path.read_text() + "3,Caio,30\n")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(changed, "tails", meanwhile)
        with pytest.raises(ConflictError, match="changed while it was read"):
            lake.ingest(SPEC)
    assert lake.stray_files() == []
    lake.ingest(SPEC)
    lake.ingest(SPEC)
    assert [number for number, _ in rows(lake)] == (["1", "2", "3"] if change == "grow" else ["1"])


def test_two_runs_of_one_tail_are_one(lake: Lake) -> None:
    put(lake, HEAD + "1,Ana,10\n")
    lake.ingest(SPEC)
    put(lake, HEAD + "1,Ana,10\n2,Bia,20\n")
    with lake.session() as one, lake.session() as two:
        first = stage_batch(one, lake.storage, SPEC, run_id="1").transaction
        second = stage_batch(two, lake.storage, SPEC, run_id="2").transaction
        assert first is not None and second is not None
        commit_staged(first)
        with pytest.raises(ConflictError):
            commit_staged(second)
    assert rows(lake) == [("1", "Ana"), ("2", "Bia")] and lake.stray_files() == []


def test_the_plan_of_an_earlier_commit_is_gone_on_from(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """It read a file again whole each time that it had grown: the next tail begins behind the newest of these."""
    put(lake, HEAD + "1,Ana,10\n")
    lake.ingest(SPEC)
    put(lake, HEAD + "1,Ana,10\n2,Bia,20\n")
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_changed_files", lambda *_, **__: changed.Changed())
        lake.ingest(SPEC)
    assert [number for number, _ in rows(lake)] == ["1", "1", "2"]
    put(lake, HEAD + "1,Ana,10\n2,Bia,20\n3,Caio,30\n")
    lake.ingest(SPEC)
    assert [number for number, _ in rows(lake)] == ["1", "1", "2", "3"]
    planned = lake.rows(LANDING_FILES)
    assert len(planned) == 3 and set(planned[0]) >= {"path", "size", "version", "checksum", "given_back"}


# --- the inputs that others have made ------------------------------------------------------------------------------------


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"3,Caio,30\n")


@pytest.mark.parametrize("sequence", [("a.csv", "b.csv", grow), ("a.csv", grow, "b.csv")], ids=["copy first", "growth first"])
def test_a_file_that_grows_and_one_that_repeats_a_row(
    lake: Lake, real_data: Path, sequence: tuple[str | Callable[[Path], None], ...]
) -> None:
    case = real_data / "cases" / "11-append"
    landed = put(lake, "", "a.csv")
    for step in sequence:
        if isinstance(step, str):
            shutil.copyfile(case / step, landed.with_name(step))
        else:
            step(landed)
        lake.run(SPEC)
    found = [(row["id"], row["nome"]) for row in lake.rows(SPEC.silver, "id", "nome")]
    assert found == [(1, "Ana"), (1, "Ana"), (2, "Bia"), (3, "Caio")], "b.csv is another delivery of the row 1"
