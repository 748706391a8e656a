"""DeltaIOManager: what an asset returns becomes a version of its table, with what was measured and where it came from."""

import warnings
from pathlib import Path

import dagster as dg
import narwhals as nw
import pytest

from lakehouse.core.names import TableRef
from lakehouse.core.table import staging
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.staging import Write
from lakehouse.core.table.transaction import Transaction, commit_staged
from lakehouse.resources import build_resources
from lakehouse.runtime.io_manager import DeltaIOManager, Unchanged
from lakehouse.runtime.steps import RETRY
from lakehouse.settings import Settings

COLUMNS = {"id": "bigint", "pais": "string", "valor": "decimal(12,2)"}
QUICK = dg.RetryPolicy(max_retries=2, delay=0)


class Tables:
    """Gold tables of a lake in a folder, and runs of small assets over them."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings(root=str(root))

    def uri(self, table: str) -> str:
        return self.settings.storage.uri(TableRef("gold", table))

    def rows(self, table: str, *, version: int | None = None) -> list[tuple]:
        """All rows of a gold table, read with delta-rs and pyarrow, not with the code under test; sorted."""
        from deltalake import DeltaTable

        records = DeltaTable(self.uri(table), version=version).to_pyarrow_table().to_pylist()
        return sorted(tuple(record.values()) for record in records)

    def run(
        self, *assets: dg.AssetsDefinition, instance: dg.DagsterInstance | None = None, **overrides
    ) -> dg.ExecuteInProcessResult:
        resources = {**build_resources(self.settings), **overrides}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dg.materialize(list(assets), resources=resources, raise_on_error=False, instance=instance)

    def put(self, records, *, table: str = "t", **how) -> dg.ExecuteInProcessResult:
        """Run one asset that returns a Write of these records."""
        return self.run(writer(records, table=table, **how))


@pytest.fixture
def tables(tmp_path):
    return Tables(tmp_path)


def frame(records):
    return lambda session: session.table(records, COLUMNS)


def writer(records, *, table: str = "t", mode: str = "append", columns=COLUMNS, **how) -> dg.AssetsDefinition:
    @dg.asset(key=["gold", table], code_version="v7", retry_policy=QUICK)
    def written() -> Write:
        return Write(frame=lambda session: session.table(records, columns), columns=columns, mode=mode, **how)

    return written


def sale(number: int, pais: str = "Brasil", valor: str = "1.50") -> dict:
    return {"id": number, "pais": pais, "valor": valor}


def metadata(result: dg.ExecuteInProcessResult, table: str = "t") -> dict:
    (event,) = result.asset_materializations_for_node(f"gold__{table}")
    return {name: value.value for name, value in event.metadata.items()}


def failure(result: dg.ExecuteInProcessResult) -> str:
    """The text of the failed step's error and of everything that it was caused by."""
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.event_specific_data.error.to_string()


# --- modes -----------------------------------------------------------------------------------------------------------


def test_append_adds_rows_to_those_that_are_there(tables):
    assert tables.put([sale(1)]).success
    assert tables.put([sale(1), sale(2)]).success
    assert [row[0] for row in tables.rows("t")] == [1, 1, 2]


def test_merge_replaces_rows_of_the_same_key_and_adds_the_others(tables):
    tables.put([sale(n) for n in range(5)])
    assert tables.put([sale(3, "Chile"), sale(9, "Peru")], mode="merge", key=("id",)).success
    assert [(row[0], row[1]) for row in tables.rows("t")] == [
        (0, "Brasil"), (1, "Brasil"), (2, "Brasil"), (3, "Chile"), (4, "Brasil"), (9, "Peru"),
    ]  # fmt: skip


def test_merge_leaves_files_alone_that_contain_no_changed_key(tables):
    tables.put([sale(n) for n in range(5)])
    tables.put([sale(n) for n in range(100, 105)])
    before = {file.path for file in open_existing(tables.uri("t")).files}
    result = tables.put([sale(102, "Chile")], mode="merge", key=("id",))
    after = {file.path for file in open_existing(tables.uri("t")).files}
    assert len(before & after) == 1
    assert (metadata(result)["files_added"], metadata(result)["files_removed"]) == (1, 1)


