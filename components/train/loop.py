"""The training loop: many steps in one call of a compiled function, negatives drawn where they are used."""

import math
import time
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.ncf.counter_random import Stream, derive_key
from components.ncf.errors import InputError
from components.train.config import TrainConfig
from components.train.epoch_order import shuffled_index
from components.train.input_pipeline import TrainingData
from components.train.model import NeuMF, neumf_logits
from components.train.negative_sampler import build_seen_items, sample_train_negatives


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did.

    Attributes:
        loss: Mean over the examples, plus the regularization as it stands after each call of the compiled loop.
        num_examples: Positives and negatives that were trained on; padding does not count.
        duration_s: Seconds from the first call to the last result.
    """

    loss: float
    num_examples: int
    duration_s: float


class TrainingLoop:
    """Holds the variables and the compiled functions of one run."""

    def __init__(self, config: TrainConfig, data: TrainingData, strategy: tf.distribute.Strategy) -> None:
        """Puts the data on the device and creates the variables under the strategy.

        Raises:
            InputError: The global batch does not fit the replicas.
        """
        self._config = config
        self._strategy = strategy
        self._num_replicas = strategy.num_replicas_in_sync
        self._positives_per_replica = config.per_replica_positives(self._num_replicas)
        self._num_positives = len(data.users)
        _check_counters(data, config)
        self.num_steps = math.ceil(self._num_positives / (self._positives_per_replica * self._num_replicas))
        self._users, self._items = tf.constant(data.users), tf.constant(data.items)
        self._seen = build_seen_items(data.users, data.items, data.num_users, data.num_items)
        with strategy.scope():
            self.model = NeuMF(data.num_users, data.num_items, config)
            self.optimizer = keras.optimizers.Adam(config.learning_rate, config.beta1, config.beta2, config.epsilon)
            self.optimizer.build(self.model.trainable_variables)
        # One replica: XLA compiles the whole loop. Several: it compiles what a replica computes, and the
        # all-reduce between them stays outside, where the collectives of every strategy work.
        is_single = self._num_replicas == 1
        self._replica_gradients = tf.function(self._compute_gradients, jit_compile=None if is_single else True)
        self._run_steps = tf.function(self._steps, jit_compile=True if is_single else None)
        self._score = tf.function(self.model.call, jit_compile=True)
        self._regularization = tf.function(
            lambda: self.model.regularization_loss([weight.value for weight in self.model.weights])
        )

    @property
    def examples_per_step(self) -> int:
        """Positives and negatives in a full step: the global batch size, rounded down to whole groups."""
        return int(self._num_replicas * self._positives_per_replica * (1 + self._config.num_train_negatives))

    def compile(self) -> None:
        """Compiles the loop by running no step of it, so that no epoch's duration includes it."""
        self._run_steps(self._epoch_keys(0), tf.constant(0), tf.constant(0))

    def run_epoch(self, epoch: int) -> EpochResult:
        """Trains one pass over the positives, each with fresh negatives.

        Args:
            epoch: From 0; it determines the order and the negatives.

        Raises:
            InputError: The loss is not finite.
        """
        started = time.perf_counter()
        summed_loss, regularization, step = 0.0, 0.0, 0
        keys = self._epoch_keys(epoch)
        while step < self.num_steps:
            num_steps = min(self._config.steps_per_loop, self.num_steps - step)
            loss = float(self._run_steps(keys, tf.constant(step), tf.constant(num_steps)))
            penalty = float(self._regularization())
            if not math.isfinite(loss + penalty):
                raise InputError(
                    f"The loss is {loss + penalty} in epoch {epoch + 1}, between steps {step + 1} and "
                    f"{step + num_steps}: lower train.learning_rate (now {self._config.learning_rate})."
                )
            summed_loss += loss
            regularization += penalty * num_steps / self.num_steps
            step += num_steps
        num_examples = self._num_positives * (1 + self._config.num_train_negatives)
        loss = summed_loss / num_examples + regularization
        return EpochResult(loss, num_examples, time.perf_counter() - started)

    def score_candidates(self, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.float32]:
        """Returns float32 [num_users, num_candidates] for users [num_users] and their items."""
        scores: NDArray[np.float32] = self._score(tf.constant(users), tf.constant(items)).numpy()
        return scores

    def _epoch_keys(self, epoch: int) -> tf.Tensor:
        """Returns uint32 [2, 2]: the keys of the epoch's order and of its negatives."""
        streams = (Stream.EPOCH_ORDER, Stream.TRAIN_NEGATIVES)
        return tf.constant([derive_key(self._config.seed, stream, epoch) for stream in streams], tf.uint32)

    def _steps(self, keys: tf.Tensor, first_step: tf.Tensor, num_steps: tf.Tensor) -> tf.Tensor:
        # Not `for step in tf.range(…)`: XLA takes the bounds of a range as constants and compiles once for each.
        def body(step: tf.Tensor, total_loss: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            losses = self._strategy.run(self._step, args=(keys, step))
            return step + 1, total_loss + self._strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

        last_step = first_step + num_steps
        _, total_loss = tf.while_loop(lambda step, _: step < last_step, body, (first_step, tf.constant(0.0)))
        return total_loss

    def _step(self, keys: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        first_position = (step * self._num_replicas + replica) * self._positives_per_replica
        weights = [tf.convert_to_tensor(weight.value) for weight in self.model.trainable_variables]
        positives_per_step = self._num_replicas * self._positives_per_replica
        # The last step of an epoch may hold fewer positives than the others.
        num_positives = tf.minimum(positives_per_step, self._num_positives - step * positives_per_step)
        summed_loss, gradients = self._replica_gradients(weights, keys, first_position, num_positives)
        # Sums the gradients of the replicas, then applies them.
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return summed_loss

    def _compute_gradients(
        self, weights: list[tf.Tensor], keys: tf.Tensor, first_position: tf.Tensor, num_positives: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns a replica's summed loss and its share of the gradient of the global batch's mean loss."""
        users, items, labels, is_valid = self._sample_batch(keys, first_position)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits = neumf_logits(weights, self._config.num_factors, users, items)
            per_example_loss = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits) * is_valid[:, None]
            summed_loss = tf.reduce_sum(per_example_loss)
            # Scaled once, by the examples of the global batch without its padding: replicas add their shares up.
            loss = summed_loss / tf.cast(num_positives * items.shape[1], tf.float32)
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, weights)]
        # The gradient of the L2 terms is a product that fuses with the update; their value, a sum over the tables,
        # would double the time of a small step, so that `run_epoch` adds it once a call.
        return summed_loss, self.model.add_regularization_gradients(gradients, weights, 1.0 / self._num_replicas)

    def _sample_batch(
        self, keys: tf.Tensor, first_position: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        config = self._config
        positions = first_position + tf.range(self._positives_per_replica)
        is_valid = tf.cast(positions < self._num_positives, tf.float32)
        # Positions past the end of the epoch repeat its last row with weight 0.
        rows = shuffled_index(tf.minimum(positions, self._num_positives - 1), self._num_positives, keys[0])
        users, positive_items = tf.gather(self._users, rows), tf.gather(self._items, rows)
        negatives = sample_train_negatives(self._seen, keys[1], users, positive_items, config.num_train_negatives)
        items = tf.concat([positive_items[:, None], negatives], axis=1)
        labels = tf.concat([tf.ones_like(positive_items)[:, None], tf.zeros_like(negatives)], axis=1)
        return users, items, tf.cast(labels, tf.float32), is_valid


def _check_counters(data: TrainingData, config: TrainConfig) -> None:
    """The device counts in 32 bits: positions in the epoch, with its padding, and draws per item."""
    limit = 2**31
    if len(data.users) + config.global_batch_size >= limit or data.num_items * config.num_train_negatives >= limit:
        raise InputError(
            f"{len(data.users)} positives with train.global_batch_size {config.global_batch_size}, or {data.num_items} "
            f"items with train.num_train_negatives {config.num_train_negatives}, exceed 2**31: lower the parameter."
        )
