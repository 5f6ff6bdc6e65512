"""Goes through the epochs: trains, ranks, saves, stops early, and stops when it is told to."""

import logging
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from components.ncf.errors import InputError
from components.ncf.metrics import hit_rate_at_k, ndcg_at_k
from components.ncf.ranking import rank_held_out_items
from components.train.checkpoints import Arrays, Checkpoint, Checkpoints, Progress
from components.train.config import TrainConfig
from components.train.input_pipeline import TrainingData
from components.train.loop import EpochProgress, TrainingLoop
from components.train.model import Weights
from components.train.reporting import Reporter

_LOG = logging.getLogger(__name__)
SELECTION_CUTOFF = 10
# What a shell reports for a process that a signal ended is that signal's number and this.
_STATUS_OF_SIGNALS = 128


@dataclass(frozen=True)
class Outcome:
    """What came of some epochs.

    Attributes:
        weights: Those of the epoch that the selection chose.
        best_epoch: Which one, from 1.
        history: One entry an epoch, JSON-serializable.
    """

    weights: Weights
    best_epoch: int
    history: list[dict[str, Any]]


class StopRequested:
    """Whether the process was told to end: by SIGTERM, as a machine about to be taken away does, or by Ctrl-C.

    Attributes:
        signal_number: Which signal said so, or None.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @contextmanager
    def listening(self) -> Iterator["StopRequested"]:
        """Takes the signals over while the block runs; without effect in a thread other than the main one.

        A second Ctrl-C ends the process at once.
        """
        signals = (signal.SIGTERM, signal.SIGINT)

        def note(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGINT and self.signal_number is not None:
                raise KeyboardInterrupt
            self.signal_number = number

        try:
            before = {number: signal.signal(number, note) for number in signals}
        except ValueError:
            yield self
            return
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Epochs:
    """A model that is trained epoch by epoch; where it stands is all in what it saves."""

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        loop: TrainingLoop,
        checkpoints: Checkpoints,
        reporter: Reporter,
        stop: StopRequested,
    ) -> None:
        """Takes the newest checkpoint up, if there is one.

        Args:
            config: The parameters.
            data: What is trained on, and the candidates that choose the epoch.
            loop: The model and how it is trained.
            checkpoints: Where the run is saved.
            reporter: Is told how it goes.
            stop: Is asked after each call of the compiled loop.
        """
        self._config, self._data, self._loop = config, data, loop
        self._checkpoints, self._reporter, self._stop = checkpoints, reporter, stop
        self._history: list[dict[str, Any]] = []
        self._best_epoch = 0
        self._best_weights: Arrays = ()
        self._epoch = EpochProgress()
        self._last_saved = 0
        restored = checkpoints.restore()
        if restored is not None:
            loop.load_state(restored.state)
            self._history, self._best_epoch = restored.progress["history"], restored.progress["best_epoch"]
            self._epoch = EpochProgress(**restored.progress["epoch"])
            self._best_weights = restored.best_weights
            self._last_saved = self._num_steps
            _LOG.info("resumed after epoch %d and %d steps", len(self._history), self._epoch.num_steps)
        loop.check_agreement(self._num_steps)

    def run(self, num_epochs: int) -> Outcome:
        """Trains until the last epoch or until the model stops getting better.

        Raises:
            InputError: The loss, or a score, is not finite; or more was trained already than is asked for.
            SystemExit: The process was told to end; the run is saved.
        """
        num_begun = len(self._history) + (self._epoch.num_steps > 0)
        if num_begun > num_epochs:
            raise InputError(
                f"The checkpoints are of epoch {num_begun} and train.num_epochs is {num_epochs}: set it to at least "
                f"{num_begun}, or name another --checkpoint-dir."
            )
        for entry in self._history:
            self._reporter.write(entry)
        while len(self._history) < num_epochs and not self._is_stale():
            self._run_epoch(len(self._history))
        self._checkpoints.wait()
        return Outcome(list(self._best_weights), self._best_epoch, self._history)

    def _run_epoch(self, epoch: int) -> None:
        self._reporter.epoch_begins(self._epoch)
        with self._reporter.profiling():
            self._loop.run_epoch(epoch, self._epoch, lambda _progress: self._after_call(epoch))
        entry = {
            "epoch": epoch + 1,
            "loss": self._epoch.loss,
            **self._rank(),
            "num_steps": self._epoch.num_steps,
            "duration_s": self._epoch.duration_s,
            "examples_per_s": self._epoch.num_examples / self._epoch.duration_s,
        }
        self._history.append(entry)
        self._epoch = EpochProgress()
        is_best = self._is_best(entry)
        if is_best:
            self._best_epoch, self._best_weights = epoch + 1, self._loop.weights()
        self._save()
        is_chosen = is_best and self._data.selection is not None
        self._reporter.epoch_ended(entry, " (best so far)" if is_chosen else "")

    def _rank(self) -> dict[str, float]:
        if self._data.selection is None:
            return {}
        started = time.perf_counter()
        ranks = rank_held_out_items(self._loop.scorer(), self._data.selection, num_threads=1)
        return {
            "hr@10": hit_rate_at_k(ranks, SELECTION_CUTOFF),
            "ndcg@10": ndcg_at_k(ranks, SELECTION_CUTOFF),
            "evaluation_duration_s": time.perf_counter() - started,
        }

    def _after_call(self, epoch: int) -> None:
        self._reporter.call_ended(epoch, self._loop, self._epoch)
        every = self._config.checkpoint_every_steps
        is_due = every and self._num_steps // every > self._last_saved // every
        is_end_of_epoch = self._epoch.num_steps == self._loop.steps_per_epoch
        if self._stop.signal_number is not None:
            self._save()
            self._checkpoints.wait()
            _LOG.info("told to stop: saved after step %d of epoch %d", self._epoch.num_steps, epoch + 1)
            raise SystemExit(_STATUS_OF_SIGNALS + self._stop.signal_number)
        if is_due and not is_end_of_epoch:
            self._save()

    def _save(self) -> None:
        progress: Progress = {
            "history": self._history,
            "best_epoch": self._best_epoch,
            "epoch": asdict(self._epoch),
        }
        self._last_saved = self._num_steps
        self._checkpoints.save(self._num_steps, Checkpoint(self._loop.state(), self._best_weights, progress))

    def _is_best(self, entry: Mapping[str, Any]) -> bool:
        """Says whether an epoch is the one to export so far: the last one where nothing is ranked."""
        if self._data.selection is None or self._best_epoch == 0:
            return True
        best = self._history[self._best_epoch - 1]
        return (entry["hr@10"], entry["ndcg@10"]) > (best["hr@10"], best["ndcg@10"])

    @property
    def _num_steps(self) -> int:
        return len(self._history) * self._loop.steps_per_epoch + self._epoch.num_steps

    def _is_stale(self) -> bool:
        return 0 < self._config.early_stopping_patience <= len(self._history) - self._best_epoch
