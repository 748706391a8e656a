"""The query of *Qualidade*: what rules have found, what is in quarantine and why, whether records add up, what the audit says.

Delivered records are not shown here: `make quarantine` does, with personal columns masked.
"""

from dataclasses import dataclass

import narwhals as nw

from lakehouse.dashboard.reading import Lake, Row
from lakehouse.maintenance import audit as audits
from lakehouse.reports.vendas import ledger_of, rules_of
from lakehouse.tables.spec import with_histories

_COUNTED = ("layer", "rules", "records", "last_at")
_SHOWN = ("layer", "rules", "reason", "source_file", "batch_id", "quarantined_at")
_NEWEST = 10


@dataclass(frozen=True)
class Quality:
    """Attributes:
    rules: of every table's newest commit: table, rule, action, failed, passed.
    held: what is in quarantine by table, layer and rules: table, layer, rules, records, last_at.
    newest: the newest records in quarantine, without their content: table, layer, rules, reason, source_file, ...
    ledger: see `Overview`.
    audit: what the last audit found broken: rows of `ops/audit`; `audited` says that there was one.
    """

    rules: list[Row]
    quarantined: list[Row]
    newest: list[Row]
    ledger: list[Row]
    audit: list[Row]
    audited: bool


def read(lake: Lake) -> Quality:
    parts = [part for spec in lake.settings.tables for part in spec.parts]
    refs = [*[part.bronze for part in parts], *[spec.silver for spec in with_histories(*lake.settings.tables)]]
    rules = [rule for ref in refs if (snapshot := lake.opened(ref)) for rule in rules_of(ref, snapshot)]
    quarantined: list[Row] = []
    newest: list[Row] = []
    for ref in dict.fromkeys(part.quarantine for part in parts):
        snapshot = lake.opened(ref)
        if snapshot is None or not snapshot.rows:
            continue
        frame = lake.session.read(snapshot.paths(), snapshot.columns)
        counts = frame.group_by("layer", "rules").agg(nw.len().alias("records"), nw.col("quarantined_at").max().alias("last_at"))
        quarantined += [{"table": ref.table, **row} for row in lake.select(counts.sort("records", descending=True), *_COUNTED)]
        last = frame.sort("quarantined_at", "source_file", descending=True).head(_NEWEST)
        newest += [{"table": ref.table, **row} for row in lake.select(last, *_SHOWN)]
    newest.sort(key=lambda row: row["quarantined_at"], reverse=True)
    audit = lake.rows(audits.TABLE)
    audited = max((row["at"] for row in audit if row["kind"] != "act"), default=None)
    return Quality(
        rules=rules,
        quarantined=quarantined,
        newest=newest[:_NEWEST],
        ledger=ledger_of(lake.session, lake.storage, dict.fromkeys(refs)),
        audit=[row for row in audit if row["at"] == audited and not row["passed"]],
        audited=audited is not None,
    )
