"""Decisions: what the gate, or a person, has said about a version, and the aliases that follow from it.

    Decision ─▶ tag of the version ─▶ aliases ─▶ ops/model_decisions ─▶ event

In this order a kill is harmless: a champion carries the decision that made it one, so `finalise` can write the missing row
and say the event again under the same id.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lakehouse.core.engines.session import Session
from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import TableRef
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.staging import Write, stage_write
from lakehouse.core.table.transaction import commit_staged, redo_on_conflict
from lakehouse.ml.gate import DECISIONS, Decision
from lakehouse.ml.registry import MODEL, ModelGoneError, Registry, Version
from lakehouse.runtime.announce import Announce

TABLE = TableRef("ops", "model_decisions")
#: Held while versions are made and aliases move, so that two runs do it one after the other.
LOCK = TableRef("ml", "promotion")


def record(version: Version, decision: Decision, *, before: Version | None, run_id: str, what: str = "gate") -> dict[str, Any]:
    """A row of `ops/model_decisions`. A retry of the same run gives the same id."""
    return {
        "id": f"{what}:{run_id}:{version.number}",
        "modelo": MODEL,
        "versao": version.number,
        "receita_modelo": recipe.name if (recipe := version.recipe) else "",
        "campeao_antes": before.number if before else None,
        "promovido": decision.promote,
        "motivo": decision.reason,
        "ganho_ingenuo": decision.over_naive,
        "ganho_campeao": decision.over_champion,
        "numeros": json.dumps(decision.numbers, sort_keys=True),
        "run_id": run_id,
        "decidido_em": datetime.now(UTC).isoformat(),
    }


def carry_out(
    registry: Registry,
    session: Session,
    storage: Storage,
    version: Version,
    row: Mapping[str, Any],
    *,
    predecessor: Version | None,
    announce: Announce,
) -> None:
    """Carry out a decision. `predecessor`, the former champion where it can be loaded, becomes `previous`."""
    if row["promovido"]:
        registry.tag(version, "decision", json.dumps(row))
        if predecessor is not None and predecessor.number != version.number:
            registry.point("previous", predecessor)
        registry.point("champion", version)
    write(session, storage, row, announce=announce)


def finalise(registry: Registry, session: Session, storage: Storage, *, announce: Announce) -> None:
    """Write the row and the event of the champion's decision, if a killed run did not come to it."""
    champion = registry.alias("champion")
    if champion is not None and (row := champion.document("decision")):
        write(session, storage, row, announce=announce)


def write(session: Session, storage: Storage, row: Mapping[str, Any], *, announce: Announce) -> None:
    """Keep a decision, once per id, and announce a promotion."""
    at = datetime.fromisoformat(row["decidido_em"])
    stored = {**row, "decidido_em": at}
    frame = Write(frame=lambda s: s.table([stored], DECISIONS), columns=DECISIONS, mode="merge", key=("id",))

    def once() -> None:
        import narwhals as nw

        from lakehouse.core.table.snapshot import open_existing

        found = open_existing(storage.uri(TABLE))
        if found is not None and found.files:
            there = session.read(found.paths(), {"id": "string"}).filter(nw.col("id") == row["id"])
            if session.rows(there):
                return
        commit_staged(stage_write(session, storage.uri(TABLE), frame).with_provenance(run_id=str(row["run_id"])))

    redo_on_conflict(once)
    if row["promovido"]:
        payload = {name: row[name] for name in ("versao", "receita_modelo", "campeao_antes", "motivo")}
        announce.event(
            storage, "model_promoted", f"ml/{MODEL}", payload=payload, id=f"model:{row['id']}", run_id=row["run_id"], at=at
        )


def rollback(
    registry: Registry, session: Session, storage: Storage, *, run_id: str, announce: Announce
) -> tuple[Version, Version]:
    """Let `champion` and `previous` change places; returns the new and the former champion.

    The former one is not promoted again by a later run, unless its data or its code have changed.

    Raises:
        DeclarationError: there is no previous champion.
        ModelGoneError: it cannot be loaded.
    """
    with lock(storage.uri(LOCK)):
        champion, previous = registry.alias("champion"), registry.alias("previous")
        if champion is None or previous is None or champion.number == previous.number:
            raise DeclarationError(
                f"{MODEL} has no previous champion to go back to.", remedy="Two versions must have been promoted before."
            )
        registry.load(previous)
        decision = Decision(True, f"rolled back from version {champion.number}")
        row = record(previous, decision, before=champion, run_id=run_id, what="rollback")
        registry.tag(champion, "rolled_back", run_id)
        registry.tag(previous, "rolled_back", "")
        registry.tag(previous, "decision", json.dumps(row))
        registry.point("champion", previous)
        registry.point("previous", champion)
        write(session, storage, row, announce=announce)
        return previous, champion


def readable(registry: Registry, version: Version | None) -> Version | None:
    """The version, if it can be loaded and its recipe be made by this code; None otherwise."""
    if version is None or version.recipe is None:
        return None
    try:
        registry.load(version)
    except ModelGoneError:
        return None
    return version
