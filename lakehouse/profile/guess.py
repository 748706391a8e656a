"""Types: what the texts of one column are values of. A guess proposes casts; the lake's own casts decide which of them it is.

distinct texts with counts ─▶ candidates, the strictest first ─▶ the first that accepts all of them ─▶ Column, evidence
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from itertools import product
from typing import Any, Literal

import narwhals as nw

from lakehouse.core.engines.casts import BLANKS, CURRENCY
from lakehouse.core.engines.duckdb import DuckDBSession
from lakehouse.profile.personal import Personal, masked, personal
from lakehouse.silver.hints import NO, YES, YES_NO, plain_word
from lakehouse.silver.validate import cast_of
from lakehouse.tables.spec import Column, Form

Mark = Literal["", ",", "."]
Texts = Sequence[tuple[str, int]]

#: A type is proposed where it accepts all values, or so many of so many: then the others are refused, and shown.
_MOST, _FROM = 0.95, 20
_NULLS = frozenset(
    ("null", "(null)", "none", "\\n", "n/a", "na", "nan", "#n/d", "#n/a", "#n/disp", "n/d", "nd", "s/d", "-", "--", "—", "?")
)
_FLAG = re.compile(r"(^|_)(is|tem|flag|fl|ativo|ativa|active|possui|enabled)(_|$)")
#: Numbers of these are names: nobody adds them up, and zeros at their beginning count.
_CODE = re.compile(r"(^|_)(cep|zip|ean|gtin|ncm|cfop|cnae|ibge|ddd|chave|barras|agencia|conta|cpf|cnpj)(_|$)")
_DAY = re.compile(r"(^|_)(data|dt|date|dia|day|em|at|hora|instante|ts|timestamp|epoch|time|criado|vencimento)(_|$)")
_DATED = re.compile(r"(?P<a>[0-9]{1,4})(?P<sep>[/.-])[0-9]{1,2}(?P=sep)[0-9]{1,4}(?P<rest>.*)")
_CLOCK = re.compile(
    r"(?P<gap>[ T]| - |, )[0-9]{1,2}:[0-9]{2}(?P<s>:[0-9]{2})?(?P<f>\.[0-9]{1,9})?(?P<z> ?(?:Z|[+-][0-9]{2}:?(?:[0-9]{2})?))?"
)
_EPOCHS: dict[int, Form] = {10: "epoch_s", 13: "epoch_ms", 16: "epoch_us"}
_SCALES = 10
_SOME = 100
_ZONE = "America/Sao_Paulo"


@dataclass(frozen=True)
class Guess:
    """A column as it would be declared, and why; with the shape of its most frequent text (`personal.masked`)."""

    column: Column
    evidence: tuple[str, ...] = field(default=())
    about: Personal = field(default=Personal())
    shape: str = ""


class Guesser:
    """Guesses on one engine.

    Args:
        comma: whether the source writes decimals with a comma where a number alone does not tell.
    """

    def __init__(self, session: DuckDBSession, *, comma: bool = False) -> None:
        self.session, self.comma = session, comma

    def guess(self, column: Column, texts: Texts, *, known: str = "", exact: str = "") -> Guess:
        """What a text column is.

        Args:
            texts: its distinct texts, each with how often it occurs, the most frequent first.
            known: the type that its file or database has for it, in the words of the specs.
            exact: how a source with types that every value has calls it: nothing is guessed but what is personal.
        """
        found = self._exact(column, texts, known, exact) if exact else self._guess(column, texts, known)
        usual = next((text for text, _ in texts if text.strip(BLANKS) and text not in found.column.nulls), "")
        return replace(found, shape=masked(usual))

    @staticmethod
    def _exact(column: Column, texts: Texts, known: str, exact: str) -> Guess:
        about = personal(column.source or column.name, [text for text, _ in texts if text.strip(BLANKS)])
        notes = (f"personal: {about.evidence}",) if about.kind else ()
        return Guess(replace(column, type=known, personal=bool(about.kind)), (*notes, f"there it is {exact}"), about)

    def _guess(self, column: Column, texts: Texts, known: str) -> Guess:
        filled = [(text, n) for text, n in texts if text.strip(BLANKS)]
        about = personal(column.source or column.name, [text for text, _ in filled])
        column = replace(column, personal=bool(about.kind))
        notes = (f"personal: {about.evidence}",) if about.kind else ()
        if not filled:
            return Guess(column, ("no value in the file: give it a type when there is one",), about)
        if about.kind in ("CPF", "CNPJ", "telephone", "e-mail", "document", "account", "name", "text"):
            return Guess(column, notes, about)
        nothing = tuple(sorted({text for text, _ in filled if text.strip(BLANKS).lower() in _NULLS}))
        rest = [(text, n) for text, n in filled if text not in nothing]
        found = self._typed(column, rest, known) if rest else None
        if found is None:
            return Guess(column, (*notes, *_of_text(column, rest, nothing)), about)
        made, why = found
        if nothing:
            made = replace(made, nulls=nothing)
            why = (*why, f"{', '.join(map(repr, nothing))} taken for no value")
        return Guess(made, (*notes, *why), about)

    def _typed(self, column: Column, texts: Texts, known: str) -> "tuple[Column, tuple[str, ...]] | None":
        steps: list[Callable[[Column, Texts], tuple[Column, tuple[str, ...]] | None]] = [
            self._boolean,
            self._epoch,
            self._integer,
            self._day,
            self._number,
        ]
        if known == "string":  # digits in texts of a typed source are names, not numbers
            steps = [self._boolean, self._day]
        elif known and self._fits(made := replace(column, type=known), texts):
            return made, (f"the source has it as {known}",)
        for step in steps:
            if (found := step(column, texts)) is not None:
                return found
        return None

    # --- what accepts the texts --------------------------------------------------------------------------------------

    def _accepted(self, candidates: Mapping[str, Column], texts: Texts) -> dict[str, int]:
        """By candidate how many of the values its cast accepts."""
        if not candidates:
            return {}
        rows = [{"_text": text, "_n": n} for text, n in texts]
        frame = self.session.table(rows, {"_text": "string", "_n": "bigint"})
        frame = self.session.cast(frame, {label: ("_text", cast_of(one)) for label, one in candidates.items()})
        counts = {label: nw.when(~nw.col(label).is_null()).then(nw.col("_n")).otherwise(0).sum() for label in candidates}
        return dict(zip(counts, map(int, self.session.rows(frame.select(**counts))[0]), strict=True))

    def _best(self, candidates: Mapping[str, Column], texts: Texts) -> "tuple[str, int] | None":
        """The first candidate that accepts all values, else the one that accepts most of them, where those are enough."""
        total = sum(n for _, n in texts)
        if len(texts) > 2 * _SOME and len(candidates) > 1:  # most candidates accept nothing: a few texts tell
            some = self._accepted(candidates, texts[::-1][:_SOME])
            candidates = {label: one for label, one in candidates.items() if some[label]}
        accepted = self._accepted(candidates, texts)
        if not accepted:
            return None
        label = max(accepted, key=lambda one: accepted[one])  # the first of the largest
        count = accepted[label]
        return (label, count) if count == total or (total >= _FROM and count >= _MOST * total) else None

    def _fits(self, column: Column, texts: Texts) -> bool:
        return self._best({"only": column}, texts) is not None

    def largest(self, column: Column, texts: Texts) -> Any:
        """The largest amount of a column's values."""
        rows = [{"_text": text} for text, _ in texts]
        frame = self.session.cast(self.session.table(rows, {"_text": "string"}), {"value": ("_text", cast_of(column))})
        return self.session.rows(frame.select(nw.col("value").abs().max()))[0][0]

    # --- the types ---------------------------------------------------------------------------------------------------

    def _boolean(self, column: Column, texts: Texts) -> "tuple[Column, tuple[str, ...]] | None":
        words = {text: plain_word(text) for text, _ in texts}
        kinds = {*words.values()}
        if not kinds <= YES | NO or not any({*pair} <= kinds for pair in YES_NO):
            return None
        if kinds <= {"0", "1"} and not _FLAG.search(column.name):
            return None
        plain = self._accepted({text: replace(column, type="boolean") for text in ("own",)}, [(text, 1) for text in words])
        own = set() if plain["own"] < len(words) else {*words}
        given = [text for text in sorted(words) if text not in own and text not in ("1", "0")]
        made = replace(
            column,
            type="boolean",
            true=tuple(text for text in given if words[text] in YES),
            false=tuple(text for text in given if words[text] in NO),
        )
        if not self._fits(made, texts):
            return None
        return made, (f"its values are {', '.join(map(repr, sorted(words)))}",)

    def _epoch(self, column: Column, texts: Texts) -> "tuple[Column, tuple[str, ...]] | None":
        lengths = {len(text) for text, _ in texts}
        form = _EPOCHS.get(max(lengths)) if len(lengths) == 1 else None
        if form is None or not _DAY.search(column.name):
            return None
        made = replace(column, type="timestamp", form=form)
        seconds = [int(text) // 10 ** (len(text) - 10) for text, _ in texts if text.isascii() and text.isdigit()]
        recent = len(seconds) == len(texts) and min(seconds) >= 946_684_800 and max(seconds) < 4_102_444_800
        return (
            (made, ("whole numbers that are instants of this century since 1970",))
            if recent and self._fits(made, texts)
            else None
        )

    def _integer(self, column: Column, texts: Texts) -> "tuple[Column, tuple[str, ...]] | None":
        if _DAY.search(column.name) and all(re.fullmatch(r"(19|20)[0-9]{6}", text) for text, _ in texts):
            made = replace(column, type="date", format="%Y%m%d")
            if self._fits(made, texts):
                return made, ("eight digits that are all days",)
        if any(re.search(r"[.,eE]", text) for text, _ in texts) or _is_code(column, texts):
            return None
        made = replace(column, type="bigint")
        best = self._best({"bigint": made}, texts)
        return (made, (f"{best[1]:,} values are whole numbers",)) if best else None

    def _day(self, column: Column, texts: Texts) -> "tuple[Column, tuple[str, ...]] | None":
        long = sum(len(text.strip(BLANKS)) > 10 for text, _ in texts)
        kind = "timestamp" if long and not all(_is_midnight(text) for text, _ in texts) else "date"
        iso = replace(column, type=kind)
        candidates = {"iso": iso, **{format_: _dated(column, format_) for format_ in _formats(texts)}}
        trimmed = {f"{label} trimmed": replace(one, trim=True) for label, one in candidates.items()}
        best = self._best({**candidates, **trimmed}, texts)
        if best is None:
            return None
        made = {**candidates, **trimmed}[best[0]]
        evidence = [f"{best[1]:,} values are written " + (f"`{made.format}`" if made.format else "as ISO 8601")]
        if made.format.startswith("%d") and self._best({"other": replace(made, format=_swapped(made.format))}, texts):
            evidence.append("no day is above 12, so days and months cannot be told apart: taken as day first")
        if made.timezone:
            evidence.append(f"no offset is written: taken as the time of {made.timezone}")
        elif made.type == "timestamp" and not made.format and not any(re.search(r"(Z|[+-]\d\d:?\d*)$", t) for t, _ in texts):
            evidence.append("no offset is written, so it is UTC; else declare timezone")
        if made.type == "date" and long:
            evidence.append("every time of day is midnight")
        return made, tuple(evidence)

    def _number(self, column: Column, texts: Texts) -> "tuple[Column, tuple[str, ...]] | None":
        if _is_code(column, texts):
            return None
        signs = {sign for text, _ in texts for sign in re.findall(CURRENCY, text)}
        if len(signs) > 1:
            return None
        found: dict[Mark, tuple[Column, int]] = {}
        marks: tuple[Mark, ...] = ("", ",", ".")
        dotted, comma = (any(mark in text for text, _ in texts) for mark in (".", ","))
        reads = {"": not (comma or signs), ",": dotted or comma or bool(signs), ".": comma or bool(signs)}
        for mark in marks:
            scaled = self._scaled(replace(column, type="double", decimal=mark), texts) if reads[mark] else None
            if scaled is not None:
                found[mark] = scaled
        made = replace(column, type="double")
        best = self._best({"double": made}, texts)
        if best is not None and best[1] > max((count for _, count in found.values()), default=0):
            return self._long(column, texts) if any(_is_cut(text) for text, _ in texts) else (made, _floating(best[1]))
        if not found:
            return None
        mark, sure = self._mark(found, texts, signs)
        made, count = found[mark]
        evidence = [f"{count:,} values are numbers" + (f" with the decimal mark `{mark}`" if mark else "")]
        evidence += [f"with {signs.pop()}"] if signs else []
        evidence += [] if sure else ["`1.250` alone does not tell which mark it is: look at it"]
        return self._sized(made, texts, money=bool(mark)), tuple(evidence)

    def _long(self, column: Column, texts: Texts) -> "tuple[Column, tuple[str, ...]] | None":
        """Numbers with more digits than a double has: the decimal that has all of them, if one does."""
        after = max(len(text.strip(BLANKS).partition(".")[2]) for text, _ in texts)
        made = replace(column, type=f"decimal(38,{min(after, 38)})")
        if self._accepted({"long": made}, texts)["long"] < sum(n for _, n in texts):
            return None
        return made, ("numbers with more digits than a double holds",)

    def _scaled(self, column: Column, texts: Texts) -> tuple[Column, int] | None:
        """The decimal with the fewest digits after the mark that accepts as many values as one with all of them."""
        most = self._best({"all": replace(column, type=f"decimal(38,{_SCALES})")}, texts)
        for scale in range(_SCALES + 1) if most else ():
            made = replace(column, type=f"decimal(38,{scale})")
            best = self._best({"one": made}, texts)
            if best == ("one", most[1] if most else 0):
                return made, best[1]
        return None

    def _mark(self, found: Mapping[Mark, tuple[Column, int]], texts: Texts, signs: set[str]) -> tuple[Mark, bool]:
        """The decimal mark, and whether the texts alone tell it."""
        most = max(count for _, count in found.values())
        full = [mark for mark, (_, count) in found.items() if count == most]
        dotted, comma = (any(mark in text for text, _ in texts) for mark in (".", ","))
        if len(full) == 1:
            return full[0], True
        if "" in full and not (dotted and "," in full and self.comma):
            return "", not (dotted and "," in full)
        if "," in full and (self.comma or signs == {"R$"} or (comma and "." not in full)):
            return ",", not (dotted or comma)
        return "." if "." in full and signs else full[0], False

    def _sized(self, column: Column, texts: Texts, *, money: bool) -> Column:
        """The decimal with room for what is there, two digits more, and twelve at least."""
        largest = self.largest(column, texts)
        whole = len(str(int(largest))) if largest is not None else 1
        scale = int(column.type.rpartition(",")[2].rstrip(")"))
        scale = max(scale, 2) if money else scale
        return replace(column, type=f"decimal({min(max(12, whole + scale + 2), 38)},{scale})")


def _floating(count: int) -> tuple[str, ...]:
    return (f"{count:,} values are numbers, some with exponents or more than {_SCALES} decimals",)


def _is_cut(text: str) -> bool:
    """Whether a double is another number than the text."""
    try:
        return Decimal(text.strip(BLANKS)) != Decimal(repr(float(text)))
    except (InvalidOperation, ValueError, OverflowError):
        return False


def _dated(column: Column, format_: str) -> Column:
    kind = "timestamp" if "%H" in format_ else "date"
    local = kind == "timestamp" and "%z" not in format_ and not format_.startswith("%Y")
    return replace(column, type=kind, format=format_, timezone=_ZONE if local else "")


def _formats(texts: Texts) -> list[str]:
    """Formats that some of the texts may be written in; day first before month first."""
    shapes: dict[tuple[str, str, bool], int] = {}
    for text, n in texts[:1000]:
        dated = _DATED.fullmatch(text.strip(BLANKS))
        rest = dated["rest"] if dated else ""
        clock = _CLOCK.fullmatch(rest) if rest else None
        if dated is None or (rest and clock is None):
            continue
        time = f"{clock['gap']}%H:%M{':%S' if clock['s'] else ''}{'.%f' if clock['f'] else ''}" if clock else ""
        zone = "" if clock is None or not clock["z"] else f"{' ' if clock['z'].startswith(' ') else ''}%z"
        shape = dated["sep"], time + zone, len(dated["a"]) == 4
        shapes[shape] = shapes.get(shape, 0) + n
    out = []
    for (sep, time, year_first), _ in sorted(shapes.items(), key=lambda item: -item[1])[:5]:
        orders = (("%Y", "%m", "%d"),) if year_first else (("%d", "%m", "%Y"), ("%m", "%d", "%Y"))
        out += [sep.join(order) + end for order, end in product(orders, (time,))]
    return out


def _swapped(format_: str) -> str:
    return format_.replace("%d", "%_").replace("%m", "%d").replace("%_", "%m")


def _is_midnight(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T]00:00(:00(\.0+)?)?", text.strip(BLANKS)))


def _is_code(column: Column, texts: Texts) -> bool:
    """Whether digits are a name: of a code, or with zeros at their beginning."""
    zeros = any(re.match(r"0[0-9]", text.strip(BLANKS)) for text, _ in texts)
    return zeros or bool(_CODE.search(column.name))


def _of_text(column: Column, texts: Texts, nothing: Sequence[str]) -> tuple[str, ...]:
    """What is worth knowing of a column that stays text."""
    out = []
    values = [text for text, _ in texts]
    if nothing:
        out.append(f"{', '.join(map(repr, nothing))} may mean no value: nulls={tuple(nothing)!r}")
    if values and all(re.fullmatch(r"[0-9]{1,2}/[0-9]{1,2}/[0-9]{2}", text.strip(BLANKS)) for text in values):
        out.append("days with years of two digits, which no format reads: have the source write four")
    if values and all(re.fullmatch(r"[0-9]+", text.strip(BLANKS)) for text in values):
        out.append("digits that are a code: zeros at their beginning count")
    if any(text != text.strip(BLANKS) for text in values):
        out.append("some values have blanks around them: trim=True takes them off")
    if values and all(text.lstrip().startswith("[") for text in values):
        out.append(f'a list in JSON: path="{column.path or column.source or column.name}[0]" leads to its first element')
    return tuple(out)
