"""Two descriptions of the graph become an Impact: what changed, what is downstream of it, what no longer works.

What belongs here: comparing. What does not: git, Dagster, dbt, printing.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["asset", "column", "check", "job", "schedule", "sensor"]
How = Literal["added", "removed", "changed", "renamed"]
#: What `describe.py` writes.
Description = Mapping[str, Any]
_SECTIONS: tuple[tuple[Kind, str], ...] = (
    ("check", "checks"),
    ("job", "jobs"),
    ("schedule", "schedules"),
    ("sensor", "sensors"),
)


@dataclass(frozen=True)
class Change:
    """One thing that is other than it was, with the assets and columns that are made of it."""

    kind: Kind
    name: str
    how: How
    detail: str = ""
    assets: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Break:
    """A mart that cannot be built any more, or (`built`) one of which only checks cannot be run.

    Args:
        columns: those of the mart's columns that are made of columns which are gone or have another type.
        assets: what is downstream of the mart.
    """

    name: str
    reason: str
    built: bool = False
    columns: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Impact:
    """What `head` does to `base`.

    Args:
        errors: what of head cannot be loaded, and could be at base.
        notes: what of base could not be loaded, and is therefore not compared.
    """

    changes: tuple[Change, ...] = ()
    breaks: tuple[Break, ...] = ()
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def breaking(self) -> bool:
        return bool(self.breaks or self.errors)

    @property
    def downstream(self) -> tuple[str, ...]:
        """Every asset that is downstream of a change."""
        return tuple(sorted({asset for change in self.changes for asset in change.assets}))


def needs_trial(base: Description, head: Description) -> bool:
    """Whether base's marts have to be tried over head's columns, because head's own dbt project cannot be."""
    return "unbuilt" not in head and bool(head["sources"]) and head["sources"] != base["sources"]


def compare(base: Description, head: Description, *, trial: Description | None = None) -> Impact:
    """The impact of `head` on `base`.

    Args:
        trial: base's marts over head's columns, where `needs_trial` says so.
    """
    edges = _Edges(base, head)
    columns = [change for name in sorted({*base["assets"]} & {*head["assets"]}) for change in _columns(name, base, head, edges)]
    changes = [*_assets(base, head, edges), *columns]
    for kind, section in _SECTIONS:
        changes += _named(kind, base[section], head[section], _loaded(head, section), edges)
    gone = {change.name for change in columns if change.how in ("removed", "renamed", "changed")}
    return Impact(
        changes=tuple(changes),
        breaks=tuple(_breaks(base, head if "unbuilt" in head else trial or {}, edges.made_of(gone), edges)),
        errors=tuple(error for error in head["errors"] if error not in base["errors"]),
        notes=tuple(base["errors"]),
    )


class _Edges:
    """What is downstream, by the graph of both sides."""

    def __init__(self, base: Description, head: Description) -> None:
        self.assets: dict[str, set[str]] = {}
        self.columns: dict[str, set[str]] = {}
        for side in (base, head):
            for name, asset in side["assets"].items():
                for dep in asset.get("deps", ()):
                    self.assets.setdefault(dep, set()).add(name)
                for column, made_of in asset.get("lineage", {}).items():
                    for table, field in made_of:
                        self.columns.setdefault(f"{table}.{field}", set()).add(f"{name}.{column}")

    def after(self, asset: str) -> tuple[str, ...]:
        return tuple(sorted(_reachable([asset], self.assets)))

    def made_of(self, columns: Collection[str]) -> tuple[str, ...]:
        return tuple(sorted(_reachable(columns, self.columns)))


