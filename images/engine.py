"""Containers run to their end, whose whole output is then read."""

import contextlib
from collections.abc import Iterator
from typing import Any

import docker


@contextlib.contextmanager
def ended_container(engine: Any, image: str, command: list[str], **options: Any) -> Iterator[tuple[Any, int]]:
    """Runs a container to its end; yields it and its exit status; removes it afterwards.

    What it wrote is to be read then: docker-py's own `run` follows the log instead, and Podman, on a busy machine, may
    stop following before the last lines.
    """
    container = engine.containers.create(image, command, **options)
    try:
        container.start()
        yield container, container.wait()["StatusCode"]
    finally:
        container.remove(force=True)


def output_of(engine: Any, image: str, command: list[str], **options: Any) -> str:
    """Returns what a container writes to its standard output.

    Raises:
        docker.errors.ContainerError: It ends with another status than 0; with all that it wrote.
    """
    with ended_container(engine, image, command, **options) as (container, status):
        if status != 0:
            raise docker.errors.ContainerError(container, status, command, image, log_of(container))
        return log_of(container, stderr=False)


def log_of(container: Any, stderr: bool = True) -> str:
    """Returns what an ended container wrote to its standard output and, unless told otherwise, its error stream."""
    written: bytes = container.logs(stderr=stderr)
    return written.decode(errors="replace")
