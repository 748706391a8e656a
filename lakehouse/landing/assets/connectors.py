"""Landing assets that run Airbyte's own connectors: one asset for each that a table declares (`AirbyteConnector`). Those that
have an Airbyte server sync (`AirbyteServer`) are found here, and made in `airbyte_server.py`.

make connector NAME=loja PACKAGE=airbyte-source-faker     its virtual environment, below LAKEHOUSE_CONNECTORS
dagster asset materialize --select 'key:"landing/loja"'   one sync
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import dagster as dg

from lakehouse.core.errors import DeclarationError
from lakehouse.core.names import check_name
from lakehouse.core.store.scratch import scratch
from lakehouse.landing.assets.airbyte_server import server_asset, server_check
from lakehouse.runtime.lake import LakeResource
from lakehouse.runtime.steps import RETRY, failures
from lakehouse.settings import load_settings
from lakehouse.tables import parts
from lakehouse.tables.spec import AirbyteConnector, AirbyteServer, AirbyteStream


def connector_assets() -> list[dg.AssetsDefinition]:
    """The asset `landing/<name>` of every declared connector, and of every connection of a server."""
    return [server_asset(one) if isinstance(one, AirbyteServer) else _asset(one) for one in _declared()]


def connector_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of those assets that look at what is outside, without a sync."""
    return [server_check(one) for one in _declared() if isinstance(one, AirbyteServer)]


def _declared() -> list[AirbyteConnector | AirbyteServer]:
    found: dict[str, AirbyteConnector | AirbyteServer] = {}
    for source in [part.origin for part in parts()]:
        if isinstance(source, AirbyteStream) and isinstance(source.connector, (AirbyteConnector, AirbyteServer)):
            known = found.setdefault(source.connector.name, source.connector)
            if known != source.connector:
                raise DeclarationError(
                    f"Two connectors are called {known.name!r}.", remedy="Declare it once, and ask it for its streams."
                )
    return list(found.values())


def _asset(declared: AirbyteConnector) -> dg.AssetsDefinition:
    @dg.asset(
        key=["landing", declared.name],
        group_name="landing",
        description=f"One sync of {declared.executable}: {', '.join(declared.streams)}.",
        kinds={"airbyte"},
        retry_policy=RETRY,
    )
    def landing(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult[None]:
        from lakehouse.landing.sources.connector import Connector, find, sync

        def log(level: str, line: str) -> None:
            getattr(context.log, level)(line)

        with failures(), scratch(lake.spill) as folder:
            secret = _secret(Path(lake.connectors, f"{declared.name}.json"))
            connector = Connector(
                name=declared.name,
                command=find(declared.executable, f"{lake.connectors}/{declared.name}"),
                config={**declared.config, **secret},
                secrets=frozenset(_texts(secret)),
                streams={name: (declared.stream(name).folder, mode) for name, mode in declared.streams.items()},
                max_runtime=declared.max_runtime,
                max_silence=declared.max_silence,
            )
            done = sync(connector, lake.storage, scratch=folder, log=log)
        records = {f"records_{stream}": count for stream, count in done.records.items()}
        figures = {"files": len(done.files), "states": done.states, "lines_that_are_no_message": done.garbage}
        return dg.MaterializeResult(metadata={"records": sum(done.records.values()), **records, **figures})

    return landing


def install(name: str, package: str, *, python: str) -> int:
    """Make a connector's virtual environment, or bring it up to date. Returns the exit code of pip.

    Raises:
        DeclarationError: the name or the package cannot be one.
    """
    check_name(name, "connector name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(==[A-Za-z0-9.]+)?", package):
        raise DeclarationError(f"{package[:80]!r} is no package.", remedy="Give PACKAGE=name or PACKAGE=name==version.")
    folder = Path(load_settings().connectors_folder, name)
    if not (folder / "bin" / "python").exists():
        made = subprocess.run([python, "-m", "venv", str(folder)], check=False)
        if made.returncode:
            raise DeclarationError(f"{python} could not make {folder}.", remedy="Give a Python 3 with WITH=python3.11.")
    done = subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", package], check=False)
    if not done.returncode:
        commands = sorted(path.name for path in (folder / "bin").glob("source-*"))
        print(f"{name}: {', '.join(commands) or 'the package has no command source-*'} in {folder.name}/bin")
    return done.returncode


def _secret(path: Path) -> dict[str, Any]:
    """The part of a config that is not in the code, `{}` when there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise DeclarationError(f"{path.name} in LAKEHOUSE_CONNECTORS is no JSON object.", remedy="Write the connector's config.")
    return content


def _texts(value: Any) -> list[str]:
    """Every text in a config that is long enough to be a secret."""
    if isinstance(value, dict):
        return [text for part in value.values() for text in _texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) and len(value) > 3 else []
