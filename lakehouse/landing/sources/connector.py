"""One sync of an Airbyte source connector, without a server: its records become landing files of the v2 layout.

    check ─▶ discover ─▶ read ─┬ RECORD ─▶ a file of its stream in landing, whole before the next line counts
                               ├ STATE  ─▶ the files so far, then <landing>/connectors/<name>/state.json
                               ├ LOG, TRACE, and lines that are no message ─▶ the log
                               └ exit 0 ─▶ a stream that was refreshed as a whole is complete

The state is never ahead of the records: a sync that dies goes on from its last state, and what was emitted after that is
delivered again under new ids, which silver sees through. A full refresh has a generation of its own, which nobody shows until
it is complete. The connector runs in its own virtual environment, as a subprocess that sees nothing of this one's environment.
"""

import gzip
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from lakehouse.core.errors import DeclarationError, LakehouseError
from lakehouse.core.store import files
from lakehouse.core.store.storage import Storage, lock
from lakehouse.tables.spec import SyncMode

Log = Callable[[str, str], None]
#: A file of this many bytes, before compression, is given its place even if no state has come.
_FILE = 64_000_000
_SHOWN = 300
_MASK = "***"
#: Nobody is to know: connectors of the CDK send telemetry unless these say no.
_QUIET = {"DO_NOT_TRACK": "1", "SENTRY_DSN": "", "AIRBYTE_TELEMETRY": "0"}


class ConnectorError(LakehouseError):
    """A connector failed, or did what the protocol does not allow. What it had acknowledged is in landing."""

    retryable = True


