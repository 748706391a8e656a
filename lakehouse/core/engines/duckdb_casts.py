"""DuckDB's own part of the SQL of casts (`text_casts.py`).

Most texts are written in one way. A cheap test proves that a text is, and DuckDB's own cast reads it; only the others meet a
pattern, which takes three times as long as the cast itself. Nanoseconds of one thread a value (400 k values, before the
grammar was ours and now): instants 45 and 61, decimals 39 and 60, days 50 and 84, integers 44 and 44, booleans 47 and 14.
"""

from lakehouse.core.engines import casts
from lakehouse.core.engines.casts import Cast
from lakehouse.core.engines.text_casts import TextCasts

#: Instants as most writers write them, by length: DuckDB's format, and a test that with the length leaves no room for blanks.
_USUAL = (
    (20, "%Y-%m-%dT%H:%M:%SZ", "NOT contains({0}, ' ')"),
    (22, "%Y-%m-%d %H:%M:%S+00", "suffix({0}, '+00')"),
    (24, "%Y-%m-%dT%H:%M:%S.%fZ", "NOT contains({0}, ' ') AND strpos({0}, '.') = 20"),
    (27, "%Y-%m-%dT%H:%M:%S.%fZ", "NOT contains({0}, ' ') AND strpos({0}, '.') = 20"),
)
_LARGEST = "1.7976931348623157e308"


class DuckDBCasts(TextCasts):
    """See `text_casts.py` for what each method makes."""

    group, string, starts_with = "\\", "VARCHAR", "starts_with"

    def quoted(self, value: str) -> str:
        return "'" + value.replace("'", "''") + "'"

    def matches(self, source: str, pattern: str) -> str:
        return f"regexp_full_match({source}, {self.quoted(pattern)})"

    def replaced(self, source: str, pattern: str, by: str) -> str:
        return f"regexp_replace({source}, {self.quoted(pattern)}, {self.quoted(by)}, 'g')"

    def trimmed(self, source: str) -> str:
        return f"trim({source}, {self.quoted(casts.BLANKS)})"

    def rough(self, source: str, cast: Cast) -> str:
        plain = cast.type in casts.INTEGERS and not cast.form
        return f"TRY_CAST({source} AS {cast.type})" if plain else self.strict(source, cast)

    def double(self, source: str, cast: Cast) -> str:
        attempt = f"TRY_CAST({source} AS DOUBLE)"
        finite = f"{attempt} BETWEEN -{_LARGEST} AND {_LARGEST}"
        spelled = self.matches(source, f"{casts.INFINITE}|{casts.NOT_A_NUMBER}")
        return (
            f"CASE WHEN NOT contains({source}, '_') AND NOT contains({source}, '+') AND {finite} THEN {attempt} "
            f"WHEN {self.matches(source, casts.DOUBLE)} AND {finite} THEN {attempt} WHEN {spelled} THEN {attempt} END"
        )

    def boolean(self, source: str, cast: Cast) -> str:
        other = super().boolean(source, cast)
        if cast.true or cast.false:
            return other
        usual = f"CASE {source} WHEN '{casts.TRUE}' THEN true WHEN '{casts.FALSE}' THEN false END"
        return f"coalesce({usual}, {other})"

    def day(self, source: str, cast: Cast) -> str:
        attempt = f"TRY_CAST({source} AS DATE)"
        instant = f"CASE WHEN strlen({source}) > 10 THEN {self.day_of(self.instant(source, cast), cast)} END"
        return f"CASE WHEN strlen({source}) = 10 AND CAST({attempt} AS VARCHAR) = {source} THEN {attempt} ELSE {instant} END"

    def day_of(self, instant: str, cast: Cast) -> str:
        if not cast.timezone:  # UTC needs no calendar, which is what a zone takes most of its time for
            return f"CAST(make_timestamp(epoch_us({instant})) AS DATE)"
        day = f"CAST(({instant}) AT TIME ZONE {self.quoted(cast.timezone)} AS DATE)"
        return f"CASE WHEN {day} BETWEEN DATE '{casts.FIRST_DAY}' AND DATE '{casts.LAST_DAY}' THEN {day} END"

    def instant(self, source: str, cast: Cast) -> str:
        usual = " ".join(
            # Nothing before `0001` is a year, nor a blank.
            f"WHEN strlen({source}) = {length} AND {source} > '0001' AND {full.format(source)} "
            f"THEN make_timestamptz(epoch_us(try_strptime({source}, '{written}')))"
            for length, written, full in _USUAL
        )
        local = f"TRY_CAST({source} AS TIMESTAMP)"
        zone = self.quoted(cast.timezone)
        local = f"({local} AT TIME ZONE {zone})" if cast.timezone else f"make_timestamptz(epoch_us({local}))"
        low, high = f"TIMESTAMPTZ '{casts.FIRST_INSTANT}+00'", f"TIMESTAMPTZ '{casts.LAST_INSTANT}+00'"
        other = (
            f"CASE WHEN {self.matches(source, casts.INSTANT)} THEN TRY_CAST({source} AS TIMESTAMPTZ) "
            f"WHEN {self.matches(source, f'{casts.LOCAL}|{casts.DAY}')} THEN {local} END"
        )
        bounded = f"CASE WHEN {source} >= '0001' AND {other} BETWEEN {low} AND {high} THEN {other} END"
        return f"coalesce(CASE {usual} END, {bounded})"

    def instant_of(self, micros: str) -> str:
        return f"make_timestamptz({micros})"


CASTS = DuckDBCasts()
