"""Extraction lands every record of a source once, whatever the source does and wherever a process ends."""

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakehouse.core.errors import DeclarationError, SourceDownError, SourceRefusedError
from lakehouse.core.store import files
from lakehouse.landing.sources import database, extract, rest
from lakehouse.landing.sources.access import Access
from lakehouse.landing.sources.extract import Landed
from lakehouse.tables.spec import Bearer
from lakehouse_tests.conftest import Lake
from lakehouse_tests.landing.shop import Shop, serve

STREAM = "pedidos_api"


def order(number, *, at="2024-01-01T00:00:00Z", **fields):
    return {"id": number, "nome": f"item {number}", "valor": 2.5, "quantidade": 2, "updated_at": at, **fields}


def orders(count, **fields):
    return [order(n, at=f"2024-01-{n % 28 + 1:02}T{n % 24:02}:00:00Z", **fields) for n in range(1, count + 1)]


def api(url: str, *, token="", **given) -> rest.Api:
    settings = {"setting": "LAKEHOUSE_PEDIDOS_API_URL", "token_setting": "LAKEHOUSE_PEDIDOS_API_TOKEN"}
    return rest.Api(url=url, access=Access(Bearer(token), settings["token_setting"]), **settings, **given)


def table(url: str, **given) -> database.SqlTable:
    return database.SqlTable(**{"url": url, "table": "pedidos", "setting": "LAKEHOUSE_PEDIDOS_DB_URL", **given})


@pytest.fixture
def shop():
    with serve(Shop(orders(250))) as found:
        yield found


