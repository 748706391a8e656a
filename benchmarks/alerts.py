"""Case `alerts`: seconds from a run's failure to its arrival at Slack and in a mailbox, by the real daemon.

    python -m benchmarks.alerts FOLDER [--failures N]

Dagster's daemon runs on an instance of its own, with the sensors `watch` and `deliver` switched on as `make schedules` does. Jobs
that fail, one incident each, run in this process on that instance, at seeded moments all over the sensors' intervals. Slack and
the mail server are stubs (`sinks.py`); what arrives there is timed when it is taken. The failure's instant is the one that
Dagster stored.
"""

import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.measure import PROJECT, BenchmarkError, environment
from benchmarks.sinks import Mailbox, Slack, mail_server, slack_server

ADDRESS = "operators@example.org"
#: Seconds between two failures on the average: twenty of them fall all over several ticks of both sensors.
_APART, _SEED = 5.0, 23
_STARTED, _PATIENCE = 180.0, 120.0


def measure(folder: Path, failures: int) -> dict[str, Any]:
    """Fail so many runs while the daemon works; p50, p95 and max of both channels."""
    folder.mkdir(parents=True, exist_ok=True)
    with mail_server(folder) as mail, slack_server() as slack:
        own = settings(mail, slack)
        os.environ.update(own)
        with dg.DagsterInstance.get() as instance, daemon(folder, own):
            switch_on(instance)
            failed = fail(instance, failures)
            deadline = time.time() + _PATIENCE
            while time.time() < deadline and min(len(mail.mails), len(slack.messages)) < failures:
                time.sleep(0.2)
            taken = {
                "slack": zip([str(message["text"]) for message in slack.messages], slack.arrived, strict=False),
                "mail": zip(mail.subjects, mail.arrived, strict=False),
            }
            found = {channel: lags(failed, [*listed]) for channel, listed in taken.items()}
    return {"failures": failures, **{channel: summary(values) for channel, values in found.items()}}


def settings(mail: Mailbox, slack: Slack, *addresses: str) -> dict[str, str]:
    """The settings that send alerts to the stubs, for this process and the daemon."""
    return {
        "LAKEHOUSE_SMTP_URL": mail.url,
        "LAKEHOUSE_ALERT_EMAILS": ",".join(addresses or (ADDRESS,)),
        "LAKEHOUSE_SLACK_TOKEN": "xoxb-stub",  # nosec B105 - of the stub
        "LAKEHOUSE_SLACK_CHANNEL": "#stub",
        "LAKEHOUSE_SLACK_URL": slack.url,
        "SSL_CERT_FILE": str(mail.ca),
    }


@contextmanager
def daemon(folder: Path, own: Mapping[str, str]) -> Iterator[None]:
    """Dagster's daemon for the instance of DAGSTER_HOME. It ends with this process, also when that is killed (on Linux)."""
    from lakehouse.runtime.dagster_private import DAEMON_MODULE

    given = {name: value for name, value in os.environ.items() if name.startswith(("LAKEHOUSE_", "DAGSTER_"))}
    with_parent = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    command = [*with_parent, sys.executable, "-m", DAEMON_MODULE, "run", "--workspace", str(PROJECT / "workspace.yaml")]
    log = folder / "daemon.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=PROJECT, env=environment({**given, **own}), stdout=out, stderr=out)
    try:
        yield
        if process.poll() is not None:
            raise BenchmarkError(f"The daemon ended with {process.returncode}: {log.read_text()[-2000:]}")
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def switch_on(instance: dg.DagsterInstance) -> None:
    """Switch both sensors on, and wait until each has ended a tick."""
    from lakehouse.commands.instance import location, schedules

    own = location.repository(instance)
    waiting = [sensor for name in ("watch", "deliver") for sensor in schedules.declared(own, name)]
    for sensor in waiting:
        schedules.switch(instance, sensor, on=True)
    deadline = time.monotonic() + _STARTED
    while waiting:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"The daemon did not tick {waiting[0].name} within {_STARTED:.0f} s.")
        time.sleep(0.5)
        waiting = [each for each in waiting if not _ticked(instance, each)]


def _ticked(instance: dg.DagsterInstance, sensor: Any) -> bool:
    from dagster._core.scheduler.instigation import TickStatus

    ended = [TickStatus.SKIPPED, TickStatus.SUCCESS]
    return bool(instance.get_ticks(sensor.get_remote_origin_id(), sensor.selector_id, limit=1, statuses=ended))


def failing(name: str) -> dg.JobDefinition:
    """A job whose only step fails."""

    @dg.op(name=f"read_{name}")
    def read() -> None:
        raise dg.Failure(f"The source of {name} does not answer.", allow_retries=False)

    @dg.job(name=name, executor_def=dg.in_process_executor)
    def fails() -> None:
        read()

    return fails


def fail(instance: dg.DagsterInstance, failures: int) -> dict[str, float]:
    """Let so many jobs fail; when each did, by name."""
    moments, out = random.Random(_SEED), {}  # nosec B311 - moments, no secrets
    for number in range(failures):
        time.sleep(moments.uniform(0, 2 * _APART))
        name = f"feed_{number:03}"
        done = failing(name).execute_in_process(instance=instance, raise_on_error=False)
        (end,) = instance.all_logs(done.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        out[name] = end.timestamp
    return out


def lags(failed: Mapping[str, float], arrived: Sequence[tuple[str, float]]) -> list[float]:
    """Seconds from each failure to its message.

    Raises:
        BenchmarkError: a failure arrived not at all, or twice.
    """
    out = []
    for name, at in failed.items():
        found = [when - at for text, when in arrived if name in text]
        if len(found) != 1:
            raise BenchmarkError(f"The failure of {name} arrived {len(found)} times.")
        out += found
    return out


def summary(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 (nearest rank) and max."""
    ordered = sorted(values)
    ranks = {f"p{share}": ordered[math.ceil(share / 100 * len(ordered)) - 1] for share in (50, 95)}
    return {**ranks, "max": ordered[-1]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alerts", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--failures", type=int, default=20)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.folder, arguments.failures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
