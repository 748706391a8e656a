"""PostgreSQL: Debian's server, with a database each for Dagster, MLflow and the warehouse."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from deploy.stack.part import Env, Part, StackError, run

DATABASES = ("dagster", "mlflow", "warehouse")


def programs() -> Path | None:
    """Debian keeps the server's programs out of PATH."""
    found = shutil.which("postgres")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    return folders[-1] if folders else Path(found).resolve().parent if found else None


def url(env: Env, database: str) -> str:
    # SQLAlchemy 2.1 takes plain postgresql:// for psycopg 3; what is installed is psycopg2
    server = f"lakehouse:{env['STACK_POSTGRES_PASSWORD']}@127.0.0.1:{env['STACK_POSTGRES_PORT']}"
    return f"postgresql+psycopg2://{server}/{database}"


def _user() -> list[str]:
    """PostgreSQL refuses to run as root, so root starts it as Debian's user for it."""
    if os.getuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


def _prepare(home: Path, env: Env) -> None:
    data = home / "postgres"
    if (data / "PG_VERSION").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        shutil.chown(data, "postgres", "postgres")
    data.chmod(0o700)
    folder, user = env["STACK_POSTGRES_BIN"], _user()
    if subprocess.run([*user, "test", "-x", str(data)], check=False).returncode:
        raise StackError(f"The user postgres cannot reach {data}: set STACK_HOME to a folder that every user may enter.")
    options = ["--auth=scram-sha-256", "--username=lakehouse", "--encoding=UTF8", "--locale=C.UTF-8"]
    with tempfile.NamedTemporaryFile("w") as password:  # on a command line everyone could read it
        print(env["STACK_POSTGRES_PASSWORD"], file=password, flush=True)
        if user:
            shutil.chown(password.name, "postgres")
        run([*user, f"{folder}/initdb", "-D", str(data), f"--pwfile={password.name}", *options])
    statements = "".join(f"CREATE DATABASE {name};\n" for name in DATABASES)
    run([*user, f"{folder}/postgres", "--single", "-D", str(data), "postgres"], stdin=statements)


def _answers(env: Env) -> bool:
    command = [f"{env['STACK_POSTGRES_BIN']}/pg_isready", "-q", "-h", "127.0.0.1", "-p", env["STACK_POSTGRES_PORT"]]
    return subprocess.run(command, check=False).returncode == 0


def _settings(home: Path, env: Env) -> dict[str, str]:
    return {"STACK_POSTGRES_BIN": str(programs() or ""), "STACK_AS_POSTGRES": " ".join(_user())}


POSTGRES = Part(
    ("postgres",),
    ("POSTGRES",),
    _answers,
    stop=signal.SIGINT,  # a fast shutdown; on SIGTERM it waits for its clients
    prepare=_prepare,
    settings=_settings,
    offers=lambda env: {"LAKEHOUSE_WAREHOUSE_URL": url(env, "warehouse")},
    lacks=lambda: {} if programs() else {"postgres": "postgresql"},
    packages=lambda: {} if programs() else {"postgres": "postgresql"},
)
