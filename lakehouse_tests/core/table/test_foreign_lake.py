"""The Delta tables below a location, and what their logs tell: nothing is guessed, and a refusal has a name."""

from pathlib import Path

import pytest

from lakehouse.core.errors import BrokenTableError, DeclarationError, ForeignTableError
from lakehouse.core.table.foreign_lake import location_of, look, tables_below
from lakehouse_tests.foreign import Theirs


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return tmp_path / "old"


def test_tables_are_found_in_any_depth_and_not_below_each_other_or_in_hidden_folders(old: Path) -> None:
    for path in ("b", "a/silver/vendas 100%", "a/São João", "_tmp/x", ".x/y", "b/inner", "a/_x"):
        Theirs(old / path, {"id": "long"})
    (old / "csv").mkdir()
    (old / "circle").symlink_to(old)
    assert [*tables_below(str(old))] == [f"{old}/a/São João", f"{old}/a/silver/vendas 100%", f"{old}/b"]
    assert [*tables_below(str(old / "b"))] == [f"{old}/b"]
    assert [*tables_below(str(old / "csv"))] == [*tables_below(str(old / "nothing"))] == []


def test_rows_are_those_of_the_statistics_and_never_guessed(old: Path) -> None:
    plain = Theirs(old / "plain", {"id": "long"})
    sizes = [plain.add({"id": range(n)})["add"]["size"] for n in (3, 4)]
    some = Theirs(old / "some", {"id": "long"})
    some.add({"id": [1]})
    without = some.file({"id": [2]})
    del without["add"]["stats"]
    some.commit(without)
    deleted = Theirs(old / "deleted", {"id": "long"}, features=["deletionVectors"], mapped=True)
    deleted.add({"id": range(5)}, deleted=[1])
    Theirs(old / "empty", {"id": "long"})
    found = {one.path: one for uri in tables_below(str(old)) for one in [look(uri, location=str(old))]}
    assert {path: one.rows for path, one in found.items()} == {"plain": 7, "some": None, "deleted": None, "empty": 0}
    assert (found["plain"].size, found["empty"].size) == (sum(sizes), 0)
    features = found["deleted"].table.features if found["deleted"].table else ()
    assert features == ("deletionVectors", "columnMapping")


def test_what_is_refused_has_its_sentence_and_its_feature(old: Path) -> None:
    Theirs(old / "new", {"id": "long"}, features=["fromTheFuture"])
    lost = Theirs(old / "lost", {"id": "long"})
    (old / "lost" / lost.add({"id": [1]})["add"]["path"]).unlink()
    (old / "bare" / "_delta_log").mkdir(parents=True)
    new, gone, bare = (look(f"{old}/{name}", location=str(old)) for name in ("new", "lost", "bare"))
    assert isinstance(new.refusal, ForeignTableError) and new.feature == "fromTheFuture" and new.table is None
    assert isinstance(gone.refusal, BrokenTableError) and "is missing" in str(gone.refusal) and gone.feature == ""
    assert "There is no Delta table in" in str(bare.refusal)
    assert look(f"{old}/new", location=f"{old}/new").path == "new"


@pytest.mark.parametrize("text", ["", "lake", "./lake", "http://host/lake", "s3://", "s3:///x"])
def test_a_location_is_a_folder_or_a_prefix_of_a_bucket(text: str) -> None:
    with pytest.raises(DeclarationError, match="FROM=s3://bucket/path"):
        location_of(text, setting="FROM")


def test_a_location_has_one_form() -> None:
    assert location_of("s3a://lake/silver//", setting="FROM") == "s3://lake/silver"
    assert location_of("/lake/silver/", setting="FROM") == "/lake/silver"
