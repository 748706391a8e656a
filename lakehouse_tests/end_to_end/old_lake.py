"""A lake and a DAGSTER_HOME as a commit of the history makes them with `make run`, small; and commands over them, old or new.

    git archive COMMIT  ─▶  folder/code  ─▶  its own sample, jobs and home  ─▶  folder/lake, folder/home

`extract` takes the code out of the history and needs no work tree. `commands` runs `python -m lakehouse ...` one after the other
in one process, so that imports are paid once: `python old_lake.py REPORT 'trigger medallion_etl' ...` writes a line of JSON per
command into REPORT. The `lakehouse` is then whichever is first on PYTHONPATH, so nothing else of it is imported here.
"""

import contextlib
import io
import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

#: The last commit before the rooms were moved; what its `make run` made must go on.
COMMIT = "2e6ab70"
#: `make run` of that commit, with fewer sale lines, and so few captures as one export takes.
RUN = (
    "sample --lines 4000",
    "trigger medallion_etl",
    "trigger pedidos",
    "feed write {folder}/feed",
    "trigger brt_capture --times 2",
    "trigger mlops",
    "trigger monitoring",
    "trigger slo",
    "summary",
)
_MODULES = {"sample": "lakehouse.sample", "feed": "lakehouse.sample.brt"}


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    command: str
    code: int
    output: str
    seconds: float


def extract(project: Path, folder: Path) -> Path:
    """The code of `COMMIT` below a folder.

    Raises:
        LookupError: the clone is shallow, or is none.
    """
    known = subprocess.run(["git", "cat-file", "-e", f"{COMMIT}^{{commit}}"], cwd=project, capture_output=True, check=False)
    if known.returncode != 0:
        raise LookupError(
            f"Commit {COMMIT}, whose lake is taken over, is not in this clone. Fetch the history: git fetch --unshallow."
        )
    code = folder / "code"
    code.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", COMMIT], cwd=project, stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x", "-C", str(code)], input=archive.stdout, check=True)
    (folder / "home").mkdir()
    shutil.copy2(code / "dagster.yaml", folder / "home")
    return code


def environment(folder: Path, code: Path) -> dict[str, str]:
    """What a process needs that runs this code over the lake of the folder, and nothing of its caller's settings."""
    foreign = ("LAKEHOUSE_", "DAGSTER_", "AWS_", "MLFLOW_", "PYTHONPATH")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **own,
        "PYTHONPATH": str(code),
        "DAGSTER_HOME": str(folder / "home"),
        "LAKEHOUSE_ROOT": str(folder / "lake"),
        "LAKEHOUSE_BACKUP_ROOT": str(folder / "backup"),
        "LAKEHOUSE_BRT_URL": f"file://{folder}/feed",
        "LAKEHOUSE_BRT_BUFFER": "2",
        "LAKEHOUSE_HOLIDAYS": "none",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }


def commands(folder: Path, code: Path, *typed: str) -> list[Done]:
    """Run commands of this code over the lake of the folder; one that fails is told by its exit code, and the rest runs too."""
    report, log = folder / "report", folder / f"log-{len(list(folder.glob('log-*')))}"
    with log.open("w") as err:
        subprocess.run(
            [sys.executable, str(Path(__file__)), str(report), *[command.format(folder=folder) for command in typed]],
            cwd=folder, env=environment(folder, code), stdout=err, stderr=err, check=False,
        )  # fmt: skip
    done = [Done(**json.loads(line)) for line in report.read_text().splitlines()]
    assert len(done) == len(typed), log.read_text()[-3000:]
    failed = [one for one in done if one.code]
    assert not failed, f"{failed}\n{log.read_text()[-3000:]}"
    return done


def make(project: Path, folder: Path) -> Path:
    """The lake of `COMMIT` below a folder; where its code is."""
    code = extract(project, folder)
    commands(folder, code, *RUN)
    return code


def _type(command: str) -> tuple[int, str]:
    """A command's exit code, and what it printed."""
    name, *words = shlex.split(command)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            if name in _MODULES:
                sys.argv = [name, *words]
                runpy.run_module(_MODULES[name], run_name="__main__")
            else:
                from lakehouse.__main__ import app

                app([name, *words])
        except SystemExit as end:
            return (end.code if isinstance(end.code, int) else int(end.code is not None)), out.getvalue()
    return 0, out.getvalue()


def main() -> None:
    """The commands of the command line, each with its outcome as a line of the report."""
    report, *typed = sys.argv[1:]
    with Path(report).open("w") as lines:
        for command in typed:
            began = time.monotonic()
            code, output = _type(command)
            seconds = round(time.monotonic() - began, 1)
            print(json.dumps({"command": command, "code": code, "output": output, "seconds": seconds}), file=lines, flush=True)


if __name__ == "__main__":
    main()
