"""Every private name of Dagster that the lakehouse uses: what it is for, and which public call is missing (Dagster 1.13.27).

Dagster may change any of them in any release. `lakehouse_tests/runtime/test_dagster_private.py` has a test for each that fails
when it does, and one that finds a private name in any other module of the package. Importing this module imports no Dagster.
"""

import importlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import dagster as dg
    from dagster._core.definitions.reconstruct import ReconstructableJob  # noqa: F401
    from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus  # noqa: F401
    from dagster._core.remote_representation.external import RemoteRepository, RemoteSchedule, RemoteSensor  # noqa: F401
    from dagster._core.storage.compute_log_manager import CapturedLogContext  # noqa: F401
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager  # noqa: F401
    from dagster._serdes import ConfigurableClassData  # noqa: F401

#: Types, imported when they are first asked for.
_TYPES = {
    # the production instance's launcher: the base class of every launcher, and its answer; `dagster` exports none of them
    "CheckRunHealthResult": "dagster._core.launcher",
    "DefaultRunLauncher": "dagster._core.launcher",
    "WorkerStatus": "dagster._core.launcher",
    # its storage: an argument of `from_config_value`, which Dagster calls on every storage
    "ConfigurableClassData": "dagster._serdes",
    # the laptop's logs of what runs print: the manager that Dagster uses without a setting; `dagster` exports it not
    "CapturedLogContext": "dagster._core.storage.compute_log_manager",
    "LocalComputeLogManager": "dagster._core.storage.local_compute_log_manager",
    # commands: what the public `build_reconstructable_job` returns
    "ReconstructableJob": "dagster._core.definitions.reconstruct",
    # commands: what `repository` returns, and what is in it
    "RemoteRepository": "dagster._core.remote_representation.external",
    "RemoteSchedule": "dagster._core.remote_representation.external",
    "RemoteSensor": "dagster._core.remote_representation.external",
}
#: What `make start` runs as the daemon. The public `dagster-daemon` is a script, which an environment may not have installed.
DAEMON_MODULE = "dagster._daemon"
#: The logger that warns of every blocking check of a skipped step. No setting changes its level.
PLAN_LOGGER = "dagster._core.execution.plan.active"


