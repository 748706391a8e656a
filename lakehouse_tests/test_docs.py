"""A sentence of the docs that can be checked is checked here: targets, links, anchors, paths, commands, settings, names.

What the docs say about settings is compared in `settings/test_settings.py`, the example of `docs/tables.md` is run in
`test_definitions.py`.
"""

import ast
import importlib.util
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from string import Template

import dagster as dg
import pytest
import typer

from lakehouse.__main__ import app
from lakehouse.automation import jobs
from lakehouse.core.ledger import FILES_TABLE
from lakehouse.core.names import LAYERS
from lakehouse.definitions import build_defs
from lakehouse.settings import Settings, project_folder
from lakehouse.tables import ALL, SETTINGS, SOURCES

PROJECT = project_folder()
PAGES = sorted([PROJECT / "README.md", PROJECT / "README.pt.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").rglob("*.md")])
MAKEFILE = (PROJECT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))


def _commands(text: str) -> list[str]:
    """What a page shows to be typed: lines of console blocks and code spans, without comments."""
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [line for block in blocks for line in block.splitlines()] + spans
    return [line.partition("  #")[0].strip() for line in lines if line.strip()]


def _makes(text: str) -> list[str]:
    return [found for line in _commands(text) for found in re.findall(r"\bmake [a-z].*", line)]


def _dry(command: str) -> list[list[str]]:
    """The commands that a make command line would run, as lists of words."""
    redirected = re.split(r"\s[<>]\s", command)[0]
    words = [word for word in shlex.split(redirected) if word != "make"]
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "--assume-old=.venv/.base", "--assume-old=.venv/.dev", *words],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    given = {name: value for name, equals, value in (word.partition("=") for word in words) if equals}
    printed = done.stdout.replace("\\\n", " ").splitlines()
    lines = [shlex.split(line) for line in printed if ".venv/bin/" in line and "if [" not in line]
    return [[Template(word).safe_substitute(given) for word in line] for line in lines]


def _parses(words: list[str]) -> None:
    """Words after `python -m lakehouse` are a command that exists with options that it takes."""
    group = typer.main.get_command(app)
    name, command, rest = group.resolve_command(typer.Context(group), words)
    assert command is not None, name
    command.make_context(name, rest)


# --- every page ------------------------------------------------------------------------------------------------------


@each_page
def test_every_make_command_names_a_target_and_variables_that_the_makefile_has(page):
    for command in _makes(page.read_text()):
        words = shlex.split(command.replace("…", "x").replace("<", "").replace(">", ""))[1:]
        assert words[0] in TARGETS, command
        for variable in re.findall(r"\b([A-Z]+)=", command):
            assert f"$${variable}" in MAKEFILE or f"$({variable})" in MAKEFILE, command


