"""A table as it was at a version, in a new commit: `make rollback TABLE=vendas VERSION=7 REASON='...'`.

Silver's rollback takes its watermarks back too, in the same commit, so the next run reads again what that version had not. What
a re-drive or a rebuild took out of quarantine meanwhile would be in neither table, so a rollback over one is refused. Gold is
computed again by the next run of its job, from what silver is then. Pure: no dagster.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

from lakehouse.core import ledger, publications, quarantine
from lakehouse.core.engines.casts import GRAMMAR
from lakehouse.core.engines.session import Session
from lakehouse.core.errors import DeclarationError, RefusedWriteError
from lakehouse.core.names import TableRef
from lakehouse.core.publications import Named
from lakehouse.core.store.storage import Storage, lock
from lakehouse.core.table.provenance import Entry
from lakehouse.core.table.snapshot import Snapshot, open_existing
from lakehouse.core.table.transaction import restore_version
from lakehouse.maintenance.protect import existing
from lakehouse.maintenance.retention import LEFT_AT
from lakehouse.silver import forms
from lakehouse.tables.spec import TableSpec

#: Operations of silver that take records out of quarantine which an older version has not.
OUT_OF_QUARANTINE = frozenset(("redrive", "rebuild", "evolve", "forget"))


def roll_back(
    session: Session, storage: Storage, specs: Sequence[TableSpec], ref: TableRef, *, version: int, reason: str
) -> Snapshot:
    """Roll a silver or gold table back, and return it.

    Raises:
        DeclarationError: it is no such table, no reason is given, or it is at that version.
        RefusedWriteError: records would be in no table afterwards.
        BrokenTableError: the version cannot be read any more.
    """
    spec = next((spec for spec in specs if spec.silver == ref), None)
    if ref.layer not in ("silver", "gold") or (ref.layer == "silver" and spec is None):
        raise DeclarationError(
            f"{ref} cannot be rolled back: other tables say how far it is.",
            remedy="Roll back a declared silver table or a mart, or restore from a backup: make restore.",
        )
    if not reason.strip():
        raise DeclarationError("A rollback needs a reason.", remedy="Give REASON='...'.")
    with lock(storage.uri(ref)):
        now = existing(storage, ref)
        if not 0 <= version < now.version:
            raise DeclarationError(f"{ref} is at version {now.version}.", remedy="Give VERSION=<a version before it>.")
        then = open_existing(now.uri, version=version)
        if then is None:
            raise DeclarationError(f"There is no version {version} of {ref}.", remedy="Give another VERSION.")
        then.check()
        made = then.provenance
        watermarks: Mapping[str, int] = {}
        if spec is not None:
            uri = storage.uri(ledger.LEDGER_TABLE)
            ledger.finalise(session, uri, table=ref, snapshot=now)
            _refuse_across(now, version, spec)
            _refuse_expired(storage, version, spec)
            watermarks = _watermarks(spec, now, then)
            read = [ledger.read_app(part.bronze) for part in spec.parts]
            figures = Entry(
                batch_from=sum(now.watermark(app) for app in read),
                batch_to=sum(then.watermark(app) for app in read),
                records_in=0,
                written=0,
                rows_after=then.rows,
            )
            made = replace(made, figures=figures)
        known = forms.since(now.commits(since=version)) if spec is not None else {}
        facts = {**known, **made.facts, "rolled_back_to": str(version)}
        made = replace(made, operation="rollback", reason=reason, facts=facts)
        after = restore_version(now, version, watermarks=watermarks, provenance=made)
        if spec is not None:
            ledger.finalise(session, storage.uri(ledger.LEDGER_TABLE), table=ref, snapshot=after)
        else:
            publications.publish(lambda: nullcontext(session), storage, {ref: Named(after.id, after.version)}, run_id="")
        return after


def _watermarks(spec: TableSpec, now: Snapshot, then: Snapshot) -> dict[str, int]:
    """How far the version had read, under each name that the table remembers it by."""
    apps = [app for part in spec.parts for app in (ledger.read_app(part.bronze), f"generation:{part.bronze}")] + [GRAMMAR]
    retained = {quarantine.REDRIVE: now.watermark(quarantine.REDRIVE)}  # its changes of the quarantine stay numbered onwards
    return {app: then.watermark(app) for app in apps if now.watermark(app)} | {a: n for a, n in retained.items() if n}


def _refuse_expired(storage: Storage, version: int, spec: TableSpec) -> None:
    for part in spec.parts:
        bronze = open_existing(storage.uri(part.bronze))
        if bronze is not None and bronze.watermark(LEFT_AT) > version:
            raise RefusedWriteError(
                f"After version {version} of {spec.silver} records have left {part.bronze} that this version had not read.",
                remedy=f"Fix the rule or the source, and compute it again: make rebuild TABLE={spec.name}.",
            )


def _refuse_across(now: Snapshot, version: int, spec: TableSpec) -> None:
    since = now.commits(since=version)
    done = sorted({commit.provenance.operation for commit in since} & OUT_OF_QUARANTINE)
    if done or len(since) < now.version - version:
        what = f"was done to {spec.silver}: {', '.join(done)}" if done else f"{spec.silver} was given, the log no longer says"
        raise RefusedWriteError(
            f"After version {version} something {what}; records that left the quarantine then would be in no table.",
            remedy=f"Fix the rule or the source, and compute it again: make rebuild TABLE={spec.name}.",
        )
