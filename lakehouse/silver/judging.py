"""The verdict on records: cast, transformed, calculated, and judged by the row rules; and what becomes of those refused.

    bronze records ─▶ cast ─▶ transform ─▶ calculated columns ─▶ accepted? ─▶ quarantine, with the rules that they violate

A delete needs its key and its place in the order; what else it says does not matter.
"""

import importlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import narwhals as nw

from lakehouse.core import rules
from lakehouse.core.engines import Session
from lakehouse.core.expressions import Expression
from lakehouse.core.landing.airbyte import ENVELOPE
from lakehouse.core.rules import Release, Severity
from lakehouse.silver.checks import TYPES
from lakehouse.silver.feeds import PLACE
from lakehouse.tables.spec import EXTRACTED_AT, Column, RowRule, TableRule, TableSpec

DELETED, ACCEPTED, EXPIRED = "_deleted", "_accepted", "_expired"
Verdicts = Mapping[str, nw.Expr]


class Judge:
    """The declared rules of a table, as they act in this run.

    `floor` is the instant before which records have expired: they are neither accepted nor refused.
    """

    def __init__(self, session: Session, spec: TableSpec, *, release: Release | None, floor: datetime | None = None) -> None:
        self._session, self._spec, self._release, self.floor = session, spec, release, floor
        declared: list[RowRule | TableRule] = [*spec.row_rules, *spec.table_rules]
        self.declared: dict[str, Severity] = {rule.name: rule.action for rule in declared}
        self.actions = {rule.name: self._action(rule) for rule in declared}
        conditions = {rule.name: spec.parsed(rule.condition) for rule in spec.row_rules}
        self.warnings = {name: condition for name, condition in conditions.items() if self.actions[name] == "warn"}
        self._conditions = {name: condition for name, condition in conditions.items() if name not in self.warnings}

    @property
    def relaxed(self) -> dict[str, Expression]:
        """Rules that stop a batch, and that a release lets it pass."""
        return {name: condition for name, condition in self.warnings.items() if self.declared[name] == "fail"}

    def judged(self, records: "nw.LazyFrame[Any]") -> "tuple[nw.LazyFrame[Any], Verdicts]":
        """The records with silver's columns and the verdict; and an expression per rule, true where it is violated."""
        spec, session = self._spec, self._session
        raw = {name: f"_raw_{name}" for name in dict.fromkeys(column.bronze_name for column in spec.delivered)}
        frame = records.select(
            *[nw.col(name) for name in (*ENVELOPE, *PLACE)],
            nw.col("_airbyte_extracted_at").alias(EXTRACTED_AT),
            *[_meant(spec, name).alias(alias) for name, alias in raw.items()],
        )
        if spec.observed:
            frame = frame.with_columns(**{column.name: _alone(column) for column in spec.observed})
        frame = session.cast(frame, {c.name: (raw[c.bronze_name], c.form or c.type) for c in spec.delivered})
        # Nearly every value casts, so the text is looked at only where it did not.
        uncast = {
            column.name: nw.when(nw.col(column.name).is_null())
            .then((nw.col(raw[column.bronze_name]) != "").fill_null(False))
            .otherwise(False)
            for column in spec.delivered
            if column.type != "string"
        }
        # Judged before the transform: it may replace what was cast.
        frame = frame.with_columns(**{f"_uncast_{name}": flag for name, flag in uncast.items()})
        if spec.transform is not None:
            frame = importlib.import_module(f"lakehouse.silver.transforms.{spec.transform}").transform(frame)
        calculated = {c.name: (spec.parsed(c.expression), c.type) for c in spec.columns if c.expression is not None}
        frame = session.compute(frame, calculated, failed="_failed_")
        deleted = {DELETED: (spec.parsed(spec.deleted or "FALSE"), "boolean")}
        frame = session.compute(frame, deleted, failed="_failed_").with_columns(nw.col(DELETED).fill_null(False))
        frame, broken = rules.violations(session, frame, self._conditions)
        types = {f"{TYPES}_{name}": nw.col(f"_uncast_{name}") for name in uncast}
        types |= {f"{TYPES}_{name}": nw.col(f"_failed_{name}") for name in (*calculated, DELETED)}
        needed = {f"not_null_{n}" for n in spec.never_null} | {f"{TYPES}_{n}" for n in (*spec.never_null, *spec.order)}
        every = {**types, **broken}
        always = _any([flag for name, flag in every.items() if name in needed])
        rest = [flag for name, flag in every.items() if name not in needed]
        unless_deleted = _any(rest) & ~nw.col(DELETED)
        verdicts = {name: flag if name in needed else flag & ~nw.col(DELETED) for name, flag in every.items()}
        frame = frame.with_columns((~(always | unless_deleted)).alias(ACCEPTED))
        if self.floor is not None:
            past = older(spec, self.floor).fill_null(False) & ~nw.col(DELETED)
            frame = frame.with_columns((nw.col(ACCEPTED) & past).alias(EXPIRED))
            frame = frame.with_columns((nw.col(ACCEPTED) & ~nw.col(EXPIRED)).alias(ACCEPTED))
        return frame, verdicts

    def accepted(self, records: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """Those that no rule refuses."""
        return self._session.sift(self.judged(records)[0], ACCEPTED)

    def refused(self, judged: "nw.LazyFrame[Any]", verdicts: Verdicts, *, run_id: str) -> "nw.LazyFrame[Any]":
        """The refused records as quarantine has them, with a flag `_is_<rule>` for each rule that they may violate."""
        names = list(dict.fromkeys(column.bronze_name for column in self._spec.delivered))
        frame = judged.filter(~nw.col(ACCEPTED) if self.floor is None else ~nw.col(ACCEPTED) & ~nw.col(EXPIRED))
        frame = frame.with_columns(**{f"_is_{name}": flag.fill_null(False) for name, flag in verdicts.items()})
        violated = [nw.when(nw.col(f"_is_{name}")).then(nw.lit(name)) for name in verdicts]
        frame = frame.with_columns(nw.concat_str(*violated, separator=", ", ignore_nulls=True).alias("_rules"))
        frame = frame.drop(*[column.name for column in self._spec.columns if f"_raw_{column.name}" not in frame.columns])
        frame = frame.with_columns(**{name: nw.col(f"_raw_{name}") for name in names})
        frame = self._session.documents(frame, "_record", names)
        return frame.select(
            nw.lit("silver").alias("layer"),
            nw.col("_rules").alias("rules"),
            nw.concat_str(nw.lit("It violates "), nw.col("_rules"), nw.lit(".")).alias("reason"),
            nw.col("_record").alias("record"),
            nw.col("_source_file").alias("source_file"),
            nw.col("_airbyte_raw_id").alias("raw_id"),
            nw.col("_batch_id").alias("batch_id"),
            nw.lit(run_id).alias("run_id"),
            nw.lit(datetime.now(UTC)).alias("quarantined_at"),
            nw.col(PLACE[0]),
            *[nw.col(f"_is_{name}") for name in verdicts],
        )

    def _action(self, rule: RowRule | TableRule) -> Severity:
        """What a rule does in this run. A key is never null, whatever is released."""
        if rule.action != "fail" or self._release is None:
            return rule.action
        if isinstance(rule, TableRule):
            return "warn" if self._release.accept else "fail"
        strict = rule.name in {f"not_null_{name}" for name in self._spec.never_null}
        return "quarantine" if strict else self._release.action


def older(spec: TableSpec, instant: datetime) -> "nw.Expr":
    """Whether a row's event date is before an instant; of a date, whether all of that day is."""
    event = spec.retention.event if spec.retention is not None else ""
    kind = next(column.type for column in spec.columns if column.name == event)
    return nw.col(event) < nw.lit(instant if kind == "timestamp" else instant.date())


def _any(flags: Sequence["nw.Expr"]) -> "nw.Expr":
    return nw.any_horizontal(*flags, ignore_nulls=False) if flags else nw.lit(False)


def _meant(spec: TableSpec, field: str) -> "nw.Expr":
    """A delivered text, null where it means that there is no value, and the declared default where it is null."""
    columns = [column for column in spec.delivered if column.bronze_name == field]
    value = nw.col(field)
    if nothing := sorted({text for column in columns for text in column.nulls}):
        value = nw.when(~value.is_in(nothing)).then(value)
    default = next((column.default for column in columns if column.default is not None), None)
    return value if default is None else value.fill_null(default)


def _alone(column: Column) -> "nw.Expr":
    """What an observed column is for a single record."""
    if column.observed == "count":
        return nw.lit(1).cast(nw.Int64 if column.type == "bigint" else nw.Int32)
    return nw.col(EXTRACTED_AT)
