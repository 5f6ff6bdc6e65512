"""Where RecBole's environment is."""

from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
RECBOLE_PYTHON = ROOT / ".tools" / "recbole" / "bin" / "python"


def check_recbole_environment() -> None:
    """Refuses to go on without the environment.

    Raises:
        click.ClickException: It is not there.
    """
    if not RECBOLE_PYTHON.exists():
        raise click.ClickException(f"{RECBOLE_PYTHON} does not exist: `make recbole` installs it.")
