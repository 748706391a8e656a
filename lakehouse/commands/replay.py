"""`make replay RUN=3f2a9b [ASSET=gold/vendas_diarias]`: what a run made, computed again by the code that is checked out.

    the run's view and commits ─▶ every input at the version that the run has read (the lake is the base, and is only read)
    assets of the run ─▶ computed in a scratch lake, layer after layer ─▶ compared row by row with what the run has committed

Each asset is computed from what the run's other assets committed, so a difference is told of the asset that makes it. What landed
is read by no replay: bronze is an input. A forecast uses the model that was champion then. Nothing is registered or announced.

Exit code 0: all is equal; 1: something differs; 2: something cannot be computed again.
"""

import json
import shutil
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakehouse.core.errors import DeclarationError, LakehouseError
from lakehouse.core.names import LAYERS, TableRef
from lakehouse.core.store.storage import Storage
from lakehouse.core.table.provenance import Commit, Provenance
from lakehouse.core.table.snapshot import Snapshot, open_existing, require_table
from lakehouse.settings import Settings, load_settings
from lakehouse.tables.spec import with_histories

if TYPE_CHECKING:
    import dagster as dg

    from lakehouse.commands.parity.rows import Comparison
    from lakehouse.core.engines.duckdb import DuckDBSession
    from lakehouse.runtime.lake import LakeResource

app = typer.Typer()
#: What is computed in one scratch lake: an asset of a later group reads what the run has committed of an earlier one.
_GROUPS: tuple[tuple[str, ...], ...] = (
    ("silver",), ("history",), ("gold",), ("ml/features",), ("ml/candidate",), ("ml/evaluation",), ("ml/previsao_vendas",),
    ("ml/acuracia_previsao",), ("reports",),
)  # fmt: skip
#: Of ml only these are tables; what registers and promotes a model is not done again.
_LAYERS = ("silver", "gold", "ml", "reports")


@dataclass(frozen=True)
class Run:
    """A run to be computed again.

    Args:
        id: Dagster's.
        start: the version of every table at its start, by its tag.
        made: by table the run's last commit to it.
        reports: the reports that it has made or found current.
    """

    id: str
    start: Mapping[TableRef, int]
    made: Mapping[TableRef, Commit]
    reports: tuple[TableRef, ...] = ()

    @property
    def versions(self) -> dict[TableRef, int]:
        """What every asset of the run has read: inputs as they were at its start, its own tables as it has committed them."""
        read = {_ref(name): version for commit in self.made.values() for name, version in commit.provenance.inputs.items()}
        return {**read, **self.start, **{ref: commit.version for ref, commit in self.made.items()}}


@dataclass(frozen=True)
class Replayed:
    """What became of one asset: equal, or what differs, or why it was not computed."""

    asset: TableRef
    comparison: "Comparison | None" = None
    refusal: str = ""
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        found = self.comparison
        if found is None:
            return "not computed" if self.refusal else "equal"
        return "differs" if found.differences or found.only_here or found.only_there else "equal"


@app.command()
def replay(
    run: Annotated[str, typer.Argument(help="the beginning of its id; the newest run that made something without it")] = "",
    asset: Annotated[str, typer.Option("--asset", help="only this one, e.g. gold/vendas_diarias")] = "",
) -> int:
    """Compute again what a run made, from what it has read, and compare; nothing of the lake is written."""
    import dagster as dg

    from lakehouse.commands.instance.runlog import find

    settings = load_settings()
    with dg.DagsterInstance.get() as instance:
        record = find(instance, run).dagster_run
        found = run_of(settings.storage, record, reports=_reports(instance, record.run_id))
        assets = _asked(found, asset)
        print(f"run {found.id}: {', '.join(map(str, assets)) or 'it made nothing that is computed from tables'}")
        results = []
        for done in computed_again(settings, found, assets):
            print("\n".join(_lines(done)), flush=True)
            results.append(done.outcome)
    counts = {outcome: results.count(outcome) for outcome in ("equal", "differs", "not computed")}
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "nothing to compare")
    return 1 if counts["differs"] else 2 if counts["not computed"] else 0


def run_of(storage: Storage, run: "dg.DagsterRun", *, reports: tuple[TableRef, ...] = ()) -> Run:
    """A run with what it has read and made.

    Raises:
        DeclarationError: it has read no table, or an earlier release made it.
    """
    from lakehouse.runtime.view import TAG, read_view

    if TAG not in run.tags:
        raise DeclarationError(
            f"The run {run.run_id} has no view of tables: it read none, or an earlier release made it.",
            remedy="Name a run that has computed tables: make status lists them.",
        )
    start = read_view(run.tags[TAG])
    made = {}
    for ref, version in start.items():
        table = open_existing(storage.uri(ref))
        own = [c for c in table.commits(since=version) if c.provenance.run_id == run.run_id] if table is not None else []
        if own:
            made[ref] = own[-1]
    return Run(run.run_id, start, made, reports)


def _reports(instance: "dg.DagsterInstance", run_id: str) -> tuple[TableRef, ...]:
    """The reports that a run has made or found current."""
    import dagster as dg

    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    keys = [record.asset_key.path for record in records if record.asset_key is not None]
    return tuple(TableRef("reports", key[1]) for key in keys if key[0] == "reports" and len(key) == 2)


