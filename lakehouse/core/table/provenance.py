"""Provenance: what a commit says of itself, as a record with one writer and one reader.

A commit carries it as text under `lakehouse.<name>` in Delta's commit information. The names are persisted: a lake of an
earlier commit is read by the same reader. What only one layer reads is in `facts`, under a name of that layer's own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

META = "lakehouse."
#: Which work it is, in a commit that changes no row of the table.
MAINTENANCE = "maintenance"
_FIGURES = ("batch_from", "batch_to", "records_in", "written", "deduplicated", "deleted", "quarantined", "rows_after")
_TEXT = ("operation", MAINTENANCE, "run_id", "asset", "code_version", "reason", "publication")
_JSON = ("inputs", "input_ids", "findings", "batches")
#: In the commit beside the provenance: its id, and how many actions it holds (`recovery.py`).
_OF_THE_COMMIT = ("commit_id", "actions")


class Standing(NamedTuple):
    """What a rule found, as it holds for the table until the next commit."""

    passed: bool
    action: str
    failed: int
    validated: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The figures of one commit. `balanced` is the promise: every record that came in went to exactly one place."""

    batch_from: int
    batch_to: int
    records_in: int
    written: int
    deduplicated: int = 0
    deleted: int = 0
    quarantined: int = 0
    rows_after: int

    @property
    def balanced(self) -> bool:
        return self.records_in == self.written + self.deduplicated + self.deleted + self.quarantined


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the content of a commit comes from.

    Args:
        operation: what was done: append, merge, rebuild, redrive, release, forget …
        maintenance: which work it is, where no row of the table changes.
        run_id, asset, code_version: what did it.
        inputs: the version of each table that was read, by name.
        input_ids: the id of each of these tables: a table that was made anew begins at version 0 again.
        findings: what each rule found, by its name.
        batches: how far each input had read its deliveries; None where the table does not ask.
        figures: how many records came in, and where they went; None where no records were counted.
        released: the rules that a person let the batch pass, with the `reason`.
        publication: the publication that the commit is part of.
        facts: what one layer alone reads, as text.
    """

    operation: str = ""
    maintenance: str = ""
    run_id: str = ""
    asset: str = ""
    code_version: str = ""
    inputs: Mapping[str, int] = field(default_factory=dict)
    input_ids: Mapping[str, str] = field(default_factory=dict)
    findings: Mapping[str, Standing] = field(default_factory=dict)
    batches: Mapping[str, int] | None = None
    figures: Entry | None = None
    released: tuple[str, ...] = ()
    reason: str = ""
    publication: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def written(self) -> dict[str, str]:
        """The record as it is persisted: text by name. What is empty is left out."""
        out = {name: value for name in _TEXT if (value := getattr(self, name))}
        out |= {
            name: json.dumps(value) for name in _JSON if (value := getattr(self, name)) or (name == "batches" and value == {})
        }
        if self.released:
            out["released"] = ", ".join(self.released)
        if self.figures is not None:
            out |= {name: str(getattr(self.figures, name)) for name in _FIGURES}
        return {**out, **self.facts}


def read_provenance(info: Mapping[str, Any]) -> Provenance:
    """The record from what a commit carries under `lakehouse.`, by name without that prefix."""
    known: dict[str, Any] = {name: str(info[name]) for name in _TEXT if name in info}
    known |= {name: json.loads(info[name]) for name in _JSON if name in info}
    known["findings"] = {rule: Standing(*found) for rule, found in known.get("findings", {}).items()}
    if info.get("released"):
        known["released"] = tuple(str(info["released"]).split(", "))
    counted = all(name in info for name in _FIGURES)
    if counted:
        known["figures"] = Entry(**{name: int(info[name]) for name in _FIGURES})
    own = {each.name for each in fields(Provenance)} | {*_OF_THE_COMMIT, *(_FIGURES if counted else ())}
    return Provenance(**known, facts={name: str(value) for name, value in info.items() if name not in own})


@dataclass(frozen=True)
class Commit:
    """One commit of a table's log. `id` is empty when another writer made it; `at` is None when it does not say."""

    version: int
    id: str
    at: datetime | None
    provenance: Provenance


def read_commit(version: int, info: Mapping[str, Any]) -> Commit:
    """A commit from its commit information, as the log has it."""
    own = {key[len(META) :]: value for key, value in info.items() if key.startswith(META)}
    stamp = info.get("timestamp")
    at = datetime.fromtimestamp(stamp / 1000, tz=UTC) if isinstance(stamp, int) and stamp else None
    return Commit(version, str(own.get("commit_id", "")), at, read_provenance(own))
