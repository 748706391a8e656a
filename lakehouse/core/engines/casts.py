"""The text grammar of casts: which delivered text is a value of which type. Defined here once, for every engine.

Here: `Cast`, what a column's text is read as, and the patterns and limits of every type as data. Not here: SQL. The engines
build theirs from it (`text_casts.py`) and are tested against it value by value. What the grammar does not
accept is null from a cast. Nothing is rounded, truncated or guessed unless the cast says so.

A pattern is a whole text, in the syntax that RE2, Java and Python share; `[0-9]`, since `\\d` is more than that to Python.
"""

import re
from dataclasses import dataclass

from lakehouse.core.engines.statistics import MILLIS

#: The application transaction under which a table keeps the grammar that all of its values were cast under, and the present one.
#: A table that was made before the lake had a grammar of its own has none until all of it is computed again.
GRAMMAR, VERSION = "casts", 1
INTEGERS = ("bigint", "int")
SPACE = r"[ \t\n\x0B\f\r]*"
#: What `trim` takes off both ends of a text: blanks, line ends, the no-break spaces of spreadsheets, a byte order mark.
BLANKS = " \t\n\v\f\r\u00a0\u2007\u202f\u3000\ufeff"

#: A number: its sign, the digits before and after the mark, an exponent of at most four digits.
NUMBER = rf"{SPACE}[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?0*[0-9]{{1,4}})?{SPACE}"
PLAIN = rf"{SPACE}[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+){SPACE}"
#: The same in parts: sign, digits before and after the mark, exponent.
PARTS = rf"{SPACE}([+-]?)([0-9]*)\.?([0-9]*)[eE]([+-]?[0-9]+){SPACE}"
#: A double may have any exponent that it can hold, and be infinite or not a number where that is written out.
DOUBLE = rf"{SPACE}[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?{SPACE}"
INFINITE = rf"{SPACE}[+-]?[iI][nN][fF](?:[iI][nN][iI][tT][yY])?{SPACE}"
NOT_A_NUMBER = rf"{SPACE}[+-]?[nN][aA][nN]{SPACE}"

#: Texts of a boolean: those of any letter case, and those that are as they are.
TRUE, FALSE = ("true", "false")
TRUE_EXACTLY, FALSE_EXACTLY = ("1", "t"), ("0", "f")

DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
CLOCK = r"[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,9})?)?"
#: `Z`, `+03`, `+0300` or `+03:00`.
OFFSET = r"(?:Z|[+-](?:0[0-9]|1[0-5])(?::?[0-5][0-9])?)"
#: A time of day without an offset, which is one of the column's zone; and with one.
LOCAL, INSTANT = rf"{DAY}{CLOCK}", rf"{DAY}{CLOCK}{OFFSET}"

