"""What the runner says is not believed: the watcher reads its lines and the outputs decide."""

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipelines.run_local import StepFailedError, _AbandonedError, _Watcher, run_local


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def step_started(self, step: str) -> None:
        self.events.append(("started", step))

    def step_logged(self, step: str, line: str) -> None:
        self.events.append(("logged", step, line))

    def step_ended(self, step: str, duration_s: float, succeeded: bool) -> None:
        assert duration_s >= 0
        self.events.append(("ended", step, str(succeeded)))


def test_lines_of_the_runner_become_events() -> None:
    recorder = Recorder()
    watcher = _Watcher(io.StringIO(), recorder)
    watcher.write("12:00:00.000 - INFO - Executing task \x1b[96m'train'\x1b[0m\n    train: epo")
    watcher.write(
        "ch 1\n\n12:00:01.000 - INFO - Task \x1b[96m'train'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m\n"
    )
    watcher.write("12:00:01.000 - INFO - Task 'train' outputs:\n    model: Model\n")
    assert recorder.events == [("started", "train"), ("logged", "train", "train: epoch 1"), ("ended", "train", "True")]
    assert set(watcher.durations_s) == {"train"}


def test_the_error_is_the_steps_own_sentence() -> None:
    watcher = _Watcher(io.StringIO(), Recorder())
    watcher.write("12:00:00.000 - INFO - Executing task 'train'\n    error: The loss is nan.\n    later noise\n")
    assert str(watcher.failure("inner task failed")) == "The step train failed: The loss is nan."


def test_a_defect_is_reported_by_its_last_line() -> None:
    watcher = _Watcher(io.StringIO(), Recorder())
    watcher.write("12:00:00.000 - INFO - Executing task 'train'\n    Traceback …\n    KeyError: 'x'\n")
    assert str(watcher.failure("inner task failed")) == "The step train failed: KeyError: 'x'"


def test_a_crash_is_reported_by_what_python_says_of_it() -> None:
    program = "import os\nfrom components.ncf.step import running_step\nwith running_step('train'):\n    os.abort()\n"
    words = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stderr
    watcher = _Watcher(io.StringIO(), Recorder())
    watcher.write("12:00:00.000 - INFO - Executing task 'train'\n" + textwrap.indent(words, "    "))
    assert str(watcher.failure("it was killed")) == "The step train failed: Fatal Python error: Aborted"


def test_progress_is_not_taken_for_an_error() -> None:
    """What the operating system killed has no last words."""
    watcher = _Watcher(io.StringIO(), Recorder())
    watcher.write("12:00:00.000 - INFO - Executing task 'train'\n    train: epoch 3/20: loss 0.3\n")
    assert str(watcher.failure("it was killed")) == "The step train failed: it was killed; run.log has what it wrote."


def test_nothing_runs_after_a_step_that_failed() -> None:
    """kfp 2.17.0 goes on with the steps that do not depend on it, and would have the last of them blamed."""
    recorder = Recorder()
    watcher = _Watcher(io.StringIO(), recorder)
    watcher.write("12:00:00.000 - INFO - Executing task 'train'\n    error: The loss is nan.\n")
    watcher.write("12:00:01.000 - ERROR - Task 'train' finished with status FAILURE\n")
    with pytest.raises(_AbandonedError):
        watcher.write("12:00:01.000 - INFO - Executing task 'baseline'\n")
    assert recorder.events[-1] == ("ended", "train", "False")
    assert str(watcher.failure("inner task failed")) == "The step train failed: The loss is nan."


def test_a_success_without_output_is_a_failure(tmp_path: Path) -> None:
    """A container that vanishes early is reported as a success by kfp 2.17.0: here a step that writes nothing."""
    from kfp import compiler, dsl

    module = tmp_path / "empty_step.py"
    module.write_text(
        textwrap.dedent(
            """
            from kfp import dsl

            @dsl.component(base_image="python", install_kfp_package=False)
            def download(ratings: dsl.Output[dsl.Dataset]) -> None:
                print("nothing was downloaded")
            """
        )
    )
    import importlib.util

    spec = importlib.util.spec_from_file_location("empty_step", module)
    assert spec is not None
    assert spec.loader is not None
    step = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(step)

    @dsl.pipeline(name="empty")
    def empty() -> dsl.Dataset:
        return step.download().outputs["ratings"]

    compiler.Compiler().compile(empty, str(tmp_path / "empty.yaml"))
    with pytest.raises(StepFailedError, match="The step download failed: it ended without writing its output"):
        run_local(tmp_path / "empty.yaml", "subprocess", tmp_path / "root", io.StringIO(), Recorder())
