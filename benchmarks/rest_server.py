"""The API of the case `rest`: a thousand pages of a thousand orders on 127.0.0.1.

    python -m benchmarks.rest_server     prints its URL, and answers until stdin ends

It answers from one page in which the numbers are replaced, so that it costs either side next to nothing.
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PAGES, RECORDS = 1_000, 1_000


def template() -> bytes:
    """One page, with `@@@` where its number is."""
    lines = [
        f'{{"id": 1@@@{n:03}, "nome": "PRODUTO NÚMERO {n * 7 % 400}", "valor": {n * 31 % 900}.{n % 90 + 10}, '
        f'"quantidade": {n % 12 + 1}, '
        f'"cliente": "c@@@{n % 500}", "pago": {"true" if n % 3 else "false"}, "nota": null, '
        f'"updated_at": "2026-01-{n % 28 + 1:02}T{n % 24:02}:@@:00Z"}}'
        for n in range(RECORDS)
    ]
    return f'{{"data": [{", ".join(lines)}], "next": NEXT}}'.encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    page = template()

    def do_GET(self) -> None:
        number = int(parse_qs(urlsplit(self.path).query).get("page", ["0"])[0])
        following = f'"/pedidos?page={number + 1}"' if number + 1 < PAGES else "null"
        body = self.page.replace(b"@@@", b"%03d" % number).replace(b"@@", b"%02d" % (number % 60))
        body = body.replace(b"NEXT", following.encode())
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def serve() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}/pedidos", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve()
