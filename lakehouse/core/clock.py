"""The business's clock: days and hours that people read are those of `TIMEZONE`; instants are stored in UTC."""

from functools import cache
from zoneinfo import ZoneInfo

TIMEZONE = "America/Sao_Paulo"


@cache
def zone() -> ZoneInfo:
    """The time zone of schedules, days and reports."""
    return ZoneInfo(TIMEZONE)
