"""A STUB of an Airbyte server, since the real one cannot run here: jobs of connections on 127.0.0.1, whose syncs land files.

It answers the documented shapes and nothing more:
- the public API, `airbyte-api/server-api/src/main/openapi/api_documentation_jobs.yaml` of airbytehq/airbyte-platform
  (`/api/public/v1`): `applications/token`, `health`, `jobs` (list, start, get), with `JobResponse` {jobId, status, jobType,
  startTime, connectionId, lastUpdatedAt, duration, bytesSynced, rowsSynced}, and `connections/{id}`, with the beginning of
  `ConnectionResponse`, after `api_documentation_connections.yaml` beside it;
- the configuration API's `jobs/get` (`/api/v1`, `config.yaml` there): `JobInfoRead` with `AttemptRead`'s totalStats,
  streamStats and failureSummary;
- refusals as problems of RFC 9457 (`api-problems.yaml`), and 409 for a connection that has a job in flight.

What it lands is the S3 destination's v2 layout, with the job's number as `_airbyte_meta.sync_id` as the platform has it
(`configuredAirbyteStream.syncId = jobId`). Nothing here shows that a real server does the same.

Does not belong here: expectations; each test states its own.
"""

import gzip
import json
import re
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lakehouse.tables.spec import AirbyteServer, Column, TableSpec

CONNECTION = "e735894a-e773-4938-969f-45f53957b75b"
LOJA = AirbyteServer("loja", CONNECTION, {"users": "", "Produtos": "public/produtos"})
USUARIOS = TableSpec(
    name="usuarios",
    source=LOJA.stream("users"),
    columns=(Column("id", "bigint"), Column("nome", "string")),
    key=("id",),
    order=("id",),
)
PRODUTOS = TableSpec(name="artigos", source=LOJA.stream("Produtos"), columns=(Column("id", "bigint"),), sync="overwrite")
CLIENT_ID, SECRET, USER = "aplicacao", "segredo-42", "ana"


@dataclass
class Sync:
    """What the next job will do: how it ends, after so many looks at it, and what of its records is not landed.

    `ends` is succeeded, failed, cancelled or never.
    """

    users: int = 3
    products: int = 2
    ends: str = "succeeded"
    looks: int = 1
    lost: int = 0
    attempts: int = 1
    reason: str = ""
    number_in_records: bool = True


@dataclass
class Job:
    id: int
    does: Sync
    kind: str = "sync"
    status: str = "running"
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    landed: bool = False


@dataclass
class Fault:
    """An answer instead of the usual one, so many times. `after` the request has had its effect, or before."""

    method: str
    path: str
    status: int
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    after: bool = False
    body: Any = None


