"""Google Cloud Storage on this machine: fake-gcs-server, behind a front that speaks to it as obstore and delta-rs speak.

Both write by GCS's XML API (`PUT /bucket/object`, `x-goog-if-generation-match`), which fake-gcs-server answers with "invalid
uploadType"; it has the JSON API's uploads, conditional ones too. It also lists from the beginning whatever `start-after` says.
The front turns one upload into the other, leaves out what comes before, and passes on the rest; what is stored, and whether a
condition holds, is the emulator's word. Uploads in parts are not turned, so files stay below 5 MB.
"""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

_OBJECT = re.compile(rb"<Contents>.*?<Key>(.*?)</Key>.*?</Contents>", re.DOTALL)
FAKE_GCS = "github.com/fsouza/fake-gcs-server@v1.56.1"


@contextmanager
def google_storage(tools: Path, folder: Path) -> Iterator[dict[str, str]]:
    """The emulator with a bucket `lake`; the variables that lead there."""
    from lakehouse_tests.conftest import with_parent

    program = tools / "bin" / "fake-gcs-server"
    if not program.exists():
        subprocess.run(["go", "install", FAKE_GCS], check=True, env={**os.environ, "GOBIN": str(program.parent)})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    target = f"http://127.0.0.1:{port}"
    words = ["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-public-host", f"127.0.0.1:{port}"]
    server = subprocess.Popen(with_parent(str(program), *words), stderr=(folder / "gcs.log").open("w"))
    front = subprocess.Popen(with_parent(sys.executable, __file__, target), stdout=subprocess.PIPE, text=True)
    try:
        assert front.stdout is not None
        url = front.stdout.readline().strip()
        body, kind = json.dumps({"name": "lake"}).encode(), {"Content-Type": "application/json"}
        for attempt in range(50):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{target}/storage/v1/b?project=p", body, kind), timeout=5).close()
                break
            except OSError:
                if attempt == 49:
                    raise
                time.sleep(0.2)
        account = folder / "account.json"
        secrets = {"client_email": "", "private_key": "", "private_key_id": ""}
        account.write_text(json.dumps({"gcs_base_url": url, "disable_oauth": True, **secrets}))
        yield {"GOOGLE_SERVICE_ACCOUNT": str(account)}
    finally:
        for process in (front, server):
            process.kill()
            process.communicate()


class _Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: str

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        method, path = self.command, self.path
        if method == "PUT":
            bucket, name = (unquote(part) for part in urlsplit(path).path[1:].split("/", 1))
            condition = self.headers.get("x-goog-if-generation-match")
            path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}"
            method, path = "POST", path + (f"&ifGenerationMatch={condition}" if condition else "")
        location = urlsplit(self.target)
        store = http.client.HTTPConnection(location.hostname or "", location.port, timeout=60)
        try:
            store.request(method, path, body or None, {n: v for n, v in self.headers.items() if n.lower() != "host"})
            reply = store.getresponse()
            content = reply.read()
        finally:
            store.close()
        headers = dict(reply.getheaders())
        if self.command == "PUT" and reply.status == 200:
            stored = json.loads(content)
            headers = {"ETag": f'"{stored["etag"]}"', "x-goog-generation": stored["generation"]}
            content = b""
        if after := parse_qs(urlsplit(self.path).query).get("start-after"):
            content = _OBJECT.sub(lambda found: found[0] if unescape(found[1].decode()) > after[0] else b"", content)
        self.send_response_only(reply.status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

    def log_message(self, *_: object) -> None:
        """Nothing: it would be a line per request."""


if __name__ == "__main__":
    _Front.target = sys.argv[1]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Front)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
