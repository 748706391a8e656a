"""`make run`: from nothing to a lakehouse, each part in a process of its own, with one view of how it goes.

A part is a command that can be typed alone. Its log lines are read as JSON: which step, how many records, what was skipped; its
warnings are counted and shown at the end with the command that tells more. With LAKEHOUSE_LOG_FORMAT=json the lines are passed
on as they are, and nothing is drawn. The first part that fails ends it, with the lines that it wrote last.
"""

import importlib.util
import json
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Annotated

import typer

from lakehouse.commands.console import BEAT, Console, Part, console_for
from lakehouse.core.names import TableRef
from lakehouse.settings import load_settings, process_environment, project_folder

app = typer.Typer()
_RECORDS = re.compile(r"([\d,]+) records in\b")
_SKIPPED, _WARNING = "Skipping step ", "warning: "
#: What is shown of a part that failed, and of its warnings.
_LAST_LINES, _MOST_WARNINGS = 12, 12
_REPORTS = ("vendas", "brt", "modelo", "manutencao")
_NEXT = (
    "make sql Q='select mes, receita from gold.vendas_mensais order by mes'",
    "make run                      # again: nothing is new, and nothing changes",
    "make table FROM=vendas.csv    # a table from a file of your own",
)


@dataclass(frozen=True)
class Work:
    """A part's name, what it does, the seconds that it took on two cores, its commands, and their own environment."""

    name: str
    text: str
    seconds: float
    commands: Sequence[Sequence[str]]
    environment: Mapping[str, str] = field(default_factory=dict)


def works(*, sample: bool) -> list[Work]:
    """What is done: over the sample everything, over files of one's own what asks no stub."""

    def python(*words: str) -> list[str]:
        return [sys.executable, "-m", *words]

    def trigger(job: str, *words: str) -> list[str]:
        return python("lakehouse", "trigger", job, *words)

    folder = project_folder()
    buses = {"LAKEHOUSE_BRT_URL": f"file://{folder}/data/brt_simulado"}
    feed = [python("lakehouse.sample.brt", "write", "data/brt_simulado"), trigger("brt_capture", "--times", "10")]
    # The extra is installed when it is first wanted, as make trigger JOB=mlops does.
    extra = [] if importlib.util.find_spec("mlflow") else [["make", "--no-print-directory", ".venv/.ml"]]
    every = [
        (True, Work("sample", "twelve syncs of real sales land", 25, [python("lakehouse.sample")])),
        (False, Work("medallion_etl", "landing to bronze, silver, gold, report", 60, [trigger("medallion_etl")])),
        (True, Work("pedidos", "orders of an API and a database", 20, [trigger("pedidos")])),
        (True, Work("brt_capture", "ten minutes of buses, and a map", 30, feed, buses)),
        (True, Work("mlops", "a forecast is trained and evaluated", 45, [*extra, trigger("mlops")])),
        (False, Work("monitoring", "tables, services, runs are measured", 8, [trigger("monitoring")])),
        (False, Work("slo", "success rates, SLAs", 8, [trigger("slo")])),
    ]
    return [work for only_sample, work in every if sample or not only_sample]


@app.command()
def run(sample: Annotated[int, typer.Option(min=0, max=1, help="1 writes the sample; its stubs are the sources")] = 0) -> int:
    """Every job once, from landed files (or the sample) to tables, reports and measurements."""
    return run_parts(works(sample=bool(sample)), passed_on=load_settings().log_format == "json")


def run_parts(planned: Sequence[Work], *, passed_on: bool) -> int:
    """Run parts one after the other; the exit code of the first that failed, 0 where none did.

    Args:
        passed_on: the parts' lines go to stderr as they are, and nothing is drawn.
    """
    parts = [Part(work.name, work.text, work.seconds) for work in planned]
    console = None if passed_on else console_for(parts)
    try:
        for number, (work, part) in enumerate(zip(planned, parts, strict=True)):
            part.began = time.monotonic()
            if console is not None:
                console.begin(number)
            last: list[str] = []
            code = next((code for words in work.commands if (code := _run(words, work, part, console, last))), 0)
            part.took = time.monotonic() - part.began
            if console is not None:
                console.end(failed=code != 0)
            if code:
                print("\n".join(last[-_LAST_LINES:]), file=sys.stderr)
                print(f"error: {part.name} failed. Its log: make logs; more of it: make health.", file=sys.stderr)
                return code
    finally:
        if console is not None:
            console.close()
    if not passed_on:
        print("\n".join(_report(parts)))
    return 0


def _run(words: Sequence[str], work: Work, part: Part, console: Console | None, last: list[str]) -> int:
    """Run a command to its end, and take note of what it writes; its exit code."""
    environment = process_environment(LAKEHOUSE_LOG_FORMAT="json", PYTHONUNBUFFERED="1", **work.environment)
    process = subprocess.Popen(
        [*words],
        cwd=project_folder(),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        for line in _lines(process.stdout, console):
            if console is None:
                print(line, file=sys.stderr)
            elif text := _noted(line, part):
                last.append(text)
        return process.wait()
    except BaseException:  # Ctrl-C reaches the child as well: it ends its run, and is waited for
        process.wait()
        raise


def _lines(stream: IO[bytes], console: Console | None) -> Iterator[str]:
    """The lines of a stream; whoever watches the console sees a sign of life between them."""
    rest, beaten = b"", time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            ready = selector.select(timeout=BEAT / 4)
            if console is not None and time.monotonic() - beaten >= BEAT:
                console.beat()
                beaten = time.monotonic()
            if not ready:
                continue
            chunk = os.read(stream.fileno(), 1 << 16)
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in whole)
            if not chunk:
                if rest:
                    yield rest.decode("utf-8", "replace")
                return


def _noted(line: str, part: Part) -> str:
    """Take note of a line; what of it is worth showing where the part fails."""
    if line.startswith(_WARNING):
        part.warnings.append(line.removeprefix(_WARNING))
        return line
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or "message" not in entry:
        return ""
    message = str(entry["message"])
    if message.startswith(_SKIPPED):
        part.skipped += 1
        return ""
    part.step = str(entry.get("step") or part.step).replace("__", "/")
    found = _RECORDS.search(message)
    part.records += int(found[1].replace(",", "")) if found else 0
    return f"{part.step}: {message}"


# --- the end ---------------------------------------------------------------------------------------------------------


def _report(parts: Sequence[Part]) -> Iterator[str]:
    """What was found, every report, and where to go on."""
    from lakehouse.commands.runs import newest_report

    storage = load_settings().storage
    took = sum(part.took for part in parts)
    yield f"\nDone in {took:.0f} s."
    warnings = list(dict.fromkeys(warning for part in parts for warning in part.warnings))
    yield from (f"  ! {warning}" for warning in warnings[:_MOST_WARNINGS])
    if len(warnings) > _MOST_WARNINGS:
        yield f"  ! and {len(warnings) - _MOST_WARNINGS} more: make logs shows those of a run"
    for name in _REPORTS:
        if report := newest_report(storage.uri(TableRef("reports", name))):
            yield f"report: {report}"
    yield "dashboard: make dashboard, then http://127.0.0.1:8501"
    yield "UI: make dev, then http://127.0.0.1:3000"
    yield "Try next:"
    yield from (f"  {command}" for command in _NEXT)
