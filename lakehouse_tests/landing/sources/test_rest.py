"""A declared REST API: every pagination delivers everything once, and every fault ends exact or in one sentence."""

import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from lakehouse.core.errors import DeclarationError, SourceDownError, SourceError, SourceRefusedError
from lakehouse.landing.sources import bodies, rest, rest_streams
from lakehouse.landing.sources.extract import as_text, text_batch
from lakehouse.landing.sources.paging import Ask
from lakehouse.landing.sources.registry import Extraction, Work, extract
from lakehouse.landing.sources.window import Window
from lakehouse.tables.spec import (
    ApiKey,
    Basic,
    Bearer,
    Cursor,
    LinkHeader,
    NextUrl,
    OAuth2ClientCredentials,
    Offset,
    Pages,
    Rate,
    Resource,
    RestApi,
    Single,
)
from lakehouse_tests.conftest import Lake
from lakehouse_tests.landing.rest_stub import STYLES, Stub, Style, serve

PATH = "/v1/pedidos"
DECLARED: dict[Style, dict[str, Any]] = {
    "next": {"paginate": NextUrl(), "total": "total"},
    "link": {"paginate": LinkHeader()},
    "cursor": {"paginate": Cursor("paging.after", parameter="after"), "records": "result.items"},
    "offset": {"paginate": Offset(size=10)},
    "pages": {"paginate": Pages(size=10)},
    "single": {"paginate": Single()},
}
SECRET = "s3cret"


def pedidos(count: int, first: int = 1) -> list[dict[str, Any]]:
    return [
        {"id": n, "cliente": "São Paulo", "valor": n / 4, "updated_at": f"2024-01-{(n - 1) % 28 + 1:02}T{n % 24:02}:00:00Z"}
        for n in range(first, first + count)
    ]


def loja(stub: Stub, *others: Resource, name: str = "loja", auth: Any = None, **given: Any) -> RestApi:
    own = {key: given.pop(key) for key in ("since", "cursor", "parameters", "body", "until") if key in given}
    first = Resource("pedidos", path=PATH, **{**DECLARED[stub.style], **own})
    return RestApi(name, url=stub.url, auth=auth or Bearer(SECRET), resources=(first, *others), **given)


def fetched(api: RestApi, *, seconds: float = 10.0) -> list[dict[str, Any]]:
    """The records of an API's first resource, as text."""
    work = SimpleNamespace(declared=api, setting="LOJA_API_URL", sample=False, window=Window())
    one = next(iter(rest_streams.apis_of(api, work)))
    one = replace(one, resource="pedidos")
    batches = rest.pages(one, since=None, deadline=time.monotonic() + seconds)
    return [row for batch in batches for row in batch.to_pylist()]


def texts(records: list[dict[str, Any]]) -> list[dict[str, str | None]]:
    return [{name: as_text(value) for name, value in record.items()} for record in records]


# --- pages and faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 20, 25])
@pytest.mark.parametrize("style", STYLES)
def test_every_pagination_delivers_everything_once(style, count):
    with serve(Stub({PATH: pedidos(count)}, style=style, secret=SECRET)) as stub:
        assert fetched(loja(stub)) == texts(pedidos(count))


#: `{fault: what is reported}`; an empty text is an exact table.
EVERYWHERE = {
    (429, 0): "",
    500: "answered 500",
    404: "answered 404",
    "html": "is not JSON; it looks like HTML",
    "xml": "is not JSON; it looks like XML",
    "protobuf": "is not JSON; it looks like protobuf",
    "empty": "is not JSON; it is empty",
    "truncated": "is not JSON; it looks like JSON that breaks off",
    "cut off": "did not answer|broke off",
    "drips": "is too slow",
    "redirect": "answered 302 and sends to http://127.0.0.2:9/v1, where nothing is asked",
    "gzip": "",
    "gzip without its header": "",
    "broken gzip": "is not JSON; it looks like gzip that cannot be unpacked",
    "latin-1": "",
    "latin-1 unnamed": "is not UTF-8, and no charset is named. Declare its encoding",
    "surrogate": "has half a character",
}
OF_PAGES: dict[tuple[Style, Any], str] = {
    ("next", "loops"): "go in a circle",
    ("link", "loops"): "go in a circle",
    ("cursor", "loops"): "go in a circle",
    ("next", "repeats"): "is page 1 again",
    ("link", "repeats"): "is page 1 again",
    ("cursor", "repeats"): "is page 1 again",
    ("offset", "repeats"): "is page 1 again",
    ("pages", "repeats"): "is page 1 again",
    ("next", "elsewhere"): "sends to another origin",
    ("link", "elsewhere"): "sends to another origin",
}
CASES = {**{(style, fault): text for fault, text in EVERYWHERE.items() for style in STYLES}, **OF_PAGES}


