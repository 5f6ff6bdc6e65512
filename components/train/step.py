"""What a training step computes, as functions of tensors: the same for every strategy."""

import functools
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import tensorflow as tf

from components.train.config import TrainConfig
from components.train.epoch_order import shuffled_rows
from components.train.input_pipeline import Window
from components.train.model import Architecture, first_layer_of_items, neumf_logits
from components.train.negative_sampler import SeenItems, sample_train_negatives
from components.train.optimizers import Optimizer, Unsettled

_T = TypeVar("_T")
Gradients = list[tf.Tensor | tf.IndexedSlices | None]

# Measured with groups of five: parts take 3.6 times as long with 2 groups, 1.1 times with 15, and 0.96 times with 32.
_FEWEST_GROUPS_IN_PARTS = 16


class Batches(NamedTuple):
    """Examples in groups that share their user; with a leading axis of steps, or without for one step.

    Attributes:
        users: int32 [..., num_groups].
        items: int32 [..., num_groups, group_size].
        labels: float32 [..., num_groups, group_size], or None where the first of each group is its one positive.
        is_valid: float32 [..., num_groups]: 0 on padding.
        weights: float32 [..., num_groups]: what the group's losses are multiplied with; None for 1.
    """

    users: tf.Tensor
    items: tf.Tensor
    labels: tf.Tensor | None
    is_valid: tf.Tensor
    weights: tf.Tensor | None

    def at(self, step: tf.Tensor) -> "Batches":
        """Returns one step's batch."""
        # Gathered, because XLA compiles a slice anew for each place that it is told from outside.
        return Batches(*(None if part is None else tf.gather(part, step) for part in self))

    def groups(self, start: int, end: int) -> "Batches":
        """Returns some groups of one step's batch."""
        return Batches(*(None if part is None else part[start:end] for part in self))


class Totals(NamedTuple):
    """What a call of the compiled loop reports.

    Attributes:
        loss: float32 [], summed over the examples.
        first_bad_step: int32 [], the first step of the window with a loss that is not finite, or -1.
    """

    loss: tf.Tensor
    first_bad_step: tf.Tensor

    @classmethod
    def of_no_step(cls) -> "Totals":
        """Returns those before the first step."""
        return cls(tf.constant(0.0), tf.constant(-1))

    def with_step(self, step: tf.Tensor, loss: tf.Tensor) -> "Totals":
        """Adds a step's loss."""
        is_first_bad = ~tf.math.is_finite(loss) & (self.first_bad_step < 0)
        return Totals(self.loss + loss, tf.where(is_first_bad, step, self.first_bad_step))


