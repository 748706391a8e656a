"""The sample landing is Airbyte-shaped, the same each time, survives a crash, and comes to the truth it reports.

The truth is recomputed from the written files in plain Python, with none of the code that wrote them.
"""

import csv
import gzip
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lakehouse.sample.landing import MARKER, SampleError, SampleTruth, write_sample_landing

LINES = 5_000
STREAMS = ("vendas", "produtos", "clientes")
V1 = ["_airbyte_ab_id", "_airbyte_emitted_at", "_airbyte_data"]
V2 = ["_airbyte_raw_id", "_airbyte_extracted_at", "_airbyte_meta", "_airbyte_generation_id"]
COLUMNS = {
    "vendas": [
        *("id", "pedido_id", "produto_id", "descricao", "quantidade", "valor_unitario"),
        *("cliente_id", "pais", "status", "created_at", "updated_at"),
    ],
    "produtos": ["id", "nome", "categoria", "updated_at"],
    "clientes": ["id", "pais", "segmento", "created_at", "updated_at"],
}


@dataclass(frozen=True)
class Record:
    """A delivered record as a reader sees it, whatever form it came in."""

    raw_id: str
    synced_ms: int
    data: dict[str, Any]


@dataclass(frozen=True)
class Landing:
    path: Path
    truth: SampleTruth
    progress: list[tuple[str, float]]
    records: dict[str, list[Record]]


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Landing:
    path = tmp_path_factory.mktemp("sample") / "landing"
    progress: list[tuple[str, float]] = []
    truth = write_sample_landing(path, lines=LINES, progress=lambda text, share: progress.append((text, share)))
    return Landing(path, truth, progress, {stream: read_stream(path, stream) for stream in STREAMS})


def read_stream(landing: Path, stream: str) -> list[Record]:
    return [record for path in files_of(landing, stream) for record in read_file(path, stream)]


def files_of(landing: Path, stream: str) -> list[Path]:
    return sorted((landing / "raw" / stream).iterdir(), key=lambda path: [int(x) for x in path.name.split(".")[0].split("_")])


