"""From ops/alerts to a mail server with STARTTLS and to Slack's endpoint, both real; and what happens when they are not."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from benchmarks.sinks import mail_server, slack_server
from lakehouse.core.table.snapshot import open_existing
from lakehouse.observability import notifier, outbox
from lakehouse.observability.alerts import KINDS, Alert, raise_alert, raise_alerts
from lakehouse.observability.channels import DeliveryError, EmailSender, SlackSender, senders
from lakehouse.observability.incidents import message, take_in
from lakehouse.observability.notifier import DELIVERIES, DELIVERIES_TABLE, INCIDENTS_TABLE, notify
from lakehouse.observability.routing import Route, Routing
from lakehouse.settings import Settings

ALL = Routing(routes=(Route(channels=("email", "slack"), minimum="info"),))


@pytest.fixture
def mail(tmp_path, monkeypatch):
    with mail_server(tmp_path) as box:
        monkeypatch.setenv("SSL_CERT_FILE", str(box.ca))
        yield box


@pytest.fixture
def slack():
    with slack_server() as server:
        yield server


@pytest.fixture
def channels(mail, slack):
    return senders(smtp=mail.url, emails=("ops@example.org",), token="xoxb-1-secret", channel="#data", slack_url=slack.url)


def failed(n: int = 1, **changes) -> Alert:
    given = {"subject": "pedidos failed", "body": "Step load of pedidos failed: ValueError", "run_id": f"r{n}"}
    return Alert("run_failure", severity="error", **{**given, **changes})


def deliveries(storage):
    with outbox.small_session(storage) as session:
        return outbox.read(session, storage, DELIVERIES_TABLE, columns=DELIVERIES, after=0)


def test_every_kind_of_alert_arrives_with_what_it_is_about(storage, channels, mail, slack):
    for kind in KINDS:
        alert = Alert(
            kind, "error", f"about {kind}", f"It is {kind} <&>.", job="j", step="s", link="http://ui/runs/1", run_id=kind
        )
        raise_alert(storage, alert)
    step = notify(storage, channels, routing=ALL)
    assert (step.sent, step.failed) == (2 * len(KINDS), 0)
    assert mail.subjects == [f"[ERROR] about {kind}" for kind in KINDS]
    body = mail.mails[0].get_content()
    assert body.splitlines() == ["It is run_failure <&>.", "job: j", "step: s", "log: http://ui/runs/1"]
    assert mail.mails[0]["To"] == "ops@example.org"
    assert [post["method"] for post in slack.messages] == ["chat.postMessage"] * len(KINDS)
    assert slack.messages[0]["text"].startswith("*[ERROR] about run_failure*\nIt is run_failure &lt;&amp;&gt;.")
    assert set(slack.tokens) == {"Bearer xoxb-1-secret"}
    assert {row["outcome"] for row in deliveries(storage)} == {"sent"}
    assert max(row["lag_seconds"] for row in deliveries(storage)) < 60


def test_an_alert_is_in_delta_before_it_is_sent_and_is_sent_once(storage, channels, mail):
    raise_alert(storage, failed())
    assert mail.mails == []
    notify(storage, channels, routing=ALL)
    version = open_existing(storage.uri(INCIDENTS_TABLE)).version
    assert notify(storage, channels, routing=ALL).sent == 0
    assert open_existing(storage.uri(INCIDENTS_TABLE)).version == version  # nothing to do, no commit
    assert len(mail.mails) == 1


def test_a_thousand_failures_are_one_mail_now_one_later_and_one_at_the_end(storage, channels, mail, slack):
    raise_alerts(storage, [failed(n) for n in range(400)])
    notify(storage, channels, routing=ALL)
    raise_alerts(storage, [failed(n) for n in range(400, 1000)])
    at = datetime.now(UTC)
    notify(storage, channels, routing=ALL, now=at + timedelta(minutes=1))
    notify(storage, channels, routing=ALL, now=at + timedelta(minutes=61))
    raise_alert(storage, failed(1000, state="resolved"))
    notify(storage, channels, routing=ALL, now=at + timedelta(minutes=62))
    assert len(mail.mails) == len(slack.messages) == 3
    assert "(1,000 times since" in mail.subjects[1]
    assert "having occurred 1,000 times" in mail.mails[2].get_content()


def test_a_channel_that_hangs_delays_and_loses_nothing(storage, channels, mail, slack):
    slack.hang = 30
    raise_alert(storage, failed())
    began = time.monotonic()
    step = notify(storage, channels, routing=ALL, patience=3)
    assert time.monotonic() - began < 8
    assert (step.sent, step.failed) == (1, 1)
    assert len(mail.mails) == 1
    (lost,) = [row for row in deliveries(storage) if row["outcome"] == "failed"]
    assert (lost["channel"], lost["error"]) == ("slack", "no answer within 3 s")
    slack.hang = 0
    notify(storage, channels, routing=ALL, now=datetime.now(UTC) + timedelta(minutes=6))
    assert slack.messages
    assert len(mail.mails) == 1


def test_a_channel_whose_client_is_not_installed_names_what_to_install(channels, monkeypatch):
    import sys

    from lakehouse.core.errors import DeclarationError

    monkeypatch.setitem(sys.modules, "dagster_slack", None)
    with pytest.raises(DeclarationError, match=r"dagster-slack is not installed. Run .*\[alerts\]"):
        channels["slack"].send(None)


def test_slack_that_answers_too_many_requests_is_left_alone_for_as_long_as_it_asks(storage, channels, slack):
    slack.status = 429
    raise_alert(storage, failed())
    at = datetime.now(UTC)
    notify(storage, channels, routing=ALL, now=at)
    assert slack.asked == 1
    slack.status = 200
    notify(storage, channels, routing=ALL, now=at + timedelta(seconds=20))
    assert slack.asked == 1
    notify(storage, channels, routing=ALL, now=datetime.now(UTC) + timedelta(seconds=31))
    assert len(slack.messages) == 1


def test_a_mail_server_that_refuses_is_asked_again(storage, channels, mail):
    mail.answer = "451 try again, password=hunter2"
    raise_alert(storage, failed())
    notify(storage, channels, routing=ALL)
    (lost,) = [row for row in deliveries(storage) if row["outcome"] == "failed"]
    assert "451 try again" in lost["error"]
    assert "hunter2" not in lost["error"]
    mail.answer = ""
    notify(storage, channels, routing=ALL, now=datetime.now(UTC) + timedelta(minutes=1))
    assert len(mail.mails) == 1


def test_mail_goes_to_no_server_without_starttls_and_to_none_whose_certificate_is_not_trusted(tmp_path, mail, monkeypatch):
    (incident,) = take_in([], [{**failed().row(), "number": 1}], routing=ALL)
    (tmp_path / "plain").mkdir()
    with mail_server(tmp_path / "plain", starttls=False) as plain, pytest.raises(DeliveryError, match="STARTTLS"):
        EmailSender(plain.url, "a@b.c").send(message(incident, "email"))
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DeliveryError, match="certificate"):
        EmailSender(mail.url, "a@b.c").send(message(incident, "email"))
    assert mail.mails == plain.mails == []


def test_a_wrong_password_is_reported_without_the_password(mail):
    (incident,) = take_in([], [{**failed().row(), "number": 1}], routing=ALL)
    sender = EmailSender(mail.url.replace("s3cret-mail", "wr0ng-mail"), "a@b.c")
    with pytest.raises(DeliveryError, match="refused user and password") as caught:
        sender.send(message(incident, "email"))
    assert "wr0ng" not in str(caught.value) + repr(sender)
    assert "xoxb" not in repr(SlackSender("xoxb-1", "#data"))


def test_a_kill_between_sending_and_its_record_repeats_the_same_id(storage, channels, mail, monkeypatch):
    raise_alert(storage, failed())

    def killed(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(notifier, "_store_attempts", killed)
        with pytest.raises(KeyboardInterrupt):
            notify(storage, channels, routing=ALL)
    notify(storage, channels, routing=ALL)
    assert len(mail.mails) == 2
    assert len({mail["Message-ID"] for mail in mail.mails}) == 1


def test_one_notifier_at_a_time(storage, channels):
    from lakehouse.core.store.storage import lock

    raise_alert(storage, failed())
    with lock(storage.uri(INCIDENTS_TABLE)):
        assert notify(storage, channels, routing=ALL).busy
    assert notify(storage, channels, routing=ALL).sent == 2


def test_without_a_channel_alerts_are_stored_and_a_later_channel_reports_the_open_ones(storage, mail):
    raise_alerts(storage, [failed(), failed(2, subject="other"), failed(3, subject="other", state="resolved")])
    assert notify(storage, {}, routing=ALL).sent == 0
    notify(storage, senders(smtp=mail.url, emails=("a@b.c",)), routing=replace(ALL))
    assert "[ERROR] pedidos failed" in mail.subjects


ANA, BIA, CAIO = "ana@example.org", "bia@example.org", "caio@example.org"
NOBODY = "550 5.1.1 No such user here"


@pytest.fixture
def three(mail):
    return senders(smtp=mail.url, emails=(ANA, BIA, CAIO))


def play(storage, targets, *, minutes: int, begin: datetime) -> None:
    """The notifier as its sensor calls it, four times a minute."""
    for tick in range(minutes * 4):
        notify(storage, targets, routing=ALL, now=begin + timedelta(seconds=15 * tick))


def test_one_bad_address_of_three_costs_the_others_nothing_and_is_told_once(storage, three, mail):
    mail.refused[BIA] = NOBODY
    raise_alert(storage, failed())
    play(storage, three, minutes=30, begin=datetime.now(UTC))
    for address in (ANA, CAIO):
        assert mail.of(address) == ["[ERROR] pedidos failed", "[ERROR] email:bia@example.org gets no alerts"]
    assert mail.of(BIA) == []
    assert list(notifier.refused(storage)) == [f"email:{BIA}"]
    refused = [row for row in deliveries(storage) if row["channel"] == f"email:{BIA}"]
    assert [(row["outcome"], "No such user" in row["error"]) for row in refused] == [("failed", True)]


def test_an_address_that_exists_again_gets_what_stands_the_next_day(storage, three, mail):
    mail.refused[BIA] = NOBODY
    raise_alert(storage, failed())
    begin = datetime.now(UTC)
    play(storage, three, minutes=2, begin=begin)
    mail.refused.clear()
    play(storage, three, minutes=2, begin=begin + timedelta(hours=23))
    assert mail.of(BIA) == []
    play(storage, three, minutes=2, begin=begin + timedelta(hours=25))
    assert "[ERROR] pedidos failed" in mail.of(BIA)
    assert "[RESOLVED] email:bia@example.org gets no alerts" in mail.of(ANA)


def test_an_address_that_is_taken_out_of_the_setting_is_no_trouble_any_more(storage, three, mail):
    mail.refused[BIA] = NOBODY
    raise_alert(storage, failed())
    begin = datetime.now(UTC)
    play(storage, three, minutes=2, begin=begin)
    play(storage, senders(smtp=mail.url, emails=(ANA, CAIO)), minutes=2, begin=begin + timedelta(minutes=5))
    assert "[RESOLVED] email:bia@example.org gets no alerts" in mail.of(ANA)
    assert notifier.refused(storage) == {}


@pytest.mark.parametrize(
    ("addresses", "answer"),
    [
        ((BIA,), "450 4.2.1 Greylisted"),
        pytest.param((BIA,), "552 5.2.2 Mailbox full", marks=pytest.mark.slow),
        pytest.param((BIA,), "550 5.7.1 Relaying denied", marks=pytest.mark.slow),
        ((ANA, BIA, CAIO), NOBODY),  # nobody else would be told
    ],
)
def test_a_refusal_that_may_pass_or_leaves_nobody_is_asked_again_and_nobody_gets_two(storage, three, mail, addresses, answer):
    mail.refused |= dict.fromkeys(addresses, answer)
    raise_alert(storage, failed())
    begin = datetime.now(UTC)
    play(storage, three, minutes=2, begin=begin)
    mail.refused.clear()
    play(storage, three, minutes=6, begin=begin + timedelta(minutes=6))
    assert [mail.of(address) for address in (ANA, BIA, CAIO)] == [["[ERROR] pedidos failed"]] * 3


def test_what_an_earlier_release_told_all_recipients_at_once_is_not_told_again(storage, three, mail):
    raise_alert(storage, failed())
    before = {"email": senders(smtp=mail.url, emails=(ANA,))[f"email:{ANA}"]}
    assert notify(storage, before, routing=ALL).sent == 1
    assert notify(storage, three, routing=ALL).sent == 0


def test_the_settings_state_which_channels_there_are():
    assert set(senders()) == set()
    assert set(senders(kafka="h:1", smtp="smtp://h", emails=("a@b.c",), token="t", channel="c")) == {
        "kafka",
        "email:a@b.c",
        "slack",
    }
    assert set(senders(smtp="smtp://h", token="t")) == set()  # to nobody, to no channel
    assert "pa55" not in repr(Settings(smtp_url="smtp://u:pa55@h:587", slack_token="xoxb-pa55"))


def test_a_routing_file_that_is_wrong_is_told_once_and_told_when_it_is_right(tmp_path):
    from lakehouse.core.names import TableRef
    from lakehouse.observability.sensors import send
    from lakehouse.observability.watch import open_keys

    settings = Settings(root=str(tmp_path))
    settings.storage.put(TableRef("ops", "routing"), "routing.json", b"{")
    _, wrong = send(settings)
    assert "routing.json" in wrong
    send(settings, routing_error=wrong)
    assert open_existing(settings.storage.uri(TableRef("ops", "alerts"))).rows == 1
    settings.storage.put(TableRef("ops", "routing"), "routing.json", b"{}")
    assert send(settings, routing_error=wrong)[1] == ""
    assert open_keys(settings.storage) == set()
