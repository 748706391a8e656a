"""Console logs of runs: one JSON object a line for machines, short lines for people, and the cause when a step fails."""

import json
import re
from datetime import datetime

import dagster as dg
import pytest

from lakehouse.runtime.logs import console_logger
from lakehouse.runtime.steps import failures
from lakehouse.settings import Settings

LINES = {"loggers": {"console": {"config": {}}}}


@dg.op
def speaks(context: dg.OpExecutionContext) -> None:
    context.log.info('Wrote %s rows to %s, "quoted"\nand more.', 3, "silver/vendas")
    context.log.debug("Nobody needs this.")


@dg.op
def breaks() -> None:
    raise dg.Failure("There is no table silver/vendas. Materialise it first.", allow_retries=False)


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def always_fails() -> None:
    try:
        {}["a detail"]
    except KeyError as error:
        raise ValueError("the reason, with its remedy") from error


def _run(op, capsys, *, log_format, config=LINES):
    """The console lines of a run of one op, and the run's result."""
    logger = console_logger(Settings(log_format=log_format))

    @dg.job(logger_defs={"console": logger}, executor_def=dg.in_process_executor, name="medallion_etl")
    def job():
        op()

    capsys.readouterr()
    result = job.execute_in_process(run_config=config, raise_on_error=False)
    return capsys.readouterr().err.rstrip("\n").split("\n"), result


def test_json_logs_are_one_object_a_line_with_run_job_step_and_level(capsys):
    lines, result = _run(speaks, capsys, log_format="json")
    objects = [json.loads(line) for line in lines]
    assert len(objects) == 1
    told = objects[0]
    assert told["message"] == 'Wrote 3 rows to silver/vendas, "quoted"\nand more.'
    assert (told["run_id"], told["job"], told["step"], told["level"]) == (result.run_id, "medallion_etl", "speaks", "INFO")
    assert datetime.fromisoformat(told["time"]).utcoffset() is not None


def test_logs_for_people_are_time_level_step_and_message_without_ids(capsys):
    lines, result = _run(speaks, capsys, log_format="text")
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    speaks: Wrote 3 rows to silver/vendas, \"quoted\"", lines[0])
    assert not any(result.run_id in line for line in lines)


def test_the_level_is_chosen_by_run_config(capsys):
    config = {"loggers": {"console": {"config": {"log_level": "debug"}}}}
    lines, _ = _run(speaks, capsys, log_format="text", config=config)
    assert any("Nobody needs this." in line for line in lines)


def test_a_failed_step_is_shown_with_its_cause_as_an_error(capsys):
    lines, result = _run(breaks, capsys, log_format="json")
    told = [json.loads(line) for line in lines]
    assert not result.success
    step = next(line for line in told if line.get("step") == "breaks")
    assert (step["level"], step["run_id"]) == ("ERROR", result.run_id)
    assert step["error"] == "There is no table silver/vendas. Materialise it first."
    assert step["message"].endswith(step["error"])
    assert any(line["level"] == "ERROR" and "step" not in line and line.get("error") == step["error"] for line in told)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_the_cause_is_what_the_step_raised_and_not_that_retries_were_used_up(capsys, log_format):
    lines, _ = _run(always_fails, capsys, log_format=log_format)
    assert len(lines) >= 2
    failed = [line for line in lines if "always_fails" in line and "ERROR" in line]
    assert failed
    assert all("the reason, with its remedy" in line for line in failed)


def test_own_errors_are_shown_with_their_remedy(capsys):
    from lakehouse.core.errors import BrokenTableError

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=3, delay=60))
    def finds_nothing() -> None:
        with failures():
            raise BrokenTableError("There is no bronze/vendas.", remedy="Materialise bronze/vendas first.")

    lines, _ = _run(finds_nothing, capsys, log_format="text")
    assert any(
        re.search(r"ERROR +finds_nothing: .*There is no bronze/vendas\. Materialise bronze/vendas first\.", x) for x in lines
    )
