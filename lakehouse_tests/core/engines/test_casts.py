"""The lake's own grammar of casts: what each type accepts, on every engine, and what the declared text forms make of a text.

`ACCEPTS` is the contract as values; `reference.py` is the same in plain Python, for texts that hypothesis makes up.
"""

import datetime as dt
import math
import re
from collections.abc import Iterator
from dataclasses import fields
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.core.engines import casts
from lakehouse.core.engines.casts import Cast
from lakehouse.core.engines.session import Session, Spark, duckdb_session, open_session
from lakehouse.settings import project_folder
from lakehouse.tables.spec import Column, columns
from lakehouse_tests.conftest import Lake
from lakehouse_tests.core.engines.reference import value_of

MAX = 9_223_372_036_854_775_807


def at(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]


ACCEPTS: dict[Cast, dict[str, Any]] = {
    Cast("bigint"): {
        **{"7": 7, "-7": -7, "+7": 7, " 7 ": 7, "007": 7, "-0": 0, "7.0": 7, "7.": 7, "1e3": 1000, "1E3": 1000, "1.5e1": 15},
        **{"1e16": 10**16, str(MAX): MAX, str(-MAX - 1): -MAX - 1, "9007199254740993.0": 9007199254740993, "700e-2": 7},
        **dict.fromkeys(("6.7", "15e-1", "1e-3", "1e-30", f"{MAX}.5", "9007199254740993.5", str(MAX + 1), "1e400", "0x1F")),
        **dict.fromkeys(
            ("0b11", "1_000", "1,000", "NaN", "inf", "true", "abc", "", "--1", "٣", "\u00a07", "1.0000000000000000000001")
        ),
    },
    Cast("int"): {"7": 7, "2147483647": 2147483647, "2147483648": None, "6.7": None},
    Cast("decimal(12,4)"): {
        **{"1.5": Decimal("1.5"), "-0": Decimal(0), "1e3": Decimal(1000), "1.50000000": Decimal("1.5"), "-.5": Decimal("-0.5")},
        **{"99999999.9999": Decimal("99999999.9999"), "15e-5": None, "15000e-7": Decimal("0.0015"), "15000e-8": None},
        **dict.fromkeys(
            ("2.55555", "0.30000000000000004", "99999999.99995", "123456789", "1_0.5", "1,5", "NaN", "inf", "0x1", "")
        ),
    },
    Cast("decimal(12,4)", rounding="half_up"): {
        **{"2.55555": Decimal("2.5556"), "-2.55555": Decimal("-2.5556"), "0.30000000000000004": Decimal("0.3")},
        **{"25555.5e-4": Decimal("2.5556"), "1e-400": Decimal(0), "99999999.99995": None, "1_0.5": None},
    },
    Cast("decimal(38,0)"): {"1" * 38: Decimal("1" * 38), "1" * 39: None, "7.": Decimal(7)},
    Cast("decimal(12,2)", decimal=","): {
        **{"1.250": Decimal(1250), "R$ 1.250,50": Decimal("1250.50"), "-R$\u00a05,5": Decimal("-5.5"), "10,00": Decimal(10)},
        **{"1.234.567,89 €": Decimal("1234567.89"), "R$ -5": Decimal(-5)},
        **{"R$ 5,00 R$": Decimal(5), "-€5€": Decimal(-5), "US$ 5 US$": Decimal(5)},
        **dict.fromkeys(("R$ 10 €", "-R$ 10 US$", "US$ 10 $", "$ 10 US$", "€10£")),
        **dict.fromkeys(("1.25", "1250.50", "1.2500,5", "1,234", "R$", "(5)", "1e3", "lixo", "")),
    },
    Cast("decimal(12,2)", decimal="."): {"$1,250.5": Decimal("1250.5"), "1,25": None, "1.250": Decimal("1.25")},
    Cast("double"): {
        **{"1.5": 1.5, "1e308": 1e308, "-1e-400": -0.0, "Infinity": math.inf, "-inf": -math.inf, "1e+16": 1e16, "5.": 5.0},
        **dict.fromkeys(("1e400", "-1e400", "1_0.5", "abc", "", "+-1", "1d", "0x1p3")),
    },
    Cast("boolean"): {
        **{"true": True, "TRUE": True, "True": True, "false": False, "1": True, "0": False, "t": True, "f": False},
        **dict.fromkeys(("2", "", "sim", "S", "N", "n", "no", "Yes", "y", "on", "T", "F", " true ", "1.0")),
    },
    Cast("boolean", true=("S", "sim", "0"), false=("N", "não")): {
        **{"S": True, "sim": True, "N": False, "não": False, "true": True, "f": False, "0": True, "s": None, "nao": None},
    },
    Cast("date"): {
        **{"2026-01-31": dt.date(2026, 1, 31), "2026-01-31T10:00:00Z": dt.date(2026, 1, 31), "0001-01-01": dt.date(1, 1, 1)},
        **{"9999-12-31": dt.date(9999, 12, 31), "2024-03-10T23:30:00-03:00": dt.date(2024, 3, 11)},
        **{"2024-03-11 02:30:00+00": dt.date(2024, 3, 11)},
        **dict.fromkeys(("2026-02-30", "10000-01-01", "infinity", "0044-03-15 (BC)", "0000-01-01", "01/02/2026", "today", "")),
        **dict.fromkeys(("24-03-10", "2024-3-5", "20240310", "2024/03/10", "epoch", " 2024-03-10", "2024-03-10T24:00:00")),
    },
    Cast("date", timezone="America/Sao_Paulo"): {
        **{"2024-03-11T02:30:00Z": dt.date(2024, 3, 10), "2024-03-10 23:30": dt.date(2024, 3, 10)},
    },
    Cast("timestamp"): {
        **{
            "2026-01-31T10:00:00Z": at(2026, 1, 31, 10),
            "2026-01-31 10:00:00": at(2026, 1, 31, 10),
            "2026-01-31": at(2026, 1, 31),
        },
        **{
            "2026-01-31T10:00:00.123456Z": at(2026, 1, 31, 10, 0, 0, 123456),
            "2026-01-31T10:00:00.5Z": at(2026, 1, 31, 10, 0, 0, 500000),
        },
        **{"2026-01-31T10:00:00.123Z": at(2026, 1, 31, 10, 0, 0, 123000), "2026-01-31 10:00:00+00": at(2026, 1, 31, 10)},
        **{"2026-01-31T10:00:00-03:00": at(2026, 1, 31, 13), "2026-01-31T10:00-0300": at(2026, 1, 31, 13)},
        **{"2026-01-31T10:00:00.123456789Z": at(2026, 1, 31, 10, 0, 0, 123456), "0001-01-01T00:00:00-03:00": at(1, 1, 1, 3)},
        **{"0001-01-01T00:00:00Z": at(1, 1, 1), "9999-12-31T23:59:59Z": at(9999, 12, 31, 23, 59, 59)},
        **dict.fromkeys(
            ("10000-01-01T00:00:00Z", "infinity", "-infinity", "0044-03-15 (BC)", "2026-13-01", "1767225600000", "now")
        ),
        **dict.fromkeys(("", "epoch", "24-03-10", "2024-03-10T24:00:00Z", "2024-03-10T23:30:60Z", "9999-12-31T23:59:59-03:00")),
        **dict.fromkeys((" 2024-03-1T23:30:00Z", "2024-03-1T23:30:00Z ", " 024-03-10T23:30:00Z", "2024-03-10 23:30:00 UTC")),
        **dict.fromkeys(("1-03-30T13:09:25.748953Z", "2024-03-10T23:30:00.1234567890Z", "0000-12-31T23:30:00-03:00")),
    },
    Cast("timestamp", timezone="America/Sao_Paulo"): {
        **{"2024-03-10 23:30:00": at(2024, 3, 11, 2, 30), "2024-03-10T23:30:00Z": at(2024, 3, 10, 23, 30)},
        **{"2018-02-17 23:30": at(2018, 2, 18, 2, 30), "2018-11-04": at(2018, 11, 4, 3)},  # shown twice, and passed over
    },
    Cast("timestamp", format="%d/%m/%Y %H:%M", timezone="America/Sao_Paulo"): {
        **{"10/03/2024 23:30": at(2024, 3, 11, 2, 30), "5/3/2024 7:05": at(2024, 3, 5, 10, 5)},
        **dict.fromkeys(("10/03/24 23:30", "2024-03-10 23:30", "31/02/2024 10:00", "10/03/2024", "10/03/2024 24:00")),
    },
    Cast("timestamp", format="%Y%m%d%H%M%S%z"): {"20240310233000-0300": at(2024, 3, 11, 2, 30), "2024031023300-0300": None},
    Cast("timestamp", form="epoch_s"): {
        **{"1710124200": at(2024, 3, 11, 2, 30), "1.7101242e9": at(2024, 3, 11, 2, 30), "1.5": at(1970, 1, 1, 0, 0, 1, 500000)},
        **{"1710124200.123": at(2024, 3, 11, 2, 30, 0, 123000), "-0.000001": at(1969, 12, 31, 23, 59, 59, 999999)},
        **{"253402300799.999999": at(9999, 12, 31, 23, 59, 59, 999999), "253402300800": None, "1.0000001": None, "1,5": None},
        **{"-62135596800": at(1, 1, 1), "-62135596800.000001": None, "1710124200.1230000": at(2024, 3, 11, 2, 30, 0, 123000)},
    },
    Cast("timestamp", form="epoch_ms"): {
        **{"1710124200000": at(2024, 3, 11, 2, 30), "-1": at(1969, 12, 31, 23, 59, 59, 999000)},
        **{"1710124200000.5": at(2024, 3, 11, 2, 30, 0, 500), "1710124200000.0005": None, "253402300800000": None},
        **{"1710124200000000": None, "2024-03-10T23:30:00Z": None},
    },
    Cast("date", form="epoch_us", timezone="America/Sao_Paulo"): {"1710124200000000": dt.date(2024, 3, 10), "1.5": None},
    Cast("string"): {"": "", " a ": " a ", "NULL": "NULL", "q\"'\\\x00é😀": "q\"'\\\x00é😀"},
    Cast("string", trim=True, case="upper"): {" São\u00a0": "SÃO", "\t": ""},
}


