"""The request of a run of `bronze_to_silver`: which table it is for, and where that goes."""

import dagster as dg

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.tables import ALL
from lakehouse.tables.spec import TableSpec


class TableRequest(dg.ConfigurableResource):
    """Which table a run of `bronze_to_silver` is for, and where it goes; empty means every table, to its own place."""

    source_table: str = ""
    target_table: str = ""

    def target(self, spec: TableSpec) -> TableRef | None:
        """Where this run puts silver of `spec`; None when the run is for another table.

        Raises:
            DeclarationError: there is no such source, or the target cannot be its.
        """
        source, target = self.source_table, self.target_table
        if not source:
            if target:
                raise DeclarationError(f"The target table {target!r} needs a source table.", remedy="Name both.")
            return spec.silver
        if not any(source in (other.name, other.silver_name) for other in ALL):
            names = ", ".join(other.name for other in ALL)
            raise DeclarationError(f"There is no table {source[:80]!r}.", remedy=f"Use one of {names}.")
        wanted = TableRef("silver", target) if target else spec.silver
        if source not in (spec.name, spec.silver_name):
            return None
        if wanted != spec.silver and wanted in [other.silver for other in ALL]:
            raise DeclarationError(f"{wanted} is the table of another source.", remedy="Use a name that no table has.")
        return wanted
