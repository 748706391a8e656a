"""`python -m deploy.containers tools|image|up|down|status|rollout|rollback`: what Make's targets and deploy.yml run."""

import os
import sys
from collections.abc import Sequence

import deploy.containers
from deploy.containers import compose, engine, image
from deploy.stack.part import StackError


def main(arguments: Sequence[str]) -> int:
    command, names = (arguments[0] if arguments else ""), arguments[1:]
    try:
        if command == "tools":
            engine.install_tools()
        elif command == "image":
            image.build(engine.find(), names, base=os.environ.get("BASE", ""))
        elif command == "cached":  # whether make test-image takes seconds; CI asks
            why = image.why_not(("base",))
            print(why)
            return 1 if why else 0
        elif command == "up":
            compose.up(engine.find(), compose.default_home(), network="".join(names[:1]))
        elif command == "down":
            compose.down(engine.find(), compose.default_home())
        elif command == "rollout":  # PREFIX TAG, as deploy.yml has pushed them
            compose.roll_out(engine.find(), compose.default_home(), image.released(*names))
        elif command == "rollback":
            compose.roll_back(engine.find(), compose.default_home())
        elif command == "status":
            return 0 if compose.status(engine.find()) else 1
        else:
            print(deploy.containers.__doc__)
            return 2
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
