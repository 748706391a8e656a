"""The real parts on this machine, all on 127.0.0.1: S3, PostgreSQL, Kafka, MLflow, Spark, Dagster's three processes, metrics.

    make stack-install     fetch what is missing, by package name; write .stack/env
    make stack             start, and return when every part answers        [PARTS="s3 postgres"]
    make stack-status      which part answers
    make stack-env         what a shell needs to use them: eval "$(make -s stack-env)"
    make stack-down        stop what was started, by its process ids

Here: what each part needs before it starts and how it is asked whether it answers. How it is started is one line of
`deploy/Procfile`, run by honcho. Data and logs are below `.stack/` (or `STACK_HOME`), programs below `.stack/tools`
(or `STACK_TOOLS`). Standard library only: this runs in a Python that has nothing but the package itself.
"""

import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lakehouse.core.processes import alive, end, family, why_taken

PROJECT = Path(__file__).resolve().parents[1]
EXAMPLE = PROJECT / "deploy" / "stack.env.example"
VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
BUCKETS = ("lakehouse", "dagster-logs", "mlflow")
DATABASES = ("dagster", "mlflow", "warehouse")
ANSWER_SECONDS = 120  # a cold start of everything takes 40 s on two cores
STOP_SECONDS = 20  # honcho kills after 5 s what does not stop when asked

Env = Mapping[str, str]


class StackError(Exception):
    """What is wrong, and what to do about it."""


# --- where things are -------------------------------------------------------------------------------------------------


def default_home() -> Path:
    return Path(os.environ.get("STACK_HOME") or PROJECT / ".stack").absolute()


def tools() -> Path:
    return Path(os.environ.get("STACK_TOOLS") or PROJECT / ".stack" / "tools").absolute()


def postgres_bin() -> Path | None:
    """Debian keeps the server's programs out of PATH."""
    found = shutil.which("postgres")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    return folders[-1] if folders else Path(found).resolve().parent if found else None


def write_env(home: Path, ports: Mapping[str, int] | None = None) -> Path:
    """The environment file, with passwords of its own; one that is there stays as it is."""
    target = home / "env"
    if not target.exists():
        lines = [_filled(line, ports or {}) for line in EXAMPLE.read_text().splitlines()]
        home.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("\n".join(lines) + "\n")
    return target


def _filled(line: str, ports: Mapping[str, int]) -> str:
    name, _, value = line.partition("=")
    return f"{name}={secrets.token_urlsafe(24)}" if value == "random" else f"{name}={ports[name]}" if name in ports else line


def environment(home: Path, parts: Iterable[str]) -> dict[str, str]:
    """The environment of every process: this one's, the file's, and what follows from both for the parts that run."""
    file = home / "env"
    if not file.exists():
        raise StackError(f"There is no {file}: run make stack-install.")
    # Dagster's commands let a .env of their working directory win over the environment; the Procfile starts them elsewhere.
    own = {name: value for name, value in _assignments(PROJECT / ".env").items() if name != "DAGSTER_HOME"}
    new = {name: value for name, value in _assignments(EXAMPLE).items() if value != "random"}  # ports that the file is older than
    env = {**new, **own, **os.environ, **_assignments(file)}
    # SQLAlchemy 2.1 takes plain postgresql:// for psycopg 3; what is installed is psycopg2
    database = f"postgresql+psycopg2://lakehouse:{env['STACK_POSTGRES_PASSWORD']}@127.0.0.1:{env['STACK_POSTGRES_PORT']}"
    spark = importlib.util.find_spec("pyspark")
    env |= {
        "STACK_HOME": str(home),
        "STACK_PROJECT": str(PROJECT),
        "STACK_TOOLS": str(tools()),
        "STACK_BIN": str(Path(sys.executable).parent),
        "STACK_POSTGRES_BIN": str(postgres_bin() or ""),
        "STACK_AS_POSTGRES": " ".join(_as_postgres()),
        "SPARK_HOME": str(Path(spark.origin).parent) if spark and spark.origin else "",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "ROOT_ACCESS_KEY": env["AWS_ACCESS_KEY_ID"],
        "ROOT_SECRET_KEY": env["AWS_SECRET_ACCESS_KEY"],
        "VGW_REGION": env["AWS_REGION"],
        "AWS_DEFAULT_REGION": env["AWS_REGION"],  # boto3 knows this name only
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{env['STACK_S3_PORT']}",
        "AWS_ALLOW_HTTP": "true",
        "DAGSTER_HOME": str(home / "dagster"),
        "DAGSTER_POSTGRES_URL": f"{database}/dagster",
        "DAGSTER_LOGS_BUCKET": "dagster-logs",
        "MLFLOW_BACKEND_STORE_URI": f"{database}/mlflow",
        "PYTHONUNBUFFERED": "1",
    }
    used = {
        "postgres": ("LAKEHOUSE_WAREHOUSE_URL", f"{database}/warehouse"),
        "kafka": ("LAKEHOUSE_KAFKA_BOOTSTRAP", f"127.0.0.1:{env['STACK_KAFKA_PORT']}"),
        "mlflow": ("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{env['STACK_MLFLOW_PORT']}"),
        "spark": ("LAKEHOUSE_SPARK_MASTER", f"spark://127.0.0.1:{env['STACK_SPARK_PORT']}"),
        "dagster": ("LAKEHOUSE_UI_URL", f"http://127.0.0.1:{env['STACK_WEBSERVER_PORT']}"),
    }
    return env | {name: value for part, (name, value) in used.items() if part in parts}


