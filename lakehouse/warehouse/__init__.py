"""Warehouse: tables of the lake in a SQL database, where Power BI, Metabase or any SQL user reads.

Here: one asset per table that LAKEHOUSE_WAREHOUSE_TABLES lists, a check of each against the lake, the notice of the orders.
Comes from: silver and gold, as of one version. Goes to: `<schema>.<table>` of LAKEHOUSE_WAREHOUSE_URL.
Never: shows a reader anything between two versions; computes; drops what readers have built on a table.
Rerun: a version that is there already is left alone, and nothing older takes its place.
"""