def test_merge_of_two_rows_with_one_key_is_refused_and_not_tried_again(tables):
    tables.put([sale(1)])
    result = tables.put([sale(2), sale(2, "Chile")], mode="merge", key=("id",))
    assert "have the same id. Keep the newest row of every key" in failure(result)
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert len(tables.rows("t")) == 1


def test_merge_of_a_row_without_a_key_is_refused(tables):
    tables.put([sale(1)])
    result = tables.put([sale(2), sale(None)], mode="merge", key=("id",))
    assert "A row of the merge into" in failure(result) and "has no id. Filter the rows without a key" in failure(result)
    assert len(tables.rows("t")) == 1


def test_overwrite_replaces_rows_and_columns(tables):
    tables.put([sale(1), sale(2)])
    columns = {"dia": "date", "n": "bigint"}
    assert tables.put([{"dia": "2024-01-01", "n": 3}], mode="overwrite", columns=columns).success
    table = open_existing(tables.uri("t"))
    assert (table.rows, table.columns) == (1, columns)
    assert len(tables.rows("t", version=1)) == 2  # the former version is still there


@pytest.mark.parametrize("mode", ["append", "merge", "partition"])
def test_only_overwrite_may_change_the_columns(tables, mode):
    tables.put([sale(1)])
    result = tables.put([{"id": 2}], mode=mode, columns={"id": "bigint"}, key=("id",), partition={"id": "2"})
    assert "other columns" in failure(result)
    assert tables.rows("t") == [(1, "Brasil", pytest.approx(1.5))]


def test_a_partition_is_replaced_and_every_other_row_stays(tables):
    tables.put([sale(1, "Brasil"), sale(2, "Chile"), sale(3, None)])
    tables.put([sale(4, "Peru"), sale(5, "Uruguai")])
    untouched = {file.path for file in open_existing(tables.uri("t")).files if file.lower["id"] == 4}
    assert tables.put([sale(7, "Chile"), sale(8, "Chile")], mode="partition", partition={"pais": "Chile"}).success
    assert {(row[0], row[1]) for row in tables.rows("t") if row[1]} == {
        (1, "Brasil"), (4, "Peru"), (5, "Uruguai"), (7, "Chile"), (8, "Chile"),
    }  # fmt: skip
    assert [row[0] for row in tables.rows("t") if row[1] is None] == [3]
    assert tables.put([sale(9, "Argentina")], mode="partition", partition={"pais": "Argentina"}).success
    assert untouched <= {file.path for file in open_existing(tables.uri("t")).files}


@pytest.mark.parametrize("stranger", ["Brasil", "chile", None])
def test_a_partition_write_with_rows_of_another_one_is_refused_before_anything_is_staged(tables, stranger):
    tables.put([sale(1, "Chile"), sale(2, "Brasil")])
    before = _listing(tables.uri("t"))
    result = tables.put([sale(3, "Chile"), sale(4, stranger)], mode="partition", partition={"pais": "Chile"})
    assert "1 rows do not belong to the partition {'pais': 'Chile'}" in failure(result)
    assert _listing(tables.uri("t")) == before


def test_a_write_that_would_lose_more_than_it_may_is_refused_at_once_and_leaves_no_file(tables):
    tables.put([sale(n) for n in range(10)])
    before = _listing(tables.uri("t"))
    result = tables.put([sale(1)], mode="overwrite", max_loss=0.5)
    assert "would leave 1 of 10 rows, and at most 50% may go" in failure(result)
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert _listing(tables.uri("t")) == before
    assert tables.put([sale(n) for n in range(5)], mode="overwrite", max_loss=0.5).success


