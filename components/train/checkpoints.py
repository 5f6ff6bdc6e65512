"""Saves a run after each epoch and takes it up again where it was."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from components.ncf.errors import InputError
from components.train.loop import TrainingLoop

_LOG = logging.getLogger(__name__)

Progress = dict[str, Any]


class Checkpoints:
    """The last epochs of a run and, apart from them, the best one.

    The progress (history, best epoch, what the run was started with) is a string in the checkpoint itself, so that
    weights and progress cannot disagree.
    """

    def __init__(self, folder: Path, loop: TrainingLoop, identity: dict[str, Any], max_to_keep: int) -> None:
        """Prepares the folder.

        Args:
            folder: Where this run's checkpoints live.
            loop: Model and optimizer to save.
            identity: What makes a run the same run: JSON-serializable parameters and data digest.
            max_to_keep: How many epochs are kept.
        """
        self._folder = folder
        self._loop = loop
        self._identity = identity
        self._progress = tf.Variable("", dtype=tf.string, trainable=False)
        # The variables themselves: what Keras objects track of their own accord is not all of their state.
        weights = [weight.value for weight in loop.model.weights]
        slots = [variable.value for variable in loop.optimizer.variables]
        everything = tf.train.Checkpoint(weights=weights, optimizer=slots, progress=self._progress)
        self._last = tf.train.CheckpointManager(everything, str(folder / "last"), max_to_keep)
        self._best = tf.train.CheckpointManager(tf.train.Checkpoint(weights=weights), str(folder / "best"), 1)

    def restore(self) -> Progress | None:
        """Restores the newest epoch and returns its progress, or None where there is none.

        Raises:
            InputError: The folder holds another run, or its newest checkpoint is damaged.
        """
        if self._last.latest_checkpoint is None:
            return None
        try:
            self._last.checkpoint.restore(self._last.latest_checkpoint).assert_consumed()
        except (tf.errors.OpError, ValueError, AssertionError) as error:
            raise InputError(
                f"The checkpoint {self._last.latest_checkpoint} cannot be restored ({_first_line(error)}): remove "
                f"{self._folder} to start again, or name another --checkpoint-dir."
            ) from error
        saved = json.loads(self._progress.numpy().decode())
        differences = [key for key, value in self._identity.items() if saved["identity"].get(key) != value]
        if differences:
            described = ", ".join(
                f"{key} {saved['identity'].get(key)} then, {self._identity[key]} now" for key in differences
            )
            raise InputError(
                f"{self._folder} holds the checkpoints of another run ({described}): name another --checkpoint-dir "
                "or remove it."
            )
        progress: Progress = saved["progress"]
        _LOG.info("resumed after epoch %d from %s", len(progress["history"]), self._last.latest_checkpoint)
        return progress

    def save(self, progress: Progress, is_best: bool) -> None:
        """Saves the epoch that has just ended; the best epoch first, so that a kill in between only repeats it."""
        epoch = len(progress["history"])
        if is_best:
            self._best.save(epoch)
        self._progress.assign(json.dumps({"identity": self._identity, "progress": progress}))
        self._last.save(epoch)

    def load_best(self) -> None:
        """Puts the best epoch's weights into the model."""
        self._best.checkpoint.restore(self._best.latest_checkpoint).assert_consumed()
        for weight in self._loop.model.weights:
            if not np.isfinite(weight.numpy()).all():
                raise InputError(
                    f"The best epoch has weights that are not finite ({weight.name}): lower train.learning_rate."
                )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
