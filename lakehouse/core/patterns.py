"""Regular expressions of rules: the subset that RE2 (DuckDB) and Java (Spark) both read, and read alike; checked when declared.

    pattern ─▶ one pass, character by character ─▶ nothing, or a sentence with the position of what is wrong

In: literals, `.`, `^`, `$`, `|`, groups `(…)` and `(?:…)`, the flags `(?i)`, `(?m)` and `(?s)`, repetitions up to 1000 and lazy
ones, classes `[…]`, the escapes of `_ESCAPES`, `\\xHH`, `\\x{HHHH}` and `\\p{L}` with a general category.
Out: what one of the two lacks (look-around, back-references, names, possessive repetitions) and what means another thing there
(`[[:alpha:]]`, `&&`, `\\v`, `(?U)`).
Not here: what is matched; the engines do that.
"""

import re

from lakehouse.core.errors import DeclarationError

_REMEDY = (
    r"Use what RE2 and Java share: ( | ) (?: ) [ ] . ^ $ * + ? {m,n}, lazy ones, (?i) (?m) (?s), \d \w \s \b, \p{L}, \xHH, "
    r"and a backslash before a character that is meant literally."
)
#: One letter after a backslash: outside of classes, and inside.
_ESCAPES, _IN_CLASS = frozenset("dDwWsSbBAztnrfa"), frozenset("dDwWsStnrfa")
_CATEGORIES = re.compile("L[ultmo]?|M[nce]?|N[dlo]?|P[cdseifo]?|S[mcko]?|Z[slp]?|C[cfo]?")
_PROPERTY = re.compile(r"[pP](?:\{([A-Za-z]{1,2})\}|([A-Z]))")
_CODE = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})")
_COUNTED = re.compile(r"\{([0-9]{1,5})(,([0-9]{1,5})?)?\}")
_FLAGS = re.compile(r"\(\?[ims]*(?:-[ims]+)?([:)])")
#: RE2 counts nested repetitions together, and compiles no more than fits into 8 MB: `\p{L}{300}` does, `\p{L}{1000}` does not.
_MOST, _LARGEST = 1000, 100_000
_SIZES = {"category": 300, "any": 10}


def check_pattern(pattern: str, what: str) -> None:
    """Refuse a regular expression that one of the engines cannot read.

    Args:
        what: whose it is, for the message.

    Raises:
        DeclarationError: what is wrong, and at which character (from 1).
    """
    found = problem(pattern)
    if found:
        at, why = found
        raise DeclarationError(f"{what}: the pattern {pattern[:120]!r} {why} (character {at + 1}).", remedy=_REMEDY)


def problem(pattern: str) -> tuple[int, str] | None:
    """Where a pattern is wrong (from 0) and why; None when both engines read it."""
    try:
        _Parser(pattern).whole()
    except _BadPatternError as error:
        return error.at, error.why
    return None


class _BadPatternError(Exception):
    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at, self.why = at, why


