"""`make rollback-model`: the former champion is the champion again, and forecasts from the newest origin."""

import uuid

from lakehouse import runs
from lakehouse.definitions import build_defs
from lakehouse.settings import load_settings

_SCORING = 'key:"ml/previsao_vendas" or key:"ml/acuracia_previsao" or key:"reports/modelo"'


def rollback_model() -> int:
    """Let `champion` and `previous` change places, then score; the exit code is that of the scoring run.

    Raises:
        DeclarationError: there is no previous champion.
        ModelGoneError: it cannot be loaded.
        RegistryError: MLflow does not answer.
    """
    from lakehouse.ml.decisions import rollback

    resources = build_defs(load_settings()).resources or {}
    lake, ml = resources["lake"], resources["ml"]
    lake.storage.reach()
    with lake.session() as session:
        now, before = rollback(ml.registry, session, lake.storage, run_id=uuid.uuid4().hex)
    print(f"champion: version {now.number}; previous: version {before.number}")
    return runs.materialize(_SCORING)
