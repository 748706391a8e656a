"""A limit on requests: no more than so many in any second, minute or hour, whichever thread asks."""

import threading
import time
from collections import deque

from lakehouse.core.errors import SourceDownError
from lakehouse.tables.spec.rest import Rate


class Limiter:
    """Waits before a request that would be one too many."""

    def __init__(self, rate: Rate | None) -> None:
        self._rate = rate
        self._recent: deque[float] = deque(maxlen=rate.times if rate is not None else 1)
        self._lock = threading.Lock()

    def wait(self, what: str, *, deadline: float) -> None:
        """Return when the next request may begin.

        Raises:
            SourceDownError: that is after `deadline`.
        """
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            begins = max(now, self._recent[0] + self._rate.seconds) if len(self._recent) == self._rate.times else now
            if begins >= deadline:
                raise SourceDownError(
                    f"{what} would be asked for after the step's time is up: the rate allows {self._rate.times} requests a "
                    f"{self._rate.per}.",
                    remedy="Give the source more timeout, or a higher rate.",
                )
            self._recent.append(begins)
        time.sleep(max(begins - now, 0.0))