def _listing(folder: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


# --- what is told ----------------------------------------------------------------------------------------------------


def test_a_materialisation_states_what_was_written_where_and_how_long_it_took(tables):
    tables.put([sale(1)])
    told = metadata(tables.put([sale(2), sale(3)]))
    table = open_existing(tables.uri("t"))
    assert told["dagster/row_count"] == 3
    assert told["rows_written"] == 2
    assert told["delta_version"] == table.version == 2
    assert told["bytes"] == sum(path.stat().st_size for path in Path(tables.uri("t")).glob("*.parquet"))
    assert told["files"] == 2
    assert told["dagster/uri"] == tables.uri("t")
    assert {column.name: column.type for column in told["dagster/column_schema"].columns} == COLUMNS
    assert 0 < told["commit_seconds"] < 60


def test_a_commit_states_which_run_of_which_asset_and_code_made_it_from_which_versions(tables):
    tables.put([sale(1)], table="source")
    tables.put([sale(2)], table="source")

    @dg.asset(key=["gold", "copy"], code_version="v8", ins={"rows": dg.AssetIn(["gold", "source"])})
    def copy(rows) -> Write:
        return Write(frame=rows, columns=COLUMNS, mode="overwrite", provenance=Provenance(facts={"note": "by hand"}))

    result = tables.run(copy, dg.AssetSpec(["gold", "source"]))
    assert result.success
    made = open_existing(tables.uri("copy")).provenance
    assert (made.run_id, made.asset, made.code_version) == (result.run_id, "gold/copy", "v8")
    assert made.inputs == {"gold/source": 2}
    assert (made.operation, made.facts) == ("overwrite", {"note": "by hand"})
    assert metadata(result, "copy")["inputs"] == {"gold/source": 2}


def test_nothing_to_do_is_told_and_no_version_advances(tables):
    tables.put([sale(1)])

    @dg.asset(key=["gold", "t"])
    def same() -> Unchanged:
        return Unchanged(1, {"checked": 5})

    before = _listing(tables.uri("t"))
    told = metadata(tables.run(same))
    assert (told["nothing_to_do"], told["checked"], told["dagster/row_count"], told["delta_version"]) == (True, 5, 1, 1)
    assert told["operation"] == "append"  # as the newest commit reports
    assert {column.name: column.type for column in told["dagster/column_schema"].columns} == COLUMNS
    assert _listing(tables.uri("t")) == before


# --- conflicts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def rival(tables, monkeypatch):
    """Another writer that commits `records` between staging and commit, the first `times` times."""

    def compete(records, *, times: int = 1, mode: str = "append") -> list[int]:
        stage, won = staging.stage_write, []

        def late(session, uri, write):
            candidate = stage(session, uri, write)
            if len(won) < times:
                first = Write(frame=frame(records), columns=COLUMNS, mode=mode, key=("id",))
                won.append(commit_staged(stage(session, uri, first)))
            return candidate

        monkeypatch.setattr("lakehouse.runtime.io_manager.stage_write", late)
        return won

    return compete


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("append", [(1, "Brasil"), (2, "Brasil"), (2, "Chile"), (50, "rival")]),
        ("merge", [(1, "Brasil"), (2, "Chile"), (50, "rival")]),
        ("overwrite", [(2, "Chile")]),
        ("partition", [(1, "Brasil"), (2, "Brasil"), (2, "Chile"), (50, "rival")]),
    ],
)
def test_a_write_that_comes_second_is_redone_and_nothing_is_lost_or_doubled(tables, rival, mode, expected):
    tables.put([sale(1), sale(2)])
    won = rival([sale(50, "rival")])
    result = tables.put([sale(2, "Chile")], mode=mode, key=("id",), partition={"pais": "Chile"})
    assert result.success
    assert len(won) == 1
    assert [(row[0], row[1]) for row in tables.rows("t")] == expected
    committed = {file.path for file in open_existing(tables.uri("t")).files}
    former = {file.path for file in open_existing(tables.uri("t"), version=2).files}
    assert {path.name for path in Path(tables.uri("t")).glob("*.parquet")} == committed | former  # nothing staged is left


def test_a_merge_that_is_redone_sees_what_the_other_writer_did(tables, rival):
    """The other one inserted the same key first: the redone merge replaces that row instead of adding a second one."""
    tables.put([sale(1)])
    rival([sale(7, "rival")])
    assert tables.put([sale(7, "Chile")], mode="merge", key=("id",)).success
    assert [(row[0], row[1]) for row in tables.rows("t")] == [(1, "Brasil"), (7, "Chile")]


