"""Warehouse assets: a table as its run views it, copied in one transaction; and whether that adds up.

A mart's version is one that a publication names, so the warehouse is never ahead of other readers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core import publications
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef, check_name
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.inputs import require_input
from lakehouse.core.table.snapshot import open_existing
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import failures, retry_policy
from lakehouse.runtime.view import viewed
from lakehouse.settings import Settings
from lakehouse.settings.environments import Profile
from lakehouse.settings.retries import LOAD, VALIDATE
from lakehouse.tables import ALL
from lakehouse.tables.spec import with_histories
from lakehouse.warehouse.publish import Target, Warehouse

if TYPE_CHECKING:
    from lakehouse.core.engines.duckdb import DuckDBSession

#: Every table of the warehouse is compared with the version of the lake that it says it holds.
EQUALS = "equals_lake"


@dataclass(frozen=True)
class Listed:
    """A table that the settings list, with what its asset shows."""

    target: Target
    tags: Mapping[str, str]
    owners: Sequence[str]


def warehouse_of(settings: Settings) -> Warehouse:
    """The SQL database of the settings."""
    profile: Profile = settings.profile
    return Warehouse(
        url=settings.warehouse,
        schema=settings.warehouse_schema,
        chunksize=settings.warehouse_chunksize,
        lock_seconds=settings.warehouse_lock_seconds,
        seconds=profile.step_seconds,
    )


def warehouse_targets(settings: Settings) -> list[Listed]:
    """What LAKEHOUSE_WAREHOUSE_TABLES lists.

    Raises:
        DeclarationError: a table is none, is not declared, or two would have the same name.
    """
    from lakehouse.gold.project import ensure_manifest
    from lakehouse.gold.schema import mart_columns

    manifest = ensure_manifest()
    marts = mart_columns(manifest)
    tags = {node["name"]: node["tags"] for node in manifest["nodes"].values() if node["resource_type"] == "model"}
    silver = {spec.silver_name: spec for spec in with_histories(*ALL)}
    found: dict[str, Listed] = {}
    for name in settings.published:
        layer, _, table = name.partition("/")
        if layer == "silver" and table in silver:
            spec = silver[table]
            target = Target(spec.silver, {column.name: column.type for column in spec.columns}, spec.key)
            listed = Listed(target, dict.fromkeys(spec.tags, ""), spec.owners)
        elif layer == "gold" and table in marts:
            listed = Listed(Target(TableRef("gold", table), marts[table]), dict.fromkeys(tags[table], ""), ("team:dados",))
        else:
            known = ", ".join([*(f"silver/{n}" for n in silver), *(f"gold/{n}" for n in marts)])
            raise DeclarationError(
                f"LAKEHOUSE_WAREHOUSE_TABLES lists {name[:80]!r}, which is no silver or gold table.",
                remedy=f"Use some of {known}.",
            )
        if check_name(table) in found:
            raise DeclarationError(f"LAKEHOUSE_WAREHOUSE_TABLES gives two tables the name {table!r}.", remedy="List one of them.")
        found[table] = listed
    return list(found.values())


def warehouse_assets(targets: Sequence[Listed]) -> list[dg.AssetsDefinition]:
    """`warehouse/<table>` for each."""
    return [_asset(listed) for listed in targets]


def _asset(listed: Listed) -> dg.AssetsDefinition:
    target = listed.target

    @dg.asset(
        key=target.ref.key,
        group_name="warehouse",
        deps=[target.source.key],
        description=f"{target.source} in the SQL database.",
        owners=list(listed.owners),
        kinds={"sql"},
        tags=dict(listed.tags),
        code_version=_code_version(target),
        retry_policy=retry_policy(LOAD),
        io_manager_key=None,
    )
    def warehouse_table(
        context: dg.AssetExecutionContext, lake: LakeResource, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult:
        from lakehouse.warehouse.publish import publish

        def publication() -> int | None:
            return publications.naming(lake.storage, target.source, snapshot) if target.source.layer == "gold" else None

        with failures(), lake.duckdb() as session:
            snapshot = require_input(viewed(context, lake), target.source)
            done = publish(session, warehouse, target, snapshot, publication=publication)
        columns = [dg.TableColumn(name, kind) for name, kind in target.columns.items()]
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": done.rows,
                "dagster/column_schema": dg.TableSchema(columns),
                "delta_version": done.version,
                "nothing_to_do": not done.written,
                "seconds": round(done.seconds, 3),
            },
            data_version=dg.DataVersion(f"{snapshot.id}:{done.version}"),
        )

    return warehouse_table


def warehouse_check(targets: Sequence[Listed]) -> dg.AssetChecksDefinition:
    """One step that compares every table with the lake: rows, and the sum of each column that adds up exactly."""
    by_key = {dg.AssetKey(listed.target.ref.key): listed.target for listed in targets}
    specs = [
        dg.AssetCheckSpec(EQUALS, asset=key, description="Rows and sums are those of the published version.", blocking=True)
        for key in by_key
    ]

    @dg.multi_asset_check(name="warehouse_equals_lake", specs=specs, can_subset=True, retry_policy=retry_policy(VALIDATE))
    def compare(
        context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: dg.ResourceParam[Warehouse]
    ) -> Iterator[dg.AssetCheckResult]:
        with failures(), lake.duckdb() as session:
            for check in sorted(context.selected_asset_check_keys):
                there, here = _both(session, warehouse, by_key[check.asset_key], lake.storage)
                yield dg.AssetCheckResult(
                    passed=there == here,
                    asset_key=check.asset_key,
                    check_name=EQUALS,
                    severity=dg.AssetCheckSeverity.ERROR,
                    metadata={"warehouse": there, "lake": here},
                )

    return compare


def _both(
    session: "DuckDBSession", warehouse: Warehouse, target: Target, storage: Storage
) -> tuple[dict[str, str], dict[str, str]]:
    """Rows and sums in the warehouse, and in the version that it holds."""
    from lakehouse.warehouse.publish import measures, published_state

    found = published_state(warehouse, target)
    if found is None:
        return {}, {"rows": "not published"}
    version, there = found
    snapshot = open_existing(storage.uri(target.source), version=version)
    if snapshot is None:
        return _rounded(there, target), {"rows": f"no version {version}"}
    relation = session.read(snapshot.paths(), dict(target.columns)).to_native()
    sums = ", ".join(['count(*) AS "rows"', *(f'sum("{name}") AS "{name}"' for name in measures(target))])
    result = relation.aggregate(sums)
    here = dict(zip(result.columns, result.fetchall()[0], strict=True))
    return _rounded(there, target), _rounded(here, target)


def _rounded(values: Mapping[str, Any], target: Target) -> dict[str, str]:
    """As text, decimals to their declared digits: SQLite adds doubles."""
    out = {}
    for name, value in values.items():
        kind = target.columns.get(name, "bigint")
        scale = int(kind.partition(",")[2].rstrip(")") or 0) if kind.startswith("decimal") else 0
        out[name] = "null" if value is None else f"{round(Decimal(str(value)), scale):f}"
    return out


def _code_version(target: Target) -> str:
    from lakehouse.runtime.steps import code_version

    return code_version(target.columns, target.key)
