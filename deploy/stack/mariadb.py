"""MariaDB: Debian's server with one database, as a source of tests and trials. It starts where it is named."""

import os
import shutil
import socket
from pathlib import Path

from deploy.stack.part import Env, Part, StackError, absent, run

_SERVER = "/usr/sbin/mariadbd"
_PACKAGES = {_SERVER: "mariadb-server"}
_DATABASE = "filial"


def _user() -> list[str]:
    """As root it runs as Debian's user for it."""
    return ["setpriv", "--reuid=mysql", "--regid=mysql", "--init-groups"] if os.getuid() == 0 else []


def _prepare(home: Path, env: Env) -> None:
    data = home / "mariadb"
    if (data / "mysql").exists():
        return
    if not env.get("STACK_MARIADB_PASSWORD"):
        raise StackError("STACK_MARIADB_PASSWORD is not set: run make stack-install PARTS=mariadb.")
    shutil.rmtree(data, ignore_errors=True)  # of a start that was cut off
    data.mkdir(parents=True)
    if os.getuid() == 0:
        shutil.chown(data, "mysql", "mysql")
    data.chmod(0o700)
    options = ["--no-defaults", f"--datadir={data}"]
    once = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
    run([*_user(), "mariadb-install-db", *options, *once])
    account = "'lakehouse'@'127.0.0.1'"
    statements = (
        "FLUSH PRIVILEGES",
        f"CREATE DATABASE {_DATABASE} CHARACTER SET utf8mb4",
        f"CREATE USER {account} IDENTIFIED BY '{env['STACK_MARIADB_PASSWORD']}'",
        f"GRANT ALL ON *.* TO {account}",
        "ALTER USER 'root'@'localhost' ACCOUNT LOCK",
    )
    run([*_user(), _SERVER, *options, "--bootstrap"], stdin="".join(f"{one};\n" for one in statements))


def _answers(env: Env) -> bool:
    """The server speaks first: a packet that begins with the version of its protocol."""
    try:
        with socket.create_connection(("127.0.0.1", int(env["STACK_MARIADB_PORT"])), timeout=5) as connection:
            return connection.recv(5)[4:] == b"\x0a"
    except OSError:
        return False


def url(env: Env) -> str:
    password, port = env.get("STACK_MARIADB_PASSWORD", ""), env["STACK_MARIADB_PORT"]
    return f"mysql+pymysql://lakehouse:{password}@127.0.0.1:{port}/{_DATABASE}"


MARIADB = Part(
    ("mariadb",),
    ("MARIADB",),
    _answers,
    prepare=_prepare,
    settings=lambda home, env: {"STACK_AS_MARIADB": " ".join(_user())},
    offers=lambda env: {"STACK_MARIADB_URL": url(env)},
    lacks=lambda: absent(_PACKAGES),
    packages=lambda: _PACKAGES,
)
