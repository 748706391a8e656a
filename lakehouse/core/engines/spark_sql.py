"""Spark's SQL for what DuckDB says otherwise: casts of delivered text, conversions, expressions that may fail.

Pure text, tested against DuckDB value by value. Nothing here raises at run time: a failure is a null, and `attempt` says in a
second text where that null is a failure. (Spark has no TRY over any expression; ANSI mode would end the job.)
"""

import re
from collections.abc import Callable
from typing import Any

from lakehouse.core.engines.statistics import MILLIS
from lakehouse.core.expressions import Expression, tree

_SPACE = r"[ \t\n\x0B\f\r]*"
_DIGITS = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_NUMBER = rf"\A{_SPACE}{_DIGITS}(?:[eE][+-]?\d+)?{_SPACE}\z"
_WHOLE = r"\A[ \t\n\f\r]*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[ \t\n\f\r]*\z"
_ZERO = rf"\A{_SPACE}[+-]?(?:0+\.?0*|\.0+)(?:[eE][+-]?\d+)?{_SPACE}\z"
_DAY = rf"\A{_SPACE}0*(\d{{1,5}})([-/ \\])(\d{{1,2}})\2(\d{{1,2}})"
_TIME = r"[T ] *(\d{1,9}):(\d{1,2})(?::(?:(\d{1,2})(?:\.(\d*))?)?)?"
_OFFSET = r"Z|[+-]\d{2}(?::?\d{2}(?::\d{2})?)?"
_DATE = rf"{_DAY}(?:{_TIME}(?:{_OFFSET})?(?: (?s:.*))?| *)()\z"
_TIMESTAMP = rf"{_DAY}(?:{_TIME}({_OFFSET}| (?!UT *\z)[A-Za-z][A-Za-z0-9_+/-]+)? *)?\z"
_ISO_DATE = r"\A\d{4}-\d{2}-\d{2}\z"
_ISO = r"\A\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-](?:0\d|1[0-7]):[0-5]\d)?\z"
_BOUNDS = {
    "date": ("DATE '0001-01-01'", "DATE '9999-12-31'"),
    "timestamp": ("TIMESTAMP '0001-01-01 00:00:00Z'", "TIMESTAMP '9999-12-31 23:59:59.999999Z'"),
}
_INTEGERS = ("bigint", "int")
_COMPARISONS = ("EQ", "NEQ", "GT", "GTE", "LT", "LTE", "NullSafeEQ", "NullSafeNEQ", "Between", "In")
_TRIED = {"Add": "try_add", "Sub": "try_subtract", "Mul": "try_multiply", "Mod": "try_mod"}
_LEAVES = ("Boolean", "Column", "Interval", "Literal", "Null", "DataType", "DataTypeParam", "Identifier", "Var")
#: Types of the expression language that are called otherwise in specs.
_KINDS = {"text": "string", "varchar": "string", "timestamptz": "timestamp", "timestamp": "timestamp", "integer": "int"}


def quoted(name: str) -> str:
    """A column name as an SQL identifier."""
    return "`" + name.replace("`", "``") + "`"


def raw(text: str) -> str:
    """A pattern of ours as an SQL text without escapes."""
    return f"r'{text}'"


def text_cast(source: str, kind: str) -> str:
    """What a delivered text is as a value of a type, null where it is none; as DuckDB's `_exact_cast` says."""
    if kind == "string":
        return source
    if kind in _INTEGERS:
        whole = _decimal("t", 38, 18)
        nearest = f"try_cast(round({whole}, 0) AS DECIMAL(38,18))"
        closely = f"CASE WHEN t RLIKE {raw(_WHOLE)} AND {whole} = {nearest} THEN try_cast({whole} AS {kind}) END"
        plain = f"try_cast({source} AS {kind})"
        return f"CASE CAST({plain} AS STRING) WHEN {source} THEN {plain} ELSE {_aside(source, closely)} END"
    if kind.startswith("decimal"):
        precision, scale = map(int, re.findall(r"\d+", kind))
        usual = f"{source} RLIKE r'\\A-?\\d{{1,38}}(?:\\.\\d+)?\\z'"
        return f"CASE WHEN {usual} THEN try_cast({source} AS {kind}) ELSE {_aside(source, _decimal('t', precision, scale))} END"
    if kind == "double":
        number = f"CASE WHEN abs(try_cast({source} AS DOUBLE)) < CAST('inf' AS DOUBLE) THEN try_cast({source} AS DOUBLE) END"
        infinite = f"try_cast(trim({source}) AS DOUBLE)"
        return (
            f"CASE WHEN {source} RLIKE {raw(_NUMBER)} THEN {number} "
            f"WHEN {source} RLIKE r'(?i)\\A{_SPACE}[+-]?inf(?:inity)?{_SPACE}\\z' THEN {infinite} "
            f"WHEN {source} RLIKE r'(?i)\\A{_SPACE}[+-]?nan{_SPACE}\\z' THEN CAST('nan' AS DOUBLE) END"
        )
    if kind == "boolean":
        yes, no = "('true', 't', '1', 'y', 'yes')", "('false', 'f', '0', 'n', 'no')"
        return f"CASE WHEN lower({source}) IN {yes} THEN true WHEN lower({source}) IN {no} THEN false END"
    return _epoch(source) if kind == "epoch_ms" else bounded(_date(source) if kind == "date" else _timestamp(source), kind)


