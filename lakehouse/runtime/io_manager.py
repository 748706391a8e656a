"""DeltaIOManager: asset key ↔ table URI. It commits what an asset returns, and hands an asset the tables it asks for.

An asset returns one of
    Transaction  staged and checked by the asset itself (bronze, silver): committed as it is, never computed again here
    Write        a frame and a mode: staged and committed, again from the start when another writer was first
    Unchanged    there was nothing to do: no commit, so no version advances
and gets a lazy frame for each input, as the run views it (`runtime/view.py`); `AssetIn(metadata={"version": 3})` reads it as it
was, and metadata `engine` of input and asset names the engine that reads and writes where it is not to be the lake's
(`{"engine": "spark"}`).

The commit carries run, asset, code version and the versions of the inputs (of a Write: those that were loaded here); the
materialisation carries what was measured. Where there was nothing to do, it carries what the newest commit reports: a page of
Dagster shows the newest materialisation alone, and is not to be empty after a run without work.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg

from lakehouse.core import publications
from lakehouse.core.engines.session import Session
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.inputs import require_input
from lakehouse.core.table.provenance import Provenance
from lakehouse.core.table.snapshot import Snapshot, open_existing, require_table
from lakehouse.core.table.staging import Write, stage_write
from lakehouse.core.table.transaction import Committed, Transaction, commit_staged, redo_on_conflict
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import failures
from lakehouse.runtime.view import viewed

_SCHEMA = "dagster/column_schema"


@dataclass(frozen=True)
class Unchanged:
    """The table is what it should be; `version` is its version."""

    version: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


class DeltaIOManager(dg.ConfigurableIOManager):
    """Reads and writes the lake's Delta tables for assets."""

    lake: dg.ResourceDependency[LakeResource]

    def handle_output(self, context: dg.OutputContext, obj: Transaction | Write | Unchanged) -> None:
        key = context.asset_key
        ref = TableRef(key.path[0], key.path[1])  # type: ignore[arg-type]
        made_by = {
            "run_id": context.run_id,
            "asset": key.to_user_string(),
            "code_version": (context.asset_spec.code_version or "") if context.has_asset_key else "",
        }
        loaded = self._loaded.get(context.step_key)
        if isinstance(obj, Write) and loaded and not obj.provenance.inputs:
            obj = replace(obj, provenance=replace(obj.provenance, inputs=loaded))
        with failures():
            viewed(context, self.lake)  # begins before the run's first commit
            declared = context.definition_metadata or {}
            measured = self.publish(ref, obj, made_by=made_by, engine=declared.get("engine", ""))
            context.add_output_metadata(_described(measured, declared.get(_SCHEMA)))

    def load_input(self, context: dg.InputContext) -> Any:
        key = context.asset_key
        ref = TableRef(key.path[0], key.path[1])  # type: ignore[arg-type]
        asked = context.definition_metadata or {}
        with failures():
            if context.has_input_name and asked.get("version") is None:
                snapshot = require_input(viewed(context, self.lake), ref)
            else:
                snapshot = self.snapshot(ref, version=asked.get("version"))
            paths = snapshot.paths()
        if context.has_input_name:  # else it is asked for outside a step
            self._loaded.setdefault(context.step_context.step.key, {})[str(ref)] = snapshot.version
        return self._session(asked.get("engine", "")).read(paths, snapshot.columns)

    def snapshot(self, ref: TableRef, *, version: int | None = None) -> Snapshot:
        """A table, now (a mart: as it is published) or at a version.

        Raises:
            BrokenTableError: there is no such table, or no such version.
        """
        readers = publications.published(self.lake.storage, ref) if version is None and ref.layer == "gold" else None
        return readers or require_table(self.lake.storage.uri(ref), ref, version=version)

    def publish(
        self, ref: TableRef, obj: Transaction | Write | Unchanged, *, made_by: Mapping[str, str], engine: str = ""
    ) -> dict[str, Any]:
        """Commit and return what was measured, as metadata.

        Raises:
            BrokenTableError: a data file that was to stay is damaged; found even when there is nothing to do.
        """
        started = time.monotonic()
        storage: Storage = self.lake.storage
        if isinstance(obj, Unchanged):
            found = open_existing(storage.uri(ref), version=obj.version)
            if found is not None:
                found.check()
            last = _reported(found.provenance) if found is not None else {}
            return {"nothing_to_do": True, **describe(found), **last, **obj.metadata}
        if isinstance(obj, Write):
            write = obj

            def once() -> Committed:
                return commit_staged(stage_write(self._session(engine), storage.uri(ref), write).with_provenance(**made_by))

            transaction = redo_on_conflict(once).transaction
        else:
            transaction = commit_staged(obj.with_provenance(**made_by)).transaction
        snapshot = open_existing(storage.uri(ref))
        added = {
            "rows_written": sum(file.rows for file in transaction.add),
            "files_added": len(transaction.add),
            "files_removed": len(transaction.remove),
            "commit_seconds": round(time.monotonic() - started, 3),
        }
        return {**describe(snapshot), **added, **_reported(transaction.provenance)}

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        self._open = ExitStack()
        self._opened: dict[str, Session] = {}
        self._loaded: dict[str, dict[str, int]] = {}  # by step

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        self._open.close()

    def _session(self, engine: str) -> Session:
        """One session of an engine for all lazy frames of a run: a frame must outlive the call that made it."""
        name = engine or self.lake.engine
        if name not in self._opened:
            self._opened[name] = self._open.enter_context(self.lake.session(engine=name))
        return self._opened[name]


def _described(measured: dict[str, Any], declared: dg.TableSchema | None) -> dict[str, Any]:
    """What was measured, with the declared descriptions of the columns."""
    texts = {column.name: column.description for column in declared.columns} if declared is not None else {}
    if not texts or _SCHEMA not in measured:
        return measured
    columns = [dg.TableColumn(c.name, c.type, description=texts.get(c.name)) for c in measured[_SCHEMA].columns]
    return {**measured, _SCHEMA: dg.TableSchema(columns)}


def describe(snapshot: Snapshot | None) -> dict[str, Any]:
    """A table's place, version and size as metadata."""
    if snapshot is None:
        return {}
    columns = [dg.TableColumn(name, kind) for name, kind in snapshot.columns.items()]
    return {
        "dagster/uri": snapshot.uri,
        "dagster/row_count": snapshot.rows,
        _SCHEMA: dg.TableSchema(columns),
        "delta_version": snapshot.version,
        "bytes": snapshot.bytes,
        "files": len(snapshot.files),
    }


def _reported(made: Provenance) -> dict[str, Any]:
    """What a commit reports of itself beside what Dagster and the checks know: its figures, facts and inputs."""
    inputs = dict(made.inputs)
    own = replace(made, findings={}, inputs={}, input_ids={}, run_id="", asset="", code_version="")
    return {**_numbers(own.written()), **({"inputs": inputs} if inputs else {})}


def _numbers(figures: Mapping[str, str]) -> dict[str, Any]:
    return {name: int(text) if text.lstrip("-").isdigit() else text for name, text in figures.items()}