@dataclass(frozen=True)
class StepMath:
    """What a step computes, as functions of tensors: the same for every strategy.

    Attributes:
        architecture: The shape of the model.
        config: The parameters.
        optimizer: Applies the gradients.
        window_rows: Rows of a full window.
        num_replicas: How many share a global batch.
        groups_per_replica: Groups (of a positive and its negatives, or of one ready example) of one replica's step.
        is_in_parts: Whether the gradients are computed in two parts, which a processor's cores do side by side.
        steps_per_call: Steps whose batches are drawn at once.
        decay: The steps of the whole run between which the learning rate falls from its full height to 0, or None.
    """

    architecture: Architecture
    config: TrainConfig
    optimizer: Optimizer
    window_rows: int
    num_replicas: int
    groups_per_replica: int
    is_in_parts: bool
    steps_per_call: int
    decay: tuple[int, int] | None

    def batches(
        self, seen: SeenItems | None, window: Window, keys: tf.Tensor, first_step: tf.Tensor, replica: tf.Tensor
    ) -> Batches:
        """Cuts a replica's share of the next `steps_per_call` steps out of a window, and draws the negatives.

        Args:
            seen: The positives that are never drawn; None where the window holds ready examples.
            window: The rows.
            keys: uint32 [2, 2]: those of the order and of the negatives.
            first_step: int32 [], of this window.
            replica: int32 [], which share.
        """
        steps = first_step + tf.range(self.steps_per_call)
        first_positions = (steps * self.num_replicas + replica) * self.groups_per_replica
        positions = first_positions[:, None] + tf.range(self.groups_per_replica)
        is_valid = tf.cast(positions < window.num_rows, tf.float32)
        # Positions past the end repeat the last row with weight 0.
        positions = tf.minimum(positions, window.num_rows - 1)
        if seen is None:
            users, items, labels = (tf.gather(part, positions) for part in (window.users, window.items, window.labels))
            return Batches(users, items[..., None], labels[..., None], is_valid, None)
        num_bits = max(2, (self.window_rows - 1).bit_length())
        rows = shuffled_rows(positions, window.num_rows, num_bits, keys[0])
        users, positives = tf.gather(window.users, rows), tf.gather(window.items, rows)
        negatives = sample_train_negatives(seen, keys[1], users, positives, self.config.num_train_negatives)
        weights = None if window.weights is None else tf.gather(window.weights, rows)
        return Batches(users, tf.concat([positives[..., None], negatives], axis=-1), None, is_valid, weights)

    def gradients(self, weights: list[tf.Tensor], batch: Batches) -> tuple[tf.Tensor, Gradients]:
        """Returns a replica's summed loss and its share of the gradient of the global batch's mean loss.

        Args:
            weights: The model's.
            batch: One step's, of one replica.
        """
        num_groups, group_size = batch.items.shape
        with tf.GradientTape() as tape:
            tape.watch(weights)
            item_part = first_layer_of_items(self.architecture, weights, num_groups * group_size, self.config.precision)
        shared = [] if item_part is None else [item_part]
        parts = [
            self._gradients_of_part(weights, shared, batch.groups(*bounds))
            for bounds in self._bounds_of_parts(num_groups)
        ]
        summed_loss = tf.add_n([loss for loss, _ in parts])
        gradients = functools.reduce(_added, [of_part for _, of_part in parts])
        if shared:
            *gradients, of_shared = gradients
            gradients = _added(gradients, tape.gradient(item_part, weights, of_shared))
        if not self.config.row_regularization:
            return summed_loss, gradients
        penalty, gradients = self._add_row_regularization(weights, gradients, batch)
        return summed_loss + penalty, gradients

    def _bounds_of_parts(self, num_groups: int) -> list[tuple[int, int]]:
        """Returns where each part's groups start and end; together, the parts are all groups, in order."""
        if not self.is_in_parts or num_groups < _FEWEST_GROUPS_IN_PARTS:
            return [(0, num_groups)]
        middle = num_groups // 2
        return [(0, middle), (middle, num_groups)]

    def _gradients_of_part(
        self, weights: list[tf.Tensor], shared: list[tf.Tensor], batch: Batches
    ) -> tuple[tf.Tensor, Gradients]:
        """Returns some groups' summed loss and their share of the gradients.

        Args:
            weights: The model's.
            shared: The items' half of the first layer, if it is shared by all parts. Then the gradients are with
                respect to it, too, and not through it.
            batch: The groups.
        """
        group_size = batch.items.shape[-1]
        labels = batch.labels
        if labels is None:
            labels = tf.broadcast_to(tf.one_hot(0, group_size), batch.items.shape)
        group_weights = batch.is_valid if batch.weights is None else batch.is_valid * batch.weights
        with tf.GradientTape() as tape:
            tape.watch([weights, shared])
            logits = neumf_logits(self.architecture, weights, batch.users, batch.items, self.config.precision, *shared)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
            summed_loss = tf.reduce_sum(losses * group_weights[:, None])
            # Scaled once, by the examples of a full global batch: replicas add their shares up, and an example counts
            # for as much in the last batch, part of which is padding, as in any other.
            loss = summed_loss / self.examples_per_step(group_size)
        return summed_loss, tape.gradient(loss, [*weights, *shared])

    def examples_per_step(self, group_size: int) -> int:
        """Returns the examples of a full global batch."""
        return self.num_replicas * self.groups_per_replica * group_size

    def _add_row_regularization(
        self, weights: list[tf.Tensor], gradients: list[tf.Tensor], batch: Batches
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns the L2 terms of the rows that the examples look up, summed, and the gradients with their share.

        Not left to the tape, which would add up each row's two gradients by looking it up twice.
        """
        group_size = batch.items.shape[-1]
        factor = self.config.row_regularization
        valid_items = tf.repeat(batch.is_valid, group_size)
        look_ups = {
            "user": (batch.users, group_size * batch.is_valid),
            "item": (tf.reshape(batch.items, [-1]), valid_items),
        }
        penalty, result = tf.constant(0.0), list(gradients)
        for index, name in enumerate(self.architecture.tables):
            ids, counts = look_ups["user" if "user" in name else "item"]
            rows = tf.gather(weights[index], ids)
            penalty += factor * tf.reduce_sum(counts * tf.reduce_sum(tf.square(rows), axis=1))
            shrinkage = (2.0 * factor / self.examples_per_step(group_size)) * counts[:, None] * rows
            gradient = gradients[index]
            if isinstance(gradient, tf.IndexedSlices):
                # The rows come in the order in which they were looked up.
                values = tf.reshape(gradient.values, rows.shape) + shrinkage
                result[index] = tf.IndexedSlices(values, ids, gradient.dense_shape)
            else:
                result[index] = gradient + tf.math.unsorted_segment_sum(shrinkage, ids, weights[index].shape[0])
        return penalty, result

    def num_look_ups(self, group_size: int) -> list[int | None]:
        """Returns, weight by weight, how many rows of it a replica's step looks up; None where all have a gradient.

        Args:
            group_size: Examples that share a user.
        """
        return self.by_weight(self.groups_per_replica, self.groups_per_replica * group_size)

    def by_weight(self, of_users: _T, of_items: _T) -> list[_T | None]:
        """Returns, weight by weight, what belongs to its table's look-ups; None where all rows have a gradient."""
        tables = [of_users if "user" in name else of_items for name in self.architecture.tables]
        factors = self._l2_factors()
        rest = [None for _ in factors[len(tables) :]]
        return [None if factor else part for part, factor in zip([*tables, *rest], factors, strict=True)]

    def update(
        self,
        weights: list[tf.Tensor],
        state: Unsettled,
        gradients: list[tf.Tensor],
        step: tf.Tensor,
        age: tf.Tensor,
    ) -> tuple[list[tf.Tensor], Unsettled]:
        """Adds the gradient of the L2 terms, 2 * factor * weight, and applies the optimizer: see `Optimizer.update`."""
        # Only their gradient, which fuses with the update; their value, a sum over the tables, would double the time of
        # a small step, so that it is computed once a call.
        with_l2 = [
            tf.convert_to_tensor(gradient) + (2.0 * factor) * weight if factor else gradient
            for factor, gradient, weight in zip(self._l2_factors(), gradients, weights, strict=True)
        ]
        return self.optimizer.update(weights, state, with_l2, step, age, self._rate_scale(step))

    def update_settled(
        self, weights: list[tf.Tensor], slots: list[tf.Tensor], gradients: list[tf.Tensor], step: tf.Tensor
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Applies the optimizer, for one step, to slots as they are saved, and leaves them so."""
        state = self.optimizer.unsettle(weights, slots, [None for _ in weights], 1)
        weights, state = self.update(weights, state, gradients, step, tf.constant(0))
        return self.optimizer.settle(weights, state, tf.constant(1))

    def _rate_scale(self, step: tf.Tensor) -> tf.Tensor:
        if self.decay is None:
            return tf.constant(1.0)
        start, end = self.decay
        return tf.clip_by_value(tf.cast(end - step, tf.float32) / max(end - start, 1), 0.0, 1.0)

    def regularization_loss(self, weights: list[tf.Tensor]) -> tf.Tensor:
        """Returns the L2 terms, float32 []: factor times the sum of squares, as keras.regularizers.L2 defines it."""
        terms = [
            factor * tf.reduce_sum(tf.square(weight))
            for factor, weight in zip(self._l2_factors(), weights, strict=True)
            if factor
        ]
        return tf.add_n(terms) if terms else tf.constant(0.0)

    def _l2_factors(self) -> list[float]:
        mlp = self.config.mlp_regularization[1:] if self.architecture.mlp_layers else ()
        return self.architecture.l2_factors(self.config.mf_regularization, mlp)


def _added(first: Gradients, second: Gradients) -> Gradients:
    """Returns the sums of two lists of gradients, both of which have rows where one has.

    None is nothing; rows that were looked up come one after the other, those of the first list first.
    """
    sums: Gradients = []
    for a, b in zip(first, second, strict=True):
        if a is None or b is None:
            sums.append(b if a is None else a)
        elif isinstance(a, tf.IndexedSlices):
            values, indices = (tf.concat(part, axis=0) for part in ((a.values, b.values), (a.indices, b.indices)))
            sums.append(tf.IndexedSlices(values, indices, a.dense_shape))
        else:
            sums.append(a + b)
    return sums