def _epoch(source: str) -> str:
    number, (low, high) = text_cast(source, "bigint"), MILLIS
    return f"CASE WHEN {number} BETWEEN {low}L AND {high}L THEN timestamp_millis({number}) END"


def _aside(source: str, value: str) -> str:
    """A text over `t` for the few values that need a closer look. As a lambda it stays out of the generated Java, which is
    not compiled beyond 8 KB a method."""
    return f"transform(array({source}), t -> {value})[0]"


def bounded(value: str, kind: str) -> str:
    """A date or timestamp, null where Delta's readers cannot hold it."""
    low, high = _BOUNDS[kind]
    return f"CASE WHEN {value} BETWEEN {low} AND {high} THEN {value} END"


def _decimal(source: str, precision: int, scale: int) -> str:
    value = f"try_cast({source} AS DECIMAL({precision},{scale}))"
    # Before it looks at the exponent, DuckDB wants the digits before the point to fit.
    before = f"ltrim('0', regexp_extract({source}, r'\\A{_SPACE}[+-]?(\\d*)', 1))"
    fits = f"({source} NOT RLIKE '[eE]' OR length({before}) <= {precision - scale})"
    return (
        f"CASE WHEN {source} RLIKE {raw(_ZERO)} THEN CAST(0 AS DECIMAL({precision},{scale})) "
        f"WHEN {source} RLIKE {raw(_NUMBER)} AND {fits} THEN {value} END"
    )


def _parted(pattern: str, value: str) -> str:
    """A text over `g`, the parts of the instant `t`: year, month, day, hour, minute, second, fraction, zone."""
    parts = f"split(regexp_replace(t, {raw(pattern)}, '$1,$3,$4,$5,$6,$7,$8,$9'), ',')"
    return f"CASE WHEN t RLIKE {raw(pattern)} THEN transform(array({parts}), g -> {value})[0] END"


def _part(number: int, kind: str = "BIGINT") -> str:
    return f"CAST(if(g[{number}] = '', '0', g[{number}]) AS {kind})"


_MIDNIGHT = f"try_make_timestamp({_part(0, 'INT')}, {_part(1, 'INT')}, {_part(2, 'INT')}, 0, 0, 0)"
_SECONDS = f"(({_part(3)} * 60 + {_part(4)}) * 60 + {_part(5)})"
_FRACTION = "CAST(rpad(substr(g[6], 1, 6), 6, '0') AS BIGINT)"
#: Whether the time of day can be.
_POSSIBLE = f"{_part(4)} < 60 AND {_part(5)} < 60 AND ({_part(3)} < 24 OR ({_SECONDS} = 86400 AND {_FRACTION} = 0))"


def _date(source: str) -> str:
    closely = _parted(_DATE, f"CASE WHEN {_POSSIBLE} THEN CAST({_MIDNIGHT} AS DATE) END")
    return (
        f"CASE WHEN {source} RLIKE {raw(_ISO_DATE)} THEN try_cast({source} AS DATE) "
        f"WHEN {source} = 'epoch' THEN DATE '1970-01-01' ELSE {_aside(source, closely)} END"
    )


def _timestamp(source: str) -> str:
    figures = "rpad(regexp_replace(g[7], '[^0-9]', ''), 6, '0')"
    hours, minutes, rest = (f"CAST(substr({figures}, {n}, 2) AS BIGINT)" for n in (1, 3, 5))
    seconds = f"(({hours} * 60 + {minutes}) * 60 + {rest})"
    offset = f"CASE substr(g[7], 1, 1) WHEN '-' THEN -{seconds} WHEN '+' THEN {seconds} ELSE 0 END"
    local = f"timestamp_micros(unix_micros({_MIDNIGHT}) + ({_SECONDS} - ({offset})) * 1000000 + {_FRACTION})"
    named = f"try_cast(concat(date_format({local}, 'yyyy-MM-dd HH:mm:ss.SSSSSS'), g[7]) AS TIMESTAMP)"
    closely = _parted(_TIMESTAMP, f"CASE WHEN {_POSSIBLE} THEN if(g[7] LIKE ' %', {named}, {local}) END")
    return (
        f"CASE WHEN {source} RLIKE {raw(_ISO)} AND substr({source}, 12, 2) < '24' THEN try_cast({source} AS TIMESTAMP) "
        f"WHEN {source} = 'epoch' THEN TIMESTAMP '1970-01-01 00:00:00Z' ELSE {_aside(source, closely)} END"
    )


