"""A stub of a schema registry: it answers the two questions that are asked of one, and is no registry."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from lakehouse.sample.serving import served

NAME = "a stub of a schema registry"


@dataclass
class Registry:
    """Answers by path; `status` other than 200 is given to everyone."""

    answers: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def schema(self, number: int, schema: Any, **more: Any) -> None:
        self.answers[f"/schemas/ids/{number}"] = {"schema": json.dumps(schema), **more}


@contextmanager
def serve() -> Iterator[Registry]:
    """The stub, for the block."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        server_version = NAME

        def do_GET(self) -> None:
            registry.asked.append(self.path)
            found = registry.answers.get(self.path)
            status = registry.status if registry.status != 200 else 200 if found is not None else 404
            body = json.dumps(found if status == 200 else {"error_code": status * 100 + 3, "message": NAME}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with served(Handler) as port:
        registry.url = f"http://user:secret@127.0.0.1:{port}"
        yield registry