class _Parser:
    """One pass over a pattern. `size` is about what RE2 makes of it, `most` how often something is repeated at most."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def whole(self) -> None:
        size, _ = self._alternatives(depth=0)
        if self.at < len(self.text):
            raise _BadPatternError(self.at, "has a ) that closes nothing")
        if size > _LARGEST:
            raise _BadPatternError(0, "is too large when its repetitions are written out")

    def _alternatives(self, *, depth: int) -> tuple[int, int]:
        """Up to the end or the bracket that closes the group: `(size, most)`."""
        size, most = 1, 1
        while self.at < len(self.text) and self.text[self.at] != ")":
            if self.text[self.at] == "|":
                self.at += 1
                continue
            begin = self.at
            part, repeated = self._atom(depth)
            times = self._repetition(begin)
            if max(times, 1) * repeated > _MOST:
                raise _BadPatternError(begin, f"repeats something more than {_MOST} times")
            size, most = size + part * max(times, 1), max(most, repeated * max(times, 1))
        return size, most

    def _atom(self, depth: int) -> tuple[int, int]:
        character = self.text[self.at]
        if character in "*+?":
            raise _BadPatternError(self.at, f"repeats nothing with {character}")
        if character == "{":
            raise _BadPatternError(self.at, "has a { that repeats nothing and is not escaped")
        if character == "(":
            return self._group(depth)
        if character == "[":
            return self._class(), 1
        if character == "\\":
            return self._escape(_ESCAPES)[0], 1
        if character == "\x00":
            raise _BadPatternError(self.at, "has a character that no text has")
        self.at += 1
        return _SIZES["any"] if character == "." else 1, 1

    def _group(self, depth: int) -> tuple[int, int]:
        begin = self.at
        if depth > 100:
            raise _BadPatternError(begin, "has too many groups within each other")
        if self.text.startswith("(?", begin):
            flags = _FLAGS.match(self.text, begin)
            if flags is None:
                raise _BadPatternError(begin, f"has {self.text[begin : begin + 4]!r}, which is not the same in RE2 and Java")
            self.at = flags.end()
            if flags[1] == ")":
                if flags[0] == "(?)":
                    raise _BadPatternError(begin, "has the flags (?) without a letter")
                if self.text[self.at : self.at + 1] in ("*", "+", "?", "{"):
                    raise _BadPatternError(self.at, "repeats flags")
                return 0, 1
        else:
            self.at += 1
        found = self._alternatives(depth=depth + 1)
        if self.at >= len(self.text):
            raise _BadPatternError(begin, "has a ( that is not closed")
        self.at += 1
        return found

    def _repetition(self, begin: int) -> int:
        """How often what precedes may be repeated, as RE2 counts it; 1 for what it does not write out."""
        counted = _COUNTED.match(self.text, self.at)
        if counted:
            low = int(counted[1])
            high = low if counted[2] is None else int(counted[3]) if counted[3] else low
            if max(low, high) > _MOST or low > high:
                raise _BadPatternError(self.at, f"has {counted[0]}; numbers rise, and go up to {_MOST}")
            self.at, times = counted.end(), max(low, high)
        elif self.text[self.at : self.at + 1] in ("*", "+", "?"):
            self.at, times = self.at + 1, 1
        else:
            return 1
        if self.text[begin] in "^$" or self.text[begin : begin + 2] in (r"\b", r"\B", r"\A", r"\z"):
            raise _BadPatternError(begin, "repeats a place, which has no length")
        if self.text[self.at : self.at + 1] == "?":
            self.at += 1
        if self.text[self.at : self.at + 1] in ("*", "+", "?") or _COUNTED.match(self.text, self.at):
            raise _BadPatternError(self.at, "repeats a repetition")
        return times

    def _class(self) -> int:
        begin, self.at = self.at, self.at + 1
        size, first = 1, True
        if self.text[self.at : self.at + 1] == "^":
            self.at, size = self.at + 1, _SIZES["any"]
        while self.at < len(self.text):
            character = self.text[self.at]
            if character == "]" and not first:
                self.at += 1
                return size
            first = False
            size = max(size, self._member())
        raise _BadPatternError(begin, "has a [ that is not closed")

    def _member(self) -> int:
        """One character, escape or range of a class."""
        begin = self.at
        size, low = self._one()
        is_range = self.text[self.at : self.at + 1] == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", "")
        if low is None or not is_range:
            return size
        self.at += 1
        _, high = self._one()
        if high is None or high < low:
            raise _BadPatternError(begin, f"has the range {self.text[begin : self.at]}, which does not rise")
        return size

    def _one(self) -> tuple[int, str | None]:
        """The next of a class, and its character where it is a single one."""
        character = self.text[self.at]
        if character == "\\":
            return self._escape(_IN_CLASS)
        if character in "[]" or self.text.startswith("&&", self.at):
            raise _BadPatternError(self.at, f"has a {character} within [ ] that is not escaped")
        self.at += 1
        return 1, character

    def _escape(self, letters: frozenset[str]) -> tuple[int, str | None]:
        begin, self.at = self.at, self.at + 1
        character = self.text[self.at : self.at + 1]
        if found := _PROPERTY.match(self.text, self.at):
            if not _CATEGORIES.fullmatch(found[1] or found[2]):
                raise _BadPatternError(begin, f"has \\{found[0]}, which is no general category")
            self.at = found.end()
            return _SIZES["category"], None
        if found := _CODE.match(self.text, self.at):
            code = int(found[1] or found[2], 16)
            if not 0 < code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                raise _BadPatternError(begin, f"has \\{found[0]}, which is no character")
            self.at = found.end()
            return 1, chr(code)
        if character in letters and character:
            self.at += 1
            special = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\a"}
            return 1, special.get(character)
        if character.isascii() and not character.isalnum() and character.isprintable() and character:
            self.at += 1
            return 1, character
        raise _BadPatternError(begin, f"has \\{character}, which is not the same in RE2 and Java")