class Channel:
    """One channel of a lake, extracted as the asset does it."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def landed(self):
        return self.lake.storage.landed(STREAM)

    def take(self, shop: Shop, *, cache=0.0, overlap=0.0, seconds=30.0, request=5.0, now=time.time, **kw) -> tuple[Landed, bool]:
        landed = self.landed()
        before = extract.cursor(landed)
        asked = None if before is None else before - timedelta(seconds=overlap)
        source = api(shop.url, request_seconds=request, cache_seconds=cache, **kw)
        deadline = time.monotonic() + seconds
        fetched = rest.fetch(source, self.lake.folder / "cache", since=asked, deadline=deadline, now=now)
        return self.land(fetched.paths, started=fetched.started, landed=landed), fetched.hit

    def take_rows(self, source: database.SqlTable, *, started=None) -> Landed:
        landed = self.landed()
        asked = extract.cursor(landed)
        folder = self.lake.folder / f"rows-{time.monotonic_ns()}"
        folder.mkdir(parents=True)
        paths = database.extract(source, folder, since=asked, deadline=time.monotonic() + 30)
        return self.land(paths, started=started or datetime.now(UTC), landed=landed)

    def land(self, paths, **kw) -> Landed:
        with self.lake.session() as session:
            return extract.land(session, self.lake.storage, STREAM, paths, cursor_field="updated_at", **kw)

    def records(self):
        """What landed, read back with another reader."""
        import pyarrow.parquet as pq

        paths = [f"{self.lake.folder}/landing/{file.path}" for file in self.landed()]
        return [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]

    def ids(self):
        return sorted(int(row["id"]) for row in self.records() if row["id"] is not None)


@pytest.fixture
def channel(lake: Lake) -> Channel:
    return Channel(lake)


# --- each record once ------------------------------------------------------------------------------------------------


def test_all_pages_land_once_and_the_same_again_lands_nothing(channel, shop):
    first, _ = channel.take(shop)
    assert (first.delivered, first.new, len(shop.asked)) == (250, 250, 3)
    assert channel.ids() == list(range(1, 251))
    before = channel.landed()
    again, _ = channel.take(shop)
    assert again.new == 0
    assert channel.landed() == before
    assert "updated_since=" in shop.asked[3]


def test_ties_with_the_cursor_that_come_later_are_not_lost(channel, shop):
    shop.orders = [order(1), order(2)]
    channel.take(shop)
    shop.orders.append(order(3))  # the same instant as those before
    late, _ = channel.take(shop)
    assert (late.new, channel.ids()) == (1, [1, 2, 3])


def test_what_is_committed_late_within_the_overlap_is_not_lost(channel, shop):
    shop.orders = [order(1, at="2024-01-01T00:10:00Z")]
    channel.take(shop)
    shop.orders.append(order(2, at="2024-01-01T00:05:00Z"))
    assert channel.take(shop)[0].new == 0
    assert channel.take(shop, overlap=900)[0].new == 1


def test_a_source_that_delivers_more_than_it_was_asked_for_lands_none_of_it_again(channel, shop):
    """Databases are asked for whole seconds, and an API may not know the parameter at all."""
    shop.orders = [order(1, at="2024-01-01T00:00:00.200Z"), order(2, at="2024-01-01T00:00:00.900Z")]
    channel.take(shop)
    shop.orders.append(order(3, at="2024-01-01T00:00:01Z"))
    channel.take(shop)
    shop.orders.append(order(4, at="2024-01-05T00:00:00Z"))
    assert channel.take(shop)[0].new == 1
    again, _ = channel.take(shop, since="no_such_parameter")
    assert (again.delivered, again.new) == (4, 0)
    assert channel.ids() == [1, 2, 3, 4]


def test_copies_land_as_often_as_the_source_has_them_and_no_more(channel, shop):
    shop.orders = [order(1), order(1), order(2)]
    channel.take(shop)
    channel.take(shop)
    assert channel.ids() == [1, 1, 2]
    shop.orders.append(order(1))
    assert channel.take(shop)[0].new == 1
    assert channel.ids() == [1, 1, 1, 2]
    raw = [row["_airbyte_raw_id"] for row in channel.records()]
    assert len(set(raw)) == 4


def test_a_changed_record_lands_beside_its_old_form(channel, shop):
    channel.take(shop)
    shop.orders[0] = order(1, at="2024-02-01T00:00:00Z", nome="renamed")
    assert channel.take(shop)[0].new == 1
    assert channel.ids().count(1) == 2


def test_an_instant_in_the_next_century_hides_nothing_that_comes_before_it(channel, shop):
    shop.orders = [order(1), order(2, at="2999-01-01T00:00:00Z")]
    channel.take(shop)
    shop.orders.append(order(3, at=f"{datetime.now(UTC) + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}"))
    assert channel.take(shop)[0].new == 1
    assert channel.take(shop)[0].new == 0
    assert channel.ids() == [1, 2, 3]


@pytest.mark.parametrize("undated", [None, "", "yesterday", "0000-00-00"])
def test_a_record_without_a_readable_instant_lands_once_and_moves_no_cursor(channel, shop, undated):
    shop.orders = [order(1), {**order(2), "updated_at": undated or ""}]
    channel.take(shop)
    assert extract.cursor(channel.landed()) == datetime(2024, 1, 1, tzinfo=UTC)
    channel.take(shop)
    assert channel.ids() == [1, 2]


def test_a_kill_between_two_files_leaves_the_cursor_and_the_next_extraction_lands_the_rest(channel, shop, monkeypatch):
    put, calls = files.put, iter(range(100))

    def dies(*args, **named):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return put(*args, **named)

    first = [order(n, text="x" * 50) for n in range(1, 4)]
    channel.lake.folder.mkdir(exist_ok=True)
    paths = []
    for number, one in enumerate(first):
        batch = extract.text_batch([one], list(one))
        folder = channel.lake.folder / f"s{number}"
        folder.mkdir()
        paths += extract.stage_batches([batch], folder)
    started = datetime.now(UTC)
    real = extract._stage_new

    def in_parts(session, storage, records, names, folder, **kw):  # a file of each record, as a large extraction has them
        import duckdb

        count, parts = real(session, storage, records, names, folder, **kw)
        out = []
        for path in parts:
            [(rows,)] = duckdb.sql(f"SELECT count(*) FROM '{path}'").fetchall()
            for n in range(rows):
                out.append(f"{folder}/part-{n}.parquet")
                duckdb.sql(f"COPY (FROM '{path}' ORDER BY id LIMIT 1 OFFSET {n}) TO '{out[-1]}'")
        return count, out

    monkeypatch.setattr(extract, "_stage_new", in_parts)
    monkeypatch.setattr(extract.files, "put", dies)
    with pytest.raises(KeyboardInterrupt):
        channel.land(paths, started=started, landed=[])
    assert len(channel.landed()) == 1
    assert extract.cursor(channel.landed()) is None
    monkeypatch.setattr(extract.files, "put", put)
    done = channel.land(paths, started=started, landed=channel.landed())
    assert (done.delivered, done.new) == (3, 2)
    assert channel.ids() == [1, 2, 3]
    assert extract.cursor(channel.landed()) == datetime(2024, 1, 1, tzinfo=UTC)


def test_files_of_others_in_the_stream_are_left_alone_and_carry_no_cursor(channel, shop):
    channel.lake.land(STREAM, "2024_01_01_1704067200000_0", [order(900)])
    assert extract.cursor(channel.landed()) is None


# --- the cache -------------------------------------------------------------------------------------------------------


def test_within_the_hour_the_api_is_not_asked_again_and_the_hit_is_told(channel, shop):
    clock = [1_700_000_000.0]
    now = lambda: clock[0]  # noqa: E731
    assert channel.take(shop, cache=3600, now=now)[1] is False
    asked = len(shop.asked)
    clock[0] += 3599
    landed, hit = channel.take(shop, cache=3600, now=now)
    assert (hit, landed.new, len(shop.asked)) == (True, 0, asked)  # the cursor has moved and is no part of the key
    clock[0] += 2
    assert channel.take(shop, cache=3600, now=now)[1] is False
    assert channel.take(shop, cache=3600, now=now, parameters={"loja": "2"})[1] is False


def test_what_was_fetched_and_not_landed_lands_from_the_cache(channel, shop):
    source = api(shop.url)
    fetched = rest.fetch(source, channel.lake.folder / "cache", since=None, deadline=time.monotonic() + 30)
    assert not channel.landed()
    assert not fetched.hit
    shop.always = 500
    landed, hit = channel.take(shop, cache=3600)
    assert (landed.new, hit) == (250, True)


# --- what an API does wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "expected"),
    [
        (500, SourceDownError, "answered 500"),
        (503, SourceDownError, "answered 503"),
        (408, SourceDownError, "answered 408"),
        ("not json", SourceDownError, "is not JSON"),
        ("NaN", SourceDownError, "is not JSON"),
        ("broken off", SourceDownError, "did not answer|broke off"),
        ("fewer than it says", SourceDownError, "says that it has"),
        (401, SourceRefusedError, "the token is not accepted"),
        (403, SourceRefusedError, "the token is not accepted"),
        (404, SourceRefusedError, "answered 404"),
        ("redirect", SourceRefusedError, "answered 302"),
        ("circle", SourceRefusedError, "go in a circle"),
        ("other origin", SourceRefusedError, "another origin"),
        ("no records", SourceRefusedError, "no list of records"),
    ],
)
def test_a_fault_on_the_last_page_lands_nothing_and_states_whether_to_try_again(channel, shop, fault, error, expected):
    shop.faults = [None, None, fault]
    with pytest.raises(error, match=expected):
        channel.take(shop)
    assert channel.landed() == []
    shop.faults = []
    assert channel.take(shop)[0].new == 250


@pytest.mark.parametrize(("header", "seconds"), [("17", 17), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None)])
def test_a_busy_api_is_left_alone_for_as_long_as_it_asks(channel, shop, header, seconds):
    shop.faults = [(429, header)]
    with pytest.raises(SourceDownError) as caught:
        channel.take(shop)
    assert caught.value.after == seconds


def test_a_page_that_drips_is_given_up_after_its_time(channel, shop):
    shop.faults = ["drips"]
    begun = time.monotonic()
    with pytest.raises(SourceDownError, match=r"too slow: the answer was not whole after 0\.5 s"):
        channel.take(shop, request=0.5)
    assert time.monotonic() - begun < 3


def test_an_extraction_ends_by_its_deadline(channel, shop):
    shop.always = "drips"
    begun = time.monotonic()
    with pytest.raises(SourceDownError, match="too slow"):
        channel.take(shop, seconds=0.5, request=30)
    assert time.monotonic() - begun < 3


def test_nobody_listening_is_worth_another_try(channel, shop):
    shop.port = 9
    with pytest.raises(SourceDownError, match="did not answer"):
        channel.take(shop)


def test_a_page_that_comes_twice_lands_nothing_and_the_next_try_is_exact(channel, shop):
    """What should have been on it is missing, and the cursor would pass that."""
    shop.orders = orders(200)
    shop.faults = ["repeated", "repeated"]
    with pytest.raises(SourceDownError, match=r"Page 2 of http://.* is page 1 again\. Run again"):
        channel.take(shop)
    assert channel.ids() == []
    landed, _ = channel.take(shop)
    assert landed.delivered == 200
    assert channel.ids() == [*range(1, 201)]


def test_fields_that_are_missing_of_another_type_or_named_strangely_land_as_they_are(channel, shop):
    shop.orders = [
        {"id": 1, "updated_at": "2024-01-01T00:00:00Z", "valor": "2,50", "quantidade": [1], "x'; DROP TABLE pedidos; --": True},
        {"id": "dois", "nome": None, "updated_at": "2024-01-02T00:00:00Z", "valor": {"de": 1.10}},
    ]
    assert channel.take(shop)[0].new == 2
    first, second = sorted(channel.records(), key=lambda row: row["updated_at"])
    assert (first["valor"], first["quantidade"], first["x'; DROP TABLE pedidos; --"]) == ("2,50", "[1]", "true")
    assert (second["id"], second["nome"], second["valor"]) == ("dois", None, '{"de":1.1}')


def test_a_field_of_airbytes_own_name_is_refused(channel, shop):
    shop.orders = [order(1, _airbyte_raw_id="mine")]
    with pytest.raises(SourceRefusedError, match="_airbyte_raw_id"):
        channel.take(shop)


def test_digits_stay_as_they_were_sent(channel, tmp_path):
    body = b'{"data": [{"id": 12345678901234567890, "valor": 0.10, "updated_at": "2024-01-01"}], "next": null}'
    records, _, _ = rest._page(api("http://x/y"), body, number=1)
    assert [extract.as_text(value) for value in records[0].values()] == ["12345678901234567890", "0.10", "2024-01-01"]


def test_the_token_goes_with_every_request_and_into_no_message(channel, shop):
    shop.token = "s3cret"
    with pytest.raises(SourceRefusedError, match="LAKEHOUSE_PEDIDOS_API_TOKEN") as caught:
        channel.take(shop, token="wrong-t0ken")
    assert "wrong-t0ken" not in str(caught.value)
    assert channel.take(shop, token="s3cret")[0].new == 250
    assert "s3cret" not in repr(api(shop.url, token="s3cret"))


@pytest.mark.parametrize("url", ["ftp://x/y", "pedidos", "http://user:pw@host/x", ""])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(DeclarationError, match="LAKEHOUSE_PEDIDOS_API_URL") as caught:
        api(url)
    assert "pw" not in str(caught.value)


# --- a database ------------------------------------------------------------------------------------------------------


@pytest.fixture
def branch(tmp_path) -> Path:
    path = tmp_path / "branch.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE pedidos (id INTEGER, nome TEXT, valor NUMERIC, quantidade INTEGER, updated_at TEXT)")
        rows = [(n, f"item {n}", 2.5, n, f"2024-01-{n % 28 + 1:02}T00:00:00Z") for n in range(1, 251)]
        connection.executemany("INSERT INTO pedidos VALUES (?, ?, ?, ?, ?)", rows)
    return path


def _insert(path: Path, *rows) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO pedidos VALUES (?, ?, ?, ?, ?)", rows)


def test_rows_of_a_database_land_once_ties_and_undated_ones_too(channel, branch):
    source = table(url=f"sqlite:///{branch}")
    assert channel.take_rows(source).new == 250
    assert channel.take_rows(source).new == 0
    _insert(
        branch,
        (251, "tie", 1, 1, "2024-01-28T00:00:00Z"),
        (252, "undated", 1, 1, None),
        (253, "", None, 1, "2024-02-01 10:00:00"),
    )
    assert channel.take_rows(source).new == 3
    assert channel.take_rows(source).new == 0
    assert channel.ids() == list(range(1, 254))
    (empty,) = [row for row in channel.records() if row["id"] == "253"]
    assert (empty["nome"], empty["valor"]) == ("", None)


@pytest.mark.parametrize(
    ("change", "error", "expected"),
    [
        ({"table": "nope"}, SourceRefusedError, "no such table"),
        ({"url": "sqlite:////nowhere/at/all.db"}, SourceRefusedError, "There is no SQLite file"),
        ({"url": "not a url"}, DeclarationError, "LAKEHOUSE_PEDIDOS_DB_URL is not a database URL"),
        ({"url": "nosuch://u:pw@h/d"}, DeclarationError, "driver that is not installed"),
    ],
)
def test_a_database_that_refuses_states_what_to_fix(channel, branch, change, error, expected):
    source = table(**{"url": f"sqlite:///{branch}", **change})
    with pytest.raises(error, match=expected) as caught:
        channel.take_rows(source)
    assert "pw" not in str(caught.value)
    assert channel.landed() == []


def test_rows_of_the_cursors_own_second_and_day_do_not_land_again(channel, branch):
    """SQLite keeps instants as text, which are compared with a day's beginning: more comes than was asked for."""
    source = table(url=f"sqlite:///{branch}")
    channel.take_rows(source)
    for number, at in enumerate(["T08:00:00.100Z", "T08:00:00.900Z", "T20:00:00Z"], start=300):
        _insert(branch, (number, "x", 1, 1, f"2024-02-01{at}"))
        assert channel.take_rows(source).new == 1
    assert channel.take_rows(source).new == 0
    assert len(channel.records()) == 253


