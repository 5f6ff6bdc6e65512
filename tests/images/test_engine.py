"""A container that is run to its end: its whole output, its errors, and nothing left of it; on a real engine."""

from collections import Counter
from typing import Any

import docker
import pytest

from components.images import image_uri
from images.engine import output_of
from pipelines.containers import Containers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("built")]
# As long as it takes for Podman to stop following before the end, more often than not.
LINES = "import sys; [print(i, 'x' * 70) or print('aside', file=sys.stderr) for i in range(9_000)]; "


def run(engine: Any, script: str) -> str:
    return output_of(engine, image_uri("download"), ["python3", "-c", script], labels={"test": "engine"})


def left(engine: Any) -> list[Any]:
    found: list[Any] = engine.containers.list(all=True, filters={"label": "test=engine"})
    return found


def test_the_whole_output_is_returned_without_what_went_to_the_error_stream(engine: Any) -> None:
    expected = "".join(f"{number} {'x' * 70}\n" for number in range(9_000))
    for _ in range(3):
        assert run(engine, LINES) == expected
    assert not left(engine)


def test_a_failure_is_an_error_with_all_that_both_streams_said(engine: Any) -> None:
    with pytest.raises(docker.errors.ContainerError) as caught:
        run(engine, LINES + "sys.exit('the cause')")
    assert caught.value.exit_status == 1
    # The streams are two pipes, each read in pieces: their letters come mixed.
    expected = "".join(f"{number}{'x' * 70}aside" for number in range(9_000)) + "thecause"
    assert Counter("".join(caught.value.stderr.split())) == Counter(expected)
    assert not left(engine)


def test_a_container_that_cannot_start_is_removed(engine: Any) -> None:
    with pytest.raises(docker.errors.APIError):
        output_of(engine, image_uri("download"), ["/no/such/program"], labels={"test": "engine"})
    assert not left(engine)


def test_a_run_prints_all_lines_of_a_step_that_fails(engine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines that the engine cut while they were followed come again: what is given last is the end of the whole."""
    lines = [f"{number} {'x' * 70}" for number in range(9_000)]
    # The container keeps the processors busy, so that an engine that follows falls behind.
    script = (
        "import os, sys; [os.fork() == 0 and exec('while True: pass') for _ in range(4)]; "
        "[print(i, 'x' * 70) for i in range(9_000)]; sys.exit(3)"
    )
    command = ["python3", "-c", script]
    for _ in range(3):
        assert Containers().run(engine, image_uri("download"), command, {}, labels={"test": "engine"}) == 3
        printed = capsys.readouterr().out.splitlines()
        assert printed[-1] == lines[-1]
        assert set(lines) <= set(printed)
    assert not left(engine)