def _asked(run: Run, asset: str) -> list[TableRef]:
    there = [ref for ref in run.made if ref.layer in _LAYERS and f"{ref}" not in ("ml/promotion", "ml/registered_model")]
    assets = sorted(there, key=lambda ref: (LAYERS.index(ref.layer), ref.table)) + list(run.reports)
    if not asset:
        return assets
    chosen = [ref for ref in assets if str(ref) == asset]
    if not chosen:
        raise DeclarationError(f"The run made no {asset[:80]!r}.", remedy=f"It made {', '.join(map(str, assets)) or 'nothing'}.")
    return chosen


# --- computing ---------------------------------------------------------------------------------------------------------


def computed_again(settings: Settings, run: Run, assets: Iterable[TableRef]) -> Iterator[Replayed]:
    """Each asset, computed from the run's own inputs in a scratch lake, beside what the run has committed."""
    import dagster as dg

    from lakehouse.core.store.scratch import scratch
    from lakehouse.definitions import build_defs
    from lakehouse.runtime.io_manager import DeltaIOManager

    histories = {spec.silver for spec in with_histories(*settings.tables)} - {spec.silver for spec in settings.tables}
    wanted = list(assets)
    with scratch(settings.spill) as folder:
        lake, champion = _scratch_lake(settings, Path(folder)), Champion()
        given = {"lake": lake, "io_manager": DeltaIOManager(lake=lake), "announce": Silent(), "ml": _ml(settings, champion)}
        definitions = build_defs(settings.model_copy(update={"kafka_bootstrap": "", "examples": False}), resource_overrides=given)
        job = definitions.resolve_implicit_global_asset_job_def()
        known = {
            node.key: node.code_version or "" for node in definitions.resolve_asset_graph().asset_nodes if node.is_executable
        }
        for ref in [ref for ref in wanted if dg.AssetKey(ref.key) not in known]:
            yield Replayed(ref, refusal="The code that is checked out has no such asset.")
            wanted.remove(ref)
        for group in _GROUPS:
            mine = {ref: known[dg.AssetKey(ref.key)] for ref in wanted if _group(ref, histories) in group}
            if mine:
                champion.number = _champion_of(settings.storage, run, mine)
                yield from _computed(settings, run, job, mine, lake)
                shutil.rmtree(lake.root)  # the next group reads what the run has committed


def _group(ref: TableRef, histories: set[TableRef]) -> str:
    return "history" if ref in histories else str(ref) if ref.layer == "ml" else ref.layer


def _computed(
    settings: Settings, run: Run, job: "dg.JobDefinition", assets: Mapping[TableRef, str], lake: "LakeResource"
) -> Iterator[Replayed]:
    """The assets of one group, given with the versions of their code."""
    import dagster as dg

    from lakehouse.runtime.view import TAG, written_view

    Path(lake.root).mkdir()
    with warnings.catch_warnings(), dg.DagsterInstance.ephemeral() as instance:
        warnings.simplefilter("ignore")
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(ref.key) for ref in assets],
            tags={TAG: written_view(run.versions)},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
        why = _reasons(result)
    with lake.duckdb() as session:
        for ref, code in assets.items():
            try:
                yield _beside(session, settings, lake, run, ref, code=code, why=why.get(ref.key[-1], why[""]))
            except LakehouseError as error:
                yield Replayed(ref, refusal=str(error))


def _reasons(result: "dg.ExecuteInProcessResult") -> dict[str, str]:
    """By table why it was not computed: the checks that stopped it; under no name what ended a step."""
    import dagster as dg

    checks = [check for check in result.get_asset_check_evaluations() if not check.passed]
    stopped: dict[str, list[str]] = {}
    for check in checks:
        if check.severity == dg.AssetCheckSeverity.ERROR:
            stopped.setdefault(check.asset_key.path[-1], []).append(check.check_name)
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    texts = [str(error.cause.message if error.cause else error.message).strip() for error in errors if error is not None]
    ended = " ".join(text.partition("Failure: ")[2] or text for text in texts)
    return {table: f"It is stopped by {', '.join(names)}." for table, names in stopped.items()} | {"": ended}


def _scratch_lake(settings: Settings, folder: Path) -> "LakeResource":
    """An empty lake over this one."""
    from lakehouse.resources import build_resources
    from lakehouse.runtime.lake import LakeResource

    own: LakeResource = build_resources(settings)["lake"]
    storage = settings.storage
    locations: dict[str, Any] = {name: f"{folder}/{name}" for name in ("landing", "spill")}
    locations |= {"root": f"{folder}/lake", "layers": {}, "base": storage.root, "base_layers": dict(storage.layers)}
    Path(folder, "spill").mkdir()
    # Made anew: a copy of a Dagster resource has other fields, and runs with those that it was copied from.
    return LakeResource(**{**own.model_dump(), **locations})


class Silent:
    """Announces nothing."""

    def notice(self, *_: Any, **__: Any) -> None: ...
    def event(self, *_: Any, **__: Any) -> None: ...


