"""Spark's own part of the SQL of casts (`text_casts.py`)."""

from collections.abc import Callable

from lakehouse.core.engines import casts
from lakehouse.core.engines.casts import Cast
from lakehouse.core.engines.text_casts import TextCasts

_BOUNDS = {
    "date": (f"DATE '{casts.FIRST_DAY}'", f"DATE '{casts.LAST_DAY}'"),
    "timestamp": (f"TIMESTAMP '{casts.FIRST_INSTANT}Z'", f"TIMESTAMP '{casts.LAST_INSTANT}Z'"),
}


def bounded(value: str, kind: str) -> str:
    """A date or timestamp, null where Delta's readers cannot hold it."""
    low, high = _BOUNDS[kind]
    return f"CASE WHEN {value} BETWEEN {low} AND {high} THEN {value} END"


class SparkCasts(TextCasts):
    """See `text_casts.py` for what each method makes."""

    group, string, starts_with = "$", "STRING", "startswith"

    def quoted(self, value: str) -> str:
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"

    def matches(self, source: str, pattern: str) -> str:
        whole = rf"\A(?:{pattern})\z"
        return f"{source} RLIKE {self.quoted(whole)}"

    def replaced(self, source: str, pattern: str, by: str) -> str:
        return f"regexp_replace({source}, {self.quoted(pattern)}, {self.quoted(by)})"

    def trimmed(self, source: str) -> str:
        return f"trim(BOTH {self.quoted(casts.BLANKS)} FROM {source})"

    def aside(self, source: str, value: Callable[[str], str]) -> str:
        """As a lambda it stays out of the generated Java, which is not compiled beyond 8 KB a method."""
        return f"transform(array({source}), t -> {value('t')})[0]"

    def double(self, source: str, cast: Cast) -> str:
        number = f"try_cast({source} AS DOUBLE)"
        finite = f"CASE WHEN abs({number}) < CAST('inf' AS DOUBLE) THEN {number} END"
        return (
            f"CASE WHEN {self.matches(source, casts.DOUBLE)} THEN {finite} "
            f"WHEN {self.matches(source, casts.INFINITE)} THEN try_cast(trim({source}) AS DOUBLE) "
            f"WHEN {self.matches(source, casts.NOT_A_NUMBER)} THEN CAST('nan' AS DOUBLE) END"
        )

    def day(self, source: str, cast: Cast) -> str:
        day = f"try_cast({source} AS DATE)"
        of_instant = self.aside(
            source, lambda t: f"CASE WHEN length({t}) > 10 THEN {self.day_of(self.instant(t, cast), cast)} END"
        )
        return f"CASE WHEN {self.matches(source, casts.DAY)} THEN {bounded(day, 'date')} ELSE {of_instant} END"

    def day_of(self, instant: str, cast: Cast) -> str:
        local = f"from_utc_timestamp({instant}, {self.quoted(cast.timezone)})" if cast.timezone else instant
        return bounded(f"CAST({local} AS DATE)", "date")

    def instant(self, source: str, cast: Cast) -> str:
        usual = (
            rf"{casts.DAY}[T ](?:[01][0-9]|2[0-3])(?::[0-5][0-9]){{2}}(?:\.[0-9]{{1,9}})?(?:Z|[+-](?:0[0-9]|1[0-5]):[0-5][0-9])"
        )
        other = self.aside(source, lambda text: self._unusual_instant(text, cast))
        read = f"CASE WHEN {self.matches(source, usual)} THEN try_cast({source} AS TIMESTAMP) ELSE {other} END"
        return f"CASE WHEN {source} >= '0001' THEN {bounded(read, 'timestamp')} END"

    def _unusual_instant(self, text: str, cast: Cast) -> str:
        # Before an offset Spark wants the seconds, and of the offset the hours, a colon and the minutes.
        whole = rf"regexp_replace({text}, '\\A(.{{16}})(Z|[+-].*)\\z', '$1:00$2')"
        whole = rf"regexp_replace({whole}, '([+-][0-9]{{2}})([0-9]{{2}})\\z', '$1:$2')"
        whole = rf"regexp_replace({whole}, '([T ].*[+-][0-9]{{2}})\\z', '$1:00')"
        local = f"try_cast({text} AS TIMESTAMP)"
        local = _utc(local, self.quoted(cast.timezone)) if cast.timezone else local
        return (
            f"CASE WHEN {self.matches(text, casts.INSTANT)} THEN try_cast({whole} AS TIMESTAMP) "
            f"WHEN {self.matches(text, f'{casts.LOCAL}|{casts.DAY}')} THEN {local} END"
        )

    def instant_of(self, micros: str) -> str:
        return f"timestamp_micros({micros})"


def _utc(local: str, zone: str) -> str:
    """The instant of a local time. One that the clock shows twice is the later, as on DuckDB; Spark takes the earlier."""
    first = f"to_utc_timestamp({local}, {zone})"
    later = [f"{first} + INTERVAL '{minutes}' MINUTE" for minutes in (60, 30)]
    arms = " ".join(f"WHEN from_utc_timestamp({instant}, {zone}) = {local} THEN {instant}" for instant in later)
    return f"CASE {arms} ELSE {first} END"


CASTS = SparkCasts()