@pytest.mark.parametrize(("style", "fault"), CASES)
def test_every_fault_ends_exact_or_in_a_sentence_that_names_resource_page_and_remedy(style, fault):
    page = 1 if style == "single" else 2
    if style == "single" and fault == (429, 0):
        pytest.skip("before the first page a Retry-After ends the try")
    with serve(Stub({PATH: pedidos(25)}, style=style, secret=SECRET, faults={(PATH, page): fault})) as stub:
        api = loja(stub, auth=ApiKey(SECRET, query="key"), request_seconds=0.4 if fault == "drips" else 5.0)
        expected = CASES[style, fault]
        if expected:
            with pytest.raises(SourceError, match=expected) as caught:
                fetched(api)
            message = str(caught.value)
            assert f"{page} of pedidos (http://127.0.0.1" in message or ("in a circle" in message and "pedidos (" in message)
            assert SECRET not in message
            assert caught.value.remedy and message.endswith(caught.value.remedy)
        assert fetched(api) == texts(pedidos(25))


FOLLOWED: tuple[Style, ...] = ("next", "link", "cursor")
MORE_PAGES: tuple[Style, ...] = (*FOLLOWED, "offset", "pages")


@pytest.mark.parametrize("style", FOLLOWED)
def test_two_pages_without_a_record_are_no_page_that_comes_twice(style):
    faults = {(PATH, 2): "blank", (PATH, 3): "blank"}
    with serve(Stub({PATH: pedidos(45)}, style=style, secret=SECRET, faults=faults)) as stub:
        api = loja(stub)
        first = replace(api.resources[0], total="")
        expected = pedidos(10) + pedidos(15, first=31)
        assert fetched(replace(api, resources=(first,))) == texts(expected)


@pytest.mark.parametrize("style", MORE_PAGES)
def test_records_that_a_page_itself_has_twice_may_be_on_the_next_one_too(style):
    alike = [{"estado": "ok", "valor": n % 2} for n in range(40)]
    with serve(Stub({PATH: alike}, style=style, secret=SECRET)) as stub:
        assert fetched(loja(stub)) == texts(alike)


@pytest.mark.parametrize("style", MORE_PAGES)
def test_a_page_of_one_record_that_comes_twice_is_refused_before_anything_else_is_asked(style):
    with serve(Stub({PATH: pedidos(3)}, style=style, size=1, secret=SECRET, faults={(PATH, 2): "repeats"})) as stub:
        paginate = {"offset": Offset(size=1), "pages": Pages(size=1)}.get(style, DECLARED[style]["paginate"])
        api = loja(stub)
        api = replace(api, resources=(replace(api.resources[0], paginate=paginate),))
        with pytest.raises(
            SourceDownError, match=r"Page 2 of pedidos \(.*\) is page 1 again\. Run again; .* how the API paginates"
        ):
            fetched(api)
        assert len(stub.asked) == 2


@pytest.mark.parametrize("style", ["next", "link"])
def test_a_url_that_was_asked_is_known_in_whatever_order_it_has_its_parameters(style):
    with serve(Stub({PATH: pedidos(25)}, style=style, secret=SECRET, faults={(PATH, 1): "loops"})) as stub:
        with pytest.raises(
            SourceRefusedError, match=r"pedidos \(.*\) go in a circle: page 1 names one .* Tell whoever runs the API"
        ):
            fetched(loja(stub, parameters={"b": "2", "a": 1}))
        assert len(stub.asked) == 1
    assert Ask("http://x/y?a=1&b=&c=3#f").identity == Ask("http://x/y?c=3&b=", {"a": 1}).identity
    different = [
        Ask("http://x/y?a=1&a=2"),
        Ask("http://x/y?a=2&a=1"),
        Ask("http://x/y?a=1"),
        Ask("http://x/y?a=1&b="),
        Ask("http://x/z?a=1"),
    ]
    assert len({ask.identity for ask in different}) == len(different)


