"""Columns of a silver table: where each comes from, its type and what is made of the delivered text."""

import re
from dataclasses import dataclass, fields
from typing import Literal

from lakehouse.core.errors import DeclarationError
from lakehouse.core.json_path import Step, parse_path
from lakehouse.core.names import check_name, check_timezone, column_name
from lakehouse.tables.spec.member import check_member

Form = Literal["", "epoch_s", "epoch_ms", "epoch_us"]


Rounding = Literal["", "half_up"]


Case = Literal["", "upper", "lower"]


Decimal = Literal["", ",", "."]


Observed = Literal["", "first", "last", "count"]


Invalid = Literal["", "null"]


_TYPES = re.compile(r"string|bigint|int|double|boolean|date|timestamp|decimal\(([1-9]|[12]\d|3[0-8]),(\d|[12]\d|3[0-8])\)")


_NUMBERS = ("bigint", "int", "double")


#: The parts of a format, and which of the others each needs.
_DIRECTIVES = {"d": "", "m": "", "Y": "", "H": "", "M": "H", "S": "M", "f": "S", "z": "H"}


#: Parts that other programs know, and what they are: no engine is asked to guess a language or a century.
_REFUSED = {
    **{"b": "names of months", "B": "names of months", "a": "names of days", "A": "names of days", "p": "AM and PM"},
    **{"I": "hours up to 12", "y": "years of two digits", "j": "days of a year", "Z": "abbreviations of zones"},
}


#: The name of a delivered field: any that a person can read.
_FIELD = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


#: What is declared of a delivered text. A column without them is shown without them.
_TEXT_FORMS = (
    *("path", "rounding", "true", "false", "trim", "case", "format", "timezone", "decimal", "parent", "position"),
    "invalid",
)
#: The path of an element as a whole, in a table whose rows are elements (`TableSpec.explode`).
WHOLE = "$"


#: The bronze column with the fields that have no column of their own, as one JSON object.
EXTRA = "_extra"

#: Kept in silver beside the declared columns. The declared order ends with the extraction time, and an incremental merge
#: cannot compare a late record with the row that is there unless the row remembers its own.
EXTRACTED_AT = "_extracted_at"
#: The same in a table whose rows are elements of records: a digest of what the record says, by which equal versions are told
#: apart, whichever engine reads them.
RECORD_DIGEST = "_record_digest"


