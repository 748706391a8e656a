"""The request of a run that asks source systems: everything again, a window of time; another source, or another target."""

import dagster as dg
from pydantic import Field

from lakehouse.landing.sources.override import Override, folders, override
from lakehouse.landing.sources.window import Window, window
from lakehouse.tables import SOURCES, parts
from lakehouse.tables.spec import CapturedFeed


class ExtractionRequest(dg.ConfigurableResource):
    """What the source systems of a run are asked for; left as it is, what is new. It lands nothing twice."""

    full: bool = Field(False, description="Ask for everything that the source has.")
    since: str = Field("", description="Ask from this date or instant on (America/Sao_Paulo without a zone): 2026-01-31.")
    until: str = Field(
        "", description="Take what is before this date or instant; the cursor goes no further than what was taken."
    )
    stream: str = Field("", description="The one stream that `source` and `target` are for: pedidos_db/pedidos.")
    source: str = Field(
        "", description="Ask another table of its database (arquivo.pedidos_2025), path of its API (/v2/pedidos), or topic."
    )
    target: str = Field("", description="Land below raw/<target> instead, where no table reads: pedidos_teste.")

    @property
    def window(self) -> Window:
        """The window that this run asks for.

        Raises:
            DeclarationError: it cannot be one.
        """
        return window(full=self.full, since=self.since, until=self.until)

    @property
    def override(self) -> Override | None:
        """The other source or target of this run; None where it asks what is declared.

        Raises:
            DeclarationError: it cannot be asked.
        """
        asked = [system for system in SOURCES if not isinstance(system, CapturedFeed)]
        taken = folders(SOURCES, [part.origin for part in parts()])
        return override(asked, stream=self.stream, source=self.source, target=self.target, taken=taken)
