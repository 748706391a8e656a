"""What the assets of the job `mlops` share: how one is declared, reads its table as the run made it, and replaces it.

Belongs here: the tables' names, the versions of the code, the helpers of a step. Does not: an asset.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from lakehouse.core.errors import BrokenTableError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.inputs import require_input
from lakehouse.core.table.provenance import Commit, Provenance
from lakehouse.core.table.snapshot import open_existing
from lakehouse.core.table.staging import Write
from lakehouse.ml.features import COLUMNS as FEATURE_COLUMNS
from lakehouse.runtime.io_manager import Unchanged
from lakehouse.runtime.steps import RETRY

if TYPE_CHECKING:
    from lakehouse.ml.features import Frame

DAILY = TableRef("gold", "vendas_diarias")
FEATURES, CANDIDATE, EVALUATION = (TableRef("ml", name) for name in ("features", "candidate", "evaluation"))
FORECASTS, ACCURACIES = TableRef("ml", "previsao_vendas"), TableRef("ml", "acuracia_previsao")
#: The version of what decides what features and model are: series, features, recipes, models, backtest. A change of it trains
#: a new model, so it changes when one of them computes something else, and not when one is only written otherwise. A test
#: holds the fingerprint of these modules and asks.
MODEL_CODE = "2e5927d24a6c"
#: The same of series and features, of gate and decisions, and of scoring. Dagster shows an asset as stale when one changes.
FEATURES_CODE, GATE_CODE, SCORING_CODE = "b17cf0d5bf1e", "ca18e8a3fded", "7531fed97b4a"


def ml_asset(ref: TableRef, description: str, **given: Any) -> Any:
    common: dict[str, Any] = {"group_name": "ml", "owners": ["team:dados"], "tags": {"ml": ""}, "retry_policy": RETRY}
    code = given.pop("code", MODEL_CODE)
    return dg.asset(key=ref.key, description=description, code_version=code, **common, **given)


def rows_of_frame(frame: Any) -> list[dict[str, Any]]:
    return frame.collect(backend="pyarrow").rows(named=True)


def features_of(features: Any) -> "Frame":
    from lakehouse.ml.features import from_rows

    return from_rows(features.select(*FEATURE_COLUMNS).collect(backend="pyarrow").rows())


def commit_of(storage: Storage, ref: TableRef) -> Commit:
    """The commit that made a table as the run reads it.

    Raises:
        BrokenTableError: the table does not exist, or its log does not name one.
    """
    found = require_input(storage, ref).last_commit()
    if found is None:
        raise BrokenTableError(f"The log of {ref} does not say how it was made.", remedy=f"Materialise {ref} again.")
    return found


def replace_table(
    storage: Storage, ref: TableRef, rows: list[dict[str, Any]], columns: Mapping[str, str], made: Provenance
) -> Write | Unchanged:
    """Replace a table, unless its newest commit reports the same of itself."""
    found = open_existing(storage.uri(ref))
    if found is not None and made.written().items() <= found.provenance.written().items():
        return Unchanged(found.version)
    return Write(frame=lambda session: session.table(rows, columns), columns=columns, mode="overwrite", provenance=made)


def markdown_table(rows: list[dict[str, Any]], names: Mapping[str, str]) -> dg.MetadataValue:
    lines = ["| " + " | ".join(names.values()) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [f"{row[name]:,.3f}" if isinstance(row[name], float) else str(row[name]) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return dg.MetadataValue.md("\n".join(lines))