class Airbyte:
    """The stub's state: tests set `next`, `faults` and `login`, and read `asked` and `jobs`."""

    def __init__(self, landing: Path) -> None:
        self.landing, self.next, self.jobs = landing, Sync(), list[Job]()
        self.faults, self.asked, self.login = list[Fault](), list[str](), ""
        self.generation, self.status = 0, "active"
        self.lock = threading.RLock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stub.answer(self)

            do_POST = do_GET

            def log_message(self, format, *arguments) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def started(self) -> int:
        """How many jobs were asked for."""
        return len(self.jobs)

    def begin(self, kind: str = "sync") -> Job:
        """A job that somebody else started."""
        with self.lock:
            job = Job(1000 + len(self.jobs), self.next, kind)
            self.generation += 1
            self.jobs.append(job)
            return job

    # --- answers ----------------------------------------------------------------------------------------------------------

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        content = json.loads(handler.rfile.read(length) or b"{}") if length else {}
        parts = urlsplit(handler.path)
        with self.lock:
            self.asked.append(f"{handler.command} {parts.path}")
            fault = next(
                (f for f in self.faults if f.times and f.method == handler.command and re.search(f.path, parts.path)), None
            )
            if fault is not None:
                fault.times -= 1
            if fault is None or fault.after:
                status, body = self._usual(handler, parts.path, parse_qs(parts.query), content)
            if fault is not None:
                status, body = fault.status, fault.body or problem(fault.status, "unexpected-problem", "It went wrong.")
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(sent)), **(fault.headers if fault else {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(sent)

    def _usual(
        self, handler: BaseHTTPRequestHandler, path: str, query: Mapping[str, list[str]], content: Mapping[str, Any]
    ) -> tuple[int, Any]:
        route = f"{handler.command} {path}"
        if route == "GET /api/public/v1/health":
            return 200, b"Successful operation"
        if route == "POST /api/public/v1/applications/token":
            if (content.get("client_id"), content.get("client_secret")) != (CLIENT_ID, SECRET):
                return 401, problem(401, "unauthorized", "The client id or its secret is wrong.")
            return 200, {"access_token": "token-7", "token_type": "Bearer", "expires_in": 180}
        if self.login and handler.headers.get("Authorization") != self.login:
            return 401, problem(401, "invalid-api-key", "The API key in the Authorization header is invalid.")
        if found := re.fullmatch(r"GET /api/public/v1/connections/([0-9a-f-]+)", route):
            if found[1] != CONNECTION:
                return 404, problem(404, "resource-not-found", f"Could not find connection: {found[1]}")
            shown = {"connectionId": CONNECTION, "name": "Loja to landing", "status": self.status}
            return 200, {**shown, "schedule": {"scheduleType": "manual"}, "namespaceDefinition": "source"}
        if route == "GET /api/public/v1/jobs":
            wanted = [job for job in reversed(self.jobs) if query["connectionId"] == [CONNECTION]]
            return 200, {"previous": "", "next": "", "data": [self._shown(job) for job in wanted]}
        if route == "POST /api/public/v1/jobs":
            if content["connectionId"] != CONNECTION:
                return 404, problem(404, "resource-not-found", f"Could not find connection: {content['connectionId']}")
            if any(job.status == "running" for job in self.jobs):
                return 409, problem(409, "try-again-later", f"A sync is already running for: {CONNECTION}")
            return 200, self._shown(self.begin())
        if found := re.fullmatch(r"GET /api/public/v1/jobs/(\d+)", route):
            job = self.jobs[int(found[1]) - 1000]
            job.does.looks -= 1
            if job.status == "running" and job.does.looks <= 0 and job.does.ends != "never":
                self._end(job)
            return 200, self._shown(job)
        if route == "POST /api/v1/jobs/get":
            return 200, self._told(self.jobs[content["id"] - 1000])
        return 404, problem(404, "resource-not-found", "Not Found")

    def _shown(self, job: Job) -> dict[str, Any]:
        rows = job.does.users + job.does.products if job.landed else 0
        instant = f"{job.began:%Y-%m-%dT%H:%M:%SZ}"
        shown = {"jobId": job.id, "status": job.status, "jobType": job.kind, "startTime": instant, "connectionId": CONNECTION}
        return {**shown, "lastUpdatedAt": instant, "duration": "PT1S", "bytesSynced": 100 * rows, "rowsSynced": rows}

    def _told(self, job: Job) -> dict[str, Any]:
        attempts = []
        for number in range(job.does.attempts):
            last = number == job.does.attempts - 1
            streams = {"users": job.does.users, "Produtos": job.does.products} if last and job.landed else {}
            stats = [
                {"streamName": name, "streamNamespace": "public", "stats": {"recordsEmitted": n, "recordsCommitted": n}}
                for name, n in streams.items()
                if n
            ]
            attempt: dict[str, Any] = {"id": number, "status": job.status if last else "failed", "streamStats": stats}
            if job.does.reason:
                failure = {"failureOrigin": "source", "externalMessage": job.does.reason, "timestamp": 0}
                attempt["failureSummary"] = {"failures": [failure, failure], "partialSuccess": False}
            attempts.append({"attempt": attempt, "logs": {"logLines": []}})
        return {"job": {"id": job.id, "configType": "sync", "status": job.status}, "attempts": attempts}

    # --- what a sync does -------------------------------------------------------------------------------------------------

    def _end(self, job: Job) -> None:
        job.status = job.does.ends
        if job.does.ends != "succeeded":
            return
        for attempt in range(job.does.attempts):
            self._land(job, "users", job.does.users, attempt, lost=job.does.lost)
            self._land(job, "public/produtos", job.does.products, attempt)
        job.landed = True

    def _land(self, job: Job, folder: str, count: int, attempt: int, *, lost: int = 0) -> None:
        at = int(time.time() * 1000)
        meta = {"sync_id": job.id if job.does.number_in_records else 7, "changes": []}
        lines = [
            {
                "_airbyte_raw_id": f"{job.id}-{attempt}-{folder}-{n}",
                "_airbyte_extracted_at": at,
                "_airbyte_generation_id": self.generation,
                "_airbyte_meta": meta,
                "_airbyte_data": {"id": n, "nome": f"n{n}"},
            }
            for n in range(1, count - lost + 1)
        ]
        if lines:
            target = self.landing / "raw" / folder / f"{job.began:%Y_%m_%d}_{at}_{attempt}.jsonl.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


def problem(status: int, title: str, message: str) -> dict[str, Any]:
    """A refusal as `api-problems.yaml` has it."""
    return {"status": status, "type": "error", "title": title, "detail": "See data.", "data": {"message": message}}


def basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


@contextmanager
def airbyte(landing: Path) -> Iterator[Airbyte]:
    """The stub, for the block."""
    stub = Airbyte(landing)
    thread = threading.Thread(target=stub.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.server.shutdown()
        stub.server.server_close()
