"""The commands of this folder: `start`, `stop`, `status`, `health`, `init`, `schedules`, `logs`."""

import time
from dataclasses import asdict
from typing import Annotated

import typer

from lakehouse.commands.instance.show import busy, document, emit, length, local
from lakehouse.commands.options import Json
from lakehouse.core.errors import DeclarationError
from lakehouse.settings import dagster_home, load_settings

app = typer.Typer()


@app.command()
def start(
    port: Annotated[int, typer.Option(min=1, max=65535, help="of the UI, on 127.0.0.1")] = 3000, as_json: Json = False
) -> int:
    """Start Dagster's webserver and daemon in the background, and return when they work."""
    from lakehouse.commands.instance import background

    began = time.monotonic()
    started = background.begin(port)
    took = time.monotonic() - began
    logs = dagster_home() / "log"
    listed = ", ".join(f"{name} (process {pid})" for name, pid in started.leaders.items())
    text = f"{started.url} answers after {took:.1f} s: {listed}; logs: {logs}\nmake init switches on the schedules."
    value = {"url": started.url, "processes": started.leaders, "logs": str(logs), "seconds": round(took, 1)}
    emit(value, text=text, as_json=as_json)
    return 0


@app.command()
def stop(as_json: Json = False) -> int:
    """Stop what start has started, and its children."""
    from lakehouse.commands.instance import background

    count = background.finish()
    text = f"Stopped {count} processes." if count else "Nothing that make start has started runs here."
    emit({"stopped": count}, text=text, as_json=as_json)
    return 0


@app.command()
def status(as_json: Json = False) -> int:
    """Print what runs here, the schedules with their next and last runs, and the runs that wait or are under way."""
    from lakehouse.commands.instance.status import look

    value, text = look()
    emit(value, text=text, as_json=as_json)
    return 0


@app.command()
def health(as_json: Json = False) -> int:
    """Look whether all is well: places, services, daemons, schedules, last runs, age of tables; exit code 1 when it is not."""
    import dagster as dg

    from lakehouse.commands import doctor
    from lakehouse.commands.instance.health import findings

    settings = load_settings()
    with dg.DagsterInstance.get() as instance:
        if not as_json:
            return doctor.shown(findings(settings, instance))
        found = list(findings(settings, instance))
    healthy = not any(each.state == "WRONG" for each in found)
    print(document({"healthy": healthy, "findings": [{"state": each.state, "said": each.message} for each in found]}))
    return int(not healthy)


@app.command()
def init(as_json: Json = False) -> int:
    """Switch on the schedules and sensors of this environment; in dev, where nothing starts by itself, all of them."""
    import dagster as dg

    from lakehouse.commands.instance.schedules import switch_on

    environment = load_settings().env
    with dg.DagsterInstance.get() as instance:
        changed, retained, left = switch_on(instance, environment)
    lines = [f"switched on   {name}" for name in changed] + [f"already on    {name}" for name in retained]
    lines += [f"left as it is {name}: it does not start by itself in {environment}" for name in left]
    value = {"environment": environment, "switched_on": changed, "already_on": retained, "left": left}
    emit(value, text="\n".join(lines), as_json=as_json)
    return 0


@app.command()
def schedules(
    name: Annotated[str, typer.Argument(help="only this schedule or sensor")] = "",
    on: Annotated[int | None, typer.Option(min=0, max=1, help="1 switches it on, 0 off")] = None,
    as_json: Json = False,
) -> int:
    """List schedules and sensors, or switch one on or off."""
    import dagster as dg

    from lakehouse.commands.instance import location
    from lakehouse.commands.instance.schedules import declared, listing, state, switch

    if on is not None and not name:
        raise DeclarationError(
            "ON says nothing without SCHEDULE.", remedy="Name a schedule or sensor; make init switches on all."
        )
    load_settings()
    with busy("Loading the definitions"), dg.DagsterInstance.get() as instance:
        chosen = declared(location.repository(instance), name)
        if on is not None:
            switch(instance, chosen[0], on=bool(on))
        found = [state(instance, each) for each in chosen]
    emit({"automations": [asdict(each) for each in found]}, text=listing(found), as_json=as_json)
    return 0


@app.command()
def logs(
    run: Annotated[str, typer.Argument(help="a run's id, or how it begins; the newest run without it")] = "",
    as_json: Json = False,
) -> int:
    """Print what a run's event log says, and what its steps printed."""
    import dagster as dg

    from lakehouse.commands.instance.runlog import find, line, read
    from lakehouse.commands.instance.schedules import run_of

    load_settings()
    with dg.DagsterInstance.get() as instance:
        record = find(instance, run)
        with busy("Reading the log"):
            events, printed = read(instance, record.dagster_run.run_id)
    own = run_of(record)
    head = f"{own.run_id} {own.job}: {own.outcome}, requested {local(own.requested_at)}, {length(own.seconds)}"
    blocks = ["\n".join([head, *(line(event) for event in events if event["level"] != "DEBUG")])]
    for each in printed:
        steps = ", ".join(each["steps"][:3]) + (f" and {len(each['steps']) - 3} more" if len(each["steps"]) > 3 else "")
        blocks += [f"--- {name} of {steps}\n{each[name]}" for name in ("stdout", "stderr") if each[name]]
    emit({"run": asdict(own), "events": events, "printed": printed}, text="\n\n".join(blocks), as_json=as_json)
    return 0
