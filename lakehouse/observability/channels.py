"""Channels: how one message leaves: Kafka, e-mail, Slack. Each sends with time-outs of its own, or raises.

A channel that is not configured does not exist here. What a message goes to is a target: `kafka`, `slack`, or one recipient of a
channel that has several (`email:ana@example.org`), so that what one refuses, or takes twice, is no other's. Heavy clients are
imported when one is used.
"""

import json
import re
import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from email.message import EmailMessage
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from lakehouse.core.errors import DeclarationError, LakehouseError, install
from lakehouse.core.text import one_line
from lakehouse.observability.incidents import Message
from lakehouse.settings import Settings, listed

ALERTS_TOPIC = "lakehouse.alerts"
SCHEMA = "lakehouse.alert.v1"
#: Seconds that one call to a server may take.
TIMEOUT = 10.0


class DeliveryError(LakehouseError):
    """A message did not go out; it is tried again.

    Args:
        pause: how long the target wants to be left alone.
        refused: there is no such recipient, and asking again changes nothing.
    """

    def __init__(self, what: str, *, remedy: str, pause: timedelta | None = None, refused: bool = False) -> None:
        super().__init__(one_line(what), remedy=remedy)
        self.pause = pause
        self.refused = refused


class Sender(Protocol):
    """One target."""

    def send(self, message: Message) -> None:
        """Send one message; when this returns, the server has taken it.

        Raises:
            DeliveryError: it has not, or did not say so.
            DeclarationError: the channel's client is not installed.
        """
        ...


def document(message: Message) -> dict[str, Any]:
    """The message as a JSON object of `SCHEMA`, for programs."""
    fields = {n: v.astimezone(UTC).isoformat() if hasattr(v, "astimezone") else v for n, v in message.fields.items()}
    own = {name: getattr(message, name) for name in ("id", "kind", "severity", "state", "key", "subject", "body", "count")}
    return {"schema": SCHEMA, **own, **fields}


@dataclass(frozen=True)
class KafkaSender:
    """To the topic `lakehouse.alerts`, keyed by the alert's key, so that an incident's messages stay in their order."""

    bootstrap: str
    topic: str = ALERTS_TOPIC

    def send(self, message: Message) -> None:
        from lakehouse.observability.kafka import produce

        produce(self.bootstrap, self.topic, [(message.id, message.key, json.dumps(document(message)).encode())], timeout=TIMEOUT)


@dataclass(frozen=True)
class EmailSender:
    """By SMTP to one address, encrypted: STARTTLS for `smtp://`, TLS from the start for `smtps://`. A server that offers neither
    is refused."""

    url: str = field(repr=False)
    recipient: str = ""

    def send(self, message: Message) -> None:
        server = urlsplit(self.url)
        host, user = server.hostname or "", unquote(server.username or "")
        mail = EmailMessage()
        mail["Subject"] = message.subject
        mail["From"] = user if "@" in user else f"lakehouse@{host}"
        mail["To"] = self.recipient
        mail["Message-ID"] = f"<{message.id}@lakehouse>"
        mail["X-Lakehouse-Alert"] = f"{message.kind} {message.severity} {message.state}"
        mail.set_content(message.body)
        context = ssl.create_default_context()
        try:
            if server.scheme == "smtps":
                client: smtplib.SMTP = smtplib.SMTP_SSL(host, server.port or 465, timeout=TIMEOUT, context=context)
            else:
                client = smtplib.SMTP(host, server.port or 587, timeout=TIMEOUT)
            with client:
                if server.scheme != "smtps":
                    client.starttls(context=context)
                if user:
                    client.login(user, unquote(server.password or ""))
                client.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            code, reply = next(iter(error.recipients.values()))
            raise DeliveryError(
                f"The mail server {host} refused {self.recipient}: {_reason(smtplib.SMTPResponseException(code, reply))}.",
                remedy="Check LAKEHOUSE_ALERT_EMAILS.",
                refused=_is_final(code, reply),
            ) from None
        except (smtplib.SMTPException, OSError) as error:
            raise DeliveryError(
                f"The mail server {host} did not take the message: {_reason(error)}.",
                remedy="Check that it runs and LAKEHOUSE_SMTP_URL; it is tried again.",
            ) from None


@dataclass(frozen=True)
class SlackSender:
    """To a channel, by dagster-slack's client."""

    token: str = field(repr=False)
    channel: str = ""
    url: str = "https://slack.com/api/"

    def send(self, message: Message) -> None:
        try:
            from dagster_slack import SlackResource
            from slack_sdk.errors import SlackApiError, SlackClientError
        except ModuleNotFoundError:
            raise DeclarationError(
                "LAKEHOUSE_SLACK_TOKEN is set, but dagster-slack is not installed.", remedy=f"{install('alerts')}, or unset it."
            ) from None

        client = SlackResource(token=self.token).get_client()
        client.base_url, client.timeout = self.url.rstrip("/") + "/", int(TIMEOUT)
        client.retry_handlers.clear()  # what is tried again, and when, is decided in one place
        try:
            client.chat_postMessage(
                channel=self.channel,
                text=f"*{_escaped(message.subject)}*\n{_escaped(message.body)}",
                metadata={"event_type": "lakehouse_alert", "event_payload": {"id": message.id, "count": message.count}},
            )
        except SlackApiError as error:
            reply: Any = error.response
            wait = reply.headers.get("Retry-After", "") if reply is not None and reply.status_code == 429 else ""
            raise DeliveryError(
                f"Slack refused the message: {reply.get('error') if wait == '' else 'too many messages'}.",
                remedy="Check LAKEHOUSE_SLACK_TOKEN and LAKEHOUSE_SLACK_CHANNEL; it is tried again.",
                pause=timedelta(seconds=int(wait)) if wait.isdigit() else None,
            ) from None
        except (SlackClientError, OSError) as error:
            raise DeliveryError(
                f"Slack does not answer: {_reason(error)}.",
                remedy="Check the network and LAKEHOUSE_SLACK_URL; it is tried again.",
            ) from None


def senders(
    *, kafka: str = "", smtp: str = "", emails: tuple[str, ...] = (), token: str = "", channel: str = "", slack_url: str = ""
) -> Mapping[str, Sender]:
    """The configured targets by name."""
    out: dict[str, Sender] = {}
    if kafka:
        out["kafka"] = KafkaSender(kafka)
    if smtp and emails:
        out |= {f"email:{address}": EmailSender(smtp, address) for address in emails}
    if token and channel:
        out["slack"] = SlackSender(token, channel, slack_url)
    return out


def of_settings(settings: Settings) -> Mapping[str, Sender]:
    """The targets that these settings name."""
    return senders(
        kafka=settings.kafka_bootstrap,
        smtp=settings.smtp_url.get_secret_value(),
        emails=tuple(listed(settings.alert_emails)),
        token=settings.slack_token.get_secret_value(),
        channel=settings.slack_channel,
        slack_url=settings.slack_url,
    )


def _is_final(code: int, reply: bytes) -> bool:
    """Whether a server says that the mailbox does not exist (RFC 5321, RFC 3463); 5.7 is about the sender, 5.2.2 a full one."""
    if re.match(rb"[245]\.\d+\.\d+", reply):
        return reply.startswith((b"5.1.", b"5.2.1"))
    return code in (550, 551, 553)


def _escaped(text: str) -> str:
    """Slack takes these three for its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _reason(error: Exception) -> str:
    """An error without what a server may repeat of our own words."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return "it refused user and password"
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else str(error.smtp_error)
        return one_line(f"{error.smtp_code} {text}", limit=150)
    return one_line(str(error) or type(error).__name__, limit=150)