def convert(value: str, source: str, kind: str) -> str:
    """A value of one type as another, as DuckDB converts it; null where it cannot be."""
    converted = f"try_cast({value} AS {kind})"
    if source == kind:
        converted = value
    elif source == "string":  # DuckDB rounds to an integer here; a delivered text is cast exactly
        rounded = _aside(value, f"try_cast(round({_decimal('t', 38, 18)}, 0) AS {kind})")
        converted = rounded if kind in _INTEGERS else text_cast(value, kind)
    elif source == "timestamp" and kind == "string":
        converted = f"concat(CAST({value} AS STRING), '+00')"
    elif kind in _INTEGERS and source == "double":  # DuckDB rounds to the even neighbour, Spark cuts off
        converted = f"try_cast(rint({value}) AS {kind})"
    elif kind in _INTEGERS and source.startswith("decimal"):
        converted = f"try_cast(round({value}, 0) AS {kind})"
    elif kind.startswith("decimal") and source == "double":
        _, scale = map(int, re.findall(r"\d+", kind))
        whole = f"rint({value} * 1e{scale}D)"
        exact = f"coalesce(try_cast(try_cast({whole} AS BIGINT) AS DECIMAL(38,0)), try_cast({whole} AS DECIMAL(38,0)))"
        converted = f"try_cast(try_multiply({exact}, CAST('1e-{scale}' AS DECIMAL(38,{scale}))) AS {kind})"
    elif kind in _BOUNDS and source not in _BOUNDS:
        converted = bounded(converted, kind)
    return converted


def must_convert(value: str, source: str, kind: str) -> str:
    """`convert`, for where a value that cannot be ends the work."""
    if source == kind:
        return value
    converted = convert(value, source, kind)
    message = f"concat('Could not convert ', coalesce(CAST({value} AS STRING), ''), ' to {kind}')"
    return f"CASE WHEN {value} IS NOT NULL AND {converted} IS NULL THEN raise_error({message}) ELSE {converted} END"


def attempt(expression: Expression, kind: str, typed: Callable[[str], str]) -> tuple[str, str]:
    """The value of an expression, converted to a type, and a condition that is true where it could not be evaluated.

    Args:
        typed: the type of an SQL text over the columns at hand.
    """
    compiler = _Compiler(typed)
    value = compiler.cast(compiler.value(tree(expression)), kind)
    return value, compiler.failed()


