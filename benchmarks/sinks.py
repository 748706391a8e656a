"""Stubs of what alerts are sent to: a mail server that wants STARTTLS, and an HTTP endpoint that answers as Slack does.

Both are real servers on 127.0.0.1 that speak the protocol; each stores what it gets and when, and misbehaves on demand. The case
`alerts` has them, and the tests: they are here, since the suite of benchmarks imports nothing of the tests.
"""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from lakehouse.sample.serving import served


@dataclass
class Mailbox:
    """A stub of a mail server: `url` for LAKEHOUSE_SMTP_URL, `ca` for SSL_CERT_FILE, the mails it took, and when (Unix)."""

    url: str
    ca: Path
    mails: list[EmailMessage] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    answer: str = ""  # instead of taking the mail
    refused: dict[str, str] = field(default_factory=dict)  # what is answered to an address instead of 250

    def of(self, address: str) -> list[str]:
        """The subjects of what an address got."""
        return [str(mail["Subject"]) for mail in self.mails if mail["To"] == address]

    @property
    def subjects(self) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails]


@contextmanager
def mail_server(folder: Path, *, starttls: bool = True, password: str = "s3cret-mail") -> Iterator[Mailbox]:
    """A server that takes no mail before STARTTLS and a log-in, with a certificate made for it."""
    import ssl

    import trustme
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import AuthResult, LoginPassword

    authority = trustme.CA()
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    box = Mailbox("", ca)

    class Handler:
        async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
            if address not in box.refused:
                envelope.rcpt_tos.append(address)
            return box.refused.get(address, "250 OK")

        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            if box.answer:
                return box.answer
            box.arrived.append(time.time())
            box.mails.append(message_from_bytes(envelope.content, policy=policy.default))
            return "250 OK"

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        right = isinstance(given, LoginPassword) and given.password == password.encode()
        return AuthResult(success=right, handled=False)

    with socket.socket() as free:  # aiosmtpd looks at its own port, and cannot be given 0
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(
        Handler(),
        hostname="127.0.0.1",
        port=port,
        tls_context=context if starttls else None,
        require_starttls=starttls,
        auth_required=starttls,
        authenticator=authenticate,
    )
    controller.start()
    try:
        box.url = f"smtp://lake%40example.org:{password}@localhost:{port}"
        yield box
    finally:
        controller.stop()


@dataclass
class Slack:
    """A stub for LAKEHOUSE_SLACK_URL: `messages` it took and when; `status` 429 with Retry-After, or `hang` seconds."""

    url: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    status: int = 200
    hang: float = 0.0
    asked: int = 0


@contextmanager
def slack_server() -> Iterator[Slack]:
    """A server that answers chat.postMessage."""
    slack = Slack()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            slack.asked += 1
            time.sleep(slack.hang)
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            given = json.loads(body) if body.startswith("{") else {name: value[0] for name, value in parse_qs(body).items()}
            good = slack.status == 200
            if good:
                slack.arrived.append(time.time())
                slack.messages.append({**given, "method": self.path.rpartition("/")[2]})
                slack.tokens.append(self.headers["Authorization"])
            reply = json.dumps({"ok": good, **({} if good else {"error": "ratelimited"})}).encode()
            self.send_response(slack.status)
            if slack.status == 429:
                self.send_header("Retry-After", "30")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_args: Any) -> None:
            """Say nothing."""

    with served(Handler) as port:
        slack.url = f"http://127.0.0.1:{port}/api/"
        yield slack
