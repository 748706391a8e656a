"""Console logs of runs: a line for people, or one JSON object a line (`LAKEHOUSE_LOG_FORMAT=json`).

Dagster's own events (step started, asset materialised) are in its event log; the console shows what steps say, and failures.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lakehouse.settings import Settings

#: Errors of Dagster that only say that there was another one ("Exceeded max_retries of 3").
_WRAPPERS = ("Dagster", "RetryRequested")


class _People(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        where = f" {fields['step']}" if fields.get("step") else ""
        return f"{fields['time'][11:19]} {fields['level']:7}{where}: {fields['message']}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields(record), ensure_ascii=False)


def console_logger(settings: Settings) -> dg.LoggerDefinition:
    """Dagster's console logger in the format that the settings ask for; level from run config, INFO by default."""
    formatter = _Json() if settings.log_format == "json" else _People()

    @dg.logger({"log_level": dg.Field(str, is_required=False, default_value="INFO")}, description="Console logs of runs.")
    def console(context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("lakehouse", level=context.logger_config["log_level"].upper())
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        return logger

    return console


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    meta = getattr(record, "dagster_meta", {}) or {}
    fields = {
        "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "run_id": meta.get("run_id"),
        "job": meta.get("job_name"),
        "step": meta.get("step_key"),
        "message": meta.get("orig_message") or record.getMessage(),
    }
    error = getattr(getattr(meta.get("dagster_event"), "event_specific_data", None), "error", None)
    while error is not None and error.cause is not None and (error.cls_name or "").startswith(_WRAPPERS):
        error = error.cause
    if error is not None:
        text = " ".join(error.message.split())
        fields["error"] = text.partition(": ")[2] if error.cls_name == "Failure" else text
        fields["message"] = f"{fields['message']} {fields['error']}"
    return {name: value for name, value in fields.items() if value is not None}