def _assignments(file: Path) -> dict[str, str]:
    lines = file.read_text().splitlines() if file.exists() else []
    pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in pairs}


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root, so root starts it as Debian's user for it."""
    if os.getuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


# --- what a part needs before it starts, once -------------------------------------------------------------------------


def _prepare_s3(home: Path, env: Env) -> None:
    (home / "s3" / "meta").mkdir(parents=True, exist_ok=True)
    for bucket in BUCKETS:  # a bucket of versitygw's posix backend is a folder
        (home / "s3" / "data" / bucket).mkdir(parents=True, exist_ok=True)


def _prepare_postgres(home: Path, env: Env) -> None:
    data = home / "postgres"
    if (data / "PG_VERSION").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        shutil.chown(data, "postgres", "postgres")
    data.chmod(0o700)
    programs, user = env["STACK_POSTGRES_BIN"], _as_postgres()
    if subprocess.run([*user, "test", "-x", str(data)], check=False).returncode:
        raise StackError(f"The user postgres cannot reach {data}: set STACK_HOME to a folder that every user may enter.")
    options = ["--auth=scram-sha-256", "--username=lakehouse", "--encoding=UTF8", "--locale=C.UTF-8"]
    with tempfile.NamedTemporaryFile("w") as password:  # on a command line everyone could read it
        print(env["STACK_POSTGRES_PASSWORD"], file=password, flush=True)
        if user:
            shutil.chown(password.name, "postgres")
        _run([*user, f"{programs}/initdb", "-D", str(data), f"--pwfile={password.name}", *options])
    statements = "".join(f"CREATE DATABASE {name};\n" for name in DATABASES)
    _run([*user, f"{programs}/postgres", "--single", "-D", str(data), "postgres"], stdin=statements)


def _prepare_kafka(home: Path, env: Env) -> None:
    data, config = home / "kafka" / "data", home / "kafka" / "server.properties"
    controller = f"127.0.0.1:{env['STACK_KAFKA_CONTROLLER_PORT']}"
    broker = f"PLAINTEXT://127.0.0.1:{env['STACK_KAFKA_PORT']}"
    single = ("offsets.topic.replication.factor", "transaction.state.log.replication.factor", "transaction.state.log.min.isr")
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"{broker},CONTROLLER://{controller}",
        "advertised.listeners": broker,
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": controller,
        "controlled.shutdown.enable": "false",  # there is no other broker to hand over to
        "group.initial.rebalance.delay.ms": "0",
        "log.dirs": str(data),
        **dict.fromkeys(single, "1"),
    }
    data.mkdir(parents=True, exist_ok=True)
    config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    if not (data / "meta.properties").exists():
        java = ["java", "-cp", f"{tools()}/kafka/*", "kafka.tools.StorageTool"]
        cluster = _run([*java, "random-uuid"]).strip().splitlines()[-1]
        _run([*java, "format", "--standalone", "--cluster-id", cluster, "--config", str(config)])


def _prepare_dagster(home: Path, env: Env) -> None:
    (home / "dagster").mkdir(parents=True, exist_ok=True)
    shutil.copy2(PROJECT / "deploy" / "dagster.yaml", home / "dagster" / "dagster.yaml")


def _metrics_answer(env: Env) -> bool:
    return _get(f"http://127.0.0.1:{env['STACK_METRICS_PORT']}/health") is not None


def _nothing(home: Path, env: Env) -> None:
    """A part that needs nothing."""


