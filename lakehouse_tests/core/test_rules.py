"""Rules at work: every declared kind of table rule has its function, and statistics prove what they can prove and no more."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, get_args

import pytest

from lakehouse.core import rules
from lakehouse.core.errors import DeclarationError
from lakehouse.core.table.snapshot import DataFile
from lakehouse.tables.spec import RowKind, RowRule, TableKind, accepted_values, expression, in_range, matches, not_null


def test_the_registered_functions_are_those_of_the_declared_kinds() -> None:
    assert set(rules.EVALUATORS) == set(get_args(TableKind))
    assert set(rules.PROOFS) <= set(get_args(RowKind))


def test_a_kind_without_a_function_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(rules.EVALUATORS, "unique")
    with pytest.raises(DeclarationError, match=r"'unique' are declared.+core/rules\.py"):
        rules.evaluator("unique")


FILE = DataFile("a.parquet", 1, 3, {"valor": Decimal("1.5"), "nome": "a"}, {"valor": 7, "nome": "b"}, "", {"valor": 0, "nome": 1})


@pytest.mark.parametrize(
    ("rule", "proven"),
    [
        (not_null("valor"), True),
        (not_null("nome"), False),
        (not_null("outro"), False),
        (in_range("valor", minimum=1), True),
        (in_range("valor", minimum=1.5, maximum=7), True),
        (in_range("valor", minimum=2), False),
        (in_range("valor", maximum=6), False),
        (in_range("nome", minimum=0), False),
        (in_range("outro", minimum=0), False),
        (accepted_values("nome", "a", "b"), False),
        (matches("nome", "."), False),
        (expression("r", "valor > 0"), False),
    ],
)
def test_what_a_files_statistics_prove(rule: RowRule, proven: bool) -> None:
    assert rules.proven(rule, FILE) is proven


def test_a_kind_is_registered_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    given: Callable[[Any, DataFile], bool] = lambda rule, file: file.rows == rule  # noqa: E731
    monkeypatch.setattr(rules, "PROOFS", {})
    assert rules.proof("matches")(given) is given and {"matches": given} == rules.PROOFS
