"""What an environment decides where no variable does: one record each, and no other environment.

A record is complete: nothing of one environment is taken from another. Which schedules start by themselves stands beside
their jobs (`automation.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lakehouse.settings.retries import Retry

Environment = Literal["dev", "staging", "prod"]
ChannelDown = Literal["degraded", "fail"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How the job `pedidos` treats its sources.

    Args:
        sample_sources: the module whose sources stand in for those that no variable names; without one it is an error.
        channel_down: when a channel stays down: go on with the other and mark the run degraded, or fail.
        request_seconds: one page of the API, whole.
        step_seconds: one try of an extraction, or of one table's load.
        cache_seconds: for so long an extraction's pages are good for the next run.
        overlap_seconds: an extraction asks again for so much before its cursor: what a slow transaction committed late.
    """

    sample_sources: str
    channel_down: ChannelDown
    api_retry: Retry
    db_retry: Retry
    request_seconds: float = 30
    step_seconds: float = 300
    cache_seconds: float = 3600
    overlap_seconds: float = 900


PROFILES: Mapping[Environment, Profile] = {
    "dev": Profile(
        sample_sources="lakehouse.sample.pedidos", channel_down="degraded", api_retry=Retry(3, 5), db_retry=Retry(2, 5)
    ),
    "staging": Profile(sample_sources="", channel_down="fail", api_retry=Retry(3, 60), db_retry=Retry(2, 30)),
    "prod": Profile(sample_sources="", channel_down="degraded", api_retry=Retry(3, 60), db_retry=Retry(2, 30)),
}