def _run(command: Sequence[str], *, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise StackError(f"{' '.join(command[:8])} failed: {' '.join(last)}")
    return done.stdout


# --- how a part is asked whether it answers ---------------------------------------------------------------------------


def _get(url: str, *, body: object = None) -> str | None:
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return reply.read().decode()
    except (OSError, ValueError):
        return None


def _s3_answers(env: Env) -> bool:
    return _get(f"{env['AWS_ENDPOINT_URL']}/health") is not None


def _postgres_answers(env: Env) -> bool:
    command = [f"{env['STACK_POSTGRES_BIN']}/pg_isready", "-q", "-h", "127.0.0.1", "-p", env["STACK_POSTGRES_PORT"]]
    return subprocess.run(command, check=False).returncode == 0


def _kafka_answers(env: Env) -> bool:
    """An ApiVersions request: the port is open some seconds before the broker serves."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection(("127.0.0.1", int(env["STACK_KAFKA_PORT"])), timeout=5) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            return len(connection.recv(4)) == 4
    except OSError:
        return False


def _mlflow_answers(env: Env) -> bool:
    return _get(f"http://127.0.0.1:{env['STACK_MLFLOW_PORT']}/health") == "OK"


def _spark_answers(env: Env) -> bool:
    state = _get(f"http://127.0.0.1:{env['STACK_SPARK_UI_PORT']}/json/")
    return state is not None and json.loads(state).get("aliveworkers") == 2


def _code_answers(env: Env) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(env["STACK_CODE_PORT"])), timeout=5).close()
    except OSError:
        return False
    return True  # it listens only when the definitions are loaded, or when it can say why they are not


def _dagster_answers(env: Env) -> bool:
    """The UI serves, the location loaded without an error, and every daemon had a heartbeat since this start."""
    question = """{ instance { daemonHealth { allDaemonStatuses { required healthy lastHeartbeatTime } } }
                    workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"""
    reply = _get(f"http://127.0.0.1:{env['STACK_WEBSERVER_PORT']}/graphql", body={"query": question})
    data = (json.loads(reply).get("data") if reply else None) or {}
    if not data.get("instance") or not data.get("workspaceOrError"):
        return False
    entries = data["workspaceOrError"].get("locationEntries", [])
    daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
    since = float(env.get("STACK_STARTED", "0"))
    return bool(entries) and all(
        [
            *[(entry["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation" for entry in entries],
            *[d["healthy"] and d["lastHeartbeatTime"] >= since for d in daemons if d["required"]],
        ]
    )


# --- the parts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One of PARTS: its lines of the Procfile, the variables of its ports, and what was said above."""

    processes: tuple[str, ...]
    ports: tuple[str, ...]
    answers: Callable[[Env], bool]
    prepare: Callable[[Path, Env], None] = _nothing
    needs: tuple[str, ...] = ()


PARTS = {
    "s3": Part(("s3",), ("S3",), _s3_answers, _prepare_s3),
    "postgres": Part(("postgres",), ("POSTGRES",), _postgres_answers, _prepare_postgres),
    "kafka": Part(("kafka",), ("KAFKA", "KAFKA_CONTROLLER"), _kafka_answers, _prepare_kafka),
    "mlflow": Part(("mlflow",), ("MLFLOW",), _mlflow_answers, needs=("s3", "postgres")),
    "spark": Part(("spark-master", "spark-worker-1", "spark-worker-2"), ("SPARK", "SPARK_UI"), _spark_answers),
    "code": Part(("code",), ("CODE",), _code_answers, needs=("s3", "postgres")),
    "dagster": Part(("webserver", "daemon"), ("WEBSERVER",), _dagster_answers, _prepare_dagster, ("code", "s3", "postgres")),
    "metrics": Part(("metrics",), ("METRICS",), _metrics_answer, _prepare_dagster, ("code", "s3", "postgres")),
}


def chosen(names: Sequence[str]) -> list[str]:
    """The parts of that name and what they need, or all that are installed, in the order of PARTS."""
    for name in names:
        if name not in PARTS:
            raise StackError(f"There is no part {name!r}: use some of {' '.join(PARTS)}.")
    if not names:
        names = [name for name in PARTS if name != "spark" or importlib.util.find_spec("pyspark")]
    wanted = {*names, *[need for name in names for need in PARTS[name].needs]}
    return [name for name in PARTS if name in wanted]


def missing(parts: Iterable[str]) -> dict[str, str]:
    """What a part needs and this machine has not, with the package that brings it."""
    java = {"java": "default-jre-headless"}
    programs: dict[str, dict[str, str]] = {
        "s3": {f"{tools()}/bin/versitygw": VERSITYGW},
        "kafka": {**java, f"{tools()}/kafka/kafka_2.13-4.1.0.jar": "deploy/kafka/pom.xml"},
        "spark": java,
    }
    wanted = {program: package for part in parts for program, package in programs.get(part, {}).items()}
    lacks = {program: package for program, package in wanted.items() if not (shutil.which(program) or Path(program).exists())}
    if "postgres" in parts and not postgres_bin():
        lacks["postgres"] = "postgresql"
    modules = {"mlflow": "mlflow", "spark": "pyspark", "dagster": "dagster_postgres"}
    for part, module in modules.items():
        if part in parts and not importlib.util.find_spec(module):
            lacks[f"python module {module}"] = "an extra of pyproject.toml"
    return lacks


# --- processes, by their ids ------------------------------------------------------------------------------------------


def _recorded(home: Path) -> dict[int, int]:
    file = home / "pids.json"
    return {int(pid): start for pid, start in json.loads(file.read_text()).items()} if file.exists() else {}


# --- commands ---------------------------------------------------------------------------------------------------------


def up(home: Path, names: Sequence[str] = (), *, outlive: bool = True) -> dict[str, str]:
    """Start the parts and what they need; return their environment when every one answers.

    Args:
        outlive: they go on when this process ends; otherwise they are stopped then, however it ends (on Linux).

    Raises:
        StackError: something is missing, a port is taken, or a part does not answer; what was started is stopped again.
    """
    parts = chosen(names)
    if family(_recorded(home)):
        raise StackError("The stack runs already: make stack-status says what answers, make stack-down stops it.")
    if lacks := missing(parts):
        listed = ", ".join(f"{program} ({package})" for program, package in lacks.items())
        raise StackError(f"Missing: {listed}. Run make stack-install.")
    env = environment(home, parts)
    for port in [port for part in parts for port in PARTS[part].ports]:
        _refuse_taken(f"STACK_{port}_PORT", int(env[f"STACK_{port}_PORT"]), home)
    (home / "log").mkdir(parents=True, exist_ok=True)
    for part in parts:
        PARTS[part].prepare(home, env)
    env["STACK_STARTED"] = str(time.time())
    processes = [process for part in parts for process in PARTS[part].processes]
    honcho = [sys.executable, "-m", "honcho", "start", "--no-colour", "-d", str(PROJECT), "-f", "deploy/Procfile"]
    with (home / "log" / "honcho.log").open("w") as log:
        process = subprocess.Popen(
            [*_ends_with_parent(outlive=outlive), *honcho, "-e", str(home / "env"), *processes],
            cwd=PROJECT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    own = alive()[process.pid][1]
    (home / "pids.json").write_text(json.dumps({process.pid: own}))
    try:
        _wait(home, parts, env, ended=lambda: process.poll() is not None)
    except BaseException:
        down(home)
        raise
    (home / "pids.json").write_text(json.dumps(family({process.pid: own})))
    (home / "parts").write_text(" ".join(parts))
    return env


def _ends_with_parent(*, outlive: bool) -> list[str]:
    """The kernel tells honcho, which stops its children."""
    return [] if outlive or not shutil.which("setpriv") else ["setpriv", "--pdeathsig", "TERM"]


def _refuse_taken(variable: str, port: int, home: Path) -> None:
    if why_taken(port):
        raise StackError(f"Port {port} is taken: set another {variable} in {home}/env.")


def _wait(home: Path, parts: Sequence[str], env: Env, *, ended: Callable[[], bool] = lambda: False) -> None:
    began, waiting = time.monotonic(), list(parts)
    while True:
        for part in list(waiting):
            if PARTS[part].answers(env):
                waiting.remove(part)
                print(f"{part:10} answers after {time.monotonic() - began:.1f} s", flush=True)
        if not waiting:
            return
        if ended() or time.monotonic() - began > ANSWER_SECONDS:
            if ended():
                raise StackError(_first_ended(home))
            logs = [f"{home}/log/{process}.log" for part in waiting for process in PARTS[part].processes]
            raise StackError(f"No answer within {ANSWER_SECONDS} s from {', '.join(waiting)}. Read {', '.join(logs)}.")
        time.sleep(0.5)


def _first_ended(home: Path) -> str:
    """honcho stops everything when one process ends, and says which one was the first."""
    log = home / "log" / "honcho.log"
    found = re.search(r"\| (\S+)\.1 stopped \(rc=(-?\d+)\)", log.read_text())
    if not found:
        return f"The stack ended. Read {log}."
    return f"{found[1]} ended with exit code {found[2]}, which stops all. Read {home}/log/{found[1]}.log."


def down(home: Path) -> int:
    """Stop what `up` started; how many processes there were. None of them is left."""
    recorded = _recorded(home)
    # honcho passes it on to its children's groups; without it they are told one by one
    count = end(recorded, leaders=list(recorded)[:1], patience=STOP_SECONDS)
    for name in ("pids.json", "parts"):
        (home / name).unlink(missing_ok=True)
    return count


def status(home: Path) -> bool:
    """Print which part answers; whether all do that were started."""
    parts = (home / "parts").read_text().split() if (home / "parts").exists() else []
    if not parts or not family(_recorded(home)):
        print("the stack is down")
        return False
    env = environment(home, parts)
    answers = {part: PARTS[part].answers(env) for part in parts}
    for part, good in answers.items():
        ports = ", ".join(env[f"STACK_{port}_PORT"] for port in PARTS[part].ports)
        print(f"{part:10} {'answers' if good else 'DOES NOT ANSWER':16} 127.0.0.1:{ports}")
    return all(answers.values())


def install(home: Path, names: Sequence[str] = ()) -> None:
    """Fetch what is missing: Debian's packages, versitygw by go, Kafka's jars by Maven."""
    parts = chosen(names)
    packages = {"postgres": ["postgresql"], "kafka": ["maven", "default-jre-headless"], "spark": ["default-jre-headless"]}
    packages["s3"] = [] if _versitygw_is_there() else ["golang-go"]
    present = {
        "postgresql": postgres_bin() is not None,
        "maven": shutil.which("mvn") is not None,
        "default-jre-headless": shutil.which("java") is not None,
        "golang-go": shutil.which("go") is not None,
    }
    wanted = {package for part in parts for package in packages.get(part, []) if not present[package]}
    if wanted and not (os.getuid() == 0 and shutil.which("apt-get")):
        raise StackError(f"Install {', '.join(sorted(wanted))} with your package manager (as root on Debian this does it).")
    if wanted:
        print(f"apt-get install {' '.join(sorted(wanted))}", flush=True)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", *sorted(wanted)], check=True, env=quiet, stdout=subprocess.DEVNULL)
    if "s3" in parts and not _versitygw_is_there():
        _install_versitygw()
    if "kafka" in parts and not list((tools() / "kafka").glob("kafka_2.13-*.jar")):
        print("mvn dependency:copy-dependencies deploy/kafka/pom.xml", flush=True)
        where = [f"-DoutputDirectory={tools()}/kafka", "-DincludeScope=runtime"]
        _run(["mvn", "-q", "-B", "-f", str(PROJECT / "deploy/kafka/pom.xml"), "dependency:copy-dependencies", *where])
    print(f"settings and passwords: {write_env(home)}")
    if lacks := missing(parts):
        raise StackError(f"Still missing: {', '.join(lacks)}.")


def _versitygw_is_there() -> bool:
    return (tools() / "bin" / "versitygw").exists()


def _install_versitygw() -> None:
    version = _run(["go", "env", "GOVERSION"]).strip()
    if tuple(int(number) for number in version.removeprefix("go").split(".")[:2]) < (1, 21):
        raise StackError(
            f"versitygw needs Go 1.21 or newer, this is {version}. Debian 12 has it as golang-go in bookworm-backports."
        )
    print(f"go install {VERSITYGW}", flush=True)
    subprocess.run(["go", "install", VERSITYGW], check=True, env={**os.environ, "GOBIN": str(tools() / "bin")})


def main(arguments: Sequence[str]) -> int:
    command, names = (arguments[0] if arguments else ""), arguments[1:]
    home = default_home()
    try:
        if command == "install":
            install(home, names)
        elif command == "up":
            began = time.monotonic()
            env = up(home, names)
            print(f"stack is up after {time.monotonic() - began:.0f} s; logs: {home}/log")
            if "dagster" in chosen(names):
                print(f"UI: http://127.0.0.1:{env['STACK_WEBSERVER_PORT']}")
        elif command == "down":
            print(f"stopped {down(home)} processes")
        elif command == "status":
            return 0 if status(home) else 1
        elif command == "wait":  # a line of the Procfile waits for what it needs
            _wait(home, chosen(names), os.environ)
        elif command == "env":
            parts = (home / "parts").read_text().split() if (home / "parts").exists() else []
            env = environment(home, parts)
            prefixes = ("AWS_", "DAGSTER_", "MLFLOW_TRACKING_URI", "LAKEHOUSE_")
            ours = {name: env[name] for name in sorted(env) if name.startswith(prefixes) and env[name] != os.environ.get(name)}
            print("\n".join(f"export {name}='{value}'" for name, value in ours.items()))
        else:
            print(__doc__)
            return 2
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