def test_a_link_header_that_is_not_declared_is_not_passed_over():
    with serve(Stub({PATH: pedidos(25)}, style="link")) as stub:
        api = RestApi("loja", url=stub.url, resources=(Resource("pedidos", path=PATH),))
        with pytest.raises(SourceRefusedError, match=r"Declare paginate=LinkHeader\(\)"):
            fetched(api)


def test_an_encoding_that_is_declared_is_used_where_none_is_named():
    with serve(Stub({PATH: pedidos(25)}, always="latin-1 unnamed")) as stub:
        assert fetched(loja(stub, encoding="cp1252")) == texts(pedidos(25))


def test_a_page_is_waited_for_as_long_as_it_asks_by_its_own_clock():
    ahead = timedelta(hours=5)
    later = datetime.now(UTC) + ahead + timedelta(seconds=2)
    stub = Stub({PATH: pedidos(25)}, style="pages", ahead=ahead)
    stub.faults = {(PATH, 2): (429, f"{later:%a, %d %b %Y %H:%M:%S} GMT")}
    with serve(stub):
        begun = time.monotonic()
        assert fetched(loja(stub)) == texts(pedidos(25))
        assert 0.5 < time.monotonic() - begun < 4


def test_a_rest_that_is_longer_than_the_step_is_left_to_its_retry():
    with serve(Stub({PATH: pedidos(25)}, style="pages", faults={(PATH, 2): (429, 3600)})) as stub:
        with pytest.raises(SourceDownError, match=r"Page 2 of pedidos .* answered 429 and asks for 3600 s of rest") as caught:
            fetched(loja(stub))
        assert caught.value.after == 3600


def test_a_server_that_never_stops_asking_for_rest_is_left():
    with serve(Stub({PATH: pedidos(25)}, style="pages")) as stub:
        api = loja(stub)
        one = replace(next(iter(rest_streams.apis_of(api, _work()))), patient=True)
        stub.always = (503, 0)
        with pytest.raises(SourceDownError, match="answered 503"):
            list(rest.pages(one, since=None, deadline=time.monotonic() + 10))
        assert len(stub.asked) == 6


def test_requests_are_posted_with_the_body_and_what_changes_from_page_to_page():
    with serve(Stub({PATH: pedidos(25)}, style="cursor")) as stub:
        assert fetched(loja(stub, body={"loja": 2})) == texts(pedidos(25))
        assert stub.asked == [PATH] * 3


def test_a_rate_is_never_exceeded():
    with serve(Stub({PATH: pedidos(60)}, style="pages")) as stub:
        fetched(loja(stub, rate=Rate(3, per="second")))
        assert len(stub.at) == 7
        assert all(later - earlier > 0.9 for earlier, later in zip(stub.at, stub.at[3:], strict=False))
        with pytest.raises(SourceDownError, match="the rate allows 1 requests a hour"):
            fetched(loja(stub, rate=Rate(1, per="hour")))


# --- what lets us in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "auth", [Bearer(SECRET), ApiKey(SECRET, header="X-Api-Key"), ApiKey(SECRET, query="key"), Basic("loja", "s3cret")]
)
def test_each_credential_lets_us_in_and_is_in_no_message(auth):
    secret = "loja:s3cret" if isinstance(auth, Basic) else SECRET
    with serve(Stub({PATH: pedidos(25)}, secret=secret)) as stub:
        assert len(fetched(loja(stub, auth=auth))) == 25
        stub.secret = "another"
        with pytest.raises(SourceRefusedError, match="the token is not accepted") as caught:
            fetched(loja(stub, auth=auth))
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(list(rest_streams.apis_of(loja(stub, auth=auth), _work())))


