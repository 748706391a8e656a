"""Captures: kept until a CSV holds their records, each in exactly one, whatever the kill; a CSV says what was delivered."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from lakehouse.core.store import files
from lakehouse.landing.sources import captures as module
from lakehouse.landing.sources.answers import NO_RECORD, records
from lakehouse.landing.sources.captures import Captures
from lakehouse.landing.sources.fetch import Answer

#: 2025-10-28 00:00 in America/Sao_Paulo.
MIDNIGHT = 1_761_620_400_000
MINUTE = 60_000


@pytest.fixture
def captures(tmp_path) -> Captures:
    return Captures(landing=str(tmp_path / "landing"), source="brt", stream="brt_gps", field="veiculos")


def answer(number: int, *vehicles: object, at: int | None = None) -> Answer:
    listed = vehicles or ({"codigo": f"{number}-1", "dataHora": 1}, {"codigo": f"{number}-2", "dataHora": 2})
    return Answer(json.dumps({"veiculos": listed}).encode(), MIDNIGHT + number * MINUTE if at is None else at)


def landed(captures: Captures) -> dict[str, list[dict[str, str]]]:
    """The rows of every CSV in landing, by path below the stream."""
    raw = Path(captures.landing, "raw", captures.stream)
    out = {}
    for path in sorted(raw.rglob("*.csv")):
        with path.open(newline="") as content:
            out[path.relative_to(raw).as_posix()] = list(csv.DictReader(content))
    return out


def test_a_csv_contains_a_buffer_of_captures_and_is_named_after_them(captures):
    for number in range(25):
        captures.persist(answer(number))
    done = captures.export(buffer=10)
    assert [(export.captures, export.records) for export in done] == [(10, 20), (10, 20)]
    first, second = landed(captures)
    assert first == f"data=2025-10-28/hora=00/{MIDNIGHT}_{MIDNIGHT + 9 * MINUTE}.csv"
    assert second == f"data=2025-10-28/hora=00/{MIDNIGHT + 10 * MINUTE}_{MIDNIGHT + 19 * MINUTE}.csv"
    assert captures.pending() == [MIDNIGHT + number * MINUTE for number in range(20, 25)]
    row = landed(captures)[first][1]
    assert (row["_airbyte_raw_id"], row["_airbyte_extracted_at"]) == (f"{MIDNIGHT}-2", str(MIDNIGHT))
    assert captures.export(buffer=10) == []


def test_the_hour_and_the_day_are_those_of_rio(captures):
    captures.persist(answer(0, at=MIDNIGHT - 1))
    captures.export(buffer=1)
    assert list(landed(captures)) == [f"data=2025-10-27/hora=23/{MIDNIGHT - 1}_{MIDNIGHT - 1}.csv"]


def test_a_csv_follows_from_its_captures_alone(captures, tmp_path):
    other = Captures(landing=str(tmp_path / "other"), source="brt", stream="brt_gps", field="veiculos")
    for number in range(3):
        captures.persist(answer(number, {"b": 1, "a": None}, {"c": "x"}))
    for number in (2, 0, 1):
        other.persist(answer(number, {"b": 1, "a": None}, {"c": "x"}))
    ours, theirs = captures.export(buffer=3)[0].uri, other.export(buffer=3)[0].uri
    assert files.read(ours) == files.read(theirs)


def test_what_was_delivered_is_in_the_csv_to_the_letter(captures):
    body = (
        b'{"veiculos": [{"codigo": "1", "latitude": -22.90, "direcao": " ", "placa": "", "ignicao": null, "liga": true,'
        b' "n": 1E5, "texto": "a \\"b\\",\\nc", "dentro": {"x": [1, 2.5]}, "nan": NaN, "halb": "\\ud800"}, 7, {"codigo": "2"}]}'
    )
    captures.persist(Answer(body, MIDNIGHT))
    (rows,) = landed_after(captures).values()
    first = rows[0]
    assert (first["latitude"], first["direcao"], first["placa"], first["liga"]) == ("-22.90", " ", "", "true")
    assert first["texto"] == 'a "b",\nc'
    assert json.loads(first["dentro"]) == {"x": [1, 2.5]}
    assert (float(first["n"]), first["nan"], first["halb"]) == (100_000.0, "NaN", "\\ud800")
    assert rows[1][NO_RECORD] == "7"
    text = files.read(f"{captures.landing}/raw/brt_gps/{next(iter(landed(captures)))}").decode()
    assert ',"",,true,' in text, "an empty text and no value are not the same"


def landed_after(captures: Captures) -> dict[str, list[dict[str, str]]]:
    captures.export(buffer=1)
    return landed(captures)


def test_fields_that_are_called_like_the_envelope_do_not_replace_it(captures):
    captures.persist(answer(0, {"_airbyte_raw_id": "mine", "": "nameless", "codigo": "1"}))
    (rows,) = landed_after(captures).values()
    assert rows[0]["_airbyte_raw_id"] == f"{MIDNIGHT}-1"
    assert rows[0]["field_airbyte_raw_id"] == "mine"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"<html><body>502</body></html>", "HTML"),
        (b'{"veiculos": null}', "no list 'veiculos'"),
        (b'{"veiculos": {}}', "no list 'veiculos'"),
        (b"[]", "no list 'veiculos'"),
        (b'{"veiculos": []}', "is empty"),
        (b'{"veiculos": [{"codigo": "1"}, {"cod', "JSON that breaks off"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (json.dumps({"veiculos": [{f"f{n}": n} for n in range(300)]}).encode(), "more than 200 different fields"),
    ],
    ids=["empty", "blank", "html", "null", "object", "list", "none", "truncated", "bytes", "deep", "map"],
)
def test_what_is_no_answer_is_refused_with_the_reason(body, expected):
    with pytest.raises(ValueError, match=expected):
        records(body, field="veiculos")


def test_a_failure_is_recorded_with_what_was_there(captures):
    where = captures.fail(MIDNIGHT, reason="It is HTML.", body=b"<html>" + b"x" * 10_000)
    output = json.loads(files.read(where))
    assert output["reason"] == "It is HTML."
    assert output["at"] == "2025-10-28T03:00:00.000+00:00"
    assert output["begins"].startswith("<html>")
    assert len(output["begins"]) == 2_000


def test_two_answers_of_one_millisecond_are_both_stored(captures):
    assert captures.persist(answer(1)) == MIDNIGHT + MINUTE
    assert captures.persist(answer(2, at=MIDNIGHT + MINUTE)) == MIDNIGHT + MINUTE + 1
    captures.export(buffer=2)
    assert captures.persist(answer(3, at=MIDNIGHT + MINUTE)) == MIDNIGHT + MINUTE + 2, "exported ones count too"


def test_recorded_answers_come_in_the_order_of_their_names_and_once(captures, tmp_path):
    folder = tmp_path / "recorded"
    folder.mkdir()
    for number in (2, 0, 1):
        (folder / f"{MIDNIGHT + number * MINUTE}.json").write_bytes(answer(number).body)
    (folder / f"{MIDNIGHT + 3 * MINUTE}.json").write_text("<html>")
    (folder / "MANIFEST.csv").write_text("not one of them")
    found = []
    while (got := captures.recorded(str(folder))) is not None:
        found.append((got.at - MIDNIGHT) // MINUTE)
        try:
            captures.check(got.body)
            captures.persist(got)
        except ValueError as error:
            captures.fail(got.at, reason=str(error))
        captures.export(buffer=2)
    assert found == [0, 1, 2, 3], "one that failed is not tried for ever"


def test_a_cached_answer_that_the_disk_has_changed_is_set_aside_and_blocks_nothing(captures):
    for number in range(3):
        captures.persist(answer(number))
    Path(captures.folder, "pending", f"{MIDNIGHT}.json.gz").write_bytes(gzip.compress(b"{")[:-4])
    assert [export.captures for export in captures.export(buffer=2)] == [2]
    (failed,) = Path(captures.folder, "failed").rglob("*.json")
    assert "cannot be read" in failed.read_text()


def test_a_new_buffer_size_repeats_nothing_of_what_was_exported_under_the_old(captures, monkeypatch):
    for number in range(6):
        captures.persist(answer(number))
    monkeypatch.setattr(Captures, "_put_away", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        captures.export(buffer=4)
    monkeypatch.undo()
    assert [export.captures for export in captures.export(buffer=2)] == [4, 2], "the first was there already, and is told of"
    assert once_each(captures, 6)


class Ended(BaseException):
    """Stands for a kill: nothing catches it."""


def once_each(captures: Captures, number: int) -> bool:
    """Every capture's records are in CSVs exactly once."""
    ids = [row["_airbyte_raw_id"] for rows in landed(captures).values() for row in rows]
    return sorted(ids) == sorted(f"{MIDNIGHT + n * MINUTE}-{part}" for n in range(number) for part in (1, 2))


