"""Expressions of specs: parsed once with sqlglot, checked against an allow-list, printed for the engine at hand.

An expression is SQL in DuckDB's dialect over the columns of one row: comparisons, arithmetic, CASE, CAST and a short list
of functions. No sub-query, aggregate, window, placeholder or unknown function gets through, and nothing is ever evaluated
as Python. The list follows the experiment in which 22 of 22 rules gave the same rows on DuckDB and Spark.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lakehouse.core.errors import ExpressionError
from lakehouse.core.expression_types import misfit
from lakehouse.core.names import Engine
from lakehouse.core.patterns import check_pattern

# fmt: off
_ALLOWED = frozenset((
    "Abs", "Add", "And", "AtTimeZone", "Between", "Boolean", "Case", "Cast", "Coalesce", "Column", "Concat", "DPipe",
    "DataType", "DataTypeParam", "Div", "EQ", "Extract", "GT", "GTE", "Identifier", "If", "In", "IntDiv", "Interval", "Is",
    "LT", "LTE", "Length", "Like", "Literal", "Lower", "Mod", "Month", "Mul", "NEQ", "Neg", "Not", "Null",
    "NullSafeEQ", "NullSafeNEQ", "Nullif", "Or", "Paren", "RegexpLike", "Replace", "Round", "StartsWith", "Sub",
    "Substring", "Trim", "TryCast", "Upper", "Var", "Year",
))
# fmt: on
_COMPARISONS = frozenset(("EQ", "In", "Is", "NEQ"))
#: What engines rewrite so that its first part is computed more than once.
_REWRITTEN = frozenset(("Between", "Case", "In", "Nullif"))
_LEAVES = frozenset(("Boolean", "Column", "DataType", "DataTypeParam", "Identifier", "Interval", "Literal", "Null", "Var"))
_SAFE = frozenset(("And", "Boolean", "Column", "EQ", "Identifier", "In", "Is", "NEQ", "Not", "Null", "Or", "Paren"))


@dataclass(frozen=True)
class Expression:
    """A checked expression. `text` is what was declared; `columns` are the columns that it reads.

    `safe`: evaluating it never raises. `repeats`: a part of it that is computed occurs more than once, as it is declared or as
    engines rewrite it.
    """

    text: str
    columns: frozenset[str]
    safe: bool = False
    repeats: bool = False

    def sql(self, dialect: Engine = "duckdb", *, instants: Collection[str] = ()) -> str:
        """The expression for one engine, every column quoted, comments dropped.

        The day of a column in `instants` is taken from its microseconds (DuckDB only): it is the day in UTC.
        """
        return _print(self, dialect, instants)


def parse(text: str, *, columns: Collection[str], types: Mapping[str, str] | None = None) -> Expression:
    """Check `text` as an expression over `columns`.

    Args:
        types: the spec types of the columns, where what they are compared with is to be checked too.

    Raises:
        ExpressionError: syntax error, more than one expression, a construct outside the allow-list, an unknown column, a column
            that is compared with what is no value of its type.
        DeclarationError: a regular expression that one of the engines cannot read.
    """
    import sqlglot
    from sqlglot import exp

    remedy = f"Write one row expression over these columns: {', '.join(sorted(columns))}."
    try:
        trees = sqlglot.parse(text, read="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise ExpressionError(
            f"The expression {text[:120]!r} has a syntax error: {str(error).splitlines()[0]}", remedy=remedy
        ) from error
    if len(trees) != 1 or trees[0] is None:
        raise ExpressionError(f"The expression {text[:120]!r} is not exactly one expression.", remedy=remedy)
    used = set()
    for node in trees[0].walk():
        kind = type(node).__name__
        if kind not in _ALLOWED or (isinstance(node, exp.In) and node.args.get("query") is not None):
            raise ExpressionError(f"The expression {text[:120]!r} uses {kind}, which is not allowed.", remedy=remedy)
        if isinstance(node, exp.Column):
            if node.table or node.name not in columns:
                raise ExpressionError(f"The expression {text[:120]!r} names {node.sql()!r}.", remedy=remedy)
            used.add(node.name)
        if isinstance(node, exp.RegexpLike) and isinstance(node.expression, exp.Literal):
            check_pattern(str(node.expression.this), f"The expression {text[:120]!r}")
    if types is not None and (wrong := misfit(trees[0], types)):
        raise ExpressionError(
            f"The expression {text[:120]!r} {wrong}.",
            remedy="Compare a column with values of its type, or cast it (CAST, TRY_CAST).",
        )
    return Expression(text, frozenset(used), all(_is_safe(node) for node in trees[0].walk()), _repeats(trees[0]))


def words(text: str) -> list[str]:
    """The words of an expression: without the blanks, line breaks and comments between them."""
    import sqlglot

    found = sqlglot.tokenize(text, read="duckdb")
    return [repr(word.text) if word.token_type.name == "STRING" else " ".join(word.text.split()) for word in found]


def _is_safe(node: Any) -> bool:
    """Whether evaluating the node can never raise: two columns may differ in type, and a text is no condition."""
    name = type(node).__name__
    if name == "Column":
        return type(node.parent).__name__ in _COMPARISONS
    if name in _COMPARISONS and sum(type(part).__name__ == "Column" for part in node.walk()) > 1:
        return False
    return name in _SAFE or (name == "Literal" and bool(node.args.get("is_string")))


def _repeats(tree: Any) -> bool:
    """See `Expression.repeats`."""
    nodes = [node for node in tree.walk() if type(node).__name__ not in _LEAVES]
    rewritten = [node.this for node in nodes if type(node).__name__ in _REWRITTEN and node.this is not None]
    return len({*nodes}) < len(nodes) or any(type(part.unnest()).__name__ not in _LEAVES for part in rewritten)


def uncomputable(expression: Expression, kind: str, error: Exception) -> ExpressionError:
    """What is raised when an engine cannot compute an expression over the columns' types, whatever their values."""
    reported = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return ExpressionError(
        f"The expression {expression.text[:120]!r} cannot be computed as {kind}: {reported}.",
        remedy="Correct it, or cast what it reads to the types that it needs.",
    )


def tree(expression: Expression) -> Any:
    """The syntax tree of a checked expression, every column quoted; for an engine that prints it itself."""
    import sqlglot
    from sqlglot import exp

    found = sqlglot.parse_one(expression.text, read="duckdb")
    for column in found.find_all(exp.Column):
        column.this.set("quoted", True)
    return found


def _print(expression: Expression, dialect: Engine, instants: Collection[str] = ()) -> str:
    from sqlglot import exp

    found = tree(expression)
    for node in found.find_all(exp.Cast):
        column = node.this
        if node.to.is_type("date") and isinstance(column, exp.Column) and column.name in instants:
            node.set("this", exp.func("make_timestamp", exp.func("epoch_us", column.copy())))
    return str(found.sql(dialect=dialect, comments=False))
