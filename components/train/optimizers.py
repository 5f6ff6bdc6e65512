"""Optimizers as functions of tensors, so that one definition runs inside a compiled loop and under every strategy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

# Divided by it, the square of a gradient of 1e14 still fits a float32.
_SMALLEST_DECAY = 1e-10
# By then what a settlement costs is nothing beside the steps, and the decays of betas near 1 are still a short table.
_LARGEST_AGE = 500
# From so many rows for each look-up of a step on, to let the others lag behind is faster than to move them all
# (measured; at 7.4, it is slower), unless a settlement, which moves them all, comes after fewer steps than these.
_LAGGING_PAYS_FROM = 10
_FEWEST_STEPS = 5
# Ages and places share an int32.
_MOST_LOOK_UPS = 2**31 // (_LARGEST_AGE + 1)
# What the moves of a lagging row may differ from the paper's, relatively and at worst: about this. The usual betas have
# 2e-5.
_LARGEST_ERROR = 1e-4


class Unsettled(NamedTuple):
    """The slots between two settlements.

    Attributes:
        slots: Those of each weight, perhaps in a form that is cheaper to update.
        look_ups: int32 [num_rows] for each table whose rows lag behind until they are looked up: when that was last,
            as the age after the step * _MOST_LOOK_UPS + the place among the step's look-ups. int32 [0] for the other
            weights.
        drift: float32 [2, max_age + 1], or [2, 0] where nothing lags: for a row that was up to date last at an age, the
            sums of q_i and of q_i * x_i, as `Adam` names them, over the steps since.
    """

    slots: list[tf.Tensor]
    look_ups: list[tf.Tensor]
    drift: tf.Tensor


class Optimizer(Protocol):
    """Turns gradients into new weights. It keeps no state: its slots travel with the weights.

    Between settlements, both may be in a form that is cheaper to update.
    """

    @property
    def slots_per_weight(self) -> int:
        """How many tensors of each weight's shape it wants to have kept from step to step; they start as zeros."""

    @property
    def max_age(self) -> int:
        """How many steps may follow each other before the weights and slots are settled."""

    def unsettle(
        self,
        weights: Sequence[tf.Tensor],
        slots: Sequence[tf.Tensor],
        num_look_ups: Sequence[int | None],
        num_steps: int,
    ) -> Unsettled:
        """Returns the form of the slots that the next steps take.

        Args:
            weights: float32, any shapes.
            slots: `slots_per_weight` tensors for each weight, weight by weight, as they are saved.
            num_look_ups: For each weight, how many rows a step looks up, where nothing else of it has a gradient; or
                None.
            num_steps: How many steps are taken at most before the slots are settled.
        """

    def catch_up(
        self, weights: Sequence[tf.Tensor], state: Unsettled, ids: Sequence[tf.Tensor | None]
    ) -> list[tf.Tensor]:
        """Returns the weights with those rows up to date that a step is going to look up.

        Args:
            weights: As `update` returned them.
            state: The same.
            ids: integer [num_look_ups] for each weight, or None where `unsettle` was told None.
        """

    def update(
        self,
        weights: Sequence[tf.Tensor],
        state: Unsettled,
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        age: tf.Tensor,
        rate_scale: tf.Tensor,
    ) -> tuple[list[tf.Tensor], Unsettled]:
        """Returns the weights and slots after a step.

        Args:
            weights: Where rows lag behind, those that were looked up are up to date.
            state: The slots.
            gradients: Of the loss with respect to each weight; `tf.IndexedSlices` for tables is fine.
            step: int32 [], from 0.
            age: int32 [], in [0, max_age): the steps since the settlement.
            rate_scale: float32 [], what the learning rate is multiplied with in this step.
        """

    def settle(
        self, weights: Sequence[tf.Tensor], state: Unsettled, age: tf.Tensor
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Returns the weights, all up to date, and the slots as they are saved.

        Args:
            weights: As `update` returned them.
            state: The same.
            age: int32 [], in [1, max_age]: the steps since the last settlement.
        """


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    `epsilon` is the "epsilon hat" of their section 2, added to the root before the bias correction, as in TensorFlow.

    Every row of every table moves in every step, those without a gradient too, for their moments go on decaying. Two
    things save passing over whole tables for that. Between two settlements the moments do not decay; what is added to
    them grows instead: the moment after `age` steps is beta**age times the kept one. And a row of a large table moves
    only when it is looked up, or at a settlement, by all that it has missed. With m and v the kept moments, which have
    not changed meanwhile, that is the sum over the missed steps i of

        m * rate_i * beta1**i / (sqrt(beta2**i * v) + epsilon)  =  m * q_i / (sqrt(v) + epsilon * x_i),

    where x_i = beta2**(-i / 2) and q_i = rate_i * beta1**i * x_i. Under the root of v, x_i hardly varies before q_i has
    vanished, so that its mean, weighted with q_i, stands for all of them: m * sum(q_i) / (sqrt(v) + epsilon * x). What
    this leaves out is of the second order: relatively, at most the squared coefficient of variation of x_i.
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

    def unsettle(
        self,
        weights: Sequence[tf.Tensor],
        slots: Sequence[tf.Tensor],
        num_look_ups: Sequence[int | None],
        num_steps: int,
    ) -> Unsettled:
        """Lets the rows of those tables lag behind of which a step looks up few."""
        may_lag = min(num_steps, self.max_age) >= _FEWEST_STEPS and self._error_of_lagging() <= _LARGEST_ERROR
        lags = [
            may_lag and count is not None and _LAGGING_PAYS_FROM * count <= weight.shape[0] and count <= _MOST_LOOK_UPS
            for weight, count in zip(weights, num_look_ups, strict=True)
        ]
        look_ups = [tf.zeros([lag * weight.shape[0]], tf.int32) for weight, lag in zip(weights, lags, strict=True)]
        return Unsettled(list(slots), look_ups, tf.zeros([2, any(lags) * (self.max_age + 1)]))

    def catch_up(
        self, weights: Sequence[tf.Tensor], state: Unsettled, ids: Sequence[tf.Tensor | None]
    ) -> list[tf.Tensor]:
        """Moves the rows by what they have missed."""
        means, variances = state.slots[::2], state.slots[1::2]
        result = []
        for weight, mean, variance, last, rows in zip(weights, means, variances, state.look_ups, ids, strict=True):
            if rows is not None and _lags(last):
                parts = (tf.gather(part, rows) for part in (weight, mean, variance, last))
                weight = tf.tensor_scatter_nd_update(weight, rows[:, None], self._without_lag(state.drift, *parts))
            result.append(weight)
        return result

    def update(
        self,
        weights: Sequence[tf.Tensor],
        state: Unsettled,
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        age: tf.Tensor,
        rate_scale: tf.Tensor,
    ) -> tuple[list[tf.Tensor], Unsettled]:
        """Moves every row of a table that does not lag, and those of the others that were looked up."""
        count = tf.cast(step + 1, tf.float32)
        rate = rate_scale * self.learning_rate * tf.sqrt(1.0 - self.beta2**count) / (1.0 - self.beta1**count)
        decay1, decay2 = self._decays(age + 1)
        gain1, gain2 = (1.0 - self.beta1) / decay1, (1.0 - self.beta2) / decay2

        def moved(weight: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
            return weight - (rate * decay1) * mean / (tf.sqrt(decay2 * variance) + self.epsilon)

        new_weights, new_slots, look_ups = [], [], []
        for weight, mean, variance, last, gradient in zip(
            weights, state.slots[::2], state.slots[1::2], state.look_ups, gradients, strict=True
        ):
            if _is_sparse(gradient, weight):
                ids, rows = gradient.indices, gradient.indices[:, None]
                if _lags(last):
                    last, places = _last_places(last, ids, (age + 1) * _MOST_LOOK_UPS)
                else:
                    _, places = _last_places(tf.zeros([weight.shape[0]], tf.int32), ids, tf.constant(0))
                # The values with those of the same row added up at its last place, and zeros at its others.
                summed = tf.math.unsorted_segment_sum(gradient.values, places, ids.shape[0])
                mean = tf.tensor_scatter_nd_add(mean, rows, gain1 * gradient.values)
                variance = tf.tensor_scatter_nd_add(variance, rows, gain2 * tf.square(summed))
            else:
                dense = tf.convert_to_tensor(gradient)
                mean, variance = mean + gain1 * dense, variance + gain2 * tf.square(dense)
            if _lags(last):
                assert _is_sparse(gradient, weight)
                # Where a row occurs more than once, the same is written more than once.
                values = moved(*(tf.gather(part, ids) for part in (weight, mean, variance)))
                weight = tf.tensor_scatter_nd_update(weight, rows, values)
            else:
                weight = moved(weight, mean, variance)
            new_weights.append(weight)
            new_slots += [mean, variance]
            look_ups.append(last)
        x = tf.math.rsqrt(decay2)
        missed = rate * decay1 * x * tf.stack([1.0, x])
        is_missed = tf.range(state.drift.shape[1]) <= age
        return new_weights, Unsettled(new_slots, look_ups, state.drift + tf.where(is_missed, missed[:, None], 0.0))

    def settle(
        self, weights: Sequence[tf.Tensor], state: Unsettled, age: tf.Tensor
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Moves the rows that lag behind, and lets the moments decay to what the paper has."""
        decays = self._decays(age)
        means, variances = state.slots[::2], state.slots[1::2]
        settled = [
            self._without_lag(state.drift, weight, mean, variance, last) if _lags(last) else weight
            for weight, mean, variance, last in zip(weights, means, variances, state.look_ups, strict=True)
        ]
        return settled, [decays[index % 2] * slot for index, slot in enumerate(state.slots)]

    def _without_lag(
        self, drift: tf.Tensor, weight: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, look_ups: tf.Tensor
    ) -> tf.Tensor:
        # Nothing is missed in a step with a rate of 0: the mean of no x is as good as 1.
        mean_x = tf.maximum(tf.math.divide_no_nan(drift[1], drift[0]), 1.0)
        ages = look_ups // _MOST_LOOK_UPS
        missed, epsilon = (tf.gather(part, ages)[:, None] for part in (drift[0], self.epsilon * mean_x))
        return weight - missed * mean / (tf.sqrt(variance) + epsilon)

    def _error_of_lagging(self) -> float:
        """Returns the squared coefficient of variation of x_i over all ages, as if the rate were constant.

        Where the bias correction has it rise, at the start of a run, it is up to a quarter more.
        """
        beta1, beta2 = self._betas()
        ages = np.arange(1, self.max_age + 1)
        x = beta2 ** (-ages / 2)
        q = beta1**ages * x
        return float((q * x**2).sum() * q.sum() / (q * x).sum() ** 2 - 1.0)

    def _betas(self) -> tuple[float, float]:
        # A decay of 0 cannot be divided by; one this small leaves nothing that counts.
        return max(self.beta1, _SMALLEST_DECAY), max(self.beta2, _SMALLEST_DECAY)

    def _decays(self, age: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Looked up, because a power of float32 numbers has lost digits; gathered, because XLA compiles a slice anew for
        # each place.
        ages = np.arange(self.max_age + 1)
        first, second = (tf.gather(tf.constant(beta**ages, tf.float32), age) for beta in self._betas())
        return first, second


def _lags(look_ups: tf.Tensor) -> bool:
    """Whether the rows of a weight lag behind, by its entry of `Unsettled.look_ups`."""
    return bool(look_ups.shape[0])


def are_few(num_look_ups: int, num_rows: int) -> bool:
    """Whether to deal with the rows that a step looks up is cheaper than to pass over the table."""
    return 2 * num_look_ups <= num_rows


def _is_sparse(gradient: tf.Tensor | tf.IndexedSlices, weight: tf.Tensor) -> bool:
    return isinstance(gradient, tf.IndexedSlices) and are_few(gradient.indices.shape[0], weight.shape[0])


def _last_places(numbers: tf.Tensor, ids: tf.Tensor, first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Numbers the rows, first and higher, by the last place among the ids at which each is.

    Args:
        numbers: int32 [num_rows], below `first` or of no interest.
        ids: int32 [num_look_ups].
        first: int32 [].

    Returns:
        The numbers after that, and int32 [num_look_ups], the last place of each id.
    """
    numbers = tf.tensor_scatter_nd_max(numbers, ids[:, None], first + tf.range(ids.shape[0]))
    return numbers, tf.gather(numbers, ids) - first


@dataclass(frozen=True)
class SGD:
    """Plain stochastic gradient descent: rows of a table without a gradient are not touched, and steps are cheap."""

    learning_rate: float
    slots_per_weight: int = 0
    max_age: int = 1 << 30

    def unsettle(
        self,
        weights: Sequence[tf.Tensor],
        slots: Sequence[tf.Tensor],
        num_look_ups: Sequence[int | None],
        num_steps: int,
    ) -> Unsettled:
        """There is nothing to it."""
        del weights, num_look_ups, num_steps
        return Unsettled(list(slots), [], tf.zeros([2, 0]))

    def catch_up(
        self, weights: Sequence[tf.Tensor], state: Unsettled, ids: Sequence[tf.Tensor | None]
    ) -> list[tf.Tensor]:
        """No row lags behind."""
        del state, ids
        return list(weights)

    def update(
        self,
        weights: Sequence[tf.Tensor],
        state: Unsettled,
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
        age: tf.Tensor,
        rate_scale: tf.Tensor,
    ) -> tuple[list[tf.Tensor], Unsettled]:
        """Adds up the gradients of a row that occurs more than once."""
        del step, age
        rate = rate_scale * self.learning_rate
        return [_descend(weight, gradient, rate) for weight, gradient in zip(weights, gradients, strict=True)], state

    def settle(
        self, weights: Sequence[tf.Tensor], state: Unsettled, age: tf.Tensor
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """There is nothing to it."""
        del age
        return list(weights), state.slots


def _descend(weight: tf.Tensor, gradient: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.tensor_scatter_nd_add(weight, gradient.indices[:, None], -rate * gradient.values)
    return weight - rate * gradient
