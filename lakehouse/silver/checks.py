"""The checks that every silver table has, by name; what they find is computed in `refresh.py`."""

from typing import get_args

from lakehouse.core import rules
from lakehouse.tables.spec import OwnCheck, TableSpec

#: Rules that every silver table has, besides those it declares: `CONFLICTS` those with observed columns, `TIES` those with a key.
TYPES, BALANCE, COMPLETE, CONFLICTS, TIES = get_args(OwnCheck)
#: Checks of every history, beside the ledger's.
INTERVALS, CURRENT = "intervals", "current"


def declared_rules(spec: TableSpec) -> list[tuple[str, str]]:
    """`(check name, description)` of every check of a silver table.

    Raises:
        DeclarationError: nothing evaluates a kind of table rule that it declares.
    """
    for rule in spec.table_rules:
        rules.evaluator(rule.kind)
    listed = [(TYPES, "Every delivered value can be cast to its column's type.")]
    listed += [(rule.name, f"{rule.condition} ({rule.action})") for rule in spec.row_rules]
    listed += [(rule.name, f"{rule.text} ({rule.action})") for rule in spec.table_rules]
    if spec.observed:
        listed.append((CONFLICTS, "Records of one key say the same, whenever they were extracted."))
    if spec.key:
        listed.append((TIES, "The declared order decides which record of a key is the newest."))
    listed.append((BALANCE, "Records in = written + deduplicated + deleted + quarantined."))
    listed.append((COMPLETE, "Every bronze row was read exactly once."))
    return listed


def history_rules() -> list[tuple[str, str]]:
    """`(check name, description)` of every check of a history."""
    return [
        (INTERVALS, "The versions of a key do not overlap, and only the last of them has no end. (fail)"),
        (CURRENT, "Each row of silver is the one current version of its key. (warn)"),
        (BALANCE, "Records in = written + deduplicated + deleted + quarantined."),
        (COMPLETE, "Every bronze row was read exactly once."),
    ]
