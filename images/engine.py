"""Containers run to their end, whose whole output is then read."""

import contextlib
from collections.abc import Iterator
from typing import Any

import docker


@contextlib.contextmanager
def ended_container(engine: Any, image: str, command: list[str], **options: Any) -> Iterator[Any]:
    """Runs a container to its end, yields it, and removes it afterwards.

    Its log is whole by then; of one that is followed, as docker's `run` does, Podman may leave out the last lines.
    """
    container = engine.containers.run(image, command, detach=True, **options)
    try:
        container.wait()
        yield container
    finally:
        container.remove(force=True)


def output_of(engine: Any, image: str, command: list[str], **options: Any) -> str:
    """Returns what a container writes to its standard output.

    Raises:
        docker.errors.ContainerError: It ends with another status than 0; with all that it wrote.
    """
    with ended_container(engine, image, command, **options) as container:
        status = container.wait()["StatusCode"]
        if status != 0:
            raise docker.errors.ContainerError(container, status, command, image, container.logs())
        written: bytes = container.logs(stderr=False)
        return written.decode(errors="replace")
