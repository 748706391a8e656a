"""`python -m deploy.stack install|up|down|status|env [part ...]`: what the Make targets of the stack run."""

import os
import sys
import time
from collections.abc import Sequence

import deploy.stack
from deploy.stack.environment import environment
from deploy.stack.install import install
from deploy.stack.launcher import down, started, status, up
from deploy.stack.part import StackError, default_home
from deploy.stack.parts import chosen


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
        elif command == "env":
            env = environment(home, started(home))
            prefixes = ("AWS_", "DAGSTER_", "MLFLOW_TRACKING_URI", "LAKEHOUSE_", "STACK_MARIADB_URL")
            ours = {name: env[name] for name in sorted(env) if name.startswith(prefixes) and env[name] != os.environ.get(name)}
            print("\n".join(f"export {name}='{value}'" for name, value in ours.items()))
        else:
            print(deploy.stack.__doc__)
            return 2
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
