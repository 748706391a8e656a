"""Withdrawals: whether silver follows rows that the writer of a Delta table takes back. What must hold of such a declaration.

    TableSpec(name="vendas", source=DeltaSource("s3://bronze/vendas", "vendas_spark", withdrawals="delete"), ...)

A table that is overwritten has the rows of the newest version alone, so it follows them whatever is declared.
"""

from typing import TYPE_CHECKING

from lakehouse.core.errors import DeclarationError
from lakehouse.tables.spec.sources import DeltaSource

if TYPE_CHECKING:
    from lakehouse.tables.spec.table import TableSpec


def withdraws(spec: "TableSpec") -> bool:
    """Whether rows leave silver because they have left a table of another writer."""
    origins = [part.origin for part in spec.parts]
    follows = any(isinstance(origin, DeltaSource) and origin.withdrawals == "delete" for origin in origins)
    return follows and spec.sync != "overwrite"


def check_withdrawals(spec: "TableSpec") -> None:
    """Refuse what cannot be computed exactly of rows that are withdrawn."""
    if not withdraws(spec):
        return
    for wrong, message, remedy in (
        (bool(spec.observed), "counts observations, of which a withdrawn row was one", "Leave the observed columns out."),
        (
            spec.retention is not None and spec.retention.bronze is not None,
            "is made of what bronze has, also of rows that are withdrawn later",
            "Leave Retention(bronze=...) out.",
        ),
    ):
        if wrong:
            raise DeclarationError(
                f"Table {spec.name!r} follows withdrawals and {message}.", remedy=f"{remedy} Or declare withdrawals='keep'."
            )
