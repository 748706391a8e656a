"""Texts that leave the lake: cut to a length, on the lines they should have, and without what nobody outside may read."""

import re
from datetime import timedelta

_SECRETS = (
    (re.compile(r"(?<=://)[^/\s@'\"]+(?=@)"), "***"),  # user:password of a URL
    (re.compile(r"xox[a-z]-[\w-]+|xapp-[\w-]+"), "***"),  # Slack's tokens
    (re.compile(r"\bAKIA[A-Z0-9]{16}\b"), "***"),
    (re.compile(r"(?i)\bBearer\s+[\w.~+/=-]+"), "Bearer ***"),
    (
        re.compile(
            r"""(?ix)\b([\w-]*(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|credential|signature)[\w-]*
            ["']?\s*[=:]\s*["']?)[^\s"',;&)\]}]+"""
        ),
        r"\1***",
    ),
)


def redact(text: str) -> str:
    """The text with passwords, tokens and keys replaced by `***`."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def one_line(text: str, *, limit: int = 300) -> str:
    """The text on one line of at most `limit` characters, without secrets."""
    line = " ".join(redact(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def span(length: timedelta) -> str:
    """A length of time for people: `3 days`, `2 h 05 min`, `4 min 10 s`, `8 s`."""
    if length >= timedelta(days=3):
        return f"{length.days:,} days"
    seconds = round(length.total_seconds())
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    if hours:
        return f"{hours} h {minutes:02} min" if minutes else f"{hours} h"
    return f"{minutes} min {seconds:02} s" if minutes and seconds else f"{minutes} min" if minutes else f"{seconds} s"
