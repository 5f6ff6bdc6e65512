"""The bills of materials say what is in the images, and the audit never takes silence for good news."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.images import image_uri
from images import audit
from images.sbom import bill_of_materials
from images.table import ROOT, Image


@pytest.mark.slow
@pytest.mark.parametrize("name", ["download", "train"])
def test_a_bill_lists_every_package_of_the_lock_and_the_base(engine: Any, built: dict[str, Image], name: str) -> None:
    bill = bill_of_materials(engine, image_uri(name))
    assert bill["bomFormat"] == "CycloneDX"
    listed = {
        (component["name"].lower().replace("_", "-"), component.get("version")) for component in bill["components"]
    }
    installed = re.findall(r"^([\w.-]+)==(\S+)( ; .*)?", built[name].requirements.read_text(), flags=re.MULTILINE)
    # Two entries are for other platforms than the images'.
    expected = {(package, version) for package, version, _ in installed if package not in ("tensorflow", "colorama")}
    assert len(expected) > 8
    assert expected <= listed
    assert {"libc6", "neumf-pipeline"} <= {package for package, _ in listed}


def pip_audit(folder: Path, output: str) -> None:
    program = folder / "pip-audit"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', ([], 1, 0)),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', ([], 0, 1)),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}]}',
         (["lock.txt: a 1 has X-1, mended in 2"], 1, 0)),
        ("no network", ([], 0, 1)),
    ],
)  # fmt: skip
def test_the_audit_counts_what_was_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, expected: tuple[list[str], int, int]
) -> None:
    pip_audit(tmp_path, output)
    monkeypatch.setattr(audit.sys, "executable", str(tmp_path / "python"))
    assert audit.audit(tmp_path / "lock.txt") == expected


@pytest.mark.slow
def test_the_audit_of_this_checkout_runs() -> None:
    """Without its data it says so and passes; where it has to be complete, it then fails."""
    result = subprocess.run([sys.executable, "-m", "images.audit"], capture_output=True, text=True, cwd=ROOT)
    found = re.search(r"audit: (\d+) packages looked up, (\d+) not, (\d+) vulnerabilities", result.stdout)
    assert found is not None, result.stdout + result.stderr
    assert int(found[1]) + int(found[2]) > 100
    assert result.returncode == (1 if int(found[3]) else 0)
