"""DeltaIOManager: asset key ↔ table URI. It commits what an asset returns, and hands an asset the tables it asks for.

An asset returns one of
    Candidate    staged and judged by the asset itself (bronze, silver): committed as it is, never computed again here
    Write        a frame and a mode: staged and committed, again from the start when another writer was first
    Unchanged    there was nothing to do: no commit, so no version advances
and gets a lazy frame for each input; `AssetIn(metadata={"version": 3})` reads a table as it was.

The commit carries run, asset, code version and the versions of the inputs (of a Write: those that were loaded here); the
materialisation carries what was measured.
"""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg

from lakehouse.core.delta import Candidate, Snapshot, open_existing, redo_on_conflict
from lakehouse.core.engines import Session
from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import TableRef
from lakehouse.core.storage import Storage
from lakehouse.core.writes import Write, stage_write
from lakehouse.lake import LakeResource
from lakehouse.steps import failures


@dataclass(frozen=True)
class Unchanged:
    """The table is what it should be; `version` is its version."""

    version: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


class DeltaIOManager(dg.ConfigurableIOManager):
    """Reads and writes the lake's Delta tables for assets."""

    lake: dg.ResourceDependency[LakeResource]

    def handle_output(self, context: dg.OutputContext, obj: Candidate | Write | Unchanged) -> None:
        key = context.asset_key
        ref = TableRef(key.path[0], key.path[1])  # type: ignore[arg-type]
        info = {
            "run_id": context.run_id,
            "asset": key.to_user_string(),
            "code_version": (context.asset_spec.code_version or "") if context.has_asset_key else "",
        }
        loaded = self._loaded.get(context.step_key)
        if isinstance(obj, Write) and loaded:
            obj = replace(obj, info={"inputs": json.dumps(loaded), **obj.info})
        with failures():
            context.add_output_metadata(self.publish(ref, obj, info=info))

    def load_input(self, context: dg.InputContext) -> Any:
        key = context.asset_key
        ref = TableRef(key.path[0], key.path[1])  # type: ignore[arg-type]
        with failures():
            snapshot = self.snapshot(ref, version=(context.definition_metadata or {}).get("version"))
            paths = snapshot.paths()
        if context.has_input_name:  # else it is asked for outside a step
            self._loaded.setdefault(context.step_context.step.key, {})[str(ref)] = snapshot.version
        return self._session().read(paths, snapshot.columns)

    def snapshot(self, ref: TableRef, *, version: int | None = None) -> Snapshot:
        """A table, now or at a version.

        Raises:
            BrokenTableError: there is no such table, or no such version.
        """
        found = open_existing(self.lake.storage.uri(ref), version=version)
        if found is None:
            raise BrokenTableError(f"There is no table {ref}.", remedy=f"Materialise {ref} first.")
        return found

    def publish(self, ref: TableRef, obj: Candidate | Write | Unchanged, *, info: Mapping[str, str]) -> dict[str, Any]:
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
            return {"nothing_to_do": True, **describe(found), **obj.metadata}
        if isinstance(obj, Write):
            write = obj

            def once() -> Candidate:
                staged = stage_write(self._session(), storage.uri(ref), write)
                staged.commit(info)
                return staged

            candidate = redo_on_conflict(once)
        else:
            candidate = obj
            candidate.commit(info)
        snapshot = open_existing(storage.uri(ref))
        added = {
            "rows_written": sum(file.rows for file in candidate.add),
            "files_added": len(candidate.add),
            "files_removed": len(candidate.remove),
            "commit_seconds": round(time.monotonic() - started, 3),
        }
        figures = {key: value for key, value in (candidate.info or {}).items() if key not in ("findings", "inputs", "input_ids")}
        inputs = json.loads((candidate.info or {}).get("inputs", "{}"))
        return {**describe(snapshot), **added, **_numbers(figures), **({"inputs": inputs} if inputs else {})}

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        self._open = ExitStack()
        self._opened: Session | None = None
        self._loaded: dict[str, dict[str, int]] = {}  # by step

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        self._open.close()

    def _session(self) -> Session:
        """One session for all lazy frames of a run: a frame must outlive the call that made it."""
        if self._opened is None:
            self._opened = self._open.enter_context(self.lake.session())
        return self._opened


def describe(snapshot: Snapshot | None) -> dict[str, Any]:
    """A table's place, version and size as metadata."""
    if snapshot is None:
        return {}
    columns = [dg.TableColumn(name, kind) for name, kind in snapshot.columns.items()]
    return {
        "dagster/uri": snapshot.uri,
        "dagster/row_count": snapshot.rows,
        "dagster/column_schema": dg.TableSchema(columns),
        "delta_version": snapshot.version,
        "bytes": snapshot.bytes,
        "files": len(snapshot.files),
    }


def _numbers(figures: Mapping[str, str]) -> dict[str, Any]:
    return {name: int(text) if text.lstrip("-").isdigit() else text for name, text in figures.items()}
