"""`make rollback-model`: the former champion is the champion again, and forecasts from the newest origin."""

import uuid

import typer

from lakehouse.settings import load_settings

app = typer.Typer()
_SCORING = 'key:"ml/previsao_vendas" or key:"ml/acuracia_previsao" or key:"reports/modelo"'


@app.command()
def rollback_model() -> int:
    """Let the former champion be the champion again, and score with it; the exit code is that of the scoring run."""
    from lakehouse.commands import foreground
    from lakehouse.definitions import build_defs
    from lakehouse.ml.decisions import rollback

    resources = build_defs(load_settings()).resources or {}
    lake, ml = resources["lake"], resources["ml"]
    lake.storage.reach()
    with lake.session() as session:
        now, before = rollback(ml.registry, session, lake.storage, run_id=uuid.uuid4().hex, announce=resources["announce"])
    print(f"champion: version {now.number}; previous: version {before.number}")
    return foreground.materialize(_SCORING)
