"""The checks that every silver table has, by name; what they find is computed in `refresh.py`."""

from lakehouse.tables.spec import RowRule, TableSpec

#: Rules that every silver table has, besides those it declares.
TYPES, BALANCE, COMPLETE = "castable", "ledger", "complete"


def declared_rules(spec: TableSpec) -> list[tuple[str, str]]:
    """`(check name, description)` of every check of a silver table."""
    listed = [(TYPES, "Every delivered value can be cast to its column's type.")]
    for rule in (*spec.row_rules, *spec.table_rules):
        text = rule.condition if isinstance(rule, RowRule) else f"{rule.kind} {rule.limit or ', '.join(rule.columns)}"
        listed.append((rule.name, f"{text} ({rule.action})"))
    listed.append((BALANCE, "Records in = written + deduplicated + deleted + quarantined."))
    listed.append((COMPLETE, "Every bronze row was read exactly once."))
    return listed
