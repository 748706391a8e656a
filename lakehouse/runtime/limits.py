"""How large the container of a run may be, by its tags; without Dagster, so that jobs can declare it.

Where a run is a process (`lakehouse/runtime/launcher.py`), nobody reads these tags.
"""

import re
from collections.abc import Mapping

from lakehouse.core.errors import DeclarationError

MEMORY_TAG, CPUS_TAG = "lakehouse/memory", "lakehouse/cpus"
#: Of a job that declares none.
MEMORY, CPUS = "2g", 2.0


def limits(tags: Mapping[str, str]) -> tuple[str, float]:
    """The memory (as Docker writes it: `4g`, `800m`) and the cores of a run's container.

    Raises:
        DeclarationError: a tag is not one of these.
    """
    memory, cpus = tags.get(MEMORY_TAG, MEMORY), tags.get(CPUS_TAG, str(CPUS))
    if not re.fullmatch(r"[1-9]\d{0,5}[mg]", memory):
        raise DeclarationError(f"The tag {MEMORY_TAG} is {memory!r}.", remedy="Write 4g or 800m.")
    if not re.fullmatch(r"\d{1,3}(\.\d{1,2})?", cpus) or float(cpus) <= 0:
        raise DeclarationError(f"The tag {CPUS_TAG} is {cpus!r}.", remedy="Write a number of cores, such as 2 or 0.5.")
    return memory, float(cpus)