def of(cast: Cast) -> str:
    """A cast as the name of a test."""
    return ",".join(str(getattr(cast, field.name)) for field in fields(cast) if getattr(cast, field.name))


def cast_all(session: Session, texts: list[str], cast: Cast, *, exact: bool = True) -> list[Any]:
    frame = session.table([{"n": n, "text": text} for n, text in enumerate(texts)], {"n": "bigint", "text": "string"})
    rows = session.rows(session.cast(frame, {"value": ("text", cast)}, exact=exact).select("n", "value"))
    return [value for _, value in sorted(rows, key=lambda row: row[0])]


def differ(texts: list[str], one: list[Any], two: list[Any]) -> dict[str, tuple[Any, Any]]:
    return {t: (a, b) for t, a, b in zip(texts, one, two, strict=True) if repr(a).rstrip("0") != repr(b).rstrip("0") and a != b}


@pytest.fixture(scope="module")
def duckdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with duckdb_session(memory_limit="1GB", spill=str(tmp_path_factory.mktemp("duckdb")), folders=[]) as opened:
        yield opened


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    pytest.importorskip("pyspark")
    spill, local = str(tmp_path_factory.mktemp("spark") / "spill"), Spark(master="local[2]")
    with open_session("spark", memory_limit="2GB", spill=spill, folders=[], spark=local) as opened:
        yield opened


