"""The series: rows of `gold/vendas_diarias` as one array per measure over every calendar day, with the days of trade told apart.

    rows (data, linhas, receita) ─▶ Series: revenue, lines, traded ─▶ features.py

A day without a row sold nothing. So, nearly, did a day with a handful of lines: a shop that is closed on Saturdays still gets
the odd correction booked on one. A day is one of trade when its lines reach a share of the median of the days before it, so
whether it was is known on that day. Refused here: a day twice, a day without a date, and too few days to evaluate a model by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lakehouse.core.errors import BrokenTableError, DeclarationError, LakehouseError
from lakehouse.core.rules import Finding

if TYPE_CHECKING:
    import numpy as np

#: A day of trade has at least this share of the median number of lines of the four weeks up to it. The real Saturdays reach
#: 0.5 %, the slowest real day of trade 14 %.
_TRADE = 0.05
_WINDOW = 28
#: The last week's revenue beyond this multiple of the median week before it, or below its inverse, is taken for a fault.
_JUMP = 5.0


class TooLittleDataError(LakehouseError):
    """There are too few days of sales to choose and evaluate a model by."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is forecast, and which days measure it. All lengths are in calendar days.

    Reported folds are the newest; a recipe is chosen by older ones, whose last target is not after the first reported origin.

    Args:
        horizon: how far a forecast goes; `short` is the horizon that the gate compares.
        folds: reported forecast origins for each horizon, a `step` apart; as many choose the recipe.
        history: days that the first origin looks back on.
        coverage: share of days that the interval is meant to hold.
        holidays: whose public holidays are known beforehand, `BR` or `GB-ENG`; empty for none.
    """

    horizon: int = 28
    short: int = 7
    folds: int = 12
    step: int = 7
    history: int = 56
    coverage: float = 0.8
    seed: int = 20_260
    holidays: str = "BR"

    def __post_init__(self) -> None:
        if not (0 < self.short <= self.horizon and self.folds >= 8 and self.step > 0 and self.history >= 28):
            raise DeclarationError(
                f"{self} cannot be: it needs 0 < short <= horizon, at least 8 folds and 28 days of history.",
                remedy="Fix the plan in lakehouse/ml/.",
            )
        if not 0.5 <= self.coverage < 1:
            raise DeclarationError(f"A coverage of {self.coverage} cannot be.", remedy="Use 0.5 up to 0.99.")

    @property
    def days_needed(self) -> int:
        return self.history + 2 * (self.step * (self.folds - 1) + self.horizon)

    def reported(self, last: int, horizon: int) -> list[int]:
        """Origins of the reported folds, oldest first, when `last` is the number of the last day."""
        return [last - horizon - self.step * back for back in reversed(range(self.folds))]

    def choosing(self, last: int) -> list[int]:
        """Origins of the folds that choose the recipe."""
        newest = self.reported(last, self.horizon)[0] - self.horizon
        return [newest - self.step * back for back in reversed(range(self.folds))]


@dataclass(frozen=True)
class Series:
    """One value for every calendar day from `start`; arrays of the same length."""

    start: date
    revenue: "np.ndarray[Any, Any]"
    lines: "np.ndarray[Any, Any]"
    traded: "np.ndarray[Any, Any]"

    def __len__(self) -> int:
        return len(self.revenue)

    @property
    def last(self) -> date:
        return date.fromordinal(self.start.toordinal() + len(self) - 1)


def build(rows: Sequence[Mapping[str, Any]], plan: Plan) -> Series:
    """The series of rows with `data` (date), `linhas` and `receita`, in any order.

    Raises:
        BrokenTableError: a day occurs twice, or has no date or no revenue.
        TooLittleDataError: fewer calendar days, or days of trade, than the plan needs.
    """
    import numpy as np

    if any(row["data"] is None or row["receita"] is None for row in rows):
        raise BrokenTableError(
            "gold/vendas_diarias has a row without day or revenue.", remedy="Fix the mart; its tests should have stopped it."
        )
    days = sorted(row["data"] for row in rows)
    if twice := sorted({str(a) for a, b in pairwise(days) if a == b}):
        raise BrokenTableError(
            f"gold/vendas_diarias has the day {twice[0]} twice ({len(twice)} such days).",
            remedy="Materialise gold/vendas_diarias again; its test `unique` should have stopped it.",
        )
    length = (days[-1] - days[0]).days + 1 if days else 0
    if length < plan.days_needed:
        raise _too_few(f"covers {length} days", f"{plan.days_needed}")
    start = days[0].toordinal()
    revenue, lines = np.zeros(length), np.zeros(length)
    for row in rows:
        at = row["data"].toordinal() - start
        revenue[at], lines[at] = float(row["receita"]), float(row["linhas"] or 0)
    traded = _traded(lines)
    earned = int((traded & (revenue > 0)).sum())
    if earned < plan.days_needed // 4:
        raise _too_few(f"has {earned} days of trade with positive revenue", f"{plan.days_needed // 4}")
    return Series(days[0], revenue, lines, traded)


def _too_few(found: str, needed: str) -> TooLittleDataError:
    return TooLittleDataError(
        f"gold/vendas_diarias {found}; {needed} are needed to choose and evaluate a model.",
        remedy="Run mlops again when there are more; the champion, if there is one, stays.",
    )


def _traded(lines: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    import numpy as np

    out = np.zeros(len(lines), bool)
    for at, count in enumerate(lines):
        before = lines[max(0, at - _WINDOW + 1) : at + 1]
        before = before[before > 0]
        out[at] = count > 0 and count >= _TRADE * np.median(before)
    return out


def checks(series: Series) -> list[Finding]:
    """What must hold of the data before a model may be promoted. Failing, they stop nothing but the promotion."""
    import numpy as np

    earned = series.revenue[series.traded]
    weeks = series.revenue[len(series) % 7 :].reshape(-1, 7).sum(axis=1)
    usual = float(np.median(weeks[-9:-1]))
    ratio = float(weeks[-1]) / usual if usual > 0 else float("inf")
    losses = int((earned <= 0).sum())
    return [
        _finding("varies", bool(np.ptp(earned) > 0), {"days": len(earned)}),
        _finding("mostly_positive", losses <= 0.05 * len(earned), {"days_without_revenue": losses}, losses, len(earned)),
        _finding("last_week_plausible", 1 / _JUMP <= ratio <= _JUMP, {"last_week_of_usual": round(ratio, 3)}),
    ]


#: Names and descriptions of these checks.
CHECKS = {
    "varies": "The days of trade do not all have the same revenue.",
    "mostly_positive": "At most one day of trade in twenty has no positive revenue.",
    "last_week_plausible": f"The last week's revenue is less than {_JUMP:g} times the usual, and more than a {_JUMP:g}th of it.",
}


def _finding(rule: str, passed: bool, detail: Mapping[str, Any], failed: int | None = None, validated: int = 1) -> Finding:
    return Finding(rule, passed, "warn", int(not passed) if failed is None else failed, validated, detail)