@dataclass(frozen=True)
class Column:
    """One silver column.

    Args:
        name: the silver name.
        type: string, bigint, int, double, boolean, date, timestamp (UTC) or decimal(p,s).
        source: the name of the delivered field, exactly as it is, when the column has another name. Without it a field that
            is called like the column but for letter case and punctuation is meant too.
        path: where in a delivered document the value is: `endereco.cidade`, `$.itens[0].sku`. The first step is the field.
        expression: for a calculated column; SQL over the columns declared before it. Such a column has no source.
        description: shown in Dagster and dbt.
        default: what a record without a value gets, as text.
        personal: says something about a person; `make quarantine` and `make sql` do not show it.
        nulls: delivered texts that mean no value.
        form: how an instant is delivered, where it is no text of one: a number of seconds, milliseconds or microseconds since
            1970 (`epoch_s`, `epoch_ms`, `epoch_us`), exact to a microsecond.
        observed: for a column that tells when records of its key were extracted: the `first` and the `last` instant
            (timestamps), or the `count` of distinct ones. Of a single record, as rules and expressions see it, these are its
            own instant, and 1.
        rounding: `half_up` rounds a decimal with more digits after the mark than the type has, and the check `castable`
            counts it. Without it such a value is refused.
        true, false: texts of a boolean besides those that docs/tables.md lists.
        trim: blanks around the text do not count.
        case: the text in `upper` or `lower` case.
        format: how a day or instant is written: `%d/%m/%Y %H:%M`.
        timezone: of a time that is written without an offset, and in which an instant has its day; UTC by default.
        decimal: the decimal mark, `,` or `.`, of amounts that may have the other as thousands mark, and a currency sign.
        parent: in a table whose rows are elements of an array (`TableSpec.explode`): the value is one of the record that has the
            array. Without it `name`, `source` and `path` are those of a field of the element, and `path="$"` is the element.
        position: the place of the element in the array, from 0 as in a path.
        invalid: `null` makes a value that the type does not accept null, and the check `castable` counts it. Without it such a
            value costs the whole record, which goes to quarantine.
    """

    name: str
    type: str
    source: str | None = None
    expression: str | None = None
    description: str = ""
    default: str | None = None
    personal: bool = False
    nulls: tuple[str, ...] = ()
    form: Form = ""
    observed: Observed = ""
    rounding: Rounding = ""
    true: tuple[str, ...] = ()
    false: tuple[str, ...] = ()
    trim: bool = False
    case: Case = ""
    format: str = ""
    timezone: str = ""
    decimal: Decimal = ""
    path: str = ""
    parent: bool = False
    position: bool = False
    invalid: Invalid = ""

    def __repr__(self) -> str:
        """As dataclasses write it, without the text forms that are not declared: code versions are made of it."""
        shown = [field.name for field in fields(self) if field.name not in _TEXT_FORMS or getattr(self, field.name)]
        return f"Column({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __post_init__(self) -> None:
        check_name(self.name, "column name")
        for name, allowed in (
            ("form", Form),
            ("observed", Observed),
            ("rounding", Rounding),
            ("case", Case),
            ("decimal", Decimal),
            ("invalid", Invalid),
        ):
            check_member(getattr(self, name), allowed, f"Column {self.name!r}: {name}")
        if not _TYPES.fullmatch(self.type):
            raise DeclarationError(
                f"Column {self.name!r} has the unknown type {self.type!r}.",
                remedy="Use string, bigint, int, double, boolean, date, timestamp or decimal(p,s) without spaces.",
            )
        decimal = re.fullmatch(r"decimal\((\d+),(\d+)\)", self.type)
        if decimal and int(decimal[2]) > int(decimal[1]):
            raise DeclarationError(
                f"Column {self.name!r}: {self.type} has more decimals than digits.", remedy="Write decimal(digits,decimals)."
            )
        if self.default is not None and self.expression is not None:
            raise DeclarationError(
                f"Column {self.name!r} is calculated and has a default.", remedy="Put the default into the expression (COALESCE)."
            )
        if self.source is not None and self.expression is not None:
            raise DeclarationError(f"Column {self.name!r} has both a source and an expression.", remedy="Keep one of them.")
        if self.source is not None and self.path:
            raise DeclarationError(f"Column {self.name!r} has both a source and a path.", remedy="A path begins with the field.")
        if not _FIELD.fullmatch(self.field):
            raise DeclarationError(
                f"Column {self.name!r} cannot come from a field called {self.field[:80]!r}.",
                remedy="Use the field's name as delivered, of at most 128 characters that can be printed.",
            )
        self._check_fits()
        if self.position and (self.type not in ("int", "bigint") or self.expression is not None or self.observed):
            raise DeclarationError(
                f"Column {self.name!r} cannot be the position of an element.",
                remedy="Declare an int or bigint with position=True alone.",
            )
        if self.observed and self.type not in (("int", "bigint") if self.observed == "count" else ("timestamp",)):
            raise DeclarationError(
                f"Column {self.name!r} is a {self.type} and cannot hold the {self.observed} of its observations.",
                remedy="Use timestamp for first and last, int or bigint for count.",
            )
        forms = [name for name in ("nulls", "form", *_TEXT_FORMS) if name != "position" and getattr(self, name)]
        if not self.delivered and (forms or self.default is not None or self.source is not None):
            raise DeclarationError(
                f"Column {self.name!r} is not delivered, and says how it would be.",
                remedy=f"Leave {', '.join(['source', 'default', *(forms or ['nulls', 'form'])])} out.",
            )

    def _check_fits(self) -> None:
        """Refuse a text form that the type cannot have."""
        what, instant = f"Column {self.name!r} is a {self.type}", self.type in ("date", "timestamp")
        number = self.type.startswith("decimal")
        for name, fits, of in (
            ("rounding", number, "a decimal"),
            ("true", self.type == "boolean", "a boolean"),
            ("false", self.type == "boolean", "a boolean"),
            ("case", self.type == "string", "a string"),
            ("decimal", number or self.type in _NUMBERS, "a number"),
            ("form", instant, "a timestamp or a date"),
            ("format", instant, "a timestamp or a date"),
            ("timezone", instant, "a timestamp or a date"),
            ("invalid", self.type != "string", "a type that does not accept every text"),
        ):
            if getattr(self, name) and not fits:
                raise DeclarationError(f"{what}, and {name} is for {of}.", remedy=f"Leave {name} out, or declare {of}.")
        if set(self.true) & set(self.false) or "" in (*self.true, *self.false):
            raise DeclarationError(
                f"{what} with a text that is both true and false, or none.",
                remedy="Give each text once; texts that mean no value belong into nulls.",
            )
        if self.format and self.form:
            raise DeclarationError(f"{what} with a form and a format.", remedy="Keep the one that the source writes.")
        if self.format:
            self._check_format()
        if self.timezone:
            self._check_timezone()

    def _check_format(self) -> None:
        parts = re.findall(r"%(.?)", self.format.replace("%%", ""))
        odd = sorted({part for part in parts if part not in _DIRECTIVES or parts.count(part) > 1})
        needed = {"Y", "m", "d", *(_DIRECTIVES.get(part, "") for part in parts)} - {""}
        wrong = [
            f"%{part}, {_REFUSED[part]}, is not supported" if part in _REFUSED else f"%{part} is unknown or occurs twice"
            for part in odd
        ]
        wrong += [f"%{part} is missing" for part in sorted(needed - {*parts})]
        wrong += [] if self.format.isprintable() else ["it is not printable"]
        if wrong:
            raise DeclarationError(
                f"Column {self.name!r}: the format {self.format!r} is not one of a day or an instant ({', '.join(wrong)}).",
                remedy="Use %Y, %m and %d once each, then %H, %M, %S, %f and %z. Years have four digits.",
            )

    def _check_timezone(self) -> None:
        if self.type == "timestamp" and (self.form or "%z" in self.format):
            raise DeclarationError(
                f"Column {self.name!r}: its instants are complete without a timezone.", remedy="Leave timezone out."
            )
        check_timezone(self.timezone, f"Column {self.name!r}")

    @property
    def delivered(self) -> bool:
        """Whether records bring the column's value; else it is calculated, observed, or a position."""
        return self.expression is None and not self.observed and not self.position

    @property
    def field(self) -> str:
        """The delivered field that the column is read from."""
        if self.path == WHOLE:
            return WHOLE
        return str(parse_path(self.path)[0]) if self.path else self.name if self.source is None else self.source

    @property
    def steps(self) -> tuple[Step, ...]:
        """Where in the field's document the value is; empty when it is the field itself."""
        return parse_path(self.path)[1:] if self.path and self.path != WHOLE else ()

    @property
    def within(self) -> tuple[Step, ...]:
        """Where in an element the value is; empty when it is the element itself."""
        return () if self.path == WHOLE else (self.field, *self.steps)

    @property
    def bronze_name(self) -> str:
        """The bronze column that has the field, if it has one of its own; else it is in `_extra`."""
        return column_name(self.field) or EXTRA
