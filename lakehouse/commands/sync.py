"""`make sync`: what derives from the declarations is generated again: the dbt sources, the golden asset keys, the settings that
sources declare in `.env.example` and docs/settings.md.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from lakehouse.settings import load_settings, project_folder

app = typer.Typer()
GOLDEN = Path("lakehouse_tests/golden/asset_keys.txt")


@app.command()
def sync(check: Annotated[bool, typer.Option("--check", help="only compare; exit code 1 when a file is stale")] = False) -> int:
    """Regenerate what derives from the specs: dbt sources, golden asset keys, the settings of sources."""
    for _ in range(2):
        stale = []
        for path, content in derived().items():
            if not path.is_file() or path.read_text() != content:
                stale.append(path)
                if not check:
                    print(f"{path.relative_to(project_folder())}: {_differs(path, content)}")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(content)
        if check and stale:
            names = ", ".join(str(path.relative_to(project_folder())) for path in stale)
            print(f"{names} is not what the specs say. Run make sync.", file=sys.stderr)
            return 1
    return 0


def derived_files() -> list[Path]:
    """Every file that is generated, or has a part that is; nothing is computed for that."""
    from lakehouse.commands.declared import files
    from lakehouse.gold.sources import sources_path

    return [sources_path(), project_folder() / GOLDEN, *files()]


def derived() -> dict[Path, str]:
    """`{file: content}` of everything that is generated."""
    from lakehouse.commands.declared import listed
    from lakehouse.definitions import build_defs
    from lakehouse.gold.sources import render_sources, sources_path
    from lakehouse.settings.settings import Settings, field_of
    from lakehouse.tables import ALL, SETTINGS

    sources = render_sources(ALL)
    path = sources_path()
    if not path.is_file() or path.read_text() != sources:
        # The graph is read from the dbt project, so its sources must be right before the keys are listed.
        return {path: sources}
    graph = build_defs(load_settings()).resolve_asset_graph()
    keys = sorted(key.to_user_string() for key in graph.get_all_asset_keys())
    checks = sorted(f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.asset_check_keys)
    own = [one for one in SETTINGS if field_of(one) not in Settings.model_fields]  # the others are listed among everyone's
    return {path: sources, project_folder() / GOLDEN: "\n".join([*keys, "", *checks, ""]), **listed(own)}


def _differs(path: Path, content: str) -> str:
    """How many lines a file will have that it has not now, and the reverse."""
    before, after = (Counter(text.splitlines()) for text in (path.read_text() if path.is_file() else "", content))
    new, gone = (after - before).total(), (before - after).total()
    return f"{new} new lines, {gone} gone" if new or gone else "lines in another order"