@pytest.fixture(params=["duckdb", pytest.param("spark", marks=pytest.mark.spark)])
def engine(request: pytest.FixtureRequest) -> Session:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.mark.parametrize("cast", ACCEPTS, ids=of)
def test_what_a_type_accepts(engine: Session, cast: Cast) -> None:
    texts = list(ACCEPTS[cast])
    assert differ(texts, cast_all(engine, texts, cast), list(ACCEPTS[cast].values())) == {}


@pytest.mark.parametrize("cast", ACCEPTS, ids=of)
def test_the_reference_accepts_the_same(cast: Cast) -> None:
    texts = list(ACCEPTS[cast])
    assert differ(texts, [value_of(text, cast) for text in texts], list(ACCEPTS[cast].values())) == {}


def test_null_stays_null_in_every_type(engine: Session) -> None:
    frame = engine.table([{"text": None}], {"text": "string"})
    frame = engine.cast(frame, {f"c{n}": ("text", cast) for n, cast in enumerate(ACCEPTS)})
    assert set(engine.rows(frame)[0]) == {None}


# --- texts that nobody thought of ------------------------------------------------------------------------------------

_SIGN, _TWO = st.sampled_from(["", "", "-", "+"]), st.integers(0, 61).map("{:02d}".format)
_NUMBERS = st.builds(
    "{}{}{}{}{}{}".format,
    st.sampled_from(["", "", "", " ", "\t"]),
    _SIGN,
    st.text("0123456789", max_size=40),
    st.sampled_from(["", ".", "."]),
    st.text("0059123", max_size=20),
    st.sampled_from(["", "", "", "e3", "E-2", "e+10", "e-400", "e38", " ", "\n"]),
)
_INSTANTS = st.builds(
    "{}-{}-{}{}{}{}".format,
    st.sampled_from(["2024", "2018", "0001", "9999", "0000", "24", "10000"]),
    st.integers(0, 13).map("{:02d}".format),
    st.integers(0, 32).map("{:02d}".format),
    st.builds("{}{}:{}{}".format, st.sampled_from("T "), _TWO, _TWO, st.builds(":{}".format, _TWO) | st.just("")) | st.just(""),
    st.text("0123456789", max_size=10).map(lambda digits: f".{digits}" if digits else ""),
    st.sampled_from(["", "Z", "+00", "-03:00", "+0530", "-15:59", "+16:00", " UTC", "z"]),
)
_AMOUNTS = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["", "-", "R$ ", "-R$", "US$ -", "€\u00a0"]),
    st.integers(0, 10**9).map(lambda n: f"{n:,}") | st.integers(0, 10**9).map(lambda n: f"{n:,}".replace(",", ".")),
    st.sampled_from(["", ",5", ".50", ","]),
    st.sampled_from(["", "", " €", "R$", " US$", "$"]),
    st.just(""),
)
_WORDS = st.sampled_from(["true", "FALSE", "True", "t", "f", "1", "0", "S", "sim", "N", "não", "inf", "-Infinity", "NaN"])
_WRITTEN = st.builds(
    "{}/{}/{} {}:{}".format, st.integers(0, 32), st.integers(0, 13), st.sampled_from(["2024", "24", "0001"]), _TWO, _TWO
)


