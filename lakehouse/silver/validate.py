"""Validation of records: cast, transformed, calculated, and checked by the row rules; and what becomes of those refused.

    bronze records ─▶ cast ─▶ transform ─▶ calculated columns ─▶ accepted? ─▶ quarantine, with the rules that they violate

Where the rows are elements of an array, all of this is done of elements (`elements.py`), and a record is accepted whole.

A delete needs its key and its place in the order; what else it says does not matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import narwhals as nw

from lakehouse.core import rules
from lakehouse.core.engines.casts import BLANKS, Cast
from lakehouse.core.engines.session import Session
from lakehouse.core.expressions import Expression
from lakehouse.core.rules import Release, Severity
from lakehouse.landing.readers.files.fields import ENVELOPE
from lakehouse.silver import elements, transforms
from lakehouse.silver.checks import TYPES
from lakehouse.silver.elements import INDEX, NO_DOCUMENT
from lakehouse.silver.inputs import ROW_ID
from lakehouse.tables.spec import EXTRACTED_AT, Column, RowRule, TableRule, TableSpec

DELETED, ACCEPTED, EXPIRED = "_deleted", "_accepted", "_expired"
#: Before a column's name: whether its value was rounded, or is null since its text was no value.
ROUNDED, INVALID = "_rounded_", "_invalid_"
#: Before a column's name: the beginning of the text that it was cast from, beside a refused record.
TEXT = "_text_"
_BEGINNING = 100
Violations = Mapping[str, nw.Expr]


class Validator:
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

    def validated(self, records: "nw.LazyFrame[Any]") -> "tuple[nw.LazyFrame[Any], Violations]":
        """The records with silver's columns and the result of each rule; an expression per rule, true where it is violated."""
        spec, session = self._spec, self._session
        frame = texts(session, spec, records, *ENVELOPE, *ROW_ID)
        frame = frame.with_columns(nw.col("_airbyte_extracted_at").alias(EXTRACTED_AT))
        if spec.observed:
            frame = frame.with_columns(**{column.name: _alone(column) for column in spec.observed})
        frame = session.cast(frame, {c.name: (text_of(spec, c), cast_of(c)) for c in spec.delivered})
        frame = self._with_rounded(frame)
        uncast = self._uncast()
        # Checked before the transform: it may replace what was cast.
        without = {c.name for c in spec.delivered if c.invalid}
        flags = {f"{INVALID if name in without else '_uncast_'}{name}": flag for name, flag in uncast.items()}
        if flags:  # none in a table of texts
            frame = frame.with_columns(**flags)
        uncast = {name: flag for name, flag in uncast.items() if name not in without}
        unfit: list[str] = []
        if spec.explode:
            kind = next(nw.Int32 if column.type == "int" else nw.Int64 for column in spec.columns if column.position)
            frame = frame.with_columns(nw.col(INDEX).cast(kind).alias(spec.position))
        if spec.transform is not None:
            frame, unfit = self._transformed(frame, spec.transform)
        calculated = {c.name: (spec.parsed(c.expression), c.type) for c in spec.columns if c.expression is not None}
        frame = session.compute(frame, calculated, failed="_failed_")
        deleted = {DELETED: (spec.parsed(spec.deleted or "FALSE"), "boolean")}
        frame = session.compute(frame, deleted, failed="_failed_").with_columns(nw.col(DELETED).fill_null(False))
        frame, broken = rules.violations(session, frame, self._conditions)
        types = {f"{TYPES}_{name}": nw.col(f"_uncast_{name}") for name in uncast}
        types |= {f"{TYPES}_{name}": nw.col(f"_failed_{name}") for name in (*calculated, DELETED)}
        types |= {(rule := f"{TYPES}_{name}"): types.get(rule, nw.lit(False)) | nw.col(f"_unfit_{name}") for name in unfit}
        frame, violations = self._with_accepted(frame, {**types, **broken})
        if self.floor is not None:
            past = older(spec, self.floor).fill_null(False) & ~nw.col(DELETED)
            frame = frame.with_columns((nw.col(ACCEPTED) & past).alias(EXPIRED))
            frame = frame.with_columns((nw.col(ACCEPTED) & ~nw.col(EXPIRED)).alias(ACCEPTED))
        return frame, violations

    def _transformed(self, frame: "nw.LazyFrame[Any]", transform: str) -> "tuple[nw.LazyFrame[Any], list[str]]":
        """What the transform makes of the cast records, in the declared types, and the columns that it gave another one: a value
        that the declared type cannot hold is null, and flagged as `_unfit_<column>`."""
        spec, before = self._spec, frame.collect_schema()
        frame = transforms.load(transform, spec.silver).transform(frame)
        after = frame.collect_schema()
        other = {c.name: c.type for c in spec.delivered if c.name in after and after[c.name] != before[c.name]}
        values = {name: (spec.parsed(f'"{name}"'), kind) for name, kind in other.items()}
        return self._session.compute(frame, values, failed="_unfit_"), [*other]

    def _uncast(self) -> "dict[str, nw.Expr]":
        """By column, and by the array whose elements are the rows: whether its text is no value of it."""
        spec = self._spec
        # Nearly every value casts, so the text is looked at only where it did not.
        uncast = {
            column.name: nw.when(nw.col(column.name).is_null())
            .then((_trimmed(nw.col(text_of(spec, column)), column.trim) != "").fill_null(False))
            .otherwise(False)
            for column in spec.delivered
            if column.type != "string"
        }
        for column in spec.of_record:
            if column.steps:
                uncast[column.name] = nw.col(f"{NO_DOCUMENT}{text_of(spec, column)}") | uncast.get(column.name, nw.lit(False))
        if spec.array is not None:
            uncast[spec.array.name] = nw.col(elements.NO_ARRAY) | uncast.get(spec.array.name, nw.lit(False))
        return uncast

    def _with_accepted(self, frame: "nw.LazyFrame[Any]", every: Violations) -> "tuple[nw.LazyFrame[Any], Violations]":
        """The records with whether they are accepted, and what they violate; a delete needs its key and its place alone."""
        spec = self._spec
        never, order = ([name for name in names if name in spec.record_level] for names in (spec.never_null, spec.order))
        needed = {f"not_null_{n}" for n in never} | {f"{TYPES}_{n}" for n in (*never, *order)}
        violations = {name: flag if name in needed else flag & ~nw.col(DELETED) for name, flag in every.items()}
        if spec.explode:
            about = self._about_elements - {f"{TYPES}_{spec.array.name}" if spec.array is not None else ""}
            flags = {f"_is_{name}": flag for name, flag in elements.masked(violations, about).items()}
            frame = elements.accepted_whole(
                self._session, frame.with_columns(**flags), list(flags), accepted=ACCEPTED, deleted=DELETED
            )
            return frame, {name: nw.col(f"_is_{name}") for name in violations}
        always = _any([flag for name, flag in every.items() if name in needed])
        rest = [flag for name, flag in every.items() if name not in needed]
        unless_deleted = _any(rest) & ~nw.col(DELETED)
        return frame.with_columns((~(always | unless_deleted)).alias(ACCEPTED)), violations

    @property
    def _about_elements(self) -> frozenset[str]:
        """The violations that are those of an element, where the rows are elements."""
        reads = {f"{TYPES}_{column.name}": {column.name} for column in (*self._spec.columns, *self._spec.of_record)}
        reads |= {name: {*condition.columns} for name, condition in self._conditions.items()}
        return frozenset(name for name, columns in reads.items() if not columns <= self._spec.record_level)

    def _with_rounded(self, frame: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """The records with a flag `_rounded_<column>`: whether the value is another than the one that was delivered."""
        rounding = [column for column in self._spec.delivered if column.rounding]
        if not rounding:
            return frame
        exact = {f"_exact_{c.name}": (text_of(self._spec, c), replace(cast_of(c), rounding="")) for c in rounding}
        frame = self._session.cast(frame, exact)
        flags = {c.name: ~nw.col(c.name).is_null() & nw.col(f"_exact_{c.name}").is_null() for c in rounding}
        return frame.with_columns(**{f"{ROUNDED}{name}": flag for name, flag in flags.items()}).drop(*exact)

    def altered(self, validated: "nw.LazyFrame[Any]") -> dict[str, int]:
        """How many values of a column are another than was delivered, as declared: `rounded_<column>`, `invalid_<column>`."""
        names = [f"{ROUNDED}{column.name}" for column in self._spec.delivered if column.rounding]
        names += [f"{INVALID}{column.name}" for column in self._spec.delivered if column.invalid]
        if not names:
            return {}
        flags = [nw.col(name).cast(nw.Int64).sum().alias(name) for name in names]
        counts = self._session.rows(validated.select(*flags))[0]
        return {name.removeprefix("_"): int(count or 0) for name, count in zip(names, counts, strict=True) if count}

    def accepted(self, records: "nw.LazyFrame[Any]") -> "nw.LazyFrame[Any]":
        """Those that no rule refuses."""
        return self._session.filter_true(self.validated(records)[0], ACCEPTED)

    def refused(self, validated: "nw.LazyFrame[Any]", violations: Violations, *, run_id: str) -> "nw.LazyFrame[Any]":
        """The refused records as quarantine has them, with a flag `_is_<rule>` for each rule that they may violate, and the
        beginnings of the texts that are cast."""
        spec = self._spec
        cast = {c.name: text_of(spec, c) for c in spec.delivered if c.type != "string"}
        cast |= {c.name: f"_raw_{spec.text_of(c)}" for c in spec.of_record if c.steps and c.type == "string"}
        cast |= {spec.array.name: elements.ARRAY_TEXT} if spec.array is not None else {}
        fields, flags = list(spec.fields), [f"_is_{name}" for name in violations]
        frame = validated.filter(~nw.col(ACCEPTED) if self.floor is None else ~nw.col(ACCEPTED) & ~nw.col(EXPIRED))
        frame = frame.with_columns(
            **{f"_is_{name}": flag.fill_null(False) for name, flag in violations.items()},
            **{TEXT + name: nw.col(text).str.slice(0, _BEGINNING) for name, text in cast.items()},
        )
        reason = [nw.lit("It violates "), nw.col("_rules"), nw.lit(".")]
        if spec.explode:
            about = {f"_is_{name}": name in self._about_elements for name in violations}
            samples = {f"_is_{TYPES}_{name}": TEXT + name for name in cast}
            own = [*(f"_raw_{name}" for name in fields), "_source_file", "_airbyte_raw_id", "_batch_id"]
            frame = elements.gathered(frame, flags=about, texts=samples, of_record=own)
            reason.append(elements.first_of(spec))
        else:
            frame = frame.drop(*[column.name for column in spec.columns if f"_raw_{column.name}" not in frame.columns])
        violated = [nw.when(nw.col(f"_is_{name}")).then(nw.lit(name)) for name in violations]
        frame = frame.with_columns(nw.concat_str(*violated, separator=", ", ignore_nulls=True).alias("_rules"))
        frame = frame.with_columns(**{name: nw.col(f"_raw_{name}") for name in fields})
        frame = self._session.documents(frame, "_record", fields)
        return frame.select(
            nw.lit("silver").alias("layer"),
            nw.col("_rules").alias("rules"),
            nw.concat_str(*reason).alias("reason"),
            nw.col("_record").alias("record"),
            nw.col("_source_file").alias("source_file"),
            nw.col("_airbyte_raw_id").alias("raw_id"),
            nw.col("_batch_id").alias("batch_id"),
            nw.lit(run_id).alias("run_id"),
            nw.lit(datetime.now(UTC)).alias("quarantined_at"),
            nw.col(ROW_ID[0]),
            *map(nw.col, (*flags, *(TEXT + name for name in cast))),
        )

    def _action(self, rule: RowRule | TableRule) -> Severity:
        """What a rule does in this run. A key is never null, whatever is released."""
        if rule.action != "fail" or self._release is None:
            return rule.action
        if isinstance(rule, TableRule):
            return "warn" if self._release.accept else "fail"
        strict = rule.name in {f"not_null_{name}" for name in self._spec.never_null}
        return "quarantine" if strict else self._release.action


def cast_of(column: Column) -> Cast:
    """What the delivered text of a column is read as."""
    return Cast(
        column.type,
        rounding=column.rounding,
        true=column.true,
        false=column.false,
        trim=column.trim,
        case=column.case,
        form=column.form,
        format=column.format,
        timezone=column.timezone if column.timezone != "UTC" else "",
        decimal=column.decimal,
    )


def older(spec: TableSpec, instant: datetime) -> "nw.Expr":
    """Whether a row's event date is before an instant; of a date, whether all of that day is."""
    event = spec.retention.event if spec.retention is not None else ""
    kind = next(column.type for column in spec.columns if column.name == event)
    return nw.col(event) < nw.lit(instant if kind == "timestamp" else instant.date())


def _any(flags: Sequence["nw.Expr"]) -> "nw.Expr":
    return nw.any_horizontal(*flags, ignore_nulls=False) if flags else nw.lit(False)


def texts(session: Session, spec: TableSpec, records: "nw.LazyFrame[Any]", *beside: str) -> "nw.LazyFrame[Any]":
    """The text that each delivered column is cast from, as `text_of` names it: null where it means no value, and the declared
    default where it is null; with the columns `beside`.

    Args:
        records: with the delivered fields under the names of `TableSpec.fields`.
    """
    whole, within = ([c for c in spec.of_record if bool(c.steps) is nested] for nested in (False, True))
    fields = {name: [c for c in whole if c.field == field] for name, field in spec.fields.items()}
    frame = records.select(*beside, **{f"_raw_{name}": _meant(nw.col(name), columns) for name, columns in fields.items()})
    if within:
        paths = {text_of(spec, c): (f"_raw_{spec.text_of(c)}", c.steps) for c in within}
        frame = session.extract(frame, paths, failed=NO_DOCUMENT)
        frame = frame.with_columns(**{text_of(spec, c): _meant(nw.col(text_of(spec, c)), [c]) for c in within})
    if spec.array is None:
        return frame
    frame = elements.exploded(session, spec, frame, array=text_of(spec, spec.array))
    return frame.with_columns(**{text_of(spec, c): _meant(nw.col(text_of(spec, c)), [c]) for c in spec.of_elements})


def text_of(spec: TableSpec, column: Column) -> str:
    """The name of the text that a column is cast from."""
    if column in spec.of_elements:
        return elements.text_of(column)
    return f"_path_{column.name}" if column.steps else f"_raw_{spec.text_of(column)}"


def _meant(value: "nw.Expr", columns: Sequence[Column]) -> "nw.Expr":
    """A delivered text, null where it means no value, and the declared default where it is null."""
    if nothing := sorted({text for column in columns for text in column.nulls}):
        trim = any(column.trim for column in columns)
        value = nw.when(~_trimmed(value, trim).is_in(nothing)).then(value)
    default = next((column.default for column in columns if column.default is not None), None)
    return value if default is None else value.fill_null(default)


def _trimmed(value: "nw.Expr", trim: bool) -> "nw.Expr":
    return value.str.strip_chars(BLANKS) if trim else value


def _alone(column: Column) -> "nw.Expr":
    """What an observed column is for a single record."""
    if column.observed == "count":
        return nw.lit(1).cast(nw.Int64 if column.type == "bigint" else nw.Int32)
    return nw.col(EXTRACTED_AT)
