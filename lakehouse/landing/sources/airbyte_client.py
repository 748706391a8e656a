"""The client of an Airbyte server: dagster-airbyte's, which knows its URLs and its ways to say who asks.

Its questions are asked by `fetch.py` instead: dagster-airbyte asks everything four times, also what is refused, and keeps
neither the status nor what the server said. Why nothing else of it is used is in docs/decisions/0061-airbyte-server.md.

Imports dagster-airbyte (half a second, and an extra), so it is imported where it is used.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dagster_airbyte.resources import AirbyteClient

from lakehouse.core.errors import SourceDownError, SourceRefusedError
from lakehouse.landing.sources.airbyte_server import Job
from lakehouse.landing.sources.fetch import Endpoint, ask, shown

_CAP = 16_000_000
_SHOWN = 300
#: Jobs of a connection that are looked through for one in flight; there is one at a time.
_JOBS = 20
_CREDENTIALS = ("LAKEHOUSE_AIRBYTE_CLIENT_ID and LAKEHOUSE_AIRBYTE_CLIENT_SECRET", "LAKEHOUSE_AIRBYTE_USER and _PASSWORD")


class Client(AirbyteClient):
    """A `core.landing.server.Server`."""

    def connection(self, connection: str) -> Mapping[str, Any]:
        return self._single_request("GET", f"{self.rest_api_base_url}/connections/{connection}")

    def jobs(self, connection: str) -> list[Job]:
        # get_jobs_for_connection takes this machine's local time for UTC, and reads all pages.
        query = {"connectionId": connection, "limit": _JOBS, "orderBy": "createdAt|DESC"}
        listed = self._single_request("GET", f"{self.rest_api_base_url}/jobs", params=query)
        return [_job(job) for job in listed.get("data") or []]

    def start(self, connection: str) -> Job:
        return _job(self.start_sync_job(connection))

    def job(self, number: int) -> Job:
        return _job(self.get_job_details(number))

    def attempts(self, number: int) -> list[Mapping[str, Any]]:
        told = self._single_request("POST", f"{self.configuration_api_base_url}/jobs/get", data={"id": number})
        return [attempt.get("attempt") or attempt for attempt in told.get("attempts") or []]

    def _single_request(
        self,
        method: str,
        url: str,
        data: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        include_additional_request_headers: bool = True,
    ) -> Mapping[str, Any]:
        endpoint = Endpoint(shown(url), "LAKEHOUSE_AIRBYTE_URL")
        with self._get_session(include_additional_request_headers) as session:
            session.trust_env = False  # no proxy and no .netrc that nobody named
            try:
                reply = ask(
                    session, url, endpoint, method=method, query=params, content=data, seconds=self.request_timeout, cap=_CAP
                )
            except SourceRefusedError as error:
                raise self._explained(error) from None
        try:
            answer = json.loads(reply.body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise SourceDownError(
                f"{endpoint.shown} answered no JSON object.", remedy="See that LAKEHOUSE_AIRBYTE_URL is Airbyte's."
            )
        return answer

    def _explained(self, error: SourceRefusedError) -> SourceRefusedError:
        """A refusal with the server's own words, and the setting that it is about."""
        if not error.status:
            return error
        words = " ".join(_words(error.reported).split())[:_SHOWN].rstrip(".")
        what = error.what.rstrip(".") + (f" ({words})." if words else ".")
        if error.status in (401, 403):
            used = _CREDENTIALS[1] if self.username else _CREDENTIALS[0]
            remedy = f"Fix {used}."
        else:
            remedy = "Fix LAKEHOUSE_AIRBYTE_URL, or the connection's id in lakehouse/tables/."
        return SourceRefusedError(what, remedy=remedy, status=error.status)


def _words(reported: str) -> str:
    """What a refusal says for people: a problem's (RFC 9457) `detail` and `data.message`, the older API's `message`."""
    try:
        problem = json.loads(reported)
    except ValueError:
        return ""
    if not isinstance(problem, dict):
        return ""
    data = problem.get("data")
    inner = data.get("message") if isinstance(data, dict) else None
    return str(inner or problem.get("detail") or problem.get("message") or problem.get("title") or "")


def _job(job: Mapping[str, Any]) -> Job:
    """A job of the public API (`JobResponse`)."""
    try:
        started = datetime.fromisoformat(job["startTime"]) if job.get("startTime") else None
        return Job(
            id=int(job["jobId"]),
            status=str(job["status"]).lower(),
            kind=str(job.get("jobType") or "sync").lower(),
            started=started.replace(tzinfo=started.tzinfo or UTC) if started else None,
            rows=job.get("rowsSynced"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SourceDownError(
            f"Airbyte lists a job in a form that is not its documented one ({type(error).__name__}).",
            remedy="See that LAKEHOUSE_AIRBYTE_URL is the server's address, and its version 1.0 or later.",
        ) from None
