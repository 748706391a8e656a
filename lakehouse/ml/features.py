"""Features: what is known at the end of a day (the origin) about each of the days after it.

    Series ─▶ one row per origin and horizon: FEATURES, the seasonal naive forecast, and what came, where it has come

Point in time: a row is computed from the days up to its origin and from the calendar; `at_origin` is given no other days.
Logarithms of revenue are of days of trade with positive revenue only. Closed days are forecast by a rule that is learned anew
at each origin: a weekday on which most of the last six times nothing was traded, a public holiday when most of those seen so far
were days off, a day that a year before lay in a shutdown of a week or more.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from lakehouse.core.errors import DeclarationError
from lakehouse.ml.series import Plan, Series

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LEVELS = (7, 14, 28, 56)
_LAGS = 5
_SAME = (1, 4, 8)
#: Logarithms of a revenue: subtracted from each other, never used as they are.
LOGS = (
    *(f"nivel_{days}" for days in LEVELS),
    *(f"defasagem_{n}" for n in range(1, _LAGS + 1)),
    *(f"mesmo_dia_{n}" for n in _SAME),
)
FEATURES = (
    "aberto",
    "fator_semana",
    *LOGS,
    "volatilidade",
    "horizonte",
    "dia_do_mes",
    "feriado",
    "perto_de_feriado",
    *(f"dia_{name}" for name in ("seg", "ter", "qua", "qui", "sex", "sab")),
)
DESCRIPTIONS: Mapping[str, str] = {
    "aberto": "1 when the day is expected to be one of trade",
    "fator_semana": "log effect of the weekday over 16 weeks, shrunk",
    "nivel_": "mean log revenue of the last days, freed of the weekday",
    "defasagem_": "log revenue of the n-th last day of trade, freed of the weekday",
    "mesmo_dia_": "mean log revenue of the last n equal weekdays",
    "volatilidade": "standard deviation of 25 days of trade",
}
COLUMNS: Mapping[str, str] = {
    "origem": "date",
    "data": "date",
    **{name: "bigint" if name == "horizonte" else "double" for name in FEATURES},
    "ingenuo": "double",
    "receita": "double",
    "negociado": "boolean",
}
_PROFILE = 112
_SHUTDOWN = 7


@dataclass(frozen=True)
class Frame:
    """The rows as arrays: `origin` and `target` are ordinals of days; `y` is NaN where the day has not come.

    `x` has a column for each of FEATURES.
    """

    origin: "Array"
    target: "Array"
    x: "Array"
    naive: "Array"
    y: "Array"
    traded: "Array"

    def __len__(self) -> int:
        return len(self.origin)

    @property
    def horizon(self) -> "Array":
        return self.target - self.origin

    @property
    def last(self) -> int:
        """The newest origin: the last day that has come."""
        return int(self.origin.max())

    def where(self, mask: "Array") -> "Frame":
        return Frame(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))

    def known(self, at: int) -> "Frame":
        """What a model may be fitted to at the end of day `at`: days of trade up to it that earned something."""
        return self.where((self.target <= at) & self.traded & (self.y > 0))

    def at(self, origin: int) -> "Frame":
        return self.where(self.origin == origin)


def build(series: Series, plan: Plan) -> Frame:
    """Every origin with enough history, each with its horizons."""
    import numpy as np

    first = series.start.toordinal()
    holidays = public_holidays(plan.holidays, series.start, days=len(series) + plan.horizon)
    parts = []
    for origin in range(plan.history - 1, len(series)):
        upto = Series(series.start, series.revenue[: origin + 1], series.lines[: origin + 1], series.traded[: origin + 1])
        x, naive = at_origin(upto, plan, holidays)
        target = np.arange(origin + 1, origin + plan.horizon + 1)
        come = target < len(series)
        y, traded = np.full(plan.horizon, np.nan), np.zeros(plan.horizon, bool)
        y[come], traded[come] = series.revenue[target[come]], series.traded[target[come]]
        parts.append((np.full(plan.horizon, first + origin), first + target, x, naive, y, traded))
    return Frame(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def at_origin(series: Series, plan: Plan, holidays: "Array") -> "tuple[Array, Array]":
    """FEATURES of each horizon, and the seasonal naive forecast, for the last day of a series.

    Args:
        holidays: whether each day from the series' first to the last horizon is a public one.
    """
    import numpy as np

    last = len(series) - 1
    weekday = (series.start.toordinal() - 1 + np.arange(len(series) + plan.horizon)) % 7
    target = np.arange(last + 1, last + plan.horizon + 1)
    earned = series.traded & (series.revenue > 0)
    logs = np.log(np.where(earned, series.revenue, 1.0))

    recent = np.flatnonzero(earned[max(0, last - _PROFILE + 1) :]) + max(0, last - _PROFILE + 1)
    recent = recent if len(recent) else np.array([last])
    mean = logs[recent].mean()
    effect = np.zeros(7)
    for day in range(7):
        mine = logs[recent][weekday[recent] == day]
        effect[day] = (mine - mean).sum() / (len(mine) + 2)  # two days' worth of no effect
    free = logs[recent] - effect[weekday[recent]]
    levels = []
    for days in LEVELS:
        within = recent > last - days
        levels.append(free[within].mean() if within.any() else free[-_LAGS:].mean())
    lags = [free[-n] if len(free) >= n else levels[-1] for n in range(1, _LAGS + 1)]

    steps = plan.horizon
    columns: dict[str, Any] = {
        "aberto": _open(series, target, weekday, holidays),
        "fator_semana": effect[weekday[target]],
        **{f"nivel_{days}": np.full(steps, level) for days, level in zip(LEVELS, levels, strict=True)},
        **{f"defasagem_{n}": np.full(steps, lag) for n, lag in enumerate(lags, 1)},
        "volatilidade": np.full(steps, free[-25:].std()),
        "horizonte": np.arange(1, steps + 1, dtype=float),
        "dia_do_mes": np.array([date.fromordinal(series.start.toordinal() + int(day)).day for day in target], float),
        "feriado": holidays[target].astype(float),
    }
    beside = np.concatenate([[False], holidays, [False]])
    columns["perto_de_feriado"] = (beside[target] | beside[target + 2]).astype(float)
    same = {n: np.empty(steps) for n in _SAME}
    naive = np.empty(steps)
    for step, ahead in enumerate(target):
        equal = np.arange(ahead - 7 * (step // 7 + 1), -1, -7)
        naive[step] = series.revenue[equal[0]]
        mine = logs[equal[earned[equal]]]
        for n in _SAME:
            same[n][step] = mine[:n].mean() if len(mine) else levels[-1]
    columns |= {f"mesmo_dia_{n}": values for n, values in same.items()}
    for day, name in enumerate(("seg", "ter", "qua", "qui", "sex", "sab")):
        columns[f"dia_{name}"] = (weekday[target] == day).astype(float)
    return np.column_stack([columns[name] for name in FEATURES]), naive


def _open(series: Series, target: "Array", weekday: "Array", holidays: "Array") -> "Array":
    """1 where a day is expected to be one of trade."""
    import numpy as np

    past = np.arange(len(series))
    ordinary = ~holidays[: len(series)]
    usual = np.zeros(7, bool)
    for day in range(7):
        seen = series.traded[past[(weekday[: len(series)] == day) & ordinary]][-6:]
        usual[day] = len(seen) > 0 and seen.mean() >= 0.5
    festive = series.traded[past[holidays[: len(series)] & usual[weekday[: len(series)]]]]
    rests = len(festive) >= 2 and festive.mean() < 0.5
    out = usual[weekday[target]] & ~(rests & holidays[target])
    shut = _shutdowns(series.traded)
    for step, day in enumerate(target):
        before = _year_before(series.start.toordinal() + int(day)) - series.start.toordinal()
        if 0 <= before < len(series) and shut[before]:
            out[step] = False
    return out.astype(float)


def _shutdowns(traded: "Array") -> "Array":
    """Days within a stretch of at least `_SHUTDOWN` days without trade."""
    import numpy as np

    out = np.zeros(len(traded), bool)
    start = 0
    for at in range(len(traded) + 1):
        if at == len(traded) or traded[at]:
            out[start:at] = at - start >= _SHUTDOWN
            start = at + 1
    return out


def _year_before(ordinal: int) -> int:
    day = date.fromordinal(ordinal)
    return (day.replace(year=day.year - 1) if (day.month, day.day) != (2, 29) else date(day.year - 1, 2, 28)).toordinal()


def public_holidays(code: str, start: date, *, days: int) -> "Array":
    """Whether each of the days from `start` is a public holiday of `GB`, `GB-ENG`, ...; none are for ''."""
    import numpy as np

    out = np.zeros(days, bool)
    if not code:
        return out
    import holidays

    country, _, region = code.partition("-")
    end = date.fromordinal(start.toordinal() + days - 1)
    try:
        found = holidays.country_holidays(country, subdiv=region or None, years=range(start.year, end.year + 1))
    except NotImplementedError as error:
        raise DeclarationError(
            f"No public holidays are known of LAKEHOUSE_HOLIDAYS={code}.", remedy="Use a code such as BR, GB-ENG or none."
        ) from error
    for day in found:
        if 0 <= (at := day.toordinal() - start.toordinal()) < days:
            out[at] = True
    return out


def fingerprint(frame: Frame) -> str:
    """SHA-256 over the features of every row and over what came, to twelve digits.

    Twelve digits, because a sum of doubles differs in the last ones from one processor to another.
    """
    import numpy as np

    digest = hashlib.sha256("\x1f".join(FEATURES).encode())
    digest.update(np.stack([frame.origin, frame.target, frame.traded]).astype("<i8").tobytes())
    values = np.column_stack([frame.x, frame.naive, frame.y])
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** (11 - np.floor(np.log10(np.abs(values))))
        rounded = np.where(np.isfinite(scale), np.rint(values * scale) / scale, values)
    digest.update((rounded + 0.0).astype("<f8").tobytes())
    return digest.hexdigest()


def to_rows(frame: Frame) -> list[dict[str, Any]]:
    """Rows of COLUMNS."""
    out = []
    for at in range(len(frame)):
        come = frame.y[at] == frame.y[at]
        out.append(
            {
                "origem": date.fromordinal(int(frame.origin[at])),
                "data": date.fromordinal(int(frame.target[at])),
                **{name: float(value) for name, value in zip(FEATURES, frame.x[at], strict=True)},
                "horizonte": int(frame.target[at] - frame.origin[at]),
                "ingenuo": float(frame.naive[at]),
                "receita": float(frame.y[at]) if come else None,
                "negociado": bool(frame.traded[at]) if come else None,
            }
        )
    return out


def from_rows(rows: Sequence[tuple[Any, ...]]) -> Frame:
    """The frame of stored rows, each a tuple in the order of COLUMNS."""
    import numpy as np

    names = list(COLUMNS)
    table = sorted(rows)
    column = {name: [row[at] for row in table] for at, name in enumerate(names)}
    return Frame(
        origin=np.array([day.toordinal() for day in column["origem"]]),
        target=np.array([day.toordinal() for day in column["data"]]),
        x=np.column_stack([np.array(column[name], float) for name in FEATURES]),
        naive=np.array(column["ingenuo"], float),
        y=np.array([np.nan if value is None else value for value in column["receita"]], float),
        traded=np.array([bool(value) for value in column["negociado"]]),
    )