def read_file(path: Path, stream: str) -> Iterator[Record]:
    columns = COLUMNS[stream]
    if path.name.endswith(".jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as text:
            for line in text:
                record = json.loads(line)
                if "_airbyte_ab_id" in record:
                    assert list(record) == V1
                    yield Record(record["_airbyte_ab_id"], record["_airbyte_emitted_at"], record["_airbyte_data"])
                else:
                    assert list(record) == [*V2, "_airbyte_data"]
                    assert record["_airbyte_meta"]["changes"] == []
                    yield Record(record["_airbyte_raw_id"], record["_airbyte_extracted_at"], record["_airbyte_data"])
    elif path.name.endswith(".csv.gz"):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
            reader = csv.DictReader(text)
            assert reader.fieldnames == [*V2, *columns]
            for row in reader:
                data: dict[str, Any] = {name: row[name] or None for name in columns}
                data |= {name: int(row[name]) for name in ("id", "quantidade", "cliente_id")}
                data["valor_unitario"] = float(row["valor_unitario"])
                assert json.loads(row["_airbyte_meta"])["changes"] == []
                yield Record(row["_airbyte_raw_id"], int(row["_airbyte_extracted_at"]), data)
    else:
        assert path.name.endswith(".parquet")
        table = pq.read_table(path)
        assert table.column_names == [*V2, *columns]
        for row in table.to_pylist():
            synced_ms = round(row["_airbyte_extracted_at"].timestamp() * 1000)
            yield Record(row["_airbyte_raw_id"], synced_ms, {name: row[name] for name in columns})


def newest(records: list[Record]) -> dict[Any, dict[str, Any]]:
    """Last version of each id by `updated_at`, then by sync; ISO strings of one form sort as their times do."""
    last: dict[Any, Record] = {}
    for record in records:
        latest = last.get(record.data["id"])
        order = (record.data["updated_at"], record.synced_ms)
        if latest is None or order > (latest.data["updated_at"], latest.synced_ms):
            last[record.data["id"]] = record
    return {key: record.data for key, record in last.items()}


def contents(landing: Path) -> dict[str, bytes]:
    return {str(path.relative_to(landing)): path.read_bytes() for path in landing.rglob("*") if path.is_file()}


def test_truth_is_what_the_files_contain(landing: Landing) -> None:
    truth, vendas = landing.truth, landing.records["vendas"]
    live = {key: line for key, line in newest(vendas).items() if line["status"] != "deleted"}
    versions: dict[int, set[tuple[Any, ...]]] = defaultdict(set)
    for record in vendas:
        versions[record.data["id"]].add(tuple(record.data.values()))
    deleted = {record.data["id"] for record in vendas if record.data["status"] == "deleted"}

    assert truth.vendas.delivered == len(vendas)
    assert truth.vendas.live == len(live)
    assert truth.receita == sum(Decimal(str(line["valor_unitario"])) * line["quantidade"] for line in live.values())
    assert truth.orders == len({line["pedido_id"] for line in live.values()})
    assert truth.customers == len({line["cliente_id"] for line in live.values()})
    assert truth.quantity == sum(line["quantidade"] for line in live.values())
    assert truth.lines == len(versions) == LINES
    assert truth.deleted == len(deleted) == truth.lines - truth.vendas.live
    assert truth.updated == sum(len(forms) == 2 for key, forms in versions.items() if key not in deleted)
    assert truth.redelivered == len(vendas) - sum(map(len, versions.values()))
    for stream, figures in (("produtos", truth.produtos), ("clientes", truth.clientes)):
        assert figures.delivered == len(landing.records[stream])
        assert figures.live == len(newest(landing.records[stream]))


def test_a_month_has_each_form_in_its_order(landing: Landing) -> None:
    forms = defaultdict(list)
    for path in files_of(landing.path, "vendas"):
        day, ms, part = path.name[:10], int(path.name.split("_")[3]), path.name.split("_")[4]
        synced = datetime.fromtimestamp(ms / 1000, tz=UTC)
        assert f"{synced:%Y_%m_%d}" == day
        assert {record.synced_ms for record in read_file(path, "vendas")} == {ms}
        forms[day].append(part)
    expected = ["jsonl.gz"] * 3 + ["csv.gz"] + ["parquet"] * 8
    assert list(forms.values()) == [[f"0.{form}", f"1.{form}"] for form in expected]
    first = gzip.decompress(files_of(landing.path, "vendas")[0].read_bytes()).split(b"\n")[0]
    assert list(json.loads(first)) == V1
    for stream in ("produtos", "clientes"):
        assert [path.name.split("_")[0] + path.name[path.name.index(".") :] for path in files_of(landing.path, stream)] == [
            "2017.jsonl.gz",
            "2018.parquet",
        ]


def test_every_kind_of_event_occurs(landing: Landing) -> None:
    seen: dict[int, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    syncs = sorted({record.synced_ms for record in landing.records["vendas"]})
    assert len(syncs) == 12
    for record in landing.records["vendas"]:
        seen[record.data["id"]].append((syncs.index(record.synced_ms), record.data))

    events: Counter[str] = Counter()
    for deliveries in seen.values():
        first_sync, original = deliveries[0]
        for sync, data in deliveries[1:]:
            if data == original:
                after = [other for other, line in deliveries if line["status"] == "deleted"]
                events[f"old form {sync - after[0]} after its delete" if after else "again"] += 1
                continue
            assert sync == first_sync + 1
            assert data["updated_at"] > original["updated_at"]
            (changed,) = [name for name in data if data[name] != original[name] and name != "updated_at"]
            events[changed] += 1
    assert set(events) == {
        *("again", "status", "created_at", "quantidade"),
        *("old form 0 after its delete", "old form 1 after its delete"),
    }
    assert events["status"] == landing.truth.deleted
    assert events["created_at"] + events["quantidade"] == landing.truth.updated
    assert landing.truth.late >= 2
    months = {data["created_at"][:7] for _, data in (deliveries[0] for deliveries in seen.values())}
    assert months >= {f"2017-{month:02}" for month in range(1, 13)}


def test_the_last_three_days_come_again(landing: Landing) -> None:
    by_sync: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in landing.records["vendas"]:
        by_sync[record.synced_ms].append(record.data)
    january, february = list(by_sync.values())[:2]
    tail = [data for data in january if data["created_at"] >= "2017-01-29"]
    assert tail
    assert all(data in february for data in tail)


def test_catalogue_and_customers_are_completed_at_the_end(landing: Landing) -> None:
    for stream, column in (("produtos", "categoria"), ("clientes", "segmento")):
        records = landing.records[stream]
        last_ms = max(record.synced_ms for record in records)
        first = {record.data["id"]: record.data for record in records if record.synced_ms < last_ms}
        updates = [record.data for record in records if record.synced_ms == last_ms]
        assert updates
        assert all(first[data["id"]][column] is None and data[column] is not None for data in updates)
    products = newest(landing.records["produtos"])
    households = newest(landing.records["clientes"])
    lines = [record.data for record in landing.records["vendas"]]
    assert {line["cliente_id"] for line in lines} == set(households)
    assert set(products) <= {line["produto_id"] for line in lines}
    assert all(product["nome"] and product["categoria"] for product in products.values())
    assert {None, "35-74K"} < {household["segmento"] for household in households.values()}


def test_values_are_as_declared(landing: Landing) -> None:
    for record in landing.records["vendas"]:
        line = record.data
        assert list(line) == COLUMNS["vendas"]
        assert type(line["id"]) is type(line["quantidade"]) is type(line["cliente_id"]) is int
        assert type(line["valor_unitario"]) is float
        assert Decimal(str(line["valor_unitario"])).as_tuple().exponent >= -4
        assert line["quantidade"] >= 0
        assert line["quantidade"] > 0 or line["valor_unitario"] == 0
        assert line["pais"] == "United States"
        assert datetime.fromisoformat(line["updated_at"]).timestamp() * 1000 < record.synced_ms
        assert line["updated_at"].endswith("Z")
        assert line["created_at"].endswith("Z")
    everything = [record.raw_id for stream in STREAMS for record in landing.records[stream]]
    assert len(set(everything)) == len(everything)


def test_two_writes_are_the_same_bytes(landing: Landing, tmp_path: Path) -> None:
    assert write_sample_landing(tmp_path, lines=LINES) == landing.truth
    assert contents(tmp_path) == contents(landing.path)


def test_a_complete_landing_is_left_alone(landing: Landing, tmp_path: Path) -> None:
    target = Path(shutil.copytree(landing.path, tmp_path / "landing"))
    (target / "raw/vendas/2018_02_01_1517464800123_0.jsonl.gz").write_bytes(b"a later sync of someone else's")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in target.rglob("*") if path.is_file()}
    progress: list[float] = []
    assert write_sample_landing(target, lines=LINES, progress=lambda _, share: progress.append(share)) == landing.truth
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in target.rglob("*") if path.is_file()} == before
    assert progress == []


