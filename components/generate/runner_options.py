"""Checks the options of a Beam runner."""

from collections.abc import Sequence

IN_MEMORY = "in_memory"


def check_runner_options(runner: str, options: Sequence[str]) -> None:
    """Checks."""


def check_places(runner: str, ratings: str, output: str) -> None:
    """Checks."""


def choose_place(runner: str, path: str, uri: str) -> str:
    """Returns an artifact's local path where the workers are on this machine, and its URI where they are not."""
    return path if runner == IN_MEMORY else uri
