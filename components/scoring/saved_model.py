"""Scores with a trained model, for the steps that rank with one."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.ncf.errors import InputError

# Pairs whose activations stay in a core's cache: scoring 128 users of MovieLens 1M is 1.4 times as fast as all at once.
_PAIRS_PER_BLOCK = 1 << 13


class ModelScorer:
    """Scores with the SavedModel of a `model` folder, compiled by XLA. Call it from a thread for each processor."""

    def __init__(self, model: Path) -> None:
        """Loads the SavedModel.

        Raises:
            InputError: It cannot be loaded, or is of an older version of this project.
        """
        with contextlib.suppress(RuntimeError):  # where TensorFlow has run before, it keeps the threads that it has
            # Those that the matrix products of one call are spread over wait for those of another.
            tf.config.threading.set_intra_op_parallelism_threads(1)
        place = model / "saved_model"
        try:
            loaded = tf.saved_model.load(str(place))
            candidates, catalogue = loaded.score_candidates, loaded.score_catalogue
        except (OSError, ValueError, AttributeError, IndexError, tf.errors.OpError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{place} cannot be loaded ({reason}): train the model again.") from error
        self._loaded = loaded  # its variables live as long as it does
        self._candidates = tf.function(lambda users, items: candidates(users, items), jit_compile=True)
        self._catalogue = tf.function(lambda users: _in_blocks(catalogue, users), jit_compile=True)

    def score_candidates(self, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `Scorer`."""
        scores: NDArray[np.float32] = self._candidates(tf.constant(users), tf.constant(items)).numpy()
        return scores

    def score_catalogue(self, users: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `Scorer`."""
        scores: NDArray[np.float32] = self._catalogue(tf.constant(users)).numpy()
        return scores


def _in_blocks(score: Callable[[tf.Tensor], tf.Tensor], users: tf.Tensor) -> tf.Tensor:
    """Scores users of a static number a few at a time, in a loop that XLA compiles with them.

    Args:
        score: Scores the whole catalogue, float32 [n, num_items], for int32 [n].
        users: int32 [num_users].
    """
    num_items = score(users[:1]).shape[1]
    block = max(1, min(len(users), _PAIRS_PER_BLOCK // num_items))
    num_blocks = -(-len(users) // block)
    padded = tf.reshape(tf.pad(users, [[0, num_blocks * block - len(users)]]), [num_blocks, block])
    scores = tf.TensorArray(tf.float32, num_blocks, element_shape=[block, num_items])
    _, scores = tf.while_loop(
        lambda index, _: index < num_blocks,
        lambda index, scores: (index + 1, scores.write(index, score(padded[index]))),
        (tf.constant(0), scores),
    )
    return tf.reshape(scores.stack(), [num_blocks * block, num_items])[: len(users)]