def _reachable(start: Iterable[str], edges: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = list(start)
    while ahead:
        new = edges.get(ahead.pop(), set()) - found
        found |= new
        ahead += new
    return found


def _layers(side: Description) -> set[str]:
    """The layers that were loaded."""
    return {name.split("/")[0] for name, asset in side["assets"].items() if "group" in asset}


def _loaded(head: Description, section: str) -> Collection[str] | None:
    """Names of which head can say that they are gone: None for all, when it was loaded whole."""
    if not head["errors"]:
        return None
    if section == "checks":
        return _layers(head)
    return None if head[section] else ()


def _assets(base: Description, head: Description, edges: _Edges) -> Iterable[Change]:
    before = {name: asset for name, asset in base["assets"].items() if "group" in asset}
    after = {name: asset for name, asset in head["assets"].items() if "group" in asset}
    for name in sorted({*before} | {*after}):
        if name not in after:
            if not head["errors"] or name.split("/")[0] in _layers(head):
                yield Change("asset", name, "removed", "", edges.after(name))
        elif name not in before:
            yield Change("asset", name, "added", "", edges.after(name))
        elif detail := _differences(before[name], after[name], leave=("columns", "lineage")):
            yield Change("asset", name, "changed", detail, edges.after(name))


def _columns(name: str, base: Description, head: Description, edges: _Edges) -> Iterable[Change]:
    before, after = base["assets"][name].get("columns"), head["assets"][name].get("columns")
    if before is None or after is None:
        return
    positions = {list(before).index(column): column for column in before if column not in after}
    renamed: dict[str, str] = {}
    for column in after:
        old = positions.get(list(after).index(column))
        if column not in before and old is not None and before[old] == after[column]:
            renamed[old] = column
    for column in sorted({*before} | {*after}):
        full = f"{name}.{column}"
        below = edges.made_of([full])
        if column in renamed:
            yield Change("column", full, "renamed", f"{renamed[column]} ({before[column]})", columns=below)
        elif column not in after:
            yield Change("column", full, "removed", before[column], columns=below)
        elif column not in before and column not in renamed.values():
            yield Change("column", full, "added", after[column], columns=below)
        elif column in before and before[column] != after[column]:
            yield Change("column", full, "changed", f"{before[column]} → {after[column]}", columns=below)


def _named(
    kind: Kind, before: Mapping[str, Any], after: Mapping[str, Any], loaded: Collection[str] | None, edges: _Edges
) -> Iterable[Change]:
    for name in sorted({*before} | {*after}):
        if name not in after:
            if loaded is None or name.split("/")[0] in loaded:
                yield Change(kind, name, "removed", _text(before[name]))
        elif name not in before:
            yield Change(kind, name, "added", _text(after[name]))
        elif detail := _differences(before[name], after[name]):
            blocks = kind == "check" and (before[name]["blocking"] or after[name]["blocking"])
            yield Change(kind, name, "changed", detail, edges.after(name.split(":")[0]) if blocks else ())


def _text(thing: Mapping[str, Any]) -> str:
    return str(thing.get("description") or thing.get("cron") or "")


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], *, leave: Collection[str] = ()) -> str:
    """What differs, field by field, as text; empty when nothing does."""
    out = []
    for field in sorted(({*before} | {*after}) - {*leave}):
        old, new = before.get(field), after.get(field)
        if old == new:
            continue
        if isinstance(old, list) and isinstance(new, list):
            parts = [*(f"+{one}" for one in new if one not in old), *(f"-{one}" for one in old if one not in new)]
            out.append(f"{field}: {' '.join(parts)}")
        elif field == "code_version":
            out.append("code")
        else:
            out.append(f"{field}: {_short(old)} → {_short(new)}")
    return "; ".join(out)


def _short(value: object) -> str:
    return str(value)[:120] if value not in (None, "", {}) else "none"


def _breaks(base: Description, after: Description, gone: Collection[str], edges: _Edges) -> Iterable[Break]:
    unbuilt = {name: why for name, why in after.get("unbuilt", {}).items() if name not in base.get("unbuilt", {})}
    unrun: dict[str, dict[str, str]] = {}
    for check, why in after.get("unrun", {}).items():
        if check not in base.get("unrun", {}):
            asset, _, name = check.partition(":")
            unrun.setdefault(asset, {})[name] = why
    for name in sorted({*unbuilt} | {*unrun}):
        columns = tuple(column.split(".")[1] for column in gone if column.split(".")[0] == name)
        checks = tuple(sorted(unrun.get(name, {})))
        if name in unbuilt:
            yield Break(name, unbuilt[name], columns=columns, checks=checks, assets=edges.after(name))
        else:
            yield Break(name, next(iter(unrun[name].values())), built=True, columns=columns, checks=checks)
