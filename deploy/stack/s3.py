"""S3: versitygw over a folder, whose put-if-absent has one winner; a bucket of its posix backend is a folder."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from deploy.stack.part import Env, Part, StackError, absent, get, run, tools

VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
BUCKETS = ("lakehouse", "dagster-logs", "mlflow")


def _prepare(home: Path, env: Env) -> None:
    (home / "s3" / "meta").mkdir(parents=True, exist_ok=True)
    for bucket in BUCKETS:
        (home / "s3" / "data" / bucket).mkdir(parents=True, exist_ok=True)


def _answers(env: Env) -> bool:
    return get(f"{env['AWS_ENDPOINT_URL']}/health") is not None


def _settings(home: Path, env: Env) -> dict[str, str]:
    return {
        "ROOT_ACCESS_KEY": env["AWS_ACCESS_KEY_ID"],
        "ROOT_SECRET_KEY": env["AWS_SECRET_ACCESS_KEY"],
        "VGW_REGION": env["AWS_REGION"],
        "AWS_DEFAULT_REGION": env["AWS_REGION"],  # boto3 knows this name only
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{env['STACK_S3_PORT']}",
        "AWS_ALLOW_HTTP": "true",
    }


def _program() -> Path:
    return tools() / "bin" / "versitygw"


def _packages() -> Mapping[str, str]:
    return {} if _program().exists() else {"go": "golang-go"}


def _fetch() -> None:
    if _program().exists():
        return
    version = run(["go", "env", "GOVERSION"]).strip()
    if tuple(int(number) for number in version.removeprefix("go").split(".")[:2]) < (1, 21):
        raise StackError(
            f"versitygw needs Go 1.21 or newer, this is {version}. Debian 12 has it as golang-go in bookworm-backports."
        )
    print(f"go install {VERSITYGW}", flush=True)
    subprocess.run(["go", "install", VERSITYGW], check=True, env={**os.environ, "GOBIN": str(tools() / "bin")})


S3 = Part(
    ("s3",),
    ("S3",),
    _answers,
    prepare=_prepare,
    settings=_settings,
    lacks=lambda: absent({str(_program()): VERSITYGW}),
    packages=_packages,
    fetch=_fetch,
)