def test_a_client_gets_a_token_and_another_one_when_that_ends():
    with serve(Stub({PATH: pedidos(25)}, secret="none yet")) as stub:
        auth = OAuth2ClientCredentials(f"{stub.url}/token", "loja", SECRET)
        api = loja(stub, auth=auth)
        assert len(fetched(api)) == 25
        assert stub.tokens == 1
        stub.faults = {(PATH, 2): 401}
        assert len(fetched(api)) == 25
        assert stub.tokens == 3
        refused = OAuth2ClientCredentials(f"{stub.url}/token?x=1", "loja", "wr0ng")
        with pytest.raises(SourceRefusedError, match=r"The URL for tokens, .*/token, answered 401") as caught:
            fetched(loja(stub, auth=refused))
        assert "wr0ng" not in str(caught.value)


def _work() -> Any:
    return SimpleNamespace(declared=None, setting="LOJA_API_URL", sample=False, window=Window())


# --- several resources, and children -----------------------------------------------------------------------------------


class Shop:
    """A declared API over a lake, extracted as the asset does it, and what landed of each resource."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def take(self, api: RestApi, *, window: Window | None = None, seconds: float = 30.0) -> Extraction:
        with self.lake.session() as session:
            work = Work(
                storage=self.lake.storage, session=session, declared=api, sample=False,
                cache=str(self.lake.folder / "cache"), deadline=time.monotonic() + seconds, window=window or Window(),
            )  # fmt: skip
            return extract(api, work)

    def records(self, api: RestApi, name: str) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        folder = api.folder(next(each for each in api.resources if each.name == name))
        files = self.lake.storage.landed(folder)
        rows = [row for file in files for row in pq.ParquetFile(f"{self.lake.folder}/landing/{file.path}").read().to_pylist()]
        return [{key: value for key, value in row.items() if not key.startswith("_airbyte")} for row in rows]


@pytest.fixture
def shop(lake: Lake) -> Shop:
    return Shop(lake)


ITENS = Resource("itens", path="/v1/pedidos/{pedidos.id}/itens", paginate=Pages(size=10))
INCREMENTAL = {"since": "updated_since", "cursor": "updated_at"}


def with_items(count: int, *, items: int = 3) -> Stub:
    lists: dict[str, list[dict[str, Any]]] = {PATH: pedidos(count)}
    for n in range(1, count + 1):
        lists[f"{PATH}/{n}/itens"] = [{"sku": f"{n}-{k}", "quantidade": k} for k in range(items)]
    return Stub(lists, style="pages")


def test_children_are_asked_for_each_parent_once_and_get_its_key_and_instant(shop):
    with serve(with_items(12, items=12)) as stub:
        stub.lists[PATH].append(dict(stub.lists[PATH][0]))  # a copy
        api = loja(stub, ITENS, **INCREMENTAL, parallel=3)
        done = shop.take(api)
        assert {name: landed.delivered for name, landed in done.streams.items()} == {"pedidos": 13, "itens": 144}
        asked = Counter(path.partition("?")[0] for path in stub.asked if "itens" in path)
        assert set(asked.values()) == {3} and len(asked) == 12
        found = Counter((row["pedidos_id"], row["sku"], row["pedidos_updated_at"]) for row in shop.records(api, "itens"))
        expected = {(str(n), f"{n}-{k}", pedidos(1, n)[0]["updated_at"]) for n in range(1, 13) for k in range(12)}
        assert set(found) == expected and set(found.values()) == {1}


def test_children_of_parents_that_did_not_change_are_asked_for_by_a_full_extraction_only(shop):
    with serve(with_items(5)) as stub:
        api = loja(stub, ITENS, **INCREMENTAL, overlap=timedelta())
        shop.take(api)
        stub.lists[f"{PATH}/1/itens"].append({"sku": "new", "quantidade": 1})
        stub.lists[PATH][4] |= {"updated_at": "2024-02-01T00:00:00Z"}
        stub.asked.clear()
        done = shop.take(api)
        assert done.streams["itens"].new == 3  # of the changed parent: its items with another instant
        assert not any("/1/itens" in path for path in stub.asked)
        assert shop.take(api, window=Window(full=True)).streams["itens"].new == 1
        assert shop.take(api, window=Window(full=True)).streams["itens"].new == 0


def test_a_resource_that_has_no_record_any_more_is_a_generation_of_none(shop):
    with serve(Stub({PATH: pedidos(5)}, style="pages")) as stub:
        api = loja(stub, cache=timedelta())
        completed = partial(shop.lake.storage.completed, api.folder(api.resources[0]))
        assert shop.take(api).streams["pedidos"].generation == 1
        stub.lists[PATH] = []
        for _ in range(2):  # and stays one
            done = shop.take(api).streams["pedidos"]
            assert (done.delivered, done.new, done.generation, completed()) == (0, 0, 2, 2)
        stub.lists[PATH] = pedidos(1)
        assert shop.take(api).streams["pedidos"].generation == 3


def test_a_parent_lands_after_its_children_so_that_no_cursor_passes_them(shop):
    with serve(with_items(5)) as stub:
        api = loja(stub, ITENS, **INCREMENTAL)
        stub.faults = {(f"{PATH}/3/itens", 1): 500}
        with pytest.raises(SourceDownError, match=r"Page 1 of itens \(http://127.0.0.1:\d+/v1/pedidos/3/itens\) answered 500"):
            shop.take(api)
        assert shop.records(api, "pedidos") == shop.records(api, "itens") == []
        shop.take(api)
        assert len(shop.records(api, "itens")) == 15


def test_a_kill_between_children_and_parent_lands_the_rest_with_the_next_extraction(shop, monkeypatch):
    real = rest_streams.land

    def dies(session, storage, folder, *args, **named):
        if folder == "loja/pedidos":
            raise KeyboardInterrupt
        return real(session, storage, folder, *args, **named)

    with serve(with_items(5)) as stub:
        api = loja(stub, ITENS, **INCREMENTAL)
        with monkeypatch.context() as patched:
            patched.setattr(rest_streams, "land", dies)
            with pytest.raises(KeyboardInterrupt):
                shop.take(api)
        assert len(shop.records(api, "itens")) == 15 and not shop.records(api, "pedidos")
        done = shop.take(api)
        assert done.streams["itens"].new == 0 and done.streams["pedidos"].new == 5


def test_children_come_from_the_cache_with_their_parent(shop):
    with serve(with_items(5)) as stub:
        api = loja(stub, ITENS, **INCREMENTAL, cache=timedelta(hours=1))
        assert shop.take(api).metadata["cache_hit"] is False
        asked = len(stub.asked)
        again = shop.take(api)
        assert again.metadata["cache_hit"] is True
        assert len(stub.asked) == asked and again.streams["itens"].new == 0
        shop.take(api, window=Window(full=True))
        assert len(stub.asked) == 2 * asked


def test_the_end_of_a_window_is_the_parents_and_leaves_out_no_child(shop):
    with serve(with_items(5)) as stub:
        for n in range(1, 6):
            for item in stub.lists[f"{PATH}/{n}/itens"]:
                item["updated_at"] = "2025-01-01T00:00:00Z"
        api = loja(stub, replace(ITENS, cursor="updated_at"), **INCREMENTAL)
        done = shop.take(api, window=Window(until=datetime(2024, 1, 3, tzinfo=UTC)))
        assert done.streams["pedidos"].new == 2
        assert {row["pedidos_id"] for row in shop.records(api, "itens")} >= {"1", "2"}


def test_a_childs_own_field_of_that_name_is_refused_where_it_differs(shop):
    with serve(with_items(2)) as stub:
        stub.lists[f"{PATH}/2/itens"][0]["pedidos_id"] = "2"
        api = loja(stub, ITENS)
        shop.take(api)
        stub.lists[f"{PATH}/2/itens"][0]["pedidos_id"] = "7"
        with pytest.raises(SourceRefusedError, match="has a field 'pedidos_id' of its own"):
            shop.take(api)


def test_a_childs_page_that_comes_twice_is_refused(shop):
    with serve(with_items(2, items=25)) as stub:
        stub.faults = {(f"{PATH}/2/itens", 2): "repeats"}
        with pytest.raises(SourceDownError, match=r"Page 2 of itens \(.*/2/itens\) is page 1 again"):
            shop.take(loja(stub, ITENS))


def test_a_parent_without_the_field_and_a_key_that_leaves_its_path_are_refused(shop):
    with serve(with_items(2)) as stub:
        with pytest.raises(SourceRefusedError, match="needs the field 'numero' of pedidos"):
            shop.take(loja(stub, Resource("itens", path="/v1/pedidos/{pedidos.numero}/itens")))
        stub.lists[PATH] = [{"id": ".."}]
        with pytest.raises(SourceRefusedError, match=r"itens: '\.\.' as id of its parent cannot be in a path"):
            shop.take(loja(stub, ITENS))
    assert rest_streams.expanded("http://h/{a.id}/x", {"id": "7/../8 é?"}, "x") == "http://h/7%2F..%2F8%20%C3%A9%3F/x"


def test_a_resource_of_several_that_fails_leaves_what_landed_before_it(shop):
    with serve(with_items(3)) as stub:
        stub.lists["/v1/clientes"] = [{"id": 1}]
        stub.faults = {("/v1/clientes", 1): 500}
        api = loja(stub, Resource("clientes", path="/v1/clientes", paginate=Pages(size=10)), **INCREMENTAL)
        with pytest.raises(SourceDownError, match="Page 1 of clientes"):
            shop.take(api)
        assert len(shop.records(api, "pedidos")) == 3
        done = shop.take(api)
        assert (done.streams["pedidos"].new, done.streams["clientes"].new) == (0, 1)


def test_a_clock_that_is_ahead_hides_nothing_that_comes_later(shop):
    """Instants in records are the server's; the cursor goes no further than the moment at which it was asked."""
    with serve(Stub({PATH: []}, style="pages", ahead=timedelta(hours=3))) as stub:
        api = loja(stub, **INCREMENTAL)
        for number in range(1, 4):
            at = datetime.now(UTC) + stub.ahead
            stub.lists[PATH].append({"id": number, "updated_at": f"{at:%Y-%m-%dT%H:%M:%SZ}"})
            shop.take(api)
        stub.lists[PATH].append({"id": 4, "updated_at": f"{datetime.now(UTC) + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}"})
        shop.take(api)
        assert sorted(row["id"] for row in shop.records(api, "pedidos")) == ["1", "2", "3", "4"]


