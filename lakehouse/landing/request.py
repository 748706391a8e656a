"""The request of a run that asks source systems: everything again, or a window of time."""

import dagster as dg
from pydantic import Field

from lakehouse.landing.sources.window import Window, window


class ExtractionRequest(dg.ConfigurableResource):
    """What the source systems of a run are asked for; left as it is, what is new. It lands nothing twice."""

    full: bool = Field(False, description="Ask for everything that the source has.")
    since: str = Field("", description="Ask from this date or instant on (America/Sao_Paulo without a zone): 2026-01-31.")
    until: str = Field(
        "", description="Take what is before this date or instant; the cursor goes no further than what was taken."
    )

    @property
    def window(self) -> Window:
        """The window that this run asks for.

        Raises:
            DeclarationError: it cannot be one.
        """
        return window(full=self.full, since=self.since, until=self.until)
