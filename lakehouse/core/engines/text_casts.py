"""The SQL of casts of delivered text that engines write alike, built from the grammar of `casts.py`.

Here: which pattern decides which type, how a declared form becomes the grammar's own, numbers and booleans. Not here: what
engines write differently, days and instants above all (`duckdb_casts.py`, `spark_casts.py`). What is no value is a null;
nothing raises at run time. The text is a column: it is named many times.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from lakehouse.core.engines import casts
from lakehouse.core.engines.casts import Cast, as_cast


class TextCasts(ABC):
    """One engine's SQL of the grammar.

    `group` precedes the number of a group in a replacement, `string` is the type of a text, `starts_with` the function.
    """

    group: str
    string: str
    starts_with: str

    @abstractmethod
    def quoted(self, value: str) -> str:
        """A value as an SQL text."""

    @abstractmethod
    def matches(self, source: str, pattern: str) -> str:
        """Whether a pattern is the whole text."""

    @abstractmethod
    def replaced(self, source: str, pattern: str, by: str) -> str:
        """The text with every match of a pattern replaced."""

    @abstractmethod
    def trimmed(self, source: str) -> str:
        """The text without blanks at its ends."""

    @abstractmethod
    def double(self, source: str, cast: Cast) -> str: ...

    @abstractmethod
    def day(self, source: str, cast: Cast) -> str: ...

    @abstractmethod
    def day_of(self, instant: str, cast: Cast) -> str:
        """The day of an instant in the column's zone."""

    @abstractmethod
    def instant(self, source: str, cast: Cast) -> str: ...

    @abstractmethod
    def instant_of(self, micros: str) -> str:
        """The instant of so many microseconds since 1970."""

    def aside(self, source: str, value: Callable[[str], str]) -> str:
        """An expression of the text for the few values that need a closer look."""
        return value(source)

    def strict(self, source: str, cast: Cast) -> str:
        """What a text is as a value of a type, null where it is none."""
        if cast.form:
            return self.epoch(source, cast)
        if cast.type in casts.INTEGERS:
            return self.integer(source, cast)
        if cast.type.startswith("decimal"):
            return self.decimal(source, cast)
        others = {"double": self.double, "boolean": self.boolean, "date": self.day, "timestamp": self.instant}
        return others[cast.type](source, cast) if cast.type != "string" else source

    def rough(self, source: str, cast: Cast) -> str:
        """A cheaper cast where there is one, for choosing candidates: of what is a value the same value; a text that is none
        may become one."""
        return self.strict(source, cast)

    def columns(
        self, casts_: Mapping[str, tuple[str, Cast | str]], *, identifier: Callable[[str], str], exact: bool
    ) -> tuple[dict[str, str], dict[str, str]]:
        """The expressions of columns `{name: (text column, cast)}`: first the texts that are rewritten, to be added as columns
        of their own and dropped in the end, then the values, which read them."""
        read = self.strict if exact else self.rough
        wanted = {name: (identifier(source), as_cast(kind)) for name, (source, kind) in casts_.items()}
        texts = {f"_text_of_{name}": self.rewritten(source, cast) for name, (source, cast) in wanted.items() if cast.rewrites}
        own = {name: identifier(f"_text_of_{name}") if cast.rewrites else source for name, (source, cast) in wanted.items()}
        return texts, {name: read(own[name], cast) for name, (_, cast) in wanted.items()}

    def rewritten(self, source: str, cast: Cast) -> str:
        """The delivered text in the grammar's own form; null where it is not as declared."""
        value = self.trimmed(source) if cast.trim else source
        value = f"{cast.case}({value})" if cast.case else value
        if cast.decimal:
            plain = self.replaced(value, f"[^0-9{cast.decimal}+-]", "")
            plain = f"replace({plain}, ',', '.')" if cast.decimal == "," else plain
            value = f"CASE WHEN {self.matches(value, casts.amount(cast.decimal))} THEN {plain} END"
        if cast.format:
            pattern, groups = casts.format_pattern(cast.format)
            found = self.replaced(value, rf"\A{pattern}\z", casts.format_rewrite(groups, self.group))
            filled = self.replaced(found, casts.FILL, f"{self.group}10{self.group}2")
            value = f"CASE WHEN {self.matches(value, pattern)} THEN {filled} END"
        return value

    def integer(self, source: str, cast: Cast) -> str:
        attempt = f"TRY_CAST({source} AS {cast.type})"
        closely = self.aside(source, lambda text: f"TRY_CAST({self.number(text, cast)} AS {cast.type})")
        return f"CASE CAST({attempt} AS {self.string}) WHEN {source} THEN {attempt} ELSE {closely} END"

    def decimal(self, source: str, cast: Cast) -> str:
        # Of what is rounded, or has an exponent or a `_`, no text of the value can begin with it.
        attempt = f"TRY_CAST({source} AS {cast.type})"
        usual = f"{self.starts_with}(CAST({attempt} AS {self.string}), {source})"
        return f"CASE WHEN {usual} THEN {attempt} ELSE {self.aside(source, lambda text: self.number(text, cast))} END"

    def number(self, source: str, cast: Cast) -> str:
        """A decimal, exactly: an exponent moves the mark before the digits after it are counted."""
        precision, scale = cast.size
        parts = (f"regexp_extract({source}, {self.quoted(casts.PARTS)}, {n})" for n in (1, 2, 3, 4))
        sign, before, after, exponent = parts
        power = f"TRY_CAST({exponent} AS INTEGER)"
        zeros = f"repeat('0', abs({power}))"
        digits, mark = f"({zeros} || {before} || {after} || {zeros})", f"abs({power}) + length({before}) + {power}"
        moved = f"({sign} || left({digits}, {mark}) || '.' || substring({digits}, {mark} + 1))"
        fits = casts.PLAIN if cast.rounding else casts.exact(scale)

        def plain(text: str) -> str:
            return f"CASE WHEN {self.matches(text, fits)} THEN TRY_CAST({text} AS DECIMAL({precision}, {scale})) END"

        return (
            f"CASE WHEN {self.matches(source, casts.PLAIN)} THEN {plain(source)} "
            f"WHEN {self.matches(source, casts.NUMBER)} THEN {plain(moved)} END"
        )

    def boolean(self, source: str, cast: Cast) -> str:
        arms = [(source, cast.true, "true"), (source, cast.false, "false")]  # before our own, and it may be one of those
        arms += [(source, casts.TRUE_EXACTLY, "true"), (source, casts.FALSE_EXACTLY, "false")]
        arms += [(f"lower({source})", (casts.TRUE,), "true"), (f"lower({source})", (casts.FALSE,), "false")]
        listed = [f"WHEN {text} IN ({', '.join(map(self.quoted, texts))}) THEN {value}" for text, texts, value in arms if texts]
        return f"CASE {' '.join(listed)} END"

    def epoch(self, source: str, cast: Cast) -> str:
        each, low, high = casts.EPOCHS[cast.form]
        # Down to a microsecond: the digits of the unit after the mark, and room for the last instant before it.
        digits = len(str(each)) - 1
        number = self.strict(source, Cast(f"decimal(18,{digits})"))
        micros = f"CAST(CAST({number} AS DECIMAL(38, {digits})) * {each} AS BIGINT)"
        instant = f"CASE WHEN {number} >= {low} AND {number} < {high + 1} THEN {self.instant_of(micros)} END"
        return self.day_of(instant, cast) if cast.type == "date" else instant
