"""The workflows and hooks say what they should: actions by release tag, least rights, files and targets that exist.

GitHub's own schema is not part of the environment; `check-jsonschema --builtin-schema vendor.github-workflows` knows it.
"""

import re
import subprocess
import sys

import pytest
import yaml

from lakehouse.settings import project_folder

PROJECT = project_folder()
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in sorted((PROJECT / ".github" / "workflows").glob("*.yml"))}
JOBS = [(name, job) for name, workflow in WORKFLOWS.items() for job in workflow["jobs"].values()]
STEPS = [(name, step) for name, job in JOBS for step in job["steps"]]
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
each_workflow = pytest.mark.parametrize("name", WORKFLOWS)


def test_there_are_workflows_for_changes_and_for_releases():
    assert set(WORKFLOWS) == {"ci.yml", "deploy.yml", "impact.yml"}


@each_workflow
def test_a_workflow_has_only_keys_that_github_knows(name):
    workflow = WORKFLOWS[name]
    assert set(workflow) <= {"name", True, "permissions", "concurrency", "env", "jobs"}  # YAML 1.1 reads the key on as true
    assert True in workflow
    for job in workflow["jobs"].values():
        known = {"runs-on", "timeout-minutes", "needs", "if", "environment", "permissions", "strategy", "env", "steps"}
        assert set(job) <= known, set(job) - known
        assert job["timeout-minutes"] <= 60
        needed = job.get("needs", [])
        assert {needed} if isinstance(needed, str) else set(needed) <= set(workflow["jobs"])
        for step in job["steps"]:
            assert set(step) <= {"name", "id", "if", "uses", "with", "run", "env"}
            assert ("uses" in step) != ("run" in step)


def test_ci_has_the_history():
    """test_takeover.py makes a lake of it."""
    (step,) = [step for step in WORKFLOWS["ci.yml"]["jobs"]["ci"]["steps"] if "checkout" in step.get("uses", "")]
    assert step["with"]["fetch-depth"] == 0


@pytest.mark.parametrize(("name", "step"), [(n, s) for n, s in STEPS if "uses" in s], ids=lambda value: str(value)[:60])
def test_an_action_is_pinned_to_a_release(name, step):
    assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", step["uses"])


@each_workflow
def test_a_workflow_may_read_only_and_a_job_that_may_write_checks_out_no_pull_request(name):
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        if "pull-requests" in job.get("permissions", {}):
            assert not [step for step in job["steps"] if "checkout" in step.get("uses", "") or "make" in step.get("run", "")]


@each_workflow
def test_what_others_may_write_reaches_no_shell_as_text(name):
    """A branch's name or a title in `${{ }}` of a script would be run."""
    for job in WORKFLOWS[name]["jobs"].values():
        for step in job["steps"]:
            assert not re.search(r"\$\{\{\s*(github\.event|github\.head_ref|inputs)", step.get("run", "")), step
            assert "continue-on-error" not in step


@each_workflow
def test_files_and_make_targets_that_a_workflow_names_exist(name):
    for _, step in [(n, s) for n, s in STEPS if n == name and "run" in s]:
        assert set(re.findall(r"\bmake (?:-s )?([a-z-]+)", step["run"])) <= TARGETS
        for path in re.findall(r"\b(?:deploy|\.ci|lakehouse)/[\w./-]+", step["run"]):
            assert (PROJECT / path).exists(), path


def test_a_release_validates_the_definitions_inside_the_image_before_it_is_pushed_and_smokes_it_after():
    image = [step.get("run", step.get("uses")) for step in WORKFLOWS["deploy.yml"]["jobs"]["image"]["steps"]]
    validated, pushed = (
        next(n for n, text in enumerate(image) if part in text) for part in ("definitions validate", "docker push")
    )
    assert validated < pushed
    assert "definitions validate" in (PROJECT / "deploy" / "Dockerfile").read_text()
    rollout = WORKFLOWS["deploy.yml"]["jobs"]["rollout"]
    assert set(rollout["needs"]) == {"wheel", "image"}
    assert "deploy/smoke.py" in rollout["steps"][-2]["run"]
    assert rollout["steps"][-1]["if"].startswith("failure()")


def test_the_smoke_test_states_in_one_sentence_that_nobody_answers():
    command = [sys.executable, "deploy/smoke.py", "http://127.0.0.1:9"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"http://127\.0\.0\.1:9 does not answer: .+ Look at the webserver's log\.\n", done.stderr)


def test_the_hooks_are_local_and_call_what_make_check_calls():
    (repository,) = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    check = re.search(r"^check:.*?\n\n", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE | re.DOTALL)[0]
    for hook in repository["hooks"]:
        if hook["language"] == "system":
            words = hook["entry"].removeprefix(".venv/bin/").replace(" --force-exclude", "")
            assert f"$(BIN)/{words}" in check, hook["id"]
