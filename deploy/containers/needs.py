"""The part of pyproject.toml that decides what is installed, so that no other change of that file installs it again.

python3 needs.py < pyproject.toml > needs/pyproject.toml
"""

import json
import sys
import tomllib


def needs(text: str) -> str:
    """Name, dependencies and extras of a project, as a pyproject.toml of its own."""
    project = tomllib.loads(text)["project"]
    extras = [f"{name} = {json.dumps(packages)}" for name, packages in project["optional-dependencies"].items()]
    lines = ["[project]", f'name = "{project["name"]}"', 'version = "0"', f"dependencies = {json.dumps(project['dependencies'])}"]
    return "\n".join([*lines, "[project.optional-dependencies]", *extras]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(needs(sys.stdin.read()))
