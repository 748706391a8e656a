"""An HTTP server of this process on 127.0.0.1: what stands in for somebody else's API."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def served(handler: type[BaseHTTPRequestHandler], *, port: int = 0) -> Iterator[int]:
    """The port of a server that answers by a handler; it ends with the block, and waits for no answer that is under way.

    Args:
        port: 0 for a free one.
    """
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