class _Compiler:
    """Turns a checked expression into text, and gathers the conditions under which a part of it fails."""

    def __init__(self, typed: Callable[[str], str]) -> None:
        self._typed = typed
        self._conditions: list[str] = []
        #: What has to hold for the part at hand to be evaluated at all (an arm of CASE).
        self._when: list[str] = []

    def failed(self) -> str:
        return " OR ".join(self._conditions) or "false"

    def value(self, node: Any) -> str:
        name = type(node).__name__
        special = getattr(self, f"_{name.lower()}", None)
        if special is not None:
            return str(special(node))
        if name in _TRIED:
            left, right = self.value(node.this), self.value(node.expression)
            return self._strict(f"{_TRIED[name]}({left}, {right})", left, right)
        if name in _LEAVES:
            return str(node.sql("spark", comments=False))
        return self._rebuilt(node)

    def cast(self, value: str, kind: str) -> str:
        """A conversion that fails where there is a value and the converted one is null."""
        converted = convert(value, self._typed(value), kind)
        return value if converted == value else self._strict(converted, value)

    def _strict(self, value: str, *arguments: str) -> str:
        given = " AND ".join(f"({argument}) IS NOT NULL" for argument in arguments)
        self._conditions.append("(" + " AND ".join([*self._when, given, f"({value}) IS NULL"]) + ")")
        return value

    def _under(self, condition: str, node: Any) -> str:
        self._when.append(condition)
        value = self.value(node)
        self._when.pop()
        return value

    def _rebuilt(self, node: Any) -> str:
        """A node of Spark's own words over computed parts."""
        from sqlglot import exp

        node = node.copy()
        parts = [part for part in node.iter_expressions() if type(part).__name__ not in _LEAVES or isinstance(part, exp.Column)]
        values = [self.value(part) for part in parts]
        if type(node).__name__ in _COMPARISONS:
            values = self._alike(node, parts, values)
        for part, value in zip(parts, values, strict=True):
            part.replace(exp.Var(this=f"({value})"))
        return str(node.sql("spark", comments=False))

    def _alike(self, node: Any, parts: list[Any], values: list[str]) -> list[str]:
        """A text that is compared with something else becomes that something."""
        every = [*values, *(self.value(part) for part in node.iter_expressions() if type(part).__name__ == "Literal")]
        kinds = [self._typed(value) for value in every]
        other = next((kind for kind in kinds if kind not in ("string", "void")), None)
        if other is None or "string" not in kinds[: len(values)]:
            return values
        return [self.cast(value, other) if kind == "string" else value for value, kind in zip(values, kinds, strict=False)]

    def _paren(self, node: Any) -> str:
        return f"({self.value(node.this)})"

    def _neg(self, node: Any) -> str:
        value = self.value(node.this)
        if type(node.this).__name__ == "Literal":
            return f"-{value}"
        return self._strict(f"try_multiply({value}, -1)", value)

    def _abs(self, node: Any) -> str:
        value = self.value(node.this)
        if self._typed(value) not in _INTEGERS:
            return f"abs({value})"
        return self._strict(f"if({value} < 0, try_multiply({value}, -1), {value})", value)

    def _div(self, node: Any) -> str:
        """Always of doubles, and by zero it is infinite."""
        left, right = (f"CAST({self.value(part)} AS DOUBLE)" for part in (node.this, node.expression))
        return f"if({right} = 0, {left} * CAST('inf' AS DOUBLE), {left} / nullif({right}, 0))"

    def _intdiv(self, node: Any) -> str:
        left, right = self.value(node.this), self.value(node.expression)
        if not {self._typed(left), self._typed(right)} <= set(_INTEGERS):
            return self._div(node)
        value = f"CASE {right} WHEN 0 THEN NULL WHEN -1 THEN try_multiply({left}, -1) ELSE {left} div {right} END"
        return self._strict(value, left, right)

    def _cast(self, node: Any) -> str:
        kind = _kind(node.to)
        value = self.value(node.this)
        return self.cast(value, kind)

    def _trycast(self, node: Any) -> str:
        value = self.value(node.this)
        return convert(value, self._typed(value), _kind(node.to))

    def _case(self, node: Any) -> str:
        subject = self.value(node.this) if node.this is not None else None
        arms, passed = [], 0
        for arm in node.args["ifs"]:
            condition = self.value(arm.this) if subject is None else f"({subject}) = ({self.value(arm.this)})"
            arms.append(f"WHEN {condition} THEN {self._under(condition, arm.args['true'])}")
            self._when.append(f"({condition}) IS NOT TRUE")
            passed += 1
        default = node.args.get("default")
        last = f" ELSE {self.value(default)}" if default is not None else ""
        del self._when[len(self._when) - passed :]
        return f"CASE {' '.join(arms)}{last} END"

    def _coalesce(self, node: Any) -> str:
        values: list[str] = []
        for part in (node.this, *node.expressions):
            values.append(self.value(part))
            self._when.append(f"({values[-1]}) IS NULL")
        del self._when[len(self._when) - len(values) :]
        return f"coalesce({', '.join(values)})"

    def _like(self, node: Any) -> str:
        """Without ESCAPE a backslash is a backslash."""
        negated = "NOT " if node.args.get("negate") else ""
        return f"({self.value(node.this)}) {negated}LIKE {self.value(node.expression)} ESCAPE '\\u0001'"

    def _regexplike(self, node: Any) -> str:
        """At the end of a text `$` also matches before a line break in Java."""
        from sqlglot import exp

        pattern = node.expression
        if isinstance(pattern, exp.Literal) and pattern.name.endswith("$") and not pattern.name.endswith("\\$"):
            pattern = exp.Literal.string(pattern.name[:-1] + "\\z")
        negated = "NOT " if node.args.get("negate") else ""
        return f"({self.value(node.this)}) {negated}RLIKE {self.value(pattern)}"


def _kind(target: Any) -> str:
    """The spec's word for a type of the expression language, else Spark's."""
    words = target.sql("duckdb").lower().replace(" ", "")
    return _KINDS.get(words, words if words.startswith("decimal(") else str(target.sql("spark")).lower())
