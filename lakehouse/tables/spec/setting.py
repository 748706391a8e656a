"""Settings that a declaration names: variables of the environment, whose values `settings/` alone reads.

    url=setting("LOJA_API_URL", description="the shop's API"), auth=Bearer(setting("LOJA_API_TOKEN", secret=True))

Each appears in `.env.example` and docs/settings.md (`make sync`).
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from lakehouse.core.errors import DeclarationError

Value = str | int | float


@dataclass(frozen=True)
class Setting:
    """One variable of the environment.

    Args:
        name: as it is in the environment.
        default: its value where the environment has none; `{"dev": 5, "staging": 60, "prod": 60}` where it depends on
            `LAKEHOUSE_ENV`. Its type is the setting's: a text, an int or a float.
        description: for `.env.example` and docs/settings.md, where `unset` says what holds without it.
        secret: its value is shown nowhere.
        choices: the only texts that it may be.
        minimum: of a number; `maximum` too.
        pattern: what a text begins with, as a regular expression; `form` says it to a person.
    """

    name: str
    default: Value | Mapping[str, Value] = ""
    description: str = ""
    unset: str = ""
    secret: bool = False
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    pattern: str = ""
    form: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", self.name):
            raise DeclarationError(
                f"{self.name[:80]!r} cannot be the name of a setting.", remedy="Give capitals with underscores: LOJA_API_URL."
            )
        if isinstance(self.default, Mapping) and not self.default:
            raise DeclarationError(f"Setting {self.name}: no environment has a value.", remedy="Give each environment one.")

    def standard(self, environment: str) -> Value:
        """Its value where the variable is not set."""
        return self.default[environment] if isinstance(self.default, Mapping) else self.default

    def parse(self, text: str) -> Value:
        """The value that a text of the environment is.

        Raises:
            DeclarationError: it is none; the message names the setting, and repeats no secret.
        """
        kind = type(next(iter(self.default.values())) if isinstance(self.default, Mapping) else self.default)
        try:
            value: Value = kind(text)
        except ValueError:
            raise self._refused(text, f"not {'a whole number' if kind is int else 'a number'}") from None
        if not isinstance(value, str):
            low, high = self.minimum, self.maximum
            if not math.isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
                raise self._refused(text, f"not from {low if low is not None else 'anything'} to {high}")
        elif self.choices and value not in self.choices:
            raise self._refused(text, f"not one of {', '.join(self.choices)}")
        elif not re.match(self.pattern, value):
            raise self._refused(text, f"not {self.form or 'of its form'}")
        return value

    def _refused(self, text: str, why: str) -> DeclarationError:
        shown = "its value" if self.secret else repr(text[:80])
        return DeclarationError(f"{self.name} is wrong: {shown} is {why}.", remedy="Fix it in the environment or in .env.")


def setting(
    name: str,
    default: Value | Mapping[str, Value] = "",
    *,
    description: str = "",
    unset: str = "",
    secret: bool = False,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    pattern: str = "",
    form: str = "",
) -> Any:
    """A `Setting` where a declaration takes a value of its own."""
    return Setting(name, default, description, unset, secret, choices, minimum, maximum, pattern, form)


def settings_of(declared: object) -> Iterator[Setting]:
    """The settings that a declaration names, however deep."""
    if isinstance(declared, Setting):
        yield declared
    elif is_dataclass(declared) and not isinstance(declared, type):
        for part in fields(declared):
            yield from settings_of(getattr(declared, part.name))
    elif isinstance(declared, tuple):
        for each in declared:
            yield from settings_of(each)
    elif isinstance(declared, Mapping):
        for each in declared.values():
            yield from settings_of(each)


def plain(value: Any) -> str:
    """The text of a value that `settings/` has put in a setting's stead, secret (pydantic's `SecretStr`) or not."""
    reveal = getattr(value, "get_secret_value", None)
    return str(reveal() if reveal is not None else value)


def name_of(declared: Any, otherwise: str) -> str:
    """What messages call a declared value: its setting's name."""
    return declared.name if isinstance(declared, Setting) else otherwise
