"""The checks that every silver table has, by name; what they find is computed in `refresh.py`."""

from lakehouse.tables.spec import TableSpec

#: Rules that every silver table has, besides those it declares.
TYPES, BALANCE, COMPLETE = "castable", "ledger", "complete"
#: And those with observed columns.
CONFLICTS = "conflicts"


def declared_rules(spec: TableSpec) -> list[tuple[str, str]]:
    """`(check name, description)` of every check of a silver table."""
    listed = [(TYPES, "Every delivered value can be cast to its column's type.")]
    listed += [(rule.name, f"{rule.condition} ({rule.action})") for rule in spec.row_rules]
    listed += [(r.name, f"{r.kind} {r.limit or ', '.join(r.columns)} ({r.action})") for r in spec.table_rules]
    if spec.observed:
        listed.append((CONFLICTS, "Records of one key say the same, whenever they were extracted."))
    listed.append((BALANCE, "Records in = written + deduplicated + deleted + quarantined."))
    listed.append((COMPLETE, "Every bronze row was read exactly once."))
    return listed
