"""Holds the Terraform module to what it promises: few rights, the APIs that are used, outputs that commands take.

Terraform itself formats it, where it is on the PATH, and validates it, where it can fetch Google's provider.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[2] / "terraform"
FILES = sorted(MODULE.glob("*.tf"))
TEXT = "\n".join(path.read_text() for path in FILES)


def terraform() -> str:
    found = shutil.which("terraform") or shutil.which("tofu")
    if found is None:
        pytest.skip("neither terraform nor tofu is on the PATH")
    return found


def blocks(kind: str) -> dict[str, str]:
    """Returns the bodies of the top-level blocks of a kind by their last label."""
    found = re.finditer(rf'^{kind} (?:"\w+" )?"(\w+)" \{{\n(.*?)^\}}', TEXT, flags=re.MULTILINE | re.DOTALL)
    return {match[1]: match[2] for match in found}


def test_every_variable_is_described_and_used() -> None:
    variables = blocks("variable")
    assert {"project", "region", "bucket"} <= set(variables)
    for name, body in variables.items():
        assert "description" in body, name
        assert len(re.findall(rf"\bvar\.{name}\b", TEXT)) >= 1, f"{name} is not used"
    assert set(re.findall(r"\bvar\.(\w+)", TEXT)) == set(variables)


def test_every_reference_leads_to_a_resource() -> None:
    declared = set(re.findall(r'^resource "(\w+)" "(\w+)"', TEXT, flags=re.MULTILINE))
    used = set(re.findall(r"\b(google_\w+)\.(\w+)\b", TEXT))
    assert declared >= used
    locals_declared = set(re.findall(r"^  (\w+)\s+= ", TEXT, flags=re.MULTILINE))
    assert set(re.findall(r"\blocal\.(\w+)", TEXT)) <= locals_declared


def test_no_role_is_broader_than_its_purpose() -> None:
    roles = set(re.findall(r'"(roles/[\w.]+)"', TEXT))
    assert roles == {
        "roles/aiplatform.user",
        "roles/artifactregistry.reader",
        "roles/artifactregistry.writer",
        "roles/dataflow.developer",
        "roles/dataflow.worker",
        "roles/iam.serviceAccountUser",
        "roles/storage.legacyBucketReader",
        "roles/storage.objectUser",
    }
    # For the whole project only what cannot be granted for less.
    body = re.search(r"project_roles = merge\((.*?)^  \)", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert body is not None
    project_wide = set(re.findall(r'"(roles/[\w.]+)"', body[1]))
    assert project_wide == {"roles/aiplatform.user", "roles/dataflow.developer", "roles/dataflow.worker"}
    assert blocks("resource")["project"].count("local.project_roles") == 1
    assert re.findall(r'^resource "google_project_iam_\w+"', TEXT, flags=re.MULTILINE) == [
        'resource "google_project_iam_custom_role"',
        'resource "google_project_iam_member"',
    ]


def test_the_bucket_is_nobody_elses() -> None:
    bucket = blocks("resource")["artifacts"]
    assert re.search(r"uniform_bucket_level_access = true", bucket)
    assert re.search(r'public_access_prevention\s+= "enforced"', bucket)
    assert "allUsers" not in TEXT


def test_the_apis_that_preflight_asks_for_are_enabled() -> None:
    from pipelines.preflight_online import HOSTS, SERVICES

    asked = {host.removeprefix("https://") for host in HOSTS.values() if host}
    enabled = re.search(r"  apis = concat\((.*?)^  \)", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert enabled is not None
    assert {*SERVICES, *asked} <= set(re.findall(r'"([a-z]+\.googleapis\.com)"', enabled[1]))


def test_nothing_is_made_before_its_api_is_enabled() -> None:
    """What only refers to something that waits for the APIs waits with it; what depends on nothing else must say so."""
    waiting = re.compile(r"depends_on = \[google_project_service\.api\]")
    resources = re.finditer(r'^resource "(\w+)" "(\w+)" \{\n(.*?)^\}', TEXT, flags=re.MULTILINE | re.DOTALL)
    hasty = {
        f"{kind}.{name}"
        for kind, name, body in (found.groups() for found in resources)
        # Members of a bucket, a repository or an account name what they are members of.
        if not waiting.search(body) and not re.search(r"_(bucket|repository|service_account)_?\w*_iam_member$", kind)
    }
    assert hasty == {"google_project_service.api"}


def test_whoever_submits_may_look_at_what_preflight_looks_at() -> None:
    """Its checks of the bucket and the images would else report that somebody lacks a right whom this module made."""
    for name in ("bucket_users", "image_readers", "actors"):
        granted = re.search(rf"^  {name} = merge\((.*?)^  \)", TEXT, flags=re.MULTILINE | re.DOTALL)
        assert granted is not None
        assert "var.submitters" in granted[1], name


def test_the_tag_of_the_layers_that_a_build_uses_again_may_move() -> None:
    assert re.search(r"immutable_tags = false", blocks("resource")["images"])


def test_it_is_formatted_and_parses() -> None:
    command = [terraform(), f"-chdir={MODULE}", "fmt", "-check", "-diff"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_it_is_valid(tmp_path: Path) -> None:
    program = terraform()
    copy = shutil.copytree(MODULE, tmp_path / "module")
    init = subprocess.run([program, f"-chdir={copy}", "init", "-backend=false"], capture_output=True, text=True)
    if init.returncode:
        pytest.skip("Google's provider cannot be fetched here, which `terraform validate` needs")
    result = subprocess.run([program, f"-chdir={copy}", "validate"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