@dataclass
class Champion:
    """The version of the model that is the champion for the assets that are computed; None for no champion."""

    number: int | None = None


def _ml(settings: Settings, champion: Champion) -> Any:
    """The models, of which the champion is the one that there was then."""
    from lakehouse.ml.registry import Registry
    from lakehouse.ml.resource import MlResource

    class Then(Registry):
        def alias(self, alias: Any) -> Any:
            return next((version for version in self.versions() if version.number == champion.number), None)

    class AsOf(MlResource):
        @property
        def registry(self) -> Registry:
            return Then(self.tracking_uri)

    return AsOf(tracking_uri=settings.model_registry, holidays=settings.holidays)


def _champion_of(storage: Storage, run: Run, assets: Container[TableRef]) -> int | None:
    """The champion that these assets of a run have used: the newest forecast names its own, and the evaluation that before."""
    from lakehouse.ml.steps import EVALUATION, FORECASTS
    from lakehouse.observability.outbox import small_session

    if EVALUATION in assets:
        named = run.made[EVALUATION].provenance.facts.get("champion", "")
        return int(named) if named else None
    if FORECASTS not in assets:
        return None
    table = require_table(storage.uri(FORECASTS), FORECASTS, version=run.made[FORECASTS].version)
    with small_session(storage) as session:
        rows = session.dicts(session.read(table.paths(), table.columns), "origem", "versao")
    return int(max(rows, key=lambda row: row["origem"])["versao"]) if rows else None


# --- comparing ---------------------------------------------------------------------------------------------------------


def _beside(
    session: "DuckDBSession", settings: Settings, lake: "LakeResource", run: Run, ref: TableRef, *, code: str, why: str
) -> Replayed:
    from lakehouse.commands.parity.rows import between

    if ref.layer == "reports":
        return _report_beside(settings.storage, lake.storage, ref, why=why)
    commit, now = run.made[ref], open_existing(lake.storage.uri(ref))
    notes = tuple(_notes(settings.storage, commit.provenance, code))
    if now is None or now.last_commit() is None:
        return Replayed(ref, refusal=why or "It was not computed.", notes=notes)
    then = require_table(settings.storage.uri(ref), ref, version=commit.version)
    key, personal = key_of(settings, ref, then)
    return Replayed(ref, between(session, then, now, key=key, personal=personal), notes=notes)


def _report_beside(storage: Storage, scratch: Storage, ref: TableRef, *, why: str) -> Replayed:
    """A page beside the one that is there, which may be of a later run."""
    from lakehouse.core.store import files

    def read(where: Storage, name: str) -> bytes:
        return files.read(f"{where.uri(ref)}/{name}")

    try:
        there, again = (json.loads(read(where, "made.json")) for where in (storage, scratch))
    except FileNotFoundError:
        return Replayed(ref, refusal=why or "It has no page.")
    if there["inputs"] != again["inputs"]:
        return Replayed(ref, notes=("its page is of a later run, which has read other versions: not compared",))
    if read(storage, there["page"]) != read(scratch, again["page"]):
        return Replayed(ref, refusal=f"Its page {there['page']} is another one than the replay's.")
    return Replayed(ref)


def _notes(storage: Storage, made: Provenance, code: str) -> Iterator[str]:
    """What is another than it was: the code, and inputs that have newer versions by now."""
    if made.code_version and code and made.code_version != code:
        yield f"its code has changed: {made.code_version} then, {code} now"
    for name, version in sorted(made.inputs.items()):
        now = open_existing(storage.uri(_ref(name)))
        if now is not None and now.version != version:
            yield f"{name} is read at version {version}, and is at {now.version} now"


def key_of(settings: Settings, ref: TableRef, table: Snapshot) -> tuple[tuple[str, ...], frozenset[str]]:
    """What identifies a row of a table, and which of its columns are personal."""
    for spec in with_histories(*settings.tables):
        if spec.silver == ref:
            return spec.key, frozenset(column.name for column in spec.columns if column.personal)
    if ref.layer == "gold":
        from lakehouse.gold.marts import marts_of
        from lakehouse.gold.project import ensure_manifest

        tests = {check.name for mart in marts_of(ensure_manifest()).values() if mart.ref == ref for check in mart.checks.values()}
        return tuple(name for name in table.columns if f"unique_{ref.table}_{name}" in tests)[:1], frozenset()
    return (), frozenset()


def _lines(done: Replayed) -> Iterator[str]:
    from lakehouse.commands.parity.report import lines

    yield f"{done.asset}: {done.outcome}" + (f". {done.refusal}" if done.refusal else "")
    yield from (f"    {note}" for note in done.notes)
    found = done.comparison
    if found is not None and done.outcome == "differs":
        then, now = (f"{side.rows:,} rows" for side in (found.here, found.there))
        yield f"    here: version {found.here.version}, which the run has committed, {then}; there: what is computed now, {now}"
        yield from (f"    {line}" for line in list(lines(found))[2:])


def _ref(name: str) -> TableRef:
    layer, table = name.split("/")
    return TableRef(layer, table)  # type: ignore[arg-type]
