"""Lakehouse: a Dagster asset graph from landed files to bronze, silver and gold Delta tables.

Start reading at `lakehouse.definitions` (the map), then `lakehouse.tables` (what is declared), then the layer you need.
Importing any module of this package does no I/O.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lakehouse.ask.connection import LakeConnection


def connect(*, at: str = "", personal: bool = False) -> "LakeConnection":
    """The tables of the lake that the environment and `.env` name, for questions in SQL; also in a notebook.

        with lakehouse.connect() as lake:
            lake.sql("select mes, receita from gold.vendas_mensais").df()  # .pl(), .arrow(), .fetchall()

    Args:
        at: every table as it was then: `2026-11-20`, an ISO instant, or a publication, `p12`; now by default.
        personal: show personal columns, which are masked otherwise.

    Raises:
        DeclarationError: a setting, or `at`, has a value that it cannot have.
    """
    from lakehouse.ask.catalogue import load_catalogue
    from lakehouse.ask.connection import LakeConnection
    from lakehouse.ask.instant import as_of

    catalogue = load_catalogue()
    return LakeConnection(catalogue, versions=as_of(catalogue.storage, at) if at else None, personal=personal)
