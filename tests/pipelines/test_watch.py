"""What to do about a step that the platform could not run."""

import pytest

from pipelines.watch import FAILED, RunState, RunStoppedError, StepState, check_outcome


def told(step: str, error: str) -> str:
    with pytest.raises(RunStoppedError) as caught:
        check_outcome(RunState(FAILED, (StepState(step, FAILED, "", error),), ""), "job")
    return str(caught.value).removeprefix(f"job failed in the step {step} ({error.rstrip('.')})")


@pytest.mark.parametrize(
    ("step", "error", "remedy"),
    [
        ("train", "The replica workerpool0-0 exited with a non-zero status of 137.", "choose a larger --pool"),
        ("train", "The replica workerpool0-0 ran out-of-memory and exited with a non-zero status of 137(SIGKILL).",
         "choose a larger --pool"),
        ("train", "OOMKilled (exit code 137)", "raise --resources train.memory_limit"),
        ("loop/evaluate", "container failed with exit code 137", "raise --resources evaluate.memory_limit"),
        ("train", 'Failed to pull image "docker.io/films/train@sha256:1": denied', "correct the image's digest"),
        ("train", 'image "docker.io/films/train:1" not found', "correct the image's digest"),
    ],
)  # fmt: skip
def test_what_the_platform_says_has_a_remedy(step: str, error: str, remedy: str) -> None:
    assert remedy in told(step, error)
    assert ("--pool" in told(step, error)) == ("--pool" in remedy)


@pytest.mark.parametrize(
    "error",
    [
        "events.csv, line 137: 'x' is no number.",
        "137 users are new.",
        "The titles of 3 items (The Image of War, Lost) are not found in items.csv.",
        "The item 'How to pull the image' has no rating.",
    ],
)
def test_what_the_step_itself_says_has_none(error: str) -> None:
    assert told("download", error) == ""