def __getattr__(name: str) -> Any:
    if name in _TYPES:
        return getattr(importlib.import_module(_TYPES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- steps -------------------------------------------------------------------------------------------------------------


def is_interrupt(error: BaseException) -> bool:
    """Whether ^C or Terminate raised this in a step. The public API does not export the error."""
    from dagster._core.errors import DagsterExecutionInterruptedError

    return isinstance(error, (KeyboardInterrupt, DagsterExecutionInterruptedError))


def interrupt_again() -> None:
    """Note an interrupt that was raised already, so that the run ends. A retry policy has no way to except an error."""
    from dagster._utils import interrupts

    interrupts._received_interrupt["received"] = True


def end_what_cannot_go_on() -> None:
    """Make every run of this process end. Dagster 1.13.27 looks for steps to skip, then for steps to abandon, each once: a step
    with a skipped and an abandoned input becomes one to skip after that look, and where it is the last, the in-process executor
    asks for it without end, deaf to ^C and SIGTERM. No setting or public hook reaches that loop.

    Looked for are both until there is neither; and a run in which nothing is ready, waiting or under way is an error that names
    the steps, whatever the reason.
    """
    from dagster import DagsterInvariantViolationError
    from dagster._core.execution.plan.active import ActiveExecution

    look, pause = ActiveExecution.plan_events_iterator, ActiveExecution.sleep_til_ready
    if look.__module__ == __name__:
        return

    def plan_events_iterator(self: Any, job_context: Any) -> Iterator[Any]:
        yield from look(self, job_context)
        while self._pending_skip or self._pending_abandon:
            yield from look(self, job_context)

    def sleep_til_ready(self: Any) -> None:
        claims = self._instance_concurrency_context
        waits = self._waiting_to_retry or self._in_flight or self._executable or (claims and claims.has_pending_claims())
        if not waits and not self.is_complete:
            stuck, over = sorted([*self._pending, *self._pending_skip, *self._pending_abandon]), self._abandoned | self._failed
            raise DagsterInvariantViolationError(
                f"No step can go on: {', '.join(stuck)} wait for what failed or was not executed ({', '.join(sorted(over))})."
            )
        pause(self)

    ActiveExecution.plan_events_iterator = plan_events_iterator  # type: ignore[method-assign]
    ActiveExecution.sleep_til_ready = sleep_til_ready  # type: ignore[method-assign]


# --- the instance's tables ---------------------------------------------------------------------------------------------


def event_log_table() -> Any:
    """The SQL table of events. The public API reads one kind of event at a time, and on SQLite opens a file per run."""
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable

    return SqlEventLogStorageTable


def check_executions_table() -> Any:
    """The SQL table of what checks found. Deleting a run leaves its rows there, and no public call removes one."""
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable

    return AssetCheckExecutionsTable


def has_file_per_run(event_log_storage: Any) -> bool:
    """Whether the events of each run are a SQLite file. The public API does not tell how an instance stores them."""
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

    return isinstance(event_log_storage, SqliteEventLogStorage)


def event_of(stored: str) -> "dg.EventLogEntry":
    """An event from the text that its row has. No public call reads one."""
    import dagster as dg
    from dagster._serdes import deserialize_value

    return deserialize_value(stored, dg.EventLogEntry)


def overdue(instance: "dg.DagsterInstance", keys: Iterable[Sequence[str]]) -> dict[str, bool]:
    """Whether assets, by name, are older than their freshness policy allows, as the daemon reported last; without those of which
    it reports nothing. No public call tells what came of a policy."""
    import dagster as dg

    found = instance.get_freshness_state_records([dg.AssetKey(list(key)) for key in keys])
    states = {key.to_user_string(): record.freshness_state.value for key, record in found.items()}
    return {key: state == "FAIL" for key, state in states.items() if state in ("PASS", "WARN", "FAIL")}


def runs_table() -> Any:
    """The SQL table of runs. The public `RunsFilter` takes whole run ids, not the first characters of one."""
    from dagster._core.storage.runs.schema import RunsTable

    return RunsTable


# --- schedules and sensors ---------------------------------------------------------------------------------------------


def repository(instance: "dg.DagsterInstance", *, module: str, location: str) -> "RemoteRepository":
    """A module's definitions as webserver and daemon see them. The public API gives no schedule or sensor its id."""
    return next(iter(_origin(module, location).create_location(instance).get_repositories().values()))


@contextmanager
def runs_of(instance: "dg.DagsterInstance", *, module: str, location: str) -> Iterator[None]:
    """Runs that an instance makes meanwhile belong to a code location, as those of webserver and daemon do. The runs of the
    public `execute_in_process` and `execute_job` belong to none, so a job's page, the timeline and the bars of runs are empty."""
    from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
    from dagster._core.remote_origin import RemoteRepositoryOrigin

    origin, make = RemoteRepositoryOrigin(_origin(module, location), SINGLETON_REPOSITORY_NAME), instance.create_run_for_job

    def create_run_for_job(job_def: Any, *arguments: Any, **named: Any) -> Any:
        return make(job_def, *arguments, **{**named, "remote_job_origin": origin.get_job_origin(job_def.name)})

    instance.create_run_for_job = create_run_for_job  # type: ignore[method-assign]
    try:
        yield
    finally:
        del instance.create_run_for_job  # the class's own again


def _origin(module: str, location: str) -> Any:
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=module)
    return InProcessCodeLocationOrigin(target, location_name=location)


def ticks(after: datetime, cron: str, timezone: str) -> Iterator[datetime]:
    """When a cron ticks from an instant on. The public API has no cron, and Dagster's reading of one is what counts."""
    from dagster._utils.schedules import schedule_execution_time_iterator

    return schedule_execution_time_iterator(after.timestamp(), cron, timezone)


# --- code servers ------------------------------------------------------------------------------------------------------


def code_server(run: "dg.DagsterRun") -> dict[str, Any]:
    """The code server that started a run: its `host` (none: a socket); empty when none did. No public name for the run's tag."""
    from dagster._core.storage.tags import GRPC_INFO_TAG

    found: dict[str, Any] = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    return found


def ask_for_worker(
    launcher: "DefaultRunLauncher", run_id: str, *, timeout: int
) -> Literal["alive", "gone", "run over", "no answer"]:
    """Whether the code server that started a run still has its process. No public launcher asks a code server this."""
    from dagster._core.errors import DagsterUserCodeUnreachableError
    from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
    from dagster._serdes import deserialize_value

    client = launcher._get_grpc_client_for_termination(run_id)
    if client is None:
        return "run over"
    try:
        reply = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run_id), timeout=timeout)
    except DagsterUserCodeUnreachableError:
        return "no answer"
    return "alive" if deserialize_value(reply, CanCancelExecutionResult).can_cancel else "gone"