@dataclass(frozen=True, kw_only=True)
class Connector:
    """What is run, and what it is to read.

    Args:
        command: the connector's executable, an absolute path.
        config: all of it; `secrets` are texts in it that no log may show.
        streams: `{stream: (folder below raw/, mode)}`.
    """

    name: str
    command: str
    config: Mapping[str, Any]
    secrets: frozenset[str] = frozenset()
    streams: Mapping[str, tuple[str, SyncMode]]
    max_runtime: timedelta = timedelta(hours=6)
    max_silence: timedelta = timedelta(minutes=30)

    def shown(self, text: str) -> str:
        """A text without secrets, cut to a line."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, _MASK)
        return " ".join(text.split())[:_SHOWN]


@dataclass
class Synced:
    """What a sync brought."""

    records: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    states: int = 0
    garbage: int = 0


def sync(connector: Connector, storage: Storage, *, scratch: str, log: Log) -> Synced:
    """Run one sync.

    Args:
        scratch: a folder of this machine for files that are being written.
        log: called with a level (`debug`, `info`, `warning`, `error`) and a line.

    Raises:
        DeclarationError: the connector is not there, refuses its config, or has no such stream; trying again does not help.
        ConnectorError: it failed while it read.
    """
    if not os.access(connector.command, os.X_OK):
        raise DeclarationError(
            f"Connector {connector.name!r}: there is no command {connector.command}.",
            remedy=f"Run make connector NAME={connector.name} PACKAGE=<its package>, or fix the declaration.",
        )
    location = f"{storage.landing.rstrip('/')}/connectors/{connector.name}"
    with lock(location), tempfile.TemporaryDirectory(dir=scratch) as folder:
        return _Sync(connector, storage, location, Path(folder), log).run()


class _Sync:
    def __init__(self, connector: Connector, storage: Storage, location: str, folder: Path, log: Log) -> None:
        self.connector, self.storage, self.location, self.folder, self.log = connector, storage, location, folder, log
        self.out = Synced()
        self.began = int(time.time() * 1000)
        self.writers: dict[str, _Writer] = {}
        self.ended: set[str] = set()
        self.trace = ""

    def run(self) -> Synced:
        config = self._file("config.json", self.connector.config)
        self._check(config)
        catalog = self._catalog(config)
        known = self._known()
        known["sync_id"] += 1
        for stream, (_, mode) in self.connector.streams.items():
            if mode == "full_refresh":
                known["generations"][stream] = known["generations"].get(stream, 0) + 1
        self._store_state(known)  # before the first record: a generation that was cut off must not be taken up again
        self.known = known
        arguments = ["--config", config, "--catalog", self._file("catalog.json", self._configured(catalog))]
        incremental = [state for state in known["states"] if self._is_incremental(state)]
        if incremental:
            arguments += ["--state", self._file("state.json", incremental)]
        with self._running("read", *arguments) as process:
            for message in self._messages(process):
                self._take(message)
        self._failed_if(process.returncode, "read")
        self._land()
        for stream, (folder, mode) in self.connector.streams.items():
            if mode == "full_refresh" and (stream in self.ended or not self.ended):
                self.storage.complete(folder, known["generations"][stream])
        return self.out

    # --- before reading ---------------------------------------------------------------------------------------------------

    def _check(self, config: str) -> None:
        status: dict[str, Any] = {}
        with self._running("check", "--config", config) as process:
            for message in self._messages(process):
                status = message.get("connectionStatus") or status
        if status.get("status") != "SUCCEEDED":
            reported = status.get("message") or self.trace or f"it ended with {process.returncode} and said nothing"
            raise DeclarationError(
                f"Connector {self.connector.name!r} refuses its config: {self.connector.shown(str(reported))}.",
                remedy=f"Fix its config in lakehouse/tables/ or LAKEHOUSE_CONNECTORS/{self.connector.name}.json.",
            )

    def _catalog(self, config: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        with self._running("discover", "--config", config) as process:
            for message in self._messages(process):
                found = message.get("catalog", {}).get("streams") or found
        self._failed_if(process.returncode, "discover")
        catalog = {stream["name"]: stream for stream in found}
        if missing := sorted(set(self.connector.streams) - set(catalog)):
            raise DeclarationError(
                f"Connector {self.connector.name!r} has no stream {missing[0]!r}.",
                remedy=f"It has {', '.join(sorted(catalog)) or 'none'}: fix its streams in lakehouse/tables/.",
            )
        return catalog

    def _configured(self, catalog: Mapping[str, Any]) -> dict[str, Any]:
        streams = []
        for name, (_, mode) in self.connector.streams.items():
            stream = catalog[name]
            if mode not in stream.get("supported_sync_modes", [mode]):
                raise DeclarationError(
                    f"Connector {self.connector.name!r} cannot read {name!r} by {mode}.",
                    remedy=f"It can by {', '.join(stream['supported_sync_modes'])}.",
                )
            generation = self._generation(name)
            streams.append(
                {
                    "stream": stream,
                    "sync_mode": mode,
                    "destination_sync_mode": "append",
                    "cursor_field": stream.get("default_cursor_field") or [],
                    "primary_key": stream.get("source_defined_primary_key") or [],
                    "generation_id": generation,
                    "minimum_generation_id": generation,
                    "sync_id": self.known["sync_id"],
                }
            )
        return {"streams": streams}

    def _generation(self, stream: str) -> int:
        return int(self.known["generations"].get(stream, 0))

    # --- state ------------------------------------------------------------------------------------------------------------

    def _known(self) -> dict[str, Any]:
        try:
            known: dict[str, Any] = json.loads(files.read(f"{self.location}/state.json"))
        except FileNotFoundError:
            return {"sync_id": 0, "generations": {}, "states": []}
        return known

    def _store_state(self, known: Mapping[str, Any]) -> None:
        files.put(f"{self.location}/state.json", json.dumps(known, ensure_ascii=False).encode())

    def _is_incremental(self, state: Mapping[str, Any]) -> bool:
        name = state.get("stream", {}).get("stream_descriptor", {}).get("name")
        return name is None or (name in self.connector.streams and self.connector.streams[name][1] == "incremental")

    # --- messages -----------------------------------------------------------------------------------------------------------

    def _take(self, message: Mapping[str, Any]) -> None:
        kind = message.get("type")
        if kind == "RECORD":
            self._record(message.get("record") or {})
        elif kind == "STATE":
            self._land()
            self._acknowledge(message["state"])
        elif kind == "TRACE" and message.get("trace", {}).get("type") == "STREAM_STATUS":
            status = message["trace"]["stream_status"]
            if status.get("status") == "COMPLETE":
                self.ended.add(status["stream_descriptor"]["name"])

    def _record(self, record: Mapping[str, Any]) -> None:
        stream = record.get("stream")
        if not isinstance(stream, str) or not isinstance(record.get("data"), dict):
            raise ConnectorError(
                f"Connector {self.connector.name!r} emits a record without a stream or data.", remedy="Fix the connector."
            )
        if stream not in self.connector.streams:
            raise ConnectorError(
                f"Connector {self.connector.name!r} emits records of {stream!r}, which it was not asked for.",
                remedy="Declare the stream in lakehouse/tables/, or fix the connector.",
            )
        writer = self.writers.get(stream)
        if writer is None:
            writer = self.writers[stream] = _Writer(self.folder / f"{uuid.uuid4().hex}.jsonl.gz")
        writer.write(
            {
                "_airbyte_raw_id": str(uuid.uuid4()),
                "_airbyte_extracted_at": record.get("emitted_at", self.began),
                "_airbyte_generation_id": self._generation(stream),
                "_airbyte_meta": {"sync_id": self.known["sync_id"], "changes": record.get("meta", {}).get("changes", [])},
                "_airbyte_data": record["data"],
            }
        )
        if writer.size > _FILE:
            self._land_stream(stream)

    def _land(self) -> None:
        """Give all files of records their places in landing."""
        for stream in list(self.writers):
            self._land_stream(stream)

    def _land_stream(self, stream: str) -> None:
        writer = self.writers.pop(stream)
        writer.close()
        day = datetime.fromtimestamp(self.began / 1000, tz=UTC)
        name = f"{day:%Y_%m_%d}_{self.began}_{len(self.out.files)}.jsonl.gz"
        path = f"raw/{self.connector.streams[stream][0]}/{name}"
        files.put(f"{self.storage.landing.rstrip('/')}/{path}", writer.path)
        writer.path.unlink()
        self.out.files.append(path)
        self.out.records[stream] = self.out.records.get(stream, 0) + writer.records

    def _acknowledge(self, state: Mapping[str, Any]) -> None:
        """Keep a state: of a stream beside those of the others, of the whole source instead of all."""
        descriptor = state.get("stream", {}).get("stream_descriptor")
        others = [s for s in self.known["states"] if descriptor and s.get("stream", {}).get("stream_descriptor") != descriptor]
        self.known["states"] = [*others, dict(state)]
        self._store_state(self.known)
        self.out.states += 1

    # --- the process --------------------------------------------------------------------------------------------------------

    def _file(self, name: str, content: object) -> str:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(json.dumps(content, ensure_ascii=False))
        return str(path)

    @contextmanager
    def _running(self, command: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        """The connector, ended with the block, whatever ends it. What it says on stderr is logged."""
        connector = self.connector
        environment = {"PATH": f"{Path(connector.command).parent}:{os.defpath}", "HOME": str(self.folder), **_QUIET}
        process = subprocess.Popen(
            [connector.command, command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env=environment,
            start_new_session=True,
        )
        self.heard, self.overdue = time.monotonic(), ""
        done = threading.Event()
        threads = [
            threading.Thread(target=self._watch, args=(process, done), daemon=True),
            threading.Thread(target=self._stderr, args=(process.stderr,), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield process
            process.wait()
        finally:
            done.set()
            _end(process)
            for thread in threads:
                thread.join(timeout=10)
        if self.overdue:
            raise ConnectorError(
                f"Connector {connector.name!r} {self.overdue} and was ended.",
                remedy="Look at what it logged; raise max_runtime or max_silence in lakehouse/tables/ if it needs longer.",
            )

    def _watch(self, process: "subprocess.Popen[bytes]", done: threading.Event) -> None:
        """End a connector that takes too long or has fallen silent."""
        started, connector = time.monotonic(), self.connector
        while not done.wait(0.2):
            now = time.monotonic()
            if now - started > connector.max_runtime.total_seconds():
                self.overdue = f"took longer than {connector.max_runtime}"
            elif now - self.heard > connector.max_silence.total_seconds():
                self.overdue = f"said nothing for {connector.max_silence}"
            if self.overdue:
                _end(process)
                return

    def _stderr(self, stream: "IO[bytes] | None") -> None:
        for line in stream or ():
            if text := line.decode("utf-8", "replace").strip():
                self.log("debug", self.connector.shown(text))

    def _messages(self, process: "subprocess.Popen[bytes]") -> Iterator[dict[str, Any]]:
        """The protocol's messages on stdout, one a line; everything else is logged."""
        for line in process.stdout or ():
            self.heard = time.monotonic()
            if not line.endswith(b"\n"):
                self.log("warning", "Its last line is cut off.")
                self.out.garbage += 1
                return
            try:
                message = json.loads(line)
                kind = message["type"]
            except (ValueError, KeyError, TypeError):
                if line.strip():
                    self.out.garbage += 1
                    self.log("warning", self.connector.shown(f"No message: {line[: 4 * _SHOWN].decode('utf-8', 'replace')}"))
                continue
            if kind == "LOG":
                level = str(message["log"].get("level", "INFO")).lower()
                self.log(_LEVELS.get(level, "info"), self.connector.shown(str(message["log"].get("message", ""))))
            elif kind == "TRACE" and message.get("trace", {}).get("type") == "ERROR":
                error = message["trace"].get("error", {})
                self.trace = str(error.get("message") or error.get("internal_message") or "")
                self.log("error", self.connector.shown(self.trace))
            yield message

    def _failed_if(self, code: int, command: str) -> None:
        if code:
            reported = f": {self.connector.shown(self.trace)}" if self.trace else ""
            raise ConnectorError(
                f"Connector {self.connector.name!r} ended {command} with exit code {code}{reported}.",
                remedy="What it had acknowledged is in landing; the next run goes on from there.",
            )


_LEVELS = {"fatal": "error", "error": "error", "warn": "warning", "info": "info", "debug": "debug", "trace": "debug"}


class _Writer:
    """A file of records that is being written on this machine."""

    def __init__(self, path: Path) -> None:
        self.path, self.records, self.size = path, 0, 0
        self._out = gzip.GzipFile(path, "wb", compresslevel=1)

    def write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        self._out.write(line)
        self.records += 1
        self.size += len(line)

    def close(self) -> None:
        self._out.close()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a connector with all that it has started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def find(executable: str, folder: str) -> str:
    """The absolute path of a connector's command: in its own virtual environment, unless it says where it is."""
    return executable if Path(executable).is_absolute() else str(Path(folder, "bin", executable))
