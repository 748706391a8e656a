"""What an environment decides where no variable does: one record each, and no other environment.

A record is complete: nothing of one environment is taken from another. Which schedules start by themselves stands beside
their jobs (`automation.py`, `tables/`); what a source is in each environment, beside the source.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lakehouse.tables.spec.job import Environment


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How an environment treats what is outside the lake.

    Args:
        samples: a source without a URL is its sample; otherwise that is an error.
        step_seconds: one try of one table's load into the warehouse.
    """

    samples: bool
    step_seconds: float = 300


PROFILES: Mapping[Environment, Profile] = {
    "dev": Profile(samples=True),
    "staging": Profile(samples=False),
    "prod": Profile(samples=False),
}
