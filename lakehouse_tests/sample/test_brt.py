"""The simulated feed: the same answer at the same instant, all of the real feed's dirt, and buses that drive as buses do."""

import json
import math
from collections import Counter

from lakehouse.landing.sources.captures import records
from lakehouse.reports.brt_page import SIMULATED
from lakehouse.sample.brt import VEHICLES, answer, write

AT = 1_761_685_251_776


def listed(at: int = AT) -> list[dict]:
    return json.loads(answer(at))["veiculos"]


def test_an_answer_follows_from_its_instant():
    assert answer(AT) == answer(AT)
    assert answer(AT) != answer(AT + 60_000)
    assert len(records(answer(AT), field="veiculos")) == VEHICLES


def test_every_vehicle_states_that_it_is_simulated():
    assert all(row["codigo"].startswith(SIMULATED) for row in listed())
    assert len({row["codigo"] for row in listed()}) == VEHICLES


def test_it_has_the_dirt_of_the_real_feed():
    rows = listed()
    ages = [(AT - row["dataHora"]) / 1000 for row in rows]
    assert 0.05 < sum(age > 300 for age in ages) / VEHICLES < 0.3
    assert max(ages) > 30 * 86_400
    assert min(ages) < -300, "a clock that is ahead"
    assert {type(row["direcao"]) for row in rows} == {int, str}
    assert any(isinstance(row["direcao"], int) and row["direcao"] > 360 for row in rows)
    assert any(row["latitude"] == row["longitude"] == 0 for row in rows)
    assert any(row["hodometro"] < 0 for row in rows)
    assert None in {row["ignicao"] for row in rows}
    assert Counter(row["placa"] for row in rows)[""] > 0.9 * VEHICLES
    assert {row["linha"] for row in rows if row["velocidade"] == 0} > {"0"}


def test_positions_come_again_and_some_with_other_contents():
    keys: Counter = Counter()
    contents: dict = {}
    for minute in range(10):
        for row in listed(AT + minute * 60_000):
            key = (row["codigo"], row["dataHora"])
            keys[key] += 1
            contents.setdefault(key, set()).add(json.dumps(row))
    assert sum(count > 1 for count in keys.values()) > VEHICLES / 20
    assert any(len(found) > 1 for found in contents.values())


def test_nobody_drives_faster_than_a_bus():
    before = {row["codigo"]: row for row in listed()}
    for row in listed(AT + 60_000):
        old = before[row["codigo"]]
        seconds = (row["dataHora"] - old["dataHora"]) / 1000
        north, east = (row["latitude"] - old["latitude"]) * 111.2, (row["longitude"] - old["longitude"]) * 102.5
        if seconds:
            assert math.hypot(north, east) / seconds * 3600 < 90, row


def test_recorded_answers_are_written_once(tmp_path):
    assert write(tmp_path, minutes=3, until=AT) == 3
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{AT - back * 60_000}.json" for back in (2, 1, 0)]
    assert write(tmp_path, minutes=9, until=AT + 5_000) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == names