_LETTERS = [*" \t\u00a0-+.,:eETZ_x0123456789\u0663\uff11"]


@st.composite
def _nearly(draw: st.DrawFn) -> str:
    """A text that is a value of some type, or one edit away from it."""
    text = draw(st.one_of(_NUMBERS, _INSTANTS, _AMOUNTS, _WORDS, _WRITTEN))
    if draw(st.booleans()):
        location, gone = draw(st.integers(0, len(text))), draw(st.integers(0, 1))
        text = text[:location] + draw(st.sampled_from(_LETTERS)) + text[location + gone :]
    return text


def _every(session: Session, texts: list[str], *, exact: bool = True) -> dict[Cast, list[Any]]:
    """All texts under all casts, in one go."""
    frame = session.table([{"n": n, "text": text} for n, text in enumerate(texts)], {"n": "bigint", "text": "string"})
    frame = session.cast(frame, {f"c{n}": ("text", cast) for n, cast in enumerate(ACCEPTS)}, exact=exact)
    rows = sorted(session.rows(frame.select("n", *[f"c{n}" for n in range(len(ACCEPTS))])), key=lambda row: row[0])
    return {cast: [row[n] for row in rows] for n, cast in enumerate(ACCEPTS, start=1)}


def _agrees(session: Session, texts: list[str]) -> None:
    for cast, found in _every(session, texts).items():
        assert differ(texts, found, [value_of(text, cast) for text in texts]) == {}, of(cast)


