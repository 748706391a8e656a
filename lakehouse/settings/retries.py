"""How often a step is tried again, and after how long: declared here, for every step that has a promise of its own.

A policy is data; `runtime/steps.py` gives it to assets. The order sources' are in each environment's profile (`environments.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lakehouse.core.errors import DeclarationError


@dataclass(frozen=True)
class Retry:
    """So many tries after the first, each after so many seconds, give or take a random part of it."""

    times: int
    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.times <= 20 or not 0 <= self.seconds <= 3600:
            raise DeclarationError(
                f"{self.times} retries after {self.seconds} s are out of range.",
                remedy="Give up to 20 retries, after up to 3600 s each.",
            )


#: Steps of the job `pedidos` by what they do. Its bronze cleans (a delivered file becomes records), its silver transforms.
CLEAN, TRANSFORM, VALIDATE, LOAD, NOTIFY = Retry(2, 30), Retry(2, 30), Retry(1, 30), Retry(3, 60), Retry(2, 30)
#: By (tag of the table, layer), where it is another than every step's.
TABLE_STEPS: Mapping[tuple[str, str], Retry] = {("pedidos", "bronze"): CLEAN, ("pedidos", "silver"): TRANSFORM}