def test_progress_ends_at_one(landing: Landing) -> None:
    assert len(landing.progress) == 12
    shares = [share for _, share in landing.progress]
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("complete", [True, False])
def test_a_half_written_landing_is_completed(landing: Landing, tmp_path: Path, *, complete: bool) -> None:
    """Whether files were lost after the end, or the end was never reached."""
    target = Path(shutil.copytree(landing.path, tmp_path / "landing"))
    if not complete:
        marker = json.loads((target / MARKER).read_text())
        (target / MARKER).write_text(json.dumps({**marker, "complete": False, "truth": None, "files": {}}))
    written = sorted((target / "raw").rglob("*.*"))
    for path in written[::2]:
        path.unlink()
    (target / ".sample-killed").mkdir()
    (target / ".sample-killed" / "2017_02_01_1485928800123_0.jsonl.gz").write_bytes(b"half a fi")
    unchanged = {path: path.stat().st_ino for path in written[1::2]}

    assert write_sample_landing(target, lines=LINES) == landing.truth
    assert contents(target) == contents(landing.path)
    assert {path: path.stat().st_ino for path in unchanged} == unchanged


def test_kill_and_rerun_gives_the_same_landing(landing: Landing, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lakehouse.sample", str(tmp_path), "--lines", str(LINES)]
    for files in (1, 9, 17):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and sum(1 for _ in tmp_path.glob("raw/*/*")) < files:
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert write_sample_landing(tmp_path, lines=LINES) == landing.truth
    assert contents(tmp_path) == contents(landing.path)


def test_refuses_a_landing_of_others(tmp_path: Path) -> None:
    theirs = tmp_path / "raw" / "vendas" / "2024_01_01_1704067200000_0.jsonl"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("{}\n")
    with pytest.raises(SampleError, match=r"1 file\(s\) that the sample did not write.*2024_01_01.*Choose another folder"):
        write_sample_landing(tmp_path, lines=LINES)
    assert contents(tmp_path) == {"raw/vendas/2024_01_01_1704067200000_0.jsonl": b"{}\n"}


def test_files_that_look_like_its_own_are_refused_without_a_marker(landing: Landing, tmp_path: Path) -> None:
    target = Path(shutil.copytree(landing.path, tmp_path / "landing"))
    (target / MARKER).unlink()
    with pytest.raises(SampleError, match="did not write"):
        write_sample_landing(target, lines=LINES)


def test_refuses_what_it_cannot_continue(landing: Landing, tmp_path: Path) -> None:
    target = Path(shutil.copytree(landing.path, tmp_path / "landing"))
    with pytest.raises(SampleError, match=f"a sample of {LINES} lines, not of 6000.*Delete"):
        write_sample_landing(target, lines=6_000)
    marker = json.loads((target / MARKER).read_text())
    (target / MARKER).write_text(json.dumps({**marker, "complete": False, "generator": 0}))
    with pytest.raises(SampleError, match=r"another version of this code.*Delete"):
        write_sample_landing(target, lines=LINES)
    (target / MARKER).write_text("[1")
    with pytest.raises(SampleError, match=r"not as the sample writes it.*Delete"):
        write_sample_landing(target, lines=LINES)


def test_refuses_a_landed_file_that_was_changed(landing: Landing, tmp_path: Path) -> None:
    target = Path(shutil.copytree(landing.path, tmp_path / "landing"))
    with files_of(target, "clientes")[0].open("ab") as file:
        file.write(b"more")
    with pytest.raises(SampleError, match="was changed"):
        write_sample_landing(target, lines=LINES)


@pytest.mark.parametrize("lines", [-1, 0, 2_499])
def test_refuses_too_few_lines(tmp_path: Path, lines: int) -> None:
    with pytest.raises(SampleError, match="Ask for 2500 lines or more"):
        write_sample_landing(tmp_path, lines=lines)


def test_the_fewest_lines_contain_every_kind(tmp_path: Path) -> None:
    truth = write_sample_landing(tmp_path, lines=2_500)
    records = {stream: read_stream(tmp_path, stream) for stream in STREAMS}
    test_every_kind_of_event_occurs(Landing(tmp_path, truth, [], records))


def test_command_line(landing: Landing, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lakehouse.sample"]
    done = subprocess.run([*command, str(tmp_path), "--lines", str(LINES)], capture_output=True, text=True, check=True)
    assert SampleTruth.from_json(json.loads(done.stdout)) == landing.truth
    assert len(done.stderr.splitlines()) == 12

    refused = subprocess.run([*command, "s3://bucket/landing"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("The sample is written to a local folder, not to s3://bucket/landing.")


def test_writing_loads_no_pandas(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lakehouse.sample.landing import write_sample_landing;"
        "write_sample_landing(Path(sys.argv[1]), lines=2500); sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