def test_a_cursor_that_the_table_has_not_is_refused_by_the_second_extraction(channel, branch):
    channel.take_rows(table(url=f"sqlite:///{branch}"))
    with pytest.raises(SourceRefusedError, match="no such column"):
        channel.take_rows(table(url=f"sqlite:///{branch}", cursor="nope"))


def test_a_file_that_is_no_database_is_refused(channel, tmp_path):
    (tmp_path / "x.db").write_text("this is no database, and long enough to be looked at by SQLite itself" * 20)
    with pytest.raises(SourceRefusedError, match="not a database"):
        channel.take_rows(table(url=f"sqlite:///{tmp_path / 'x.db'}"))


@pytest.mark.parametrize("name", ["pedidos; DROP TABLE pedidos", 'p"', "p'--", "Pedidos", "", "../x", "p" * 64])
@pytest.mark.parametrize("part", ["table", "cursor", "schema"])
def test_a_name_that_could_be_more_than_a_name_is_refused(name, part):
    if part == "schema" and not name:
        return
    with pytest.raises(DeclarationError, match="cannot be a"):
        table(**{"url": "sqlite:////x.db", part: name})


def test_the_url_of_a_database_is_shown_nowhere():
    assert "pw" not in repr(table(url="postgresql://u:pw@h/d"))


@pytest.mark.parametrize("pages", [1, 2], ids=["in one page", "each in its own"])
def test_fields_that_differ_in_case_alone_are_refused_and_neither_has_the_others_values(channel, shop, pages):
    """The engine takes such names for one: the values of two pages would be in one column, or under a name of its making."""
    first, second = order(1, **{"Valor": "1.50"}), order(2)
    shop.orders[:] = [first, *orders(150)[2:]] if pages == 2 else [{**first, **second}]
    if pages == 2:
        first.pop("valor")
    with pytest.raises(SourceRefusedError, match=r"fields 'Valor' and 'valor'|fields 'valor' and 'Valor'"):
        channel.take(shop)
    assert channel.landed() == []
