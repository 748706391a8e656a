"""Render: a declaration and its test as the text of two modules, as `ruff format` writes them; each guess with its evidence."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lakehouse.profile.code import WIDTH, call_of, escaped, literal, quoted, statement
from lakehouse.profile.columns import Measured
from lakehouse.profile.database import lands_whole, system_of
from lakehouse.profile.keys import Key
from lakehouse.tables.spec import (
    Column,
    Csv,
    Database,
    DeltaSource,
    RowRule,
    Source,
    Sync,
    TableRule,
    TableSpec,
)

#: What declares a rule of each kind that is proposed.
RULES = {
    "not_null": "not_null",
    "accepted_values": "accepted_values",
    "range": "in_range",
    "matches": "matches",
    "min_rows": "min_rows",
}
#: Of a column, in the order in which they are written.
_FIRST = ("name", "type")


@dataclass(frozen=True)
class Declaration:
    """What is written of a table.

    Args:
        origin: what it was made of, for its docstring: a file's name, never a URL.
        about: what was found of the source as a whole.
        rules: what is proposed; a text is a comment.
    """

    name: str
    origin: str
    source: Source
    columns: Sequence[Measured]
    key: Key
    rules: Sequence[RowRule | TableRule | str]
    rows: int
    about: Sequence[str] = ()

    @property
    def variable(self) -> str:
        return self.name.upper()

    @property
    def is_delta(self) -> bool:
        return isinstance(self.source, DeltaSource)

    @property
    def sync(self) -> Sync:
        """What its records are."""
        return "overwrite" if lands_whole(self.source) else "dedup" if self.key.columns else "append"

    @property
    def folder(self) -> str:
        """Where below `raw/` its files land."""
        return str(getattr(self.source, "folder", self.name))


def module(of: Declaration) -> str:
    """The text of `lakehouse/tables/<name>.py`."""
    system = system_of(of.source)
    used = {
        *([type(of.source).__name__] if system is None else ["Database", "Job", "Table", "setting"]),
        "Column",
        "TableSpec",
        *(RULES[rule.kind] for rule in of.rules if not isinstance(rule, str)),
    }
    used |= {"Csv"} if getattr(of.source, "csv", None) is not None else set()
    names = sorted(used, key=lambda name: (not name[0].isupper(), name))
    source, command = (_ascii(of.origin), "adopt") if of.is_delta else (f"landing/raw/{of.folder}/", "table")
    source = source if system is None else f"landing/{system.name}"
    flow = f"    {source} ─▶ bronze/{of.name} ─▶ silver/{of.name}"
    lines = [
        *_docstring(
            f"{of.name}: made by `make {command}` of {_ascii(of.origin)}.",
            "Each guess has its evidence beside it: change what is wrong, then `make sync`.",
            flow if len(flow) <= WIDTH else f"    {source[: WIDTH // 2]} ─▶ bronze ─▶ silver",
        ),
        "",
        *_wrapped("from lakehouse.tables.spec import ", names, "", close=("(", ")"), bare=True),
        "",
        *(_system(system) if system is not None else ()),
        f"{of.variable} = TableSpec(",
        f"    name={quoted(of.name)},",
        f"    description={quoted(_description(of))},",
        *_comment(of.about, 4),
        *map(_allowed, _indented(_source(of.source), 4)),
        "    columns=(",
        *(line for one in of.columns for line in _column(one, of.rows)),
        "    ),",
        *_comment(of.key.evidence, 4),
    ]
    if of.sync == "overwrite":
        lines.append('    sync="overwrite",')
    if of.key.columns:
        lines.append(f"    key={literal(of.key.columns)},")
        lines += _comment([of.key.order_evidence], 4)
        lines.append(f"    order={literal(of.key.order)},")
    elif of.sync == "append":
        lines.append('    sync="append",')
    lines += [
        "    # Proposed from what was delivered so far. `quarantine` instead of `warn` refuses what violates a rule.",
    ]
    rules: list[str] = []
    for rule in of.rules:
        rules += _comment([rule], 8) if isinstance(rule, str) else _indented(call(RULES[rule.kind], rule_arguments(rule), 8), 8)
    lines += [*_listed("rules", rules), f"    tags=({quoted(of.name)},),", ")", ""]
    lines += [f"SOURCES = ({system.name.upper()},)"] if system is not None else []
    lines += [f"TABLES = ({of.variable},)"]
    lines += [f'JOBS = (Job({quoted(of.name)}, cron="0 2 * * *"),)'] if system is not None else []
    return "\n".join([*lines, ""])


def test_module(of: Declaration, *, landed: str, put: Sequence[str], expected: Sequence[dict[str, Any]]) -> str:
    """The text of the test.

    Args:
        landed: the invented records: a CSV text, or lines of JSON.
        put: the arguments of the call that lands `LANDED`; none where it is a Delta table.
    """
    wide = "  # noqa: E501" if any(len(line) > WIDTH for line in _in_block(landed).splitlines()) else ""
    lines = [
        *_docstring(f"{of.name}: three invented records, of the shapes that its source has, become three rows of silver."),
        "",
        f"from lakehouse.tables.{of.name} import TABLES",
        "from lakehouse_tests.conftest import Lake, plain",
        "",
        f'LANDED = """\\\n{_in_block(landed)}"""{wide}',
        *_expected(expected),
        "",
        "",
        "def test_three_records_become_three_rows(lake: Lake) -> None:",
        "    (spec,) = TABLES",
        *(_statement("lake.put", put, 4) if put else ["    spec = lake.of_delta(spec, LANDED)"]),
        *(_statement("lake.put", [quoted(of.folder), '"_complete/1"', '""'], 4) if of.sync == "overwrite" else ()),
        "    refresh = lake.run(spec)",
        "    assert refresh.entry is not None and refresh.entry.balanced and not lake.quarantined(spec)",
        "    rows = [plain(row) for row in lake.rows(spec.silver, *EXPECTED[0])]",
        "    assert [{name: str(value) for name, value in row.items()} for row in rows] == EXPECTED",
        "",
    ]
    return "\n".join(lines)


def spec_of(of: Declaration) -> TableSpec:
    """The table that the text declares."""
    return TableSpec(
        name=of.name,
        description=_description(of),
        source=of.source,
        columns=tuple(one.column for one in of.columns),
        sync=of.sync,
        key=of.key.columns,
        order=of.key.order,
        rules=tuple(rule for rule in of.rules if not isinstance(rule, str)),
        tags=(of.name,),
    )


def _source(source: Source) -> list[str]:
    """The source of a table, as an argument."""
    system = system_of(source)
    if system is not None:
        return [f"source={system.name.upper()}.table({quoted(system.tables[0].name)}),"]
    return call("source=" + type(source).__name__, source_arguments(source), 4)


def _system(system: Database) -> list[str]:
    """The declaration of a database with one table."""
    table = system.tables[0]
    whole = "No column tells what has changed: each run reads all of it, and rows that are gone are seen"
    made = call_of(system, set(), comments=[(table, whole)] if table.full_refresh else ())
    return [*statement(system.name.upper(), made), ""]


def source_arguments(source: Source) -> list[str]:
    """What is declared of a source: its name, and what is not the default."""
    named = [(field.name, getattr(source, field.name)) for field in fields(source)]  # type: ignore[arg-type]
    first = named[0][1]
    defaults = {field.name: field.default for field in fields(source)}  # type: ignore[arg-type]
    out = [quoted(first)]
    for name, value in named[1:]:
        if isinstance(value, Csv):
            given = [
                (part.name, getattr(value, part.name)) for part in fields(value) if getattr(value, part.name) != part.default
            ]
            out.append(f"{name}=Csv({', '.join(f'{key}={literal(one)}' for key, one in given)})")
        elif value and value != defaults[name] and not (name == "folder" and value == first):
            out.append(f"{name}={literal(value)}")
    return out


def call(name: str, arguments: Sequence[str], indent: int) -> list[str]:
    """A call as ruff breaks it, followed by a comma; `indent` columns are left of it."""
    whole = f"{name}({', '.join(arguments)}),"
    if indent + len(whole) <= WIDTH:
        return [whole]
    inner = f"    {', '.join(arguments)}"
    if indent + len(inner) <= WIDTH:
        return [f"{name}(", inner, "),"]
    return [f"{name}(", *(f"    {argument}," for argument in arguments), "),"]


# --- parts -------------------------------------------------------------------------------------------------------------


def _description(of: Declaration) -> str:
    return f"Records of {_ascii(of.origin)[:60]}."


def _column(one: Measured, rows: int) -> Iterator[str]:
    counts = [f"{rows - one.filled:,} of {rows:,} without a value"] if one.filled < rows else []
    counts += [f"{one.refused:,} refused: no {one.column.type}"] if one.refused else []
    bounds = one.minimum is not None and one.column.type not in ("date", "timestamp") and not one.column.personal
    counts += [f"from {one.minimum} to {one.maximum}"] if bounds else []
    yield from _comment(["; ".join((*one.guess.evidence, *counts))], 8)
    yield from _indented(call("Column", column_arguments(one.column), 8), 8)


def column_arguments(column: Column) -> list[str]:
    """What is declared of a column."""
    given = [(part.name, getattr(column, part.name), part.default) for part in fields(column) if part.name not in _FIRST]
    return [quoted(column.name), quoted(column.type), *(f"{n}={literal(v)}" for n, v, default in given if v != default)]


def rule_arguments(rule: RowRule | TableRule) -> list[str]:
    """The arguments of a rule as it is declared."""
    out = []
    for name, value in vars(rule).items():
        if name in ("minimum", "maximum"):
            out += [] if value is None else [f"{name}={literal(value)}"]
        elif isinstance(value, tuple):
            out += [literal(one) for one in value]
        elif name == "pattern":
            out.append(f"r{literal(value)}".replace("\\\\", "\\"))
        elif name != "action":
            out.append(literal(value))
    # The column is first, whatever the order of a record's fields.
    out.sort(key=lambda argument: argument != literal(getattr(rule, "column", None)))
    default = next(part.default for part in fields(rule) if part.name == "action")
    return out if rule.action == default else [*out, f"action={literal(rule.action)}"]


def _expected(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "EXPECTED = ["
    for row in rows:
        pairs = [f"{quoted(name)}: {quoted(str(value))}" for name, value in row.items()]
        whole = f"    {{{', '.join(pairs)}}},"
        if len(whole) <= WIDTH:
            yield whole
        else:
            yield from ("    {", *(f"        {pair}," for pair in pairs), "    },")
    yield "]"


def _comment(texts: Sequence[str], indent: int) -> list[str]:
    lines = []
    for text in texts:
        shown = _ascii(f"{text[:1].upper()}{text[1:]}")
        lines += [f"{' ' * indent}# {line}" for line in textwrap.wrap(shown, WIDTH - indent - 2)]
    return lines


def _allowed(line: str) -> str:
    """A line that may be too long: a URI is not broken."""
    return line if len(line) <= WIDTH else f"{line}  # noqa: E501"


def _indented(lines: Sequence[str], indent: int) -> list[str]:
    return [" " * indent + line for line in lines]


def _wrapped(begin: str, names: Sequence[str], end: str, *, close: tuple[str, str], bare: bool) -> list[str]:
    """Names on one line, else one on each."""
    whole = f"{begin}{', '.join(names)}{end}"
    if len(whole) <= WIDTH and bare:
        return [whole]
    return [f"{begin}{close[0]}", *(f"    {name}," for name in names), f"{close[1]}{end}"]


def _listed(name: str, lines: Sequence[str]) -> list[str]:
    """A tuple of calls as an argument; one that has but one line stands on one."""
    whole = f"    {name}=({lines[0].strip()}),"
    if len(lines) == 1 and len(whole) <= WIDTH:
        return [whole]
    return [f"    {name}=(", *lines, "    ),"]


def _statement(name: str, arguments: Sequence[str], indent: int) -> list[str]:
    """A call that stands alone."""
    *lines, last = call(name, arguments, indent - 1)  # without the comma
    return _indented([*lines, last.removesuffix(",")], indent)


def _docstring(first: str, *more: str) -> list[str]:
    """A docstring with its first line, which is broken where it is too long, and more below."""
    lines = textwrap.wrap(first, WIDTH - 6, break_long_words=False)
    if len(lines) == 1 and not more:
        return [f'"""{first}"""']
    below = [line for text in more for line in ("", text)]
    return [f'"""{lines[0]}', *lines[1:], *below, '"""']


def _ascii(text: str) -> str:
    """A text for a comment or a docstring: letters as they are, no signs that look like others."""
    return "".join(c if c.isascii() or c.isalpha() else "?" for c in text if c.isprintable()).replace('"""', "'''")


def _in_block(text: str) -> str:
    """A text within three double quotes."""
    inner = "".join(letter if letter == "\n" else escaped(letter) for letter in text)
    return inner.replace('"""', '\\"\\"\\"')
