"""Optimizers as functions of tensors, so that one definition runs inside a compiled loop and under every strategy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf


class Optimizer(Protocol):
    """Turns gradients into new weights. It keeps no state: its slots travel with the weights."""

    @property
    def slots_per_weight(self) -> int:
        """How many tensors of each weight's shape it wants to have kept from step to step; they start as zeros."""

    def update(
        self,
        weights: Sequence[tf.Tensor],
        slots: Sequence[tf.Tensor],
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        rate_scale: tf.Tensor,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Returns the weights and slots after a step.

        Args:
            weights: float32, any shapes.
            slots: `slots_per_weight` tensors for each weight, weight by weight.
            gradients: Of the loss with respect to each weight; `tf.IndexedSlices` for tables is fine.
            step: int32 [], from 0.
            rate_scale: float32 [], what the learning rate is multiplied with in this step.
        """


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    `epsilon` is the "epsilon hat" of their section 2, added to the root before the bias correction, as in TensorFlow.
    """

    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float
    slots_per_weight: int = 2

    def update(
        self,
        weights: Sequence[tf.Tensor],
        slots: Sequence[tf.Tensor],
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        rate_scale: tf.Tensor,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Moves every row of every table, those without a gradient too: their moments go on decaying."""
        count = tf.cast(step + 1, tf.float32)
        rate = rate_scale * self.learning_rate * tf.sqrt(1.0 - self.beta2**count) / (1.0 - self.beta1**count)
        new_weights, new_slots = [], []
        for weight, mean, variance, any_gradient in zip(weights, slots[::2], slots[1::2], gradients, strict=True):
            gradient = tf.convert_to_tensor(any_gradient)
            mean += (1.0 - self.beta1) * (gradient - mean)
            variance += (1.0 - self.beta2) * (tf.square(gradient) - variance)
            new_weights.append(weight - rate * mean / (tf.sqrt(variance) + self.epsilon))
            new_slots += [mean, variance]
        return new_weights, new_slots


@dataclass(frozen=True)
class SGD:
    """Plain stochastic gradient descent: rows of a table without a gradient are not touched, and steps are cheap."""

    learning_rate: float
    slots_per_weight: int = 0

    def update(
        self,
        weights: Sequence[tf.Tensor],
        slots: Sequence[tf.Tensor],
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        rate_scale: tf.Tensor,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Adds up the gradients of a row that occurs more than once."""
        del slots, step
        rate = rate_scale * self.learning_rate
        return [_descend(weight, gradient, rate) for weight, gradient in zip(weights, gradients, strict=True)], []


def _descend(weight: tf.Tensor, gradient: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.tensor_scatter_nd_add(weight, gradient.indices[:, None], -rate * gradient.values)
    return weight - rate * gradient
