"""What the tests of several steps start from."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `examples` folder of a small synthetic set, made by the real steps in a process of their own.

    A process of their own, because Beam's workers must not inherit TensorFlow's threads.
    """
    pytest.importorskip(
        "apache_beam", reason="no Apache Beam here, as in the image of train: nothing makes the examples"
    )
    folder = tmp_path_factory.mktemp("examples")
    for step, arguments in (
        ("download", ["--dataset", "synthetic:num_users=200,num_items=300", "--output", str(folder / "ratings")]),
        ("generate", ["--ratings", str(folder / "ratings"), "--output", str(folder / "examples")]),
    ):
        command = [
            sys.executable,
            "-c",
            "from pipelines.cli import main; main()",
            step,
            "--preset",
            "smoke",
            *arguments,
        ]
        subprocess.run(command, check=True)
    return folder / "examples"
