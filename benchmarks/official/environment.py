"""Where the environment of the TensorFlow official models is, and how its programs are started."""

import os
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL_PYTHON = ROOT / ".tools" / "official" / "bin" / "python"


def check_official_environment() -> None:
    """Refuses to go on without the environment.

    Raises:
        click.ClickException: It is not there.
    """
    if not OFFICIAL_PYTHON.exists():
        raise click.ClickException(f"{OFFICIAL_PYTHON} does not exist: `make official` installs it.")


def official_variables() -> dict[str, str]:
    """Returns the environment variables of the official programs: this process's, with TensorFlow quiet."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