#: Seven answers kept, two CSVs, and six answers that each are written and removed when they are put away.
WRITES = 7 + 2 + 6 * 2


def test_an_end_between_any_two_steps_loses_and_doubles_nothing(tmp_path, monkeypatch):
    """Seven captures, buffer three, exported as they come; the process ends after its nth write, for every n, and goes on."""
    real = {name: getattr(files, name) for name in ("put", "remove")}
    reached = 0
    for last in range(WRITES):
        for before in (True, False):
            captures = Captures(landing=str(tmp_path / f"{last}-{before}"), source="brt", stream="brt_gps", field="veiculos")
            left = [last]

            def ending(name, *arguments, left=left, before=before, **named):
                left[0] -= 1
                if left[0] == -1 and before:
                    raise Ended
                result = real[name](*arguments, **named)
                if left[0] == -1:
                    raise Ended
                return result

            for name in real:
                monkeypatch.setattr(files, name, lambda *a, name=name, ending=ending, **k: ending(name, *a, **k))
            ended = 0
            number = 0
            while number < 7:
                try:
                    if MIDNIGHT + number * MINUTE not in stored(captures):
                        captures.persist(answer(number))
                    captures.export(buffer=3)
                    number += 1
                except Ended:
                    ended += 1
            monkeypatch.undo()
            reached += ended
            captures.export(buffer=1)
            assert once_each(captures, 7), (last, before)
            assert captures.pending() == []
    assert reached == 2 * WRITES, "the ends were not where the steps are"


def stored(captures: Captures) -> set[int]:
    return {int(path.name[:13]) for path in Path(captures.folder).rglob("*.json.gz")}


def test_what_is_listed_does_not_grow_with_the_days_stored(captures, monkeypatch):
    def listed_by_an_export(day: int) -> int:
        seen = []
        real = files.names_in
        for number in range(10):
            captures.persist(answer(day * 1_440 + number))
        monkeypatch.setattr(files, "names_in", lambda folder: seen.extend(found := real(folder)) or found)
        assert len(captures.export(buffer=10)) == 1
        monkeypatch.undo()
        return len(seen)

    assert listed_by_an_export(0) == listed_by_an_export(1) == listed_by_an_export(40)


def test_rows_are_read_back_whatever_line_ends_they_contain(captures):
    captures.persist(answer(0, {"codigo": "a\r\nb\rc\nd"}))
    (rows,) = landed_after(captures).values()
    assert rows[0]["codigo"] == "a\r\nb\rc\nd"
    assert list(module._instants(files.read(captures.landing + "/raw/brt_gps/" + next(iter(landed(captures)))))) == [MIDNIGHT]
