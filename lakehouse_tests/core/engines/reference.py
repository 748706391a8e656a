"""What each type accepts, in plain Python: the reference that the engines are compared with. Written apart from the SQL."""

import datetime as dt
import re
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from typing import Any
from zoneinfo import ZoneInfo

from lakehouse.core.engines.casts import BLANKS, CURRENCY, OFFSET, Cast

SPACE = " \t\n\v\f\r"
EXACT = Context(prec=40_000, Emax=10**9, Emin=-(10**9))
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MAX = {"bigint": 2**63, "int": 2**31}
UNITS = {"epoch_s": 10**6, "epoch_ms": 10**3, "epoch_us": 1}


def value_of(text: str | None, cast: Cast) -> Any:
    """The value that a delivered text is, or None."""
    if text is None:
        return None
    text = text.strip(BLANKS) if cast.trim else text
    text = {"": text, "upper": text.upper(), "lower": text.lower()}[cast.case]
    if cast.form:
        return _epoch(text, cast)
    if cast.type == "string":
        return text
    if cast.type in MAX:
        number = _number(text)
        fits = number is not None and number == number.to_integral_value() and -MAX[cast.type] <= number < MAX[cast.type]
        return int(number) if fits and number is not None else None
    if cast.type.startswith("decimal"):
        return _decimal(text, cast)
    if cast.type == "double":
        return _double(text)
    if cast.type == "boolean":
        return _boolean(text, cast)
    return _temporal(text, cast)


def _number(text: str) -> Decimal | None:
    found = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?0*\d{1,4})?", text.strip(SPACE), re.ASCII)
    with localcontext(EXACT):
        return Decimal(found[0]) if found else None


def _decimal(text: str, cast: Cast) -> Decimal | None:
    if cast.decimal:
        gap = "[ \u00a0\u202f]?"
        mark, group = (",", ".") if cast.decimal == "," else (".", ",")
        one = rf"([+-]?){gap}(?:(?P<a>{CURRENCY}){gap})?([+-]?)(\d[\d{re.escape(group)}]*)(?:{re.escape(mark)}(\d*))?"
        one += rf"(?:{gap}(?P<b>{CURRENCY}))?"
        found = re.fullmatch(one, text.strip(SPACE), re.ASCII)
        if not found or (found[1] and found[3]) or (found["a"] and found["b"] and found["a"] != found["b"]):
            return None
        if found[1] == "" and found[3] == "" and text.strip(SPACE)[0] in " \u00a0\u202f":
            return None
        whole = found[4]
        if group in whole and not re.fullmatch(rf"\d{{1,3}}({re.escape(group)}\d{{3}})+", whole, re.ASCII):
            return None
        text = f"{found[1]}{found[3]}{whole.replace(group, '')}.{found[5] or ''}"
    number = _number(text)
    if number is None:
        return None
    precision, scale = map(int, re.findall(r"\d+", cast.type))
    with localcontext(EXACT):
        retained = number.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP)
        if (retained != number and not cast.rounding) or abs(retained) >= Decimal(10) ** (precision - scale):
            return None
        return retained + 0 if retained else abs(retained)


def _double(text: str) -> float | None:
    text = text.strip(SPACE)
    if re.fullmatch(r"[+-]?(inf|infinity|nan)", text, re.ASCII | re.IGNORECASE):
        return float(text)
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return None
    value = float(text)
    return value if abs(value) != float("inf") else None


def _boolean(text: str, cast: Cast) -> bool | None:
    if text in cast.true or text in cast.false:
        return text in cast.true
    if text in ("1", "t", "0", "f"):
        return text in ("1", "t")
    return {"true": True, "false": False}.get(text.lower())


def _temporal(text: str, cast: Cast) -> Any:
    if cast.format:
        found = _parsed(text, cast.format)
    else:
        clock = rf"[T ](?P<H>\d\d):(?P<M>\d\d)(:(?P<S>\d\d)(\.(?P<f>\d{{1,9}}))?)?(?P<z>{OFFSET})?"
        shape = rf"(?P<Y>\d{{4}})-(?P<m>\d\d)-(?P<d>\d\d)({clock})?"
        match = re.fullmatch(shape, text, re.ASCII)
        found = match.groupdict() if match else None
    if found is None:
        return None
    zone = ZoneInfo(cast.timezone or "UTC")
    try:
        numbers = [int(found.get(part) or 0) for part in "YmdHMS"]
        local = dt.datetime(*numbers, microsecond=int((found.get("f") or "0")[:6].ljust(6, "0")))
        if cast.type == "date" and found.get("z") is None:
            return local.date()
        offset = found.get("z")
        if offset is None:
            # A time that the clock shows twice is the later; one that it passes over counts on from the hour before.
            first, later = (local.replace(tzinfo=zone, fold=fold).astimezone(dt.UTC) for fold in (0, 1))
            instant = later if later.astimezone(zone).replace(tzinfo=None) == local else first
        else:
            digits = offset[1:].replace(":", "").ljust(4, "0")
            minutes = int(digits[:2]) * 60 + int(digits[2:]) if offset != "Z" else 0
            instant = local.replace(tzinfo=dt.UTC) - dt.timedelta(minutes=minutes) * (-1 if offset[0] == "-" else 1)
        return instant.astimezone(zone).date() if cast.type == "date" else instant
    except (ValueError, OverflowError):
        return None


def _parsed(text: str, format_: str) -> dict[str, str] | None:
    parts, pattern = re.findall(r"%.|[^%]", format_), ""
    for n, part in enumerate(parts):
        if part[0] != "%" or part == "%%":
            pattern += re.escape(part[-1])
            continue
        beside = any(o[0] == "%" and o != "%%" for o in (*parts[max(n - 1, 0) : n], *parts[n + 1 : n + 2]))
        size = {"Y": "{4}", "f": "{6}" if beside else "{1,9}"}.get(part[1], "{2}" if beside else "{1,2}")
        pattern += f"(?P<z>{OFFSET})" if part == "%z" else rf"(?P<{part[1]}>\d{size})"
    match = re.fullmatch(pattern, text, re.ASCII)
    return match.groupdict() if match else None


def _epoch(text: str, cast: Cast) -> Any:
    number = _number(text)
    if number is None:
        return None
    try:
        with localcontext(EXACT):
            micros = number * UNITS[cast.form]
            if micros != micros.to_integral_value() or abs(micros) > 10**18:
                return None
            instant = EPOCH + dt.timedelta(microseconds=int(micros))
        return instant.astimezone(ZoneInfo(cast.timezone or "UTC")).date() if cast.type == "date" else instant
    except OverflowError:
        return None
