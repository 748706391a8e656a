"""Kafka: one broker that is its own controller, from the jars of `deploy/kafka/pom.xml`."""

import socket
import struct
from pathlib import Path

from deploy.stack.part import PROJECT, Env, Part, absent, run, tools

_POM = "deploy/kafka/pom.xml"
JAR = "kafka_2.13-4.1.0.jar"
_JAVA = {"java": "default-jre-headless"}


def _prepare(home: Path, env: Env) -> None:
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
        cluster = run([*java, "random-uuid"]).strip().splitlines()[-1]
        run([*java, "format", "--standalone", "--cluster-id", cluster, "--config", str(config)])


def _answers(env: Env) -> bool:
    """An ApiVersions request: the port is open some seconds before the broker serves."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection(("127.0.0.1", int(env["STACK_KAFKA_PORT"])), timeout=5) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            return len(connection.recv(4)) == 4
    except OSError:
        return False


def _fetch() -> None:
    if list((tools() / "kafka").glob("kafka_2.13-*.jar")):
        return
    print(f"mvn dependency:copy-dependencies {_POM}", flush=True)
    where = [f"-DoutputDirectory={tools()}/kafka", "-DincludeScope=runtime"]
    run(["mvn", "-q", "-B", "-f", str(PROJECT / _POM), "dependency:copy-dependencies", *where])


KAFKA = Part(
    ("kafka",),
    ("KAFKA", "KAFKA_CONTROLLER"),
    _answers,
    prepare=_prepare,
    offers=lambda env: {"LAKEHOUSE_KAFKA_BOOTSTRAP": f"127.0.0.1:{env['STACK_KAFKA_PORT']}"},
    lacks=lambda: absent({**_JAVA, f"{tools()}/kafka/{JAR}": _POM}),
    packages=lambda: {"mvn": "maven", **_JAVA},
    fetch=_fetch,
)
