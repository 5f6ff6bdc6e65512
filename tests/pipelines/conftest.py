"""Runs the command line as a user does, in a process of its own, or in this one where that shows no more."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from tests.pipelines.servers.fixtures import kubeflow, servers, storage, vertex  # noqa: F401
from tests.pipelines.servers.templates import make_template

Neumf = Callable[..., subprocess.CompletedProcess[str]]


def run_neumf(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "neumf"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "120"})


@pytest.fixture(scope="session")
def neumf() -> Neumf:
    return run_neumf


@pytest.fixture
def neumf_here() -> Neumf:
    """The same in this process, without a second for the imports of each command."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        words = list(map(str, arguments))
        result = CliRunner(env={"COLUMNS": "120"}).invoke(main, words, prog_name="neumf")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The whole DAG under the real runner, on the smallest data set."""
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    return run_dir, run_neumf("run", "--preset", "smoke", "--run-dir", run_dir)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A compiled pipeline of three steps, its images by digest."""
    return make_template(tmp_path)
