"""Runs the command line as a user does: in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.servers.fixtures import kubeflow, servers, storage, vertex  # noqa: F401
from tests.pipelines.servers.templates import make_template

Neumf = Callable[..., subprocess.CompletedProcess[str]]


def run_neumf(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "neumf"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "120"})


@pytest.fixture(scope="session")
def neumf() -> Neumf:
    return run_neumf


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The whole DAG under the real runner, on the smallest data set."""
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, run_neumf("run", "--preset", "smoke", "--run-dir", run_dir)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A compiled pipeline of three steps, its images by digest."""
    return make_template(tmp_path)
