"""Spark's SQL for what DuckDB says otherwise: casts of delivered text, conversions, expressions that may fail.

Pure text, tested against DuckDB value by value. Nothing here raises at run time: a failure is a null, and `attempt` says in a
second text where that null is a failure. (Spark has no TRY over any expression; ANSI mode would end the job.)
"""

import re
from collections.abc import Callable
from typing import Any

from lakehouse.core.engines.casts import INTEGERS, Cast, is_exact, may_round
from lakehouse.core.engines.spark_casts import CASTS, bounded
from lakehouse.core.expressions import Expression, tree

_BOUNDED = ("date", "timestamp")
_COMPARISONS = ("EQ", "NEQ", "GT", "GTE", "LT", "LTE", "NullSafeEQ", "NullSafeNEQ", "Between", "In")
_TRIED = {"Add": "try_add", "Sub": "try_subtract", "Mul": "try_multiply", "Mod": "try_mod"}
_LEAVES = ("Boolean", "Column", "Interval", "Literal", "Null", "DataType", "DataTypeParam", "Identifier", "Var")
#: Types of the expression language that are called otherwise in specs.
_KINDS = {"text": "string", "varchar": "string", "timestamptz": "timestamp", "timestamp": "timestamp", "integer": "int"}


def quoted(name: str) -> str:
    """A column name as an SQL identifier."""
    return "`" + name.replace("`", "``") + "`"


def convert(value: str, source: str, kind: str) -> str:
    """A value of one type as another, as DuckDB converts it; null where it cannot be."""
    converted = f"try_cast({value} AS {kind})"
    if source == kind:
        converted = value
    elif source == "string":  # DuckDB rounds here; a delivered text is cast exactly
        rounded = f"try_cast({CASTS.strict(value, Cast('decimal(38,0)', rounding='half_up'))} AS {kind})"
        converted = rounded if kind in INTEGERS else CASTS.strict(value, Cast(kind, rounding="half_up"))
    elif source == "timestamp" and kind == "string":
        converted = f"concat(CAST({value} AS STRING), '+00')"
    elif kind in INTEGERS and source == "double":  # DuckDB rounds to the even neighbour, Spark cuts off
        converted = f"try_cast(rint({value}) AS {kind})"
    elif kind in INTEGERS and source.startswith("decimal"):
        converted = f"try_cast(round({value}, 0) AS {kind})"
    elif kind.startswith("decimal") and source == "double":
        _, scale = map(int, re.findall(r"\d+", kind))
        whole = f"rint({value} * 1e{scale}D)"
        exact = f"coalesce(try_cast(try_cast({whole} AS BIGINT) AS DECIMAL(38,0)), try_cast({whole} AS DECIMAL(38,0)))"
        converted = f"try_cast(try_multiply({exact}, CAST('1e-{scale}' AS DECIMAL(38,{scale}))) AS {kind})"
    elif kind in _BOUNDED and source not in _BOUNDED:
        converted = bounded(converted, kind)
    return converted


def must_convert(value: str, source: str, kind: str) -> str:
    """`convert`, for where a value that cannot be ends the work."""
    if source == kind:
        return value
    converted = convert(value, source, kind)
    message = f"concat('Could not convert ', coalesce(CAST({value} AS STRING), ''), ' to {kind}')"
    return f"CASE WHEN {_lost(value, converted, source, kind)} THEN raise_error({message}) ELSE {converted} END"


def _lost(value: str, converted: str, source: str, kind: str) -> str:
    """Whether there is a value and its conversion is none, or another number."""
    lost = f"({converted}) IS NULL"
    if may_round(source, kind):
        lost = f"NOT coalesce(try_cast({converted} AS {source}) = ({value}), false)"
    return f"(({value}) IS NOT NULL AND {lost})"


def attempt(expression: Expression, kind: str, typed: Callable[[str], str]) -> tuple[str, str]:
    """The value of an expression, converted to a type, and a condition that is true where it could not be evaluated.

    Args:
        typed: the type of an SQL text over the columns at hand.
    """
    compiler = _Compiler(typed)
    value = compiler.result(compiler.value(tree(expression)), kind)
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

    def result(self, value: str, kind: str) -> str:
        """The value of the whole as its column's type: a conversion that fails where it would be another number too."""
        source = self._typed(value)
        written = source == "string" and is_exact(kind)
        converted = CASTS.strict(value, Cast(kind)) if written else convert(value, source, kind)
        if converted != value:
            self._conditions.append(_lost(value, converted, source, kind))
        return converted

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
        if self._typed(value) not in INTEGERS:
            return f"abs({value})"
        return self._strict(f"if({value} < 0, try_multiply({value}, -1), {value})", value)

    def _div(self, node: Any) -> str:
        """Always of doubles, and by zero it is infinite."""
        left, right = (f"CAST({self.value(part)} AS DOUBLE)" for part in (node.this, node.expression))
        return f"if({right} = 0, {left} * CAST('inf' AS DOUBLE), {left} / nullif({right}, 0))"

    def _intdiv(self, node: Any) -> str:
        left, right = self.value(node.this), self.value(node.expression)
        if not {self._typed(left), self._typed(right)} <= set(INTEGERS):
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
