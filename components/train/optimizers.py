"""Optimizers as functions of tensors, so that one definition runs inside a compiled loop and under every strategy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

# Divided by it, the square of a gradient of 1e14 still fits a float32.
_SMALLEST_DECAY = 1e-10
# By then what a settlement costs is nothing beside the steps, and the decays of betas near 1 are still a short table.
_LARGEST_AGE = 500


class Optimizer(Protocol):
    """Turns gradients into new weights. It keeps no state: its slots travel with the weights.

    Slots may be in a form that is cheaper to update, as long as `settle` is called within `max_age` steps.
    """

    @property
    def slots_per_weight(self) -> int:
        """How many tensors of each weight's shape it wants to have kept from step to step; they start as zeros."""

    @property
    def max_age(self) -> int:
        """How many steps may follow each other before the slots are settled."""

    def update(
        self,
        weights: Sequence[tf.Tensor],
        slots: Sequence[tf.Tensor],
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        age: tf.Tensor,
        rate_scale: tf.Tensor,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Returns the weights and slots after a step.

        Args:
            weights: float32, any shapes.
            slots: `slots_per_weight` tensors for each weight, weight by weight.
            gradients: Of the loss with respect to each weight; `tf.IndexedSlices` for tables is fine.
            step: int32 [], from 0.
            age: int32 [], in [0, max_age): the steps since the slots were settled.
            rate_scale: float32 [], what the learning rate is multiplied with in this step.
        """

    def settle(self, slots: Sequence[tf.Tensor], age: tf.Tensor) -> list[tf.Tensor]:
        """Returns the slots in the form in which they are saved.

        Args:
            slots: As `update` returned them.
            age: int32 [], in [1, max_age]: the steps since they were settled last.
        """


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    `epsilon` is the "epsilon hat" of their section 2, added to the root before the bias correction, as in TensorFlow.

    Between two settlements the moments do not decay; what is added to them grows instead. The moment after `age` steps
    is beta**age times the kept one, so that a step need not pass over the moments of rows that it does not look up.
    """

    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float
    slots_per_weight: int = 2

    @property
    def max_age(self) -> int:
        """As many steps as it takes a moment to decay to next to nothing, within bounds."""
        return min(_LARGEST_AGE, int(math.log(_SMALLEST_DECAY) / math.log(min(self._betas()))))

    def update(
        self,
        weights: Sequence[tf.Tensor],
        slots: Sequence[tf.Tensor],
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        age: tf.Tensor,
        rate_scale: tf.Tensor,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Moves every row of every table, those without a gradient too: their moments go on decaying."""
        count = tf.cast(step + 1, tf.float32)
        rate = rate_scale * self.learning_rate * tf.sqrt(1.0 - self.beta2**count) / (1.0 - self.beta1**count)
        decay1, decay2 = self._decays(age + 1)
        gain1, gain2 = (1.0 - self.beta1) / decay1, (1.0 - self.beta2) / decay2
        new_weights, new_slots = [], []
        for weight, mean, variance, gradient in zip(weights, slots[::2], slots[1::2], gradients, strict=True):
            if _is_sparse(gradient, weight):
                rows = gradient.indices[:, None]
                mean = tf.tensor_scatter_nd_add(mean, rows, gain1 * gradient.values)
                summed = _sum_duplicates(gradient, weight.shape[0])
                variance = tf.tensor_scatter_nd_add(variance, rows, gain2 * tf.square(summed))
            else:
                dense = tf.convert_to_tensor(gradient)
                mean, variance = mean + gain1 * dense, variance + gain2 * tf.square(dense)
            new_weights.append(weight - (rate * decay1) * mean / (tf.sqrt(decay2 * variance) + self.epsilon))
            new_slots += [mean, variance]
        return new_weights, new_slots

    def settle(self, slots: Sequence[tf.Tensor], age: tf.Tensor) -> list[tf.Tensor]:
        """Returns the moments as the paper has them."""
        decays = self._decays(age)
        return [decays[index % 2] * slot for index, slot in enumerate(slots)]

    def _betas(self) -> tuple[float, float]:
        # A decay of 0 cannot be divided by; one this small leaves nothing that counts.
        return max(self.beta1, _SMALLEST_DECAY), max(self.beta2, _SMALLEST_DECAY)

    def _decays(self, age: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Looked up, because a power of float32 numbers has lost digits; gathered, because XLA compiles a slice anew for
        # each place.
        ages = np.arange(self.max_age + 1)
        first, second = (tf.gather(tf.constant(beta**ages, tf.float32), age) for beta in self._betas())
        return first, second


def _is_sparse(gradient: tf.Tensor | tf.IndexedSlices, weight: tf.Tensor) -> bool:
    """Whether a step looks up so few rows that to deal with them alone is cheaper than to pass over the table."""
    return isinstance(gradient, tf.IndexedSlices) and 2 * gradient.indices.shape[0] <= weight.shape[0]


def _sum_duplicates(gradient: tf.IndexedSlices, num_rows: int) -> tf.Tensor:
    """Returns the values with those of the same row added up at one of its places, and zeros at its others."""
    places = tf.range(gradient.indices.shape[0])
    last_places = tf.tensor_scatter_nd_max(tf.zeros([num_rows], tf.int32), gradient.indices[:, None], places)
    return tf.math.unsorted_segment_sum(
        gradient.values, tf.gather(last_places, gradient.indices), gradient.indices.shape[0]
    )


@dataclass(frozen=True)
class SGD:
    """Plain stochastic gradient descent: rows of a table without a gradient are not touched, and steps are cheap."""

    learning_rate: float
    slots_per_weight: int = 0
    max_age: int = 1 << 30

    def update(
        self,
        weights: Sequence[tf.Tensor],
        slots: Sequence[tf.Tensor],
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        age: tf.Tensor,
        rate_scale: tf.Tensor,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Adds up the gradients of a row that occurs more than once."""
        del slots, step, age
        rate = rate_scale * self.learning_rate
        return [_descend(weight, gradient, rate) for weight, gradient in zip(weights, gradients, strict=True)], []

    def settle(self, slots: Sequence[tf.Tensor], age: tf.Tensor) -> list[tf.Tensor]:
        """There is none."""
        del age
        return list(slots)


def _descend(weight: tf.Tensor, gradient: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.tensor_scatter_nd_add(weight, gradient.indices[:, None], -rate * gradient.values)
    return weight - rate * gradient