# --- declarations, values, bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: ApiKey("x"), "a header or into the query"),
        (lambda: Pages(size=0), "have no end"),
        (lambda: Rate(0), "asks for nothing"),
        (lambda: Rate(1, per="day"), "per"),
        (lambda: Resource("a", since="updated_since"), "no field says when"),
        (lambda: Resource("a", path="/{b.id}/{c.id}"), "is no path"),
        (lambda: Resource("a", path="/{b}"), "is no path"),
        (lambda: Resource("a", path="/{b.id}", since="s", cursor="c"), "child of 'b'"),
        (lambda: Resource("a", cursor="x; DROP"), "cannot be the cursor"),
        (lambda: RestApi("x", url="http://h", resources=(ITENS,)), "not declared before it"),
        (lambda: RestApi("x", url="http://h", resources=(Resource("a"),), parallel=0), "parallel is 0"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(DeclarationError, match=message):
        wrong()


def test_a_batch_has_the_same_texts_as_each_value_on_its_own():
    from decimal import Decimal

    numbers = [Decimal(text) for text in ("0.10", "1E+5", "1e-7", "0.0000001", "99999999999999.99", "-0.0")]
    values = [None, "", "x", 1, -(2**80), True, False, [1, "a"], {"de": Decimal("1.10")}, *numbers]
    columns = {
        "mixed": values,
        "whole": [1, 2**70, None] * 5,
        "exact": [*numbers, None] * 2 + [Decimal(1)],
        "text": ["a", None, ""] * 5,
    }
    rows = [{name: column[n] for name, column in columns.items() if n < len(column)} for n in range(15)]
    found = text_batch(rows, list(columns)).to_pylist()
    assert found == [{name: as_text(row.get(name)) for name in columns} for row in rows]


@pytest.mark.parametrize("body", [b"\x1f\x8b\x00", b"", b"plain"])
def test_what_is_no_gzip_is_left_as_it_is(body):
    assert bodies.unpacked(body, cap=100) == body


def test_a_bomb_is_not_unpacked():
    import gzip

    packed = gzip.compress(b"x" * 1_000_000)
    assert bodies.unpacked(packed, cap=999_999) == packed
    assert len(bodies.unpacked(packed, cap=1_000_000)) == 1_000_000
