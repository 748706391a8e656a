"""Answers of captured feeds: each body is its records, exactly, or one sentence that says what it is."""

import gzip
import json
from decimal import Decimal

import pytest
from google.transit import gtfs_realtime_pb2

from lakehouse.landing.sources.answers import records

AT = 1_761_685_251


def feed(*vehicles: dict[str, object]) -> bytes:
    """A FeedMessage as an agency sends it."""
    message = gtfs_realtime_pb2.FeedMessage()
    message.header.gtfs_realtime_version = "2.0"
    message.header.timestamp = AT
    for number, given in enumerate(vehicles, start=1):
        entity = message.entity.add()
        entity.id = f"e{number}"
        position = entity.vehicle
        position.vehicle.id = str(given["id"])
        position.position.latitude, position.position.longitude = given["at"]
        if "line" in given:
            position.trip.route_id = str(given["line"])
        if "timestamp" in given:
            position.timestamp = given["timestamp"]
    return message.SerializeToString()


def test_positions_of_gtfs_realtime_are_records_with_the_numbers_that_were_sent():
    body = feed({"id": "a", "at": (-22.9068, -43.1729), "line": "10", "timestamp": AT - 20}, {"id": "b", "at": (1.5, 2)})
    first, second = records(body, form="gtfs_realtime")
    assert first == {
        "entity_id": "e1",
        "timestamp": AT - 20,
        "vehicle_id": "a",
        "trip_route_id": "10",
        "position_latitude": Decimal("-22.9068"),
        "position_longitude": Decimal("-43.1729"),
    }
    assert second["timestamp"] == AT and "trip_route_id" not in second


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (feed(), "without a vehicle"),
        (b"<html>maintenance</html>", "HTML"),
        (feed({"id": "a", "at": (1, 2)})[:-4], "no FeedMessage"),
        (b"", "is empty"),
    ],
)
def test_a_body_that_is_no_feed_of_gtfs_realtime_is_told(body, reason):
    with pytest.raises(ValueError, match=reason):
        records(body, form="gtfs_realtime")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (feed({"id": "a", "at": (1, 2)}), "not JSON; it looks like protobuf"),
        (b"<?xml version='1.0'?><veiculos/>", "XML"),
        (b" <!DOCTYPE html><html>", "HTML"),
        (gzip.compress(b"{}", mtime=0)[:-3], "gzip"),
        (b"service unavailable", "not JSON"),
    ],
)
def test_a_body_that_is_no_json_is_told_by_what_it_looks_like(body, reason):
    with pytest.raises(ValueError, match=reason):
        records(body, field="veiculos")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_letters_are_those_that_were_sent_in_every_encoding(encoding):
    body = json.dumps({"veiculos": [{"trajeto": "GALEÃO É"}]}, ensure_ascii=False).encode(encoding)
    assert records(body, field="veiculos") == [{"trajeto": "GALEÃO É"}]


def test_numbers_are_those_that_were_sent_as_numbers_or_as_texts():
    body = b'{"veiculos": [{"a": -22.90000000000000001, "b": "-22,9", "c": "1761685251776"}]}'
    assert records(body, field="veiculos") == [{"a": Decimal("-22.90000000000000001"), "b": "-22,9", "c": "1761685251776"}]