@each_page
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def _anchors(page: Path) -> set[str]:
    """What a heading is called in a link, as GitHub makes it."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_anchor_of_a_link_is_a_heading(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            assert anchor in _anchors(page.parent / target if target else page), f"{target}#{anchor}"


def _bounds_of_campaigns():
    """What the tests themselves read: how many kills, how many states of a disk."""
    texts = [path.read_text() for path in (PROJECT / "lakehouse_tests" / "faults").rglob("*.py")]
    return {name for text in texts for name in re.findall(r"environ\.get\(\"(LAKEHOUSE_[A-Z_]+)\"", text)}


@each_page
def test_every_setting_that_is_named_is_one(page):
    layers = {f"LAKEHOUSE_{layer.upper()}_ROOT" for layer in LAYERS}
    known = layers | {"LAKEHOUSE_LANDING"} | {f"LAKEHOUSE_{name.upper()}" for name in Settings.model_fields}
    known |= {one.name for one in SETTINGS} | _bounds_of_campaigns()
    for name in re.findall(r"\bLAKEHOUSE_[A-Z_]*[A-Z]\b", page.read_text()):
        assert name in known, name


@each_page
def test_every_module_that_a_command_runs_is_there(page):
    for line in _commands(page.read_text()):
        for module in re.findall(r"python3? -m (lakehouse[\w.]*|benchmarks|pytest)", line):
            assert importlib.util.find_spec(module) is not None, line
        for path in re.findall(r"python3? ((?:deploy|benchmarks)/[\w/]+\.py)", line):
            assert (PROJECT / path).is_file(), line


def test_the_index_leads_to_every_page_but_those_that_other_pages_lead_to():
    linked = set(re.findall(r"\]\(([^)#\s]+)", (PROJECT / "docs" / "README.md").read_text()))
    others = "\n".join(page.read_text() for page in PAGES if "decisions" not in page.parts)
    pages = [page for page in PAGES if (PROJECT / "docs") in page.parents and "decisions" not in page.parts]
    for page in [page for page in pages if page.name != "README.md"]:
        name = str(page.relative_to(PROJECT / "docs"))
        assert name in linked or page.name in others, name


@each_page
def test_every_path_of_the_project_that_is_named_is_there(page):
    for path in re.findall(
        r"`((?:lakehouse|lakehouse_tests|dbt_project|docs|core|bronze|silver|gold)/[\w./-]+)`", page.read_text()
    ):
        if path.endswith(("/", ".py", ".md", ".yml", ".sql", ".txt")):
            assert (PROJECT / path).exists() or (PROJECT / "lakehouse" / path).exists(), path


def test_every_file_that_a_docstring_of_the_code_names_is_there():
    """Beside the module, in a folder above it, below it (`defs.py` of each room), or from the project's folder."""
    for module in (PROJECT / "lakehouse").rglob("*.py"):
        above = [folder for folder in module.parents if PROJECT in (folder, *folder.parents)]
        for named in re.findall(r"`([\w/]+\.(?:py|yml|sql|txt|md))`", module.read_text()):
            beside = any((folder / named).exists() for folder in above)
            below = [*module.parent.rglob(named), *(PROJECT / "dbt_project").rglob(named)]
            assert beside or below, f"{module.relative_to(PROJECT)}: {named}"


@cache
def _graph():
    return build_defs(Settings()).resolve_asset_graph()


@each_page
def test_every_job_table_and_selection_in_a_command_exists(page):
    graph = _graph()
    names = {name for spec in ALL for name in (spec.name, spec.silver_name)}
    tables = {str(FILES_TABLE), *(str(ref) for spec in ALL for ref in (spec.bronze, spec.silver))}  # as `make restore` takes them
    tables |= {f"gold/{key.path[-1]}" for key in graph.get_all_asset_keys() if key.path[0] == "gold"}
    for line in _commands(page.read_text()):
        values = dict(word.split("=", 1) for word in shlex.split(line) if re.match(r"[A-Z]+=", word))
        if "JOB" in values and "…" not in values["JOB"]:
            assert values["JOB"] in {job.name for job in jobs()}, line
        of_others = line.startswith(("make adopt", "make connect"))
        if line.startswith("make trigger") and "TABLE" in values:  # what lies outside, asked for one stream of a declared system
            assert values["TABLE"] in {f"{system.name}/{stream.name}" for system in SOURCES for stream in system.streams}, line
            of_others = True
        for name in ("TABLE", "SOURCE", "TARGET") if not of_others else ():
            assert "<" in values.get(name, "<") or values[name] in names | tables or name == "TARGET", line
        selections = [values["SELECT"]] if "SELECT" in values else re.findall(r"--select '([^']*)'", line)
        for selection in selections:
            assert dg.AssetSelection.from_string(selection).resolve(graph), line


# --- commands --------------------------------------------------------------------------------------------------------


FORMS = ("…", "<")  # make rebuild TABLE=<name>
GIVEN = {found for page in PAGES for found in _makes(page.read_text()) if "=" in found and not any(f in found for f in FORMS)}
# these call other programs
GIVEN = {command for command in GIVEN if not command.startswith(("make stack", "make bench", "make compose", "make image"))}


