"""Values of the settings that declarations name (`tables/spec/setting.py`), and declarations with them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from pydantic import SecretStr

from lakehouse.tables.spec.setting import Setting, Value, plain


@dataclass(frozen=True)
class Values:
    """What was set, by name. It shows no value, since any may be secret."""

    of: Mapping[str, Value] = field(default_factory=dict, repr=False)


def from_environment(settings: Iterable[Setting], environment: Mapping[str, str], *, given: Mapping[str, Any]) -> Values:
    """The values that are set: as given, else of the environment.

    Raises:
        DeclarationError: one cannot be; the message names its setting.
    """
    found: dict[str, Value] = {}
    for one in settings:
        text = environment.get(one.name, "") if given.get(one.name) is None else plain(given[one.name])
        if text:
            found[one.name] = one.parse(text)
    return Values(found)


def resolved(declared: Any, values: Values, environment: str) -> Any:
    """A declaration with a value where it names a setting: a `SecretStr` where that is secret."""
    if isinstance(declared, Setting):
        value = values.of.get(declared.name, declared.standard(environment))
        return SecretStr(str(value)) if declared.secret else value
    if isinstance(declared, tuple):
        parts = tuple(resolved(each, values, environment) for each in declared)
        return declared if all(new is old for new, old in zip(parts, declared, strict=True)) else parts
    if isinstance(declared, Mapping):
        by_name = {name: resolved(each, values, environment) for name, each in declared.items()}
        return declared if all(by_name[name] is each for name, each in declared.items()) else by_name
    if is_dataclass(declared) and not isinstance(declared, type):
        known = {part.name: getattr(declared, part.name) for part in fields(declared) if part.init}
        given = {name: resolved(value, values, environment) for name, value in known.items()}
        changed = {name: value for name, value in given.items() if value is not known[name]}
        return replace(declared, **changed) if changed else declared
    return declared