def test_a_writer_that_always_comes_second_gives_up_with_nothing_visible(tables, rival, monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    tables.put([sale(1)])
    won = rival([sale(50, "rival")], times=1_000)
    result = tables.put([sale(2)])
    assert "Another writer committed" in failure(result)
    assert len(won) == 5 * (1 + QUICK.max_retries)
    assert {row[1] for row in tables.rows("t")} == {"Brasil", "rival"}
    assert 2 not in {row[0] for row in tables.rows("t")}


def test_what_an_asset_staged_itself_is_never_committed_over_another_commit_but_staged_again(tables):
    """A Transaction was validated against one version: a conflict fails the attempt, and the step's retry validates anew."""
    tables.put([sale(1)])
    attempts = []

    @dg.asset(key=["gold", "t"], retry_policy=QUICK, required_resource_keys={"lake"})
    def staged(context) -> Transaction:
        uri = tables.uri("t")
        with context.resources.lake.session() as session:
            candidate = staging.stage_write(session, uri, Write(frame=frame([sale(2)]), columns=COLUMNS, mode="append"))
            attempts.append(candidate.table.version)
            if len(attempts) == 1:
                commit_staged(staging.stage_write(session, uri, Write(frame=frame([sale(50)]), columns=COLUMNS, mode="append")))
        return candidate

    assert tables.run(staged).success
    assert attempts == [1, 2]
    assert [row[0] for row in tables.rows("t")] == [1, 2, 50]


# --- loading ---------------------------------------------------------------------------------------------------------


def _reader(seen: list, *, version: int | None = None) -> dg.AssetsDefinition:
    extra = {"metadata": {"version": version}} if version is not None else {}

    @dg.asset(
        key=["gold", "reader"], ins={"rows": dg.AssetIn(["gold", "t"], **extra)}, io_manager_key="nothing", retry_policy=RETRY
    )
    def reader(rows) -> None:
        seen.append((type(rows), rows.collect_schema().names()))
        seen.append(_pairs(rows))

    return reader


def _pairs(rows: nw.LazyFrame) -> list[tuple]:
    return [(row[0], row[1]) for row in rows.sort("id").collect("pyarrow").iter_rows()]


def _read(tables, **how):
    seen: list = []
    result = tables.run(_reader(seen, **how), dg.AssetSpec(["gold", "t"]), nothing=dg.mem_io_manager)
    return result, seen


def test_an_input_is_a_lazy_frame_of_the_newest_version(tables):
    tables.put([sale(1), sale(2)])
    tables.put([sale(3)])
    result, (kind, found) = _read(tables)
    assert result.success
    assert kind == (nw.LazyFrame, list(COLUMNS))
    assert found == [(1, "Brasil"), (2, "Brasil"), (3, "Brasil")]


def test_an_input_can_be_read_as_it_was(tables):
    tables.put([sale(1)])
    tables.put([sale(9)], mode="overwrite")
    assert _read(tables, version=1)[1][1] == [(1, "Brasil")]
    assert _read(tables)[1][1] == [(9, "Brasil")]


def test_a_version_that_is_not_there_is_an_error_that_names_it(tables):
    tables.put([sale(1)])
    result, _ = _read(tables, version=12)
    assert "version 12" in failure(result)


def test_a_table_that_is_not_there_is_an_error_with_the_remedy_at_once(tables):
    result, seen = _read(tables)
    remedy = "Materialise it: make materialize SELECT='key:\"gold/t\"'."
    assert f"The table gold/t does not exist. {remedy}" in failure(result)
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert seen == []


def test_a_table_can_be_read_outside_a_run_while_the_loader_is_open(tables):
    tables.put([sale(1)])
    definitions = dg.Definitions(assets=[writer([])], resources=build_resources(tables.settings))
    with dg.DagsterInstance.ephemeral() as instance, definitions.get_asset_value_loader(instance=instance) as loader:
        assert _pairs(loader.load_asset_value(["gold", "t"])) == [(1, "Brasil")]


def test_a_run_leaves_nothing_in_the_spill_folder(tables):
    tables.put([sale(1)])
    _read(tables)
    assert list(Path(tables.settings.spill).iterdir()) == []


def test_the_io_manager_is_bound_under_the_name_that_assets_use(tables):
    assert isinstance(build_resources(tables.settings)["io_manager"], DeltaIOManager)