_TEXTS = st.lists(_nearly(), min_size=150, max_size=200, unique=True)
_QUIET = {"deadline": None, "suppress_health_check": [*HealthCheck]}


@settings(max_examples=8, **_QUIET)  # type: ignore[arg-type]
@given(texts=_TEXTS)
def test_duckdb_agrees_with_the_reference(duckdb: Session, texts: list[str]) -> None:
    _agrees(duckdb, texts)


@pytest.mark.spark
@settings(max_examples=2, **_QUIET)  # type: ignore[arg-type]
@given(texts=_TEXTS)
def test_spark_agrees_with_the_reference(spark: Session, texts: list[str]) -> None:
    _agrees(spark, texts)


@settings(max_examples=4, **_QUIET)  # type: ignore[arg-type]
@given(texts=_TEXTS)
def test_a_candidate_of_what_is_a_value_is_that_value(duckdb: Session, texts: list[str]) -> None:
    strict, rough = (_every(duckdb, texts, exact=exact) for exact in (True, False))
    for cast in ACCEPTS:
        values = [n for n, value in enumerate(strict[cast]) if value is not None]
        assert differ([texts[n] for n in values], [strict[cast][n] for n in values], [rough[cast][n] for n in values]) == {}


# --- the documents --------------------------------------------------------------------------------------


def _documented() -> list[tuple[str, str, str]]:
    """`(type or column, accepted, refused)` of the table in docs/tables.md."""
    text = (project_folder() / "docs" / "tables.md").read_text()
    section = text.split("## What each type accepts", 1)[1].split("\n## ", 1)[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return [(declared.strip("|` "), accepted, refused.strip(" |")) for declared, accepted, refused in rows]


@pytest.mark.parametrize(("declared", "accepted", "refused"), _documented())
def test_the_documented_texts_are_read_as_documented(
    duckdb: Session, lake: Lake, declared: str, accepted: str, refused: str
) -> None:
    from lakehouse.silver.validate import cast_of

    column = eval(declared if declared.startswith("Column(") else f"Column('c', {declared!r})", {"Column": Column})
    pairs = re.findall(r"`([^`]*)` → `([^`]*)`", accepted)
    texts = [text for text, _ in pairs]
    found = cast_all(duckdb, texts, cast_of(column))
    shown = [value.isoformat().replace("+00:00", "Z") if isinstance(value, dt.date) else str(value) for value in found]
    assert dict(zip(texts, shown, strict=True)) == dict(pairs) and pairs
    none = re.findall(r"`([^`]*)`", refused)
    assert dict(zip(none, cast_all(duckdb, none, cast_of(column)), strict=True)) == dict.fromkeys(none)


def test_a_column_and_the_grammar_know_the_same_formats() -> None:
    assert set(columns._DIRECTIVES) == set(casts.DIRECTIVES)
    assert set(casts.EPOCHS) | {""} == set(get_args(columns.Form))
