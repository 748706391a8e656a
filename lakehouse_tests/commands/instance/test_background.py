"""When `start` is refused, what `stop` stops and what it leaves alone; where a wheel keeps what dbt parsed.

Both for real, with a webserver and a daemon: `lakehouse_tests/stack/test_commands.py`.
"""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
from dagster._daemon.types import DaemonHeartbeat

from lakehouse import __main__
from lakehouse.commands.instance import background, cli, graphql
from lakehouse.commands.instance.background import ProcessError, Started
from lakehouse.core.errors import LakehouseError
from lakehouse.core.processes import alive, end, family
from lakehouse.gold import project
from lakehouse.settings import light


@pytest.fixture
def parent():
    """A process with a child, as the webserver has its code server."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo; wait"], stdout=subprocess.PIPE, start_new_session=True) as process:
        process.stdout.readline()
        yield process
        end({process.pid: alive().get(process.pid, (0, 0))[1]}, leaders=[], patience=0)


def begun(process) -> dict[int, int]:
    return {process.pid: alive()[process.pid][1]}


def record(home, process, **changes) -> Started:
    started = Started(3999, time.time(), {"webserver": process.pid}, begun(process))
    (home / "started.json").write_text(json.dumps({**asdict(started), **changes}))
    return started


# --- stop --------------------------------------------------------------------------------------------------------------


def test_stop_ends_what_was_started_with_its_children_and_a_second_one_nothing(home, parent, capsys):
    started = record(home, parent)
    members = family(started.pids)
    assert len(members) == 2
    assert cli.stop(as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"stopped": 2}
    assert family(members) == {}
    assert cli.stop() == 0
    assert "Nothing that make start has started runs here." in capsys.readouterr().out


def test_stop_leaves_a_process_alone_that_got_the_number_of_one_that_was_started(home, parent, capsys):
    record(home, parent, pids={parent.pid: 1})
    assert cli.stop(as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"stopped": 0}
    assert parent.poll() is None


def test_who_does_not_end_when_asked_is_killed(home):
    command = [sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as deaf:
        deaf.stdout.readline()
        assert end(begun(deaf), leaders=[deaf.pid], patience=0.2) == 1
        assert deaf.wait(timeout=5) == -9


# --- start is refused --------------------------------------------------------------------------------------------------


def refused(match: str, *, port: int = 0) -> None:
    with pytest.raises(ProcessError, match=match):
        cli.start(port=port)


def test_what_runs_already_is_named_with_its_address(home, parent):
    record(home, parent)
    refused(rf"webserver \(process {parent.pid}\) run already, at http://127.0.0.1:3999\. .*make stop")
    assert parent.poll() is None


def test_beside_the_stacks_dagster(home, parent):
    (home.parent / "pids.json").write_text(json.dumps(begun(parent)))
    (home.parent / "parts").write_text("s3 postgres code dagster")
    refused("The stack runs Dagster on this instance.*make stack-down")
    (home.parent / "parts").write_text("s3 postgres")
    assert background.stack_parts(home) == ["s3", "postgres"]
    parent.kill()
    parent.wait()
    assert background.stack_parts(home) == []


def test_on_a_port_that_is_taken(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused("is taken, perhaps by make dev or make stack.*another PORT", port=taken.getsockname()[1])


def test_beside_another_daemon_and_not_after_ones_own(home, instance, monkeypatch):
    launched = []

    def launch(*arguments):
        launched.append(arguments)
        raise ProcessError("Launched.", remedy="")

    monkeypatch.setattr(background, "_launch", launch)
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SCHEDULER", "another", []))
    refused("Another daemon works for this instance: it had a heartbeat .* ago", port=_free())
    assert not launched
    (home / "started.json").write_text(json.dumps(asdict(Started(daemons=["another"]))))
    refused("Launched", port=_free())
    assert launched


def test_while_another_start_or_stop_is_under_way(home):
    with background._alone(home):
        refused("Another start or stop is under way here")


def test_a_process_that_ends_is_named_with_its_last_words_and_the_others_are_stopped(home, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho $2: no such workspace >&2\n[ $2 = dagster._daemon ] || exec sleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(
        ProcessError, match=rf"The daemon ended: dagster._daemon: no such workspace\. Read {home}/log/daemon\.log"
    ):
        cli.start(port=_free())
    webserver = (home / "log" / "webserver.log").read_text()
    assert webserver == "dagster_webserver: no such workspace\n"
    assert background.recorded(home).pids == {}


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- the webserver's answers -------------------------------------------------------------------------------------------


def test_it_is_ready_when_locations_are_loaded_and_every_daemon_had_a_heartbeat_since():
    def answer(*, kind="RepositoryLocation", at=100.0):
        daemons = [
            {"daemonType": "SENSOR", "required": True, "healthy": True, "lastHeartbeatTime": at},
            {"daemonType": "BACKFILL", "required": False, "healthy": False, "lastHeartbeatTime": None},
        ]
        location = {"name": "lakehouse", "locationOrLoadError": {"__typename": kind, "message": "no such table"}}
        return {
            "instance": {"daemonHealth": {"allDaemonStatuses": daemons}},
            "workspaceOrError": {"locationEntries": [location]},
        }

    assert graphql.is_ready(answer(), since=90)
    assert not graphql.is_ready(answer(at=80.0), since=90)
    assert not graphql.is_ready(answer(kind="PythonError"), since=90)
    assert graphql.load_errors(answer(kind="PythonError")) == ["no such table"]
    assert graphql.load_errors(answer()) == []


def test_a_webserver_that_does_not_answer_is_one_sentence():
    with pytest.raises(graphql.WebserverError, match=r"^http://127.0.0.1:\d+ does not answer\. Run make start"):
        graphql.ask(f"http://127.0.0.1:{_free()}", graphql.READY)


# --- the program -------------------------------------------------------------------------------------------------------


def test_help_needs_no_instance_and_a_command_states_what_it_lacks(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(light, "project_folder", lambda: tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr(sys, "argv", ["lakehouse", "--help"])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 0 and "schedules" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["lakehouse", "status"])
    assert __main__.main() == 2
    assert capsys.readouterr().err.startswith("error: DAGSTER_HOME is not set")


def test_what_is_installed_stores_what_dbt_parsed_in_dagsters_home(monkeypatch, tmp_path):
    assert project.target_dir() == project.project_dir() / "target"  # a checkout
    monkeypatch.setattr(project, "project_dir", lambda: tmp_path / "site-packages" / "lakehouse" / "dbt_project")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    assert project.target_dir() == tmp_path / "home" / "lakehouse" / "dbt"
    (tmp_path / "file").touch()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "file"))
    with pytest.raises(LakehouseError, match=r"cannot be made: .*Set DAGSTER_HOME"):
        project.target_dir()


def test_started_processes_have_this_ones_environment(monkeypatch):
    monkeypatch.setenv("LAKEHOUSE_ENV", "prod")
    assert light.process_environment(A="b") == {**os.environ, "A": "b"}
