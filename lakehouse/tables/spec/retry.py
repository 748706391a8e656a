"""How often a step is tried again, and after how long: a declared policy; `runtime/steps.py` gives it to assets."""

from dataclasses import dataclass

from lakehouse.core.errors import DeclarationError
from lakehouse.tables.spec.setting import Setting


@dataclass(frozen=True)
class Retry:
    """So many tries after the first, each after so many seconds, give or take a random part of it.

    Args:
        times: 0 to 20; a setting in the record of a source.
        seconds: 0 to 3600; the same.
    """

    times: int
    seconds: float

    def __post_init__(self) -> None:
        times, seconds = (0 if isinstance(value, Setting) else value for value in (self.times, self.seconds))
        if not 0 <= times <= 20 or not 0 <= seconds <= 3600:
            raise DeclarationError(
                f"{times} retries after {seconds} s are out of range.", remedy="Give up to 20 retries, after up to 3600 s each."
            )
