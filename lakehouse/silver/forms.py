"""Forms: what decides the values that silver makes of a record, as a digest a part, kept in silver's own commits.

    declaration ─▶ {"column total": digest, "deleted": digest, …} ─▶ the fact `forms` of every commit that delivers rows
                                         └▶ compared with it by the next refresh: which parts have changed since

A fact of the newest commit that delivered content: upkeep is passed over, a rollback repeats the facts of its version. The type
of a column is in the table's own schema, where the refresh compares it. Descriptions, rules and checks change no value, nor does
`invalid`, which accepts what was refused. Pure: no dagster.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from lakehouse.core.expressions import words
from lakehouse.core.table.provenance import Commit, Provenance
from lakehouse.silver import transforms
from lakehouse.tables.spec import Column, TableSpec

#: The fact's name. It and the digests are persisted: with others every table would stop once.
FORMS = "forms"
#: What of a column changes no value, or is compared elsewhere.
_SILENT = frozenset(("name", "type", "description", "personal", "invalid"))


def declared(spec: TableSpec) -> dict[str, str]:
    """The digest of every part of a declaration that decides values."""
    found = {f"column {column.name}": _digest(_stated(column)) for column in spec.columns}
    found |= {f"values of {feed.name}": _digest(dict(feed.values)) for feed in spec.feeds}
    return found | {
        "values": _digest(dict(spec.values)),
        "sync": _digest(spec.sync),
        "key": _digest([*spec.key]),
        "order": _digest([*spec.order]),
        "deleted": _digest(words(spec.deleted) if spec.deleted is not None else None),
        "transform": _digest(_transform(spec)),
        **({"explode": _digest(spec.explode)} if spec.explode else {}),
        **({"withdrawals": _digest([p.name for p in spec.parts if p.withdraws])} if spec.withdraws else {}),
    }


def fact(spec: TableSpec) -> dict[str, str]:
    """The fact for a commit of a table that was computed under this declaration."""
    return {FORMS: json.dumps(declared(spec))}


def changed(spec: TableSpec, made: Provenance) -> list[str]:
    """The parts that a declaration says otherwise than a commit knew them; none where the commit does not say.

    A part that is new, as a column that was added, has changed nothing that was there.
    """
    stated: dict[str, str] = json.loads(made.facts.get(FORMS, "{}"))
    # What is not stated of rows that are records, and of those that stay.
    records = {"explode": _digest(""), "withdrawals": _digest("")}
    known = records | stated if stated else {}
    return [part for part, digest in (records | declared(spec)).items() if known.get(part, digest) != digest]


def since(commits: Sequence[Commit]) -> dict[str, str]:
    """The fact of the first of some commits that has it: a version from before there was one was taken for that."""
    return next(({FORMS: facts[FORMS]} for commit in commits if FORMS in (facts := commit.provenance.facts)), {})


def is_wider(old: str, new: str) -> bool:
    """Whether every value of a type is one of another, without a digit lost."""
    if new in (old, "string"):
        return True
    digits = {"int": (10, 0), "bigint": (19, 0)}
    sizes = [digits.get(kind) or tuple(map(int, re.findall(r"\d+", kind))) for kind in (old, new)]
    if old == "int" and new in ("bigint", "double"):
        return True
    if (old in digits or old.startswith("decimal")) and new.startswith("decimal"):
        return sizes[1][0] - sizes[1][1] >= sizes[0][0] - sizes[0][1] and sizes[1][1] >= sizes[0][1]
    return False


def _stated(column: Column) -> dict[str, Any]:
    """What a column declares beside its type, so that a declaration in other words is the same one."""
    stated = {field.name: getattr(column, field.name) for field in fields(column) if field.name not in _SILENT}
    stated = {name: value for name, value in stated.items() if value not in (None, False, "", ())}
    if stated.get("source") == column.name:
        del stated["source"]
    if stated.get("timezone") == "UTC":
        del stated["timezone"]
    if column.expression is not None:
        stated["expression"] = words(column.expression)
    if column.default is not None:  # an empty text is one
        stated["default"] = column.default
    return {name: sorted(value) if isinstance(value, tuple) else value for name, value in stated.items()}


def _transform(spec: TableSpec) -> list[object] | None:
    """The transform's name, and the number that its author raises when it computes something else."""
    return (
        [spec.transform, getattr(transforms.load(spec.transform, spec.silver), "VERSION", 0)]
        if spec.transform is not None
        else None
    )


def _digest(stated: object) -> str:
    return hashlib.sha256(json.dumps(stated, sort_keys=True, ensure_ascii=False, default=repr).encode()).hexdigest()[:12]
