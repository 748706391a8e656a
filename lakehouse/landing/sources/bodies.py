"""Bodies of HTTP answers that should be JSON: unpacked, as text, and what one looks like that is none. Pure."""

import json
import zlib
from contextlib import suppress

#: A message has at most so much of what came.
_HEAD = 512
NO_JSON = "not JSON; it looks like "


def unpacked(body: bytes, *, cap: int) -> bytes:
    """A body without the gzip around it that no header reported; one that is none, or larger than `cap` bytes, as it was."""
    if body[:2] != b"\x1f\x8b":
        return body
    unpacking = zlib.decompressobj(wbits=31)
    try:
        found = unpacking.decompress(body, cap + 1)
    except zlib.error:
        return body
    return found if unpacking.eof and len(found) <= cap else body


def as_text(body: bytes, *, charset: str = "", declared: str = "") -> str:
    """A body as text: in the Unicode form that it begins like, else in the charset of its header, else in the declared one.

    Raises:
        ValueError: it is in none of them; the text is a sentence.
    """
    with suppress(UnicodeDecodeError):
        return body.decode(json.detect_encoding(body))
    for encoding in (charset, declared):
        with suppress(UnicodeDecodeError, LookupError):
            if encoding:
                return body.decode(encoding)
    named = charset or declared
    raise ValueError(f"It is not UTF-8{f' and not {named}, which is named' if named else ', and no charset is named'}.")


def looks_like(body: bytes) -> str:
    """What a body is that could not be read as JSON, for a message that begins with "It is"."""
    head = body.lstrip()[:_HEAD].lower()
    if not head:
        return "not JSON; it is empty"
    if head[:1] in (b"{", b"["):
        return "not JSON, though it begins and ends like it" if _closed(body) else f"{NO_JSON}JSON that breaks off"
    forms = {
        "gzip that cannot be unpacked": body[:2] == b"\x1f\x8b",
        "HTML": head.startswith((b"<!doctype html", b"<html")) or b"<html" in head,
        "XML": head.startswith(b"<"),
        # A field's number and type, then lengths and numbers: bytes that no text has.
        "protobuf": any(byte < 9 or 13 < byte < 32 for byte in body[:64]),
    }
    return next((f"{NO_JSON}{name}" for name, found in forms.items() if found), "not JSON")


def _closed(body: bytes) -> bool:
    text = body.strip()
    return text[:1] + text[-1:] in (b"{}", b"[]")
