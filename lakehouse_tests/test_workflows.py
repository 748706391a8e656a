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
STEPS = [(name, step) for name, job in JOBS for step in job.get("steps", [])]
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
each_workflow = pytest.mark.parametrize("name", WORKFLOWS)


def test_there_are_workflows_for_changes_and_for_releases():
    assert set(WORKFLOWS) == {"ci.yml", "deploy.yml", "impact.yml", "rollout.yml"}


@each_workflow
def test_a_workflow_has_only_keys_that_github_knows(name):
    workflow = WORKFLOWS[name]
    assert set(workflow) <= {"name", True, "permissions", "concurrency", "env", "jobs"}  # YAML 1.1 reads the key on as true
    assert True in workflow
    for job in workflow["jobs"].values():
        if "uses" in job:  # another workflow of this commit
            assert (PROJECT / job["uses"]).exists()
            assert "workflow_call" in WORKFLOWS[job["uses"].rpartition("/")[2]][True]
            continue
        known = {"runs-on", "timeout-minutes", "needs", "if", "environment", "permissions", "strategy", "env", "steps"}
        assert set(job) <= known, set(job) - known
        assert job["timeout-minutes"] <= 60
        assert _needs(job) <= set(workflow["jobs"])
        for step in job["steps"]:
            assert set(step) <= {"name", "id", "if", "uses", "with", "run", "env"}
            assert ("uses" in step) != ("run" in step)


def _needs(job) -> set[str]:
    needed = job.get("needs", [])
    return {needed} if isinstance(needed, str) else set(needed)


def test_ci_has_the_history():
    """test_takeover.py makes a lake of it."""
    (step,) = [step for step in WORKFLOWS["ci.yml"]["jobs"]["ci"]["steps"] if "checkout" in step.get("uses", "")]
    assert step["with"]["fetch-depth"] == 0


@pytest.mark.parametrize(("name", "step"), [(n, s) for n, s in STEPS if "uses" in s], ids=lambda value: str(value)[:60])
def test_an_action_is_pinned_to_the_commit_of_a_release(name, step):
    text = (PROJECT / ".github" / "workflows" / name).read_text()
    assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
    assert re.search(rf"{step['uses']} # v\d+\.\d+\.\d+\n", text)


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
        for step in job.get("steps", []):
            assert not re.search(r"\$\{\{\s*(github\.event|github\.head_ref|inputs)", step.get("run", "")), step
            assert "continue-on-error" not in step


@each_workflow
def test_files_and_make_targets_that_a_workflow_names_exist(name):
    for _, step in [(n, s) for n, s in STEPS if n == name and "run" in s]:
        assert set(re.findall(r"\bmake (?:-s )?([a-z-]+)", step["run"])) <= TARGETS
        for path in re.findall(r"\b(?:deploy|\.ci|lakehouse)/[\w./-]+", step["run"]):
            assert (PROJECT / path).exists(), path


def test_a_release_needs_the_tests_of_its_commit_and_starts_what_it_pushes_before_it_does():
    jobs = WORKFLOWS["deploy.yml"]["jobs"]
    assert jobs["tests"]["uses"] == "./.github/workflows/ci.yml"
    for name in ("wheel", "image"):
        assert _needs(jobs[name]) == {"tests"}
    assert _needs(jobs["staging"]) == {"wheel", "image"}
    assert _needs(jobs["production"]) == {"staging"}
    steps = [step.get("run", step.get("uses")) for step in jobs["image"]["steps"]]
    order = [
        next(n for n, text in enumerate(steps) if part in text)
        for part in ("make image", "make compose-up", "deploy/smoke.py", "docker push")
    ]
    assert order == sorted(order)


def test_a_roll_out_is_by_environment_and_goes_back_when_what_follows_fails():
    jobs = WORKFLOWS["deploy.yml"]["jobs"]
    assert [jobs[name]["with"]["environment"] for name in ("staging", "production")] == ["staging", "production"]
    (rollout,) = WORKFLOWS["rollout.yml"]["jobs"].values()
    assert rollout["environment"] == "${{ inputs.environment }}"
    assert "deploy/smoke.py" in rollout["steps"][-2]["run"]
    assert rollout["steps"][-1]["if"] == "failure()"
    assert "rollback" in rollout["steps"][-1]["run"]


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