@pytest.mark.parametrize("command", sorted(GIVEN))
def test_what_a_documented_make_command_calls_takes_its_arguments(command):
    called = [words for words in _dry(command) if words[:3] == [".venv/bin/python", "-m", "lakehouse"]]
    assert called
    for words in called:
        _parses(words[3:])
    given = {value for value in re.findall(r"(?<!JSON)=(\S+)", command) if "'" not in value}
    assert given <= {word.removeprefix("--") for words in called for word in words}


@pytest.mark.parametrize("target", sorted(TARGETS - {"help", "clean"}))
def test_every_target_calls_programs_and_modules_that_exist(target):
    for words in _dry(f"make {target} JOB=medallion_etl SELECT=group:gold TABLE=vendas"):
        if words[0] == ".venv/bin/python" and words[1:2] == ["-m"] and words[2] != "pip":
            module = words[2]
            assert importlib.util.find_spec(module) is not None, module
            if module == "lakehouse":
                _parses(words[3:])


def test_only_the_job_that_trains_models_installs_what_it_needs_for_that():
    def dry(job: str) -> str:
        command = ["make", "-n", "-W", "pyproject.toml", "trigger", f"JOB={job}"]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout

    assert "'.[sample,ml]'" in dry("mlops")
    assert "'.[sample,ml]'" not in dry("medallion_etl")


