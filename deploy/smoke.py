"""Is what was rolled out alive? Asks the webserver as its pages do; needs nothing but Python, so a container can be given it:

    python deploy/smoke.py http://127.0.0.1:3000 [--wait 120] [--no-daemon]

Exit code 0 when the code location is loaded with its jobs and every daemon that is required is healthy, else 1 and one sentence.
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.request

QUESTION = """
{ version
  workspaceOrError { ... on Workspace { locationEntries { name loadStatus locationOrLoadError {
    __typename ... on RepositoryLocation { repositories { jobs { name } } } ... on PythonError { message } } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="smoke.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("url", help="of the webserver")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="how long it may take until all is well")
    parser.add_argument("--no-daemon", action="store_true", help="the daemon is not looked at")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.wait
    while True:
        wrong = look(arguments.url, daemon=not arguments.no_daemon)
        if not wrong or time.monotonic() >= deadline:
            break
        time.sleep(2)
    print(wrong or f"{arguments.url} is well.", file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


def look(url: str, *, daemon: bool) -> str:
    """What is wrong, as one sentence; empty when nothing is."""
    request = urllib.request.Request(
        f"{url.rstrip('/')}/graphql", json.dumps({"query": QUESTION}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # nosec B310
            data = json.load(answer)["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{url} does not answer: {error}. Look at the webserver's log."
    entries = data["workspaceOrError"].get("locationEntries", [])
    if not entries:
        return f"{url} has no code location. Look at the workspace file."
    for entry in entries:
        found = entry["locationOrLoadError"] or {}
        if found.get("message"):
            return f"{entry['name']} does not load: {found['message'].splitlines()[0]} Look at the code server's log."
        if entry["loadStatus"] != "LOADED" or not any(one["jobs"] for one in found.get("repositories", [])):
            return f"{entry['name']} is {entry['loadStatus'].lower()} and has no jobs yet. Look at the code server's log."
    ill = [
        one["daemonType"]
        for one in data["instance"]["daemonHealth"]["allDaemonStatuses"]
        if one["required"] and not one["healthy"]
    ]
    if daemon and ill:
        return f"These daemons are not healthy: {', '.join(ill)}. Look at the daemon's log."
    return ""


if __name__ == "__main__":
    sys.exit(main())
