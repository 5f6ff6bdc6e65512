"""What the replicas of a synchronous strategy tell each other in a step: one vector, which an all-reduce adds up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class GradientExchange:
    """Writes a replica's loss and gradients into a vector, and reads the sums from the sum of all replicas' vectors.

    Attributes:
        shapes: Of the weights.
        num_look_ups: For each weight, how many rows of it a replica's step looks up, if the gradient travels as those
            rows, each replica's in a place of its own; None if it travels as a whole.
        num_replicas: How many there are.
    """

    shapes: Sequence[tuple[int, ...]]
    num_look_ups: Sequence[int | None]
    num_replicas: int

    def pack(self, loss: tf.Tensor, gradients: Sequence[tf.Tensor], replica: tf.Tensor) -> tf.Tensor:
        """Returns a replica's share of the sum, float32 [size].

        Args:
            loss: float32 [].
            gradients: One for each weight, `tf.IndexedSlices` of those that travel as rows.
            replica: int32 [], which it is.
        """
        is_own = tf.range(self.num_replicas)[:, None, None] == replica
        parts = [
            tf.convert_to_tensor(gradient) if count is None else tf.where(is_own, gradient.values, 0.0)
            for gradient, count in zip(gradients, self.num_look_ups, strict=True)
        ]
        return tf.concat([tf.reshape(part, [-1]) for part in (loss, *parts)], axis=0)

    def unpack(self, summed: tf.Tensor, ids: Sequence[tf.Tensor | None]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns the summed loss, float32 [], and gradients; `tf.IndexedSlices` of those that traveled as rows.

        Args:
            summed: float32 [size], the sum of what the replicas packed.
            ids: For each weight that traveled as rows, integer [num_replicas * num_look_ups]: the rows that the
                replicas looked up, one replica after the other.
        """
        packed_shapes = [
            shape if count is None else (self.num_replicas * count, *shape[1:])
            for shape, count in zip(self.shapes, self.num_look_ups, strict=True)
        ]
        loss, *flat = tf.split(summed, [1, *map(math.prod, packed_shapes)])
        gradients = [tf.reshape(part, shape) for part, shape in zip(flat, packed_shapes, strict=True)]
        return loss[0], [
            gradient if count is None else tf.IndexedSlices(gradient, rows, tf.constant(shape))
            for gradient, count, rows, shape in zip(gradients, self.num_look_ups, ids, self.shapes, strict=True)
        ]
