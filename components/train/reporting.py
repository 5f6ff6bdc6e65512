"""Tells how training goes: a line every few seconds, a line an epoch, and TensorBoard's files."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from components.train.loop import EpochProgress, TrainingLoop

_LOG = logging.getLogger(__name__)
_LINE_INTERVAL_S = 5.0
_SCALARS = ("loss", "hr@10", "ndcg@10", "examples_per_s")


class Reporter:
    """Logs, and writes TensorBoard's files, for one run."""

    def __init__(self, logs: Sequence[str], num_epochs: int, profile: bool) -> None:
        """Opens TensorBoard's files.

        Args:
            logs: TensorBoard's folders, paths or what else TensorFlow can write to. The first is the run's own;
                others that cannot be written are given up with a warning. Empty on workers beside the chief, which
                only log.
            num_epochs: Upper bound, for the time left.
            profile: Whether to trace one call of the compiled loop for TensorBoard's profiler, in the first folder.
        """
        self._logs = logs[0] if logs else None
        self._num_epochs = num_epochs
        self._profile = profile and bool(logs)
        self._writers: dict[str, Any] = {}
        for folder in logs:
            with self._giving_up(folder):
                self._writers[folder] = tf.summary.create_file_writer(folder)
        self._last_line = time.perf_counter()
        self._step_times_ms: list[float] = []
        self._before = EpochProgress()

    def epoch_begins(self, progress: EpochProgress) -> None:
        """Forgets the calls of the epoch before; `progress` is more than nothing when a run was resumed."""
        self._step_times_ms = []
        self._before = EpochProgress(**vars(progress))

    def call_ended(self, epoch: int, loop: TrainingLoop, progress: EpochProgress) -> None:
        """Notes how long the steps took and, every few seconds, logs how far the epoch is."""
        duration_s = progress.duration_s - self._before.duration_s
        num_steps = progress.num_steps - self._before.num_steps
        self._step_times_ms.append(1e3 * duration_s / num_steps)
        rate = (progress.num_examples - self._before.num_examples) / duration_s
        self._before = EpochProgress(**vars(progress))
        now = time.perf_counter()
        if now - self._last_line < _LINE_INTERVAL_S or progress.num_steps == loop.steps_per_epoch:
            return
        self._last_line = now
        num_left = (self._num_epochs - epoch) * loop.steps_per_epoch - progress.num_steps
        _LOG.info(
            "epoch %d/%d: %d %%, loss %.4f, %.2f M examples/s, at most %s left",
            epoch + 1, self._num_epochs, 100 * progress.num_steps // loop.steps_per_epoch, progress.loss, rate / 1e6,
            _duration(num_left * duration_s / num_steps),
        )  # fmt: skip

    def epoch_ended(self, entry: Mapping[str, Any], remark: str) -> None:
        """Logs an epoch's figures and writes them for TensorBoard."""
        self._last_line = time.perf_counter()
        quality = f", HR@10 {entry['hr@10']:.4f}, NDCG@10 {entry['ndcg@10']:.4f}" if "hr@10" in entry else ""
        _LOG.info(
            "epoch %d/%d: loss %.4f%s, %.2f M examples/s%s",
            entry["epoch"], self._num_epochs, entry["loss"], quality, entry["examples_per_s"] / 1e6, remark,
        )  # fmt: skip
        self.write(entry)
        self._with_each_writer(lambda _: tf.summary.histogram("step_time_ms", self._step_times_ms, step=entry["epoch"]))

    def write(self, entry: Mapping[str, Any]) -> None:
        """Writes an epoch's figures for TensorBoard alone."""

        def write_scalars(_writer: Any) -> None:
            for name in _SCALARS:
                if name in entry:
                    tf.summary.scalar(name, entry[name], step=entry["epoch"])

        self._with_each_writer(write_scalars)

    @contextmanager
    def profiling(self) -> Iterator[None]:
        """Traces what runs inside, the first time that it is entered, if a profile was asked for."""
        if not self._profile:
            yield
            return
        self._profile = False
        tf.profiler.experimental.start(self._logs)
        try:
            yield
        finally:
            tf.profiler.experimental.stop()

    def close(self) -> None:
        """Closes TensorBoard's files."""
        self._with_each_writer(lambda writer: writer.close())

    def _with_each_writer(self, work: Callable[[Any], None]) -> None:
        for folder, writer in list(self._writers.items()):
            # Flushes at its end.
            with self._giving_up(folder), writer.as_default():
                work(writer)

    @contextmanager
    def _giving_up(self, folder: str) -> Iterator[None]:
        """Goes on without a folder that cannot be written, unless it is the run's own: training matters more."""
        try:
            yield
        except tf.errors.OpError as error:
            if folder == self._logs:
                raise
            self._writers.pop(folder, None)
            _LOG.warning(
                "TensorBoard's files cannot be written to %s (%s): training goes on, the model's folder has them",
                folder, type(error).__name__,
            )  # fmt: skip


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
