"""Closed sets of declarations: typed once, as a Literal."""

from collections.abc import Collection
from typing import Any, get_args

from lakehouse.core.errors import DeclarationError


def check_member(value: str, closed: Any, what: str) -> None:
    """Refuse a value that is not one of a Literal's."""
    check_one_of(value, get_args(closed), what)


def check_one_of(value: str, allowed: Collection[str], what: str) -> None:
    """Refuse a value that is not one of those allowed; the empty one, where it is, needs no mention."""
    if value not in allowed:
        raise DeclarationError(f"{what} is {value!r}.", remedy=f"Use one of {', '.join(name for name in allowed if name)}.")