#: Values beyond these are none: Delta's readers cannot hold them.
FIRST_DAY, LAST_DAY = "0001-01-01", "9999-12-31"
FIRST_INSTANT, LAST_INSTANT = "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"
#: Numbers since 1970 by the unit that a column declares: microseconds in one, and the first and last whole one there can be.
EPOCHS = {
    "epoch_s": (1_000_000, MILLIS[0] // 1000, MILLIS[1] // 1000),
    "epoch_ms": (1_000, *MILLIS),
    "epoch_us": (1, MILLIS[0] * 1000, MILLIS[1] * 1000 + 999),
}

#: Currency signs that an amount may have before or after it.
SIGNS = ("R$", "US$", "$", "€", "£", "¥")
CURRENCY = f"(?:{'|'.join(map(re.escape, SIGNS))})"
_GAP = "[ \u00a0\u202f]?"
#: What each part of a declared format is in a text: alone, and beside another part, where its length has to be known.
DIRECTIVES = {
    "d": (r"[0-9]{1,2}", r"[0-9]{2}"),
    "m": (r"[0-9]{1,2}", r"[0-9]{2}"),
    "Y": (r"[0-9]{4}", r"[0-9]{4}"),
    "H": (r"[0-9]{1,2}", r"[0-9]{2}"),
    "M": (r"[0-9]{1,2}", r"[0-9]{2}"),
    "S": (r"[0-9]{1,2}", r"[0-9]{2}"),
    "f": (r"[0-9]{1,9}", r"[0-9]{6}"),
    "z": (OFFSET, OFFSET),
}


@dataclass(frozen=True)
class Cast:
    """What a column's text is read as.

    Args:
        type: a spec type.
        rounding: `half_up` rounds a decimal with too many digits after the mark, which else is no value.
        true, false: further texts of a boolean, before its own.
        trim: blanks around the text do not count.
        case: `upper` or `lower`: the text in that case.
        form: `epoch_s`, `epoch_ms` or `epoch_us`: a number since 1970.
        format: how a day or instant is written, in `DIRECTIVES`.
        timezone: of a time without an offset, and in which an instant has its day.
        decimal: the decimal mark, `,` or `.`, of amounts with thousands marks and a currency sign.
    """

    type: str
    rounding: str = ""
    true: tuple[str, ...] = ()
    false: tuple[str, ...] = ()
    trim: bool = False
    case: str = ""
    form: str = ""
    format: str = ""
    timezone: str = ""
    decimal: str = ""

    @property
    def rewrites(self) -> bool:
        """Whether the text is brought into the grammar's own form first."""
        return self.trim or bool(self.case or self.format or self.decimal)

    @property
    def size(self) -> tuple[int, int]:
        """Digits of a number, and those of them after the mark."""
        if self.type.startswith("decimal"):
            precision, scale = re.findall(r"[0-9]+", self.type)
            return int(precision), int(scale)
        return 38, 0


def as_cast(kind: "Cast | str") -> Cast:
    """A type alone is the cast to it."""
    return kind if isinstance(kind, Cast) else Cast(kind)


def is_exact(kind: str) -> bool:
    """Whether a spec type has exact numbers: a text that is to be one is cast by the grammar, wherever it comes from."""
    return kind in INTEGERS or kind.startswith("decimal")


def may_round(source: str, kind: str) -> bool:
    """Whether a number of one type may have digits after the mark that another has no room for.

    A double has no exact digits of its own, so it becomes the nearest decimal; an integer it is exactly, or not at all.

    Args:
        source: a type as an engine calls it, in any letter case.
        kind: a spec type.
    """
    source = source.lower()
    decimals = int(source.rstrip(")").split(",")[1]) if source.startswith("decimal") else 0
    if kind in INTEGERS:
        return decimals > 0 or source in ("double", "float", "real")
    return kind.startswith("decimal") and decimals > Cast(kind).size[1]


def exact(scale: int) -> str:
    """A number without an exponent, and without more digits after the mark than `scale`; zeros at the end are none."""
    after = rf"\.(?:[0-9]{{1,{scale}}}0*|0+)" if scale else r"\.0+"
    return rf"{SPACE}[+-]?(?:[0-9]+(?:{after}|\.)?|{after}){SPACE}"


def amount(decimal: str) -> str:
    """An amount with a declared decimal mark: groups of three digits, or none, and a currency sign before it, after it, or the
    same one on both sides."""
    mark, thousands = (",", r"\.") if decimal == "," else (r"\.", ",")
    digits = rf"(?:[0-9]{{1,3}}(?:{thousands}[0-9]{{3}})+|[0-9]+)(?:{mark}[0-9]*)?"
    before = rf"(?:[+-]{_GAP}(?:{CURRENCY}{_GAP})?|{CURRENCY}{_GAP}[+-]?)"
    one = rf"{before}{digits}|(?:[+-]{_GAP})?{digits}(?:{_GAP}{CURRENCY})?"
    both = "|".join(rf"(?:[+-]{_GAP}{sign}{_GAP}|{sign}{_GAP}[+-]?){digits}{_GAP}{sign}" for sign in map(re.escape, SIGNS))
    return rf"{SPACE}(?:{one}|{both}){SPACE}"


def format_parts(format_: str) -> list[str]:
    """A declared format as its directives (`%d`) and the characters between them."""
    return re.findall(r"%.|[^%]|%$", format_)


def format_pattern(format_: str) -> tuple[str, dict[str, int]]:
    """The pattern of a declared format, and which of its groups is which part."""
    parts, pattern = format_parts(format_), ""
    groups: dict[str, int] = {}
    for number, part in enumerate(parts):
        if part[0] != "%" or part == "%%":
            pattern += re.escape(part[-1])
            continue
        beside = [*parts[max(number - 1, 0) : number], *parts[number + 1 : number + 2]]
        alone = all(other[0] != "%" or other == "%%" for other in beside)
        groups[part[1]] = len(groups) + 1
        pattern += f"({DIRECTIVES[part[1]][0 if alone else 1]})"
    return pattern, groups


def format_rewrite(groups: dict[str, int], mark: str) -> str:
    """How the parts of a declared format make a text of the grammar; single digits are still to be filled up (`FILL`).

    Args:
        mark: what precedes the number of a group in the engine's replacements.
    """
    part = {name: f"{mark}{number}" for name, number in groups.items()}
    text = f"{part['Y']}-{part['m']}-{part['d']}"
    if "H" in part:
        text += f" {part['H']}:{part.get('M', '00')}:{part.get('S', '00')}"
        text += f".{part['f']}" if "f" in part else ""
        text += part.get("z", "")
    return text


#: A single digit of a day or a time, which a zero goes before: `\1`, 0, `\2`.
FILL = r"([- :])([0-9])\b"