def test_make_help_is_the_default_and_lists_every_target():
    done = subprocess.run(["make", "--no-print-directory"], cwd=PROJECT, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^  make ([a-z-]+)", done.stdout, flags=re.MULTILINE))
    assert listed == TARGETS


def test_make_help_lists_each_target_below_its_part_of_the_makefile():
    done = subprocess.run(["make", "--no-print-directory", "help"], cwd=PROJECT, capture_output=True, text=True, check=True)
    parts: dict[str, list[str]] = {}
    for block in done.stdout.strip("\n").split("\n\n"):
        heading, *lines = block.splitlines()
        parts[heading.split(" (")[0].split(",")[0]] = [line.split()[1] for line in lines]
    assert list(parts) == [
        *("set-up", "use", "tables", "maintenance", "Dagster in the background", "the real parts", "containers", "develop"),
    ]
    assert {"sql", "lake-file"} <= {*parts["use"]}
    tables = "table connect adopt rebuild quarantine redrive release compare diff replay"
    assert parts["tables"] == tables.split()


@cache
def _dagster_command(*path: str):
    from dagster._cli import create_dagster_cli

    command = create_dagster_cli()
    for name in path:
        command = command.commands[name]
    return command


def test_dagsters_own_commands_take_what_the_docs_give_them():
    shown = [line for line in _commands((PROJECT / "docs" / "commands.md").read_text()) if line.startswith(".venv/bin/dagster ")]
    assert {tuple(shlex.split(line)[1:3]) for line in shown} == {("asset", "list"), ("asset", "materialize"), ("job", "execute")}
    for line in shown:
        _, group, name, *arguments = shlex.split(line)
        _dagster_command(group, name).make_context(name, arguments)


def test_ci_runs_the_makefiles_targets_and_the_workflow_runs_ci():
    run = (PROJECT / ".ci" / "run").read_text()
    called = {word for line in run.splitlines() if ' part "' in f" {line}" for word in re.findall(r"\bmake ([a-z-]+)", line)}
    assert {"check", "test", "test-browser", "run"} <= called <= TARGETS
    assert ".ci/run" in (PROJECT / ".github" / "workflows" / "ci.yml").read_text()


def test_every_make_command_in_a_message_or_docstring_of_the_code_exists():
    found = set()
    for path in (PROJECT / "lakehouse").rglob("*.py"):
        text = path.read_text()
        found |= set(re.findall(r"(?:[Rr]un |`|: )make ([a-z-]+)", text)) | set(re.findall(r"\bmake ([a-z-]+) [A-Z]+=", text))
    assert {"rebuild", "sync", "setup"} <= found <= TARGETS


@pytest.mark.parametrize("name", ["README.md", "README.pt.md"])
def test_a_readme_is_short_and_begins_with_the_two_commands_and_the_picture(name):
    text = (PROJECT / name).read_text()
    assert len(text.split()) <= 600
    first_block = re.search(r"```console\n(.*?)```\n+(.*)", text, flags=re.DOTALL)
    assert first_block is not None
    assert re.findall(r"^make ([a-z]+)", first_block[1], flags=re.MULTILINE) == ["run", "test"]
    assert first_block[2].startswith("![")


def test_the_readme_shows_the_flow_on_its_first_screen():
    first_screen = "\n".join((PROJECT / "README.md").read_text().splitlines()[:24])
    assert re.search(r"landing .*bronze .*silver .*gold .*reports", first_screen)


@pytest.mark.parametrize(
    ("name", "heading"), [("operations.md", "| you see | type |"), ("pt/operacao.md", "| você vê | digite |")]
)
def test_operations_open_with_symptoms_that_lead_to_every_trouble_of_the_page(name, heading):
    page = PROJECT / "docs" / name
    before, table = page.read_text().split(heading)
    assert "\n## " not in before
    rows = [line for line in table.split("\n## ")[0].splitlines()[2:] if line]
    assert len(rows) > 20 and all(line.count(" | ") == 1 for line in rows)
    if name == "operations.md":
        troubles = _anchors(page) - {"operations", "what-the-tables-of-operations-contain"}
        assert troubles == {anchor for row in rows for anchor in re.findall(r"\]\(#([^)]+)\)", row)}


#: What other programs report, and who does.
FOREIGN = {"Permission Error: Cannot access file …": "DuckDB", "frota_fresca": "dbt, a test of brt_frota_por_minuto"}
_VALUE = re.compile(r"\S*/\S*|\b\d+\b|…")  # silver/vendas, s3://lake, 7: what a message has in a place of its own


@cache
def _texts(module: Path) -> tuple[list[str], set[str]]:
    """The texts of a module but its docstrings, `\0` where a value goes, and those that are whole without one."""
    tree = ast.parse(module.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    nodes = [node for node in ast.walk(tree) if id(node) not in docstrings]
    joined = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    whole = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    made = ["".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in text.values) for text in joined]
    return [*made, *whole], whole


def _reports(module: Path, fragment: str) -> bool:
    """Whether a text of the module has the fragment's pieces in their order; a value may be another text (`is missing`)."""
    pieces = [piece.strip() for piece in _VALUE.split(fragment) if piece.strip(" .")]
    texts, whole = _texts(module)
    for text in texts:
        found = [piece for piece in pieces if piece in text]
        in_order = re.search(".*".join(map(re.escape, found)), text, flags=re.DOTALL)
        if found[:1] == pieces[:1] and in_order and all(piece in found or piece in whole for piece in pieces):
            return True
    return False


@pytest.mark.parametrize("name", ["operations.md", "pt/operacao.md"])
def test_every_message_among_the_symptoms_is_one_of_the_code(name):
    table = (PROJECT / "docs" / name).read_text().split("\n|---|---|\n")[1].split("\n\n")[0]
    fragments = {found for row in table.splitlines() for found in re.findall(r"`([^`]+)`", row.split(" | ")[0])}
    modules = sorted((PROJECT / "lakehouse").rglob("*.py"))
    assert len(fragments) > 20
    assert sorted(one for one in fragments - set(FOREIGN) if not any(_reports(module, one) for module in modules)) == []
    assert set(FOREIGN) <= fragments


def test_a_message_that_no_code_reports_is_found(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("wrong = 'is missing'\nraise E(f'{table} has taken in {done} batches, but the plan {plan} {wrong}.')")
    assert _reports(module, "… has taken in … batches") and _reports(module, "the plan … is missing")
    assert not _reports(module, "the plan … batches") and not _reports(module, "the plan … is empty")
