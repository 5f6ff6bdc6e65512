"""The training loop: many steps in one call of a compiled function, negatives drawn where they are used."""

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.ncf.counter_random import Stream, derive_key
from components.ncf.errors import InputError
from components.ncf.ranking import ScoreCandidates
from components.train.asynchronous import AsynchronousWorkers
from components.train.compilation import are_buffers_small, keeping_buffers_apart
from components.train.config import TrainConfig
from components.train.exchange import GradientExchange
from components.train.input_pipeline import TrainingData, Window
from components.train.model import Weights, neumf_logits
from components.train.negative_sampler import SeenItems
from components.train.optimizers import Unsettled
from components.train.phases import Phase
from components.train.step import StepMath, Totals
from components.train.synchronous import SynchronousReplicas

# Examples that are drawn at once: enough to keep all cores busy, little beside the data.
_EXAMPLES_PER_CALL = 1 << 21


@dataclass
class EpochProgress:
    """How far an epoch has come.

    Attributes:
        num_steps: Steps done.
        num_examples: Positives and negatives, or ready examples, trained on; padding does not count.
        summed_loss: Over those examples.
        summed_penalty: The L2 terms as they stood after each call, times the steps of the call.
        duration_s: Seconds in the compiled loop and its input.
    """

    num_steps: int = 0
    num_examples: int = 0
    summed_loss: float = 0.0
    summed_penalty: float = 0.0
    duration_s: float = 0.0

    @property
    def loss(self) -> float:
        """Mean over the examples, plus the L2 terms."""
        return self.summed_loss / self.num_examples + self.summed_penalty / self.num_steps


class TrainingLoop:
    """Holds the variables and the compiled functions of one run."""

    def __init__(
        self,
        config: TrainConfig,
        phase: Phase,
        data: TrainingData,
        strategy: tf.distribute.Strategy,
        initial_weights: Weights | None = None,
    ) -> None:
        """Creates the variables under the strategy.

        Args:
            config: The parameters.
            phase: The model, and how its gradients are applied.
            data: What is trained on.
            strategy: Where.
            initial_weights: None for random ones.

        Raises:
            InputError: The global batch does not fit the replicas.
        """
        self.architecture, self.data = phase.architecture, data
        self._config, self._strategy = config, strategy
        num_replicas: int = strategy.num_replicas_in_sync
        self._group_size = 1 if data.seen is None else 1 + config.num_train_negatives
        groups = config.groups_per_replica(num_replicas, self._group_size)
        _check_counters(data, config)
        self._groups_per_step = groups * num_replicas
        steps_at_once = max(1, _EXAMPLES_PER_CALL // self.examples_per_step)
        longest = math.ceil(data.window_rows / self._groups_per_step)
        saved_after = config.checkpoint_every_steps or longest
        self._steps_per_call = min(config.steps_per_loop, steps_at_once, longest, saved_after)
        self.math = StepMath(
            architecture=phase.architecture,
            config=config,
            optimizer=phase.optimizer,
            window_rows=data.window_rows,
            num_replicas=num_replicas,
            groups_per_replica=groups,
            # On a CPU, XLA runs products this small on one thread. Two parts, not as many as there are cores: sums must
            # come in the same order on any machine.
            is_in_parts=_is_on_cpu(strategy) and len(phase.architecture.mlp_layers) > 1,
            steps_per_call=self._steps_per_call,
            decay=self._decay(phase),
        )
        start = initial_weights or phase.architecture.initial_weights(config.seed, config.embedding_stddev)
        names = [name for name, _ in phase.architecture.weight_shapes()]
        with strategy.scope():
            self._weights = [tf.Variable(value, name=name) for value, name in zip(start, names, strict=True)]
            self._slots = [
                tf.Variable(tf.zeros_like(value), trainable=False)
                for value in start
                for _ in range(phase.optimizer.slots_per_weight)
            ]
        self._seen = None if data.seen is None else _on_device(data.seen)
        # One replica: XLA compiles the whole loop. A TPU takes it as one program, too, all-reduce included, which its
        # strategy compiles. For several replicas elsewhere, XLA compiles what each computes between the collectives.
        is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
        self._call: Callable[..., Totals]
        if isinstance(strategy, tf.distribute.ParameterServerStrategy):
            self._call = AsynchronousWorkers(strategy, self.math, self._weights, self._slots, self._seen).run
        elif is_tpu:
            self._call = tf.function(self._run_on_tpu)
        elif num_replicas == 1:
            self._call = tf.function(self._run_on_one, jit_compile=True)
        else:
            variables = (self._weights, self._slots)
            self._call = SynchronousReplicas(strategy, self.math, *variables, self._seen, self._group_size).run
        # Workers rank all candidates each, for none sees another's results.
        shares_ranking = is_tpu or isinstance(strategy, tf.distribute.MirroredStrategy)
        self._num_shares = num_replicas if shares_ranking else 1
        self._logits_on_replica = self._logits if is_tpu else tf.function(self._logits, jit_compile=True)
        self._score = tf.function(self._logits_of_shares) if shares_ranking else self._logits_on_replica
        self._penalty = tf.function(self.math.regularization_loss)

    @property
    def examples_per_step(self) -> int:
        """Examples in a full step: the global batch size, rounded down to whole groups."""
        return self._groups_per_step * self._group_size

    @property
    def examples_per_epoch(self) -> int:
        """Examples that an epoch trains on, without padding."""
        return len(self.data.rows) * self._group_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps that an epoch takes; the last of each window may be smaller."""
        return sum(self._steps_of(window) for window in range(self.data.num_windows))

    def compile(self) -> None:
        """Compiles the loop by running one step and taking it back, so that no epoch's duration includes it.

        For small steps in parts on one processor, `keeping_buffers_apart`.
        """
        state = self.state()
        window = next(iter(self.data.windows(0, [0])))
        with keeping_buffers_apart(os.environ) if self._has_small_parts() else nullcontext():
            self._call(window, self._keys(0), *map(tf.constant, (0, 1, 0)))
        self.load_state(state)

    def check_agreement(self, value: int) -> None:
        """Compares a number with the other workers'; it is the place of the run that a worker takes up.

        Raises:
            InputError: They differ.
        """
        if not isinstance(self._strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return

        def values() -> tf.Tensor:
            return tf.constant([value, value * value], tf.int64)

        @tf.function
        def summed() -> tf.Tensor:
            return self._strategy.reduce(tf.distribute.ReduceOp.SUM, self._strategy.run(values), axis=None)

        total, squares = summed().numpy()
        # By the inequality of Cauchy and Schwarz, both sides are equal only where all values are.
        if total * total != squares * self._strategy.num_replicas_in_sync:
            raise InputError(
                f"This worker would go on at step {value} and others elsewhere: --checkpoint-dir must be a folder that "
                "all workers share, as the checkpoints in it are written by the chief alone."
            )

    def run_epoch(
        self,
        epoch: int,
        progress: EpochProgress | None = None,
        after_call: Callable[[EpochProgress], None] | None = None,
    ) -> EpochProgress:
        """Trains one pass over the rows, or what is left of it.

        Args:
            epoch: From 0; it determines the order and the negatives.
            progress: How far it had come, when it goes on where it was; None from its start.
            after_call: Is told the progress after each call of the compiled loop.

        Raises:
            InputError: The loss is not finite.
        """
        progress = progress or EpochProgress()
        keys = self._keys(epoch)
        order = self.data.window_order(self._config.seed, epoch)
        num_skipped, first_step = self._locate(order, progress.num_steps)
        order = order[num_skipped:]
        started = time.perf_counter()
        for number, window in zip(order, self.data.windows(epoch, order), strict=True):
            while first_step < self._steps_of(number):
                num_steps = min(self._steps_per_call, self._steps_of(number) - first_step)
                done_before = epoch * self.steps_per_epoch + progress.num_steps
                totals = self._call(window, keys, *map(tf.constant, (first_step, num_steps, done_before)))
                loss, penalty = (
                    float(totals.loss),
                    float(self._penalty([tf.convert_to_tensor(weight) for weight in self._weights])),
                )
                self._check_finite(loss, penalty, int(totals.first_bad_step) - first_step, epoch, progress, num_steps)
                first_row, last_row = (step * self._groups_per_step for step in (first_step, first_step + num_steps))
                progress.num_examples += (min(last_row, self.data.rows_of(number)) - first_row) * self._group_size
                progress.num_steps += num_steps
                progress.summed_loss += loss
                progress.summed_penalty += penalty * num_steps
                first_step += num_steps
                now = time.perf_counter()
                progress.duration_s += now - started
                if after_call is not None:
                    after_call(progress)
                started = time.perf_counter()
            first_step = 0
        return progress

    def scorer(self) -> ScoreCandidates:
        """Returns a function that scores with the weights as they are now: see `ScoreCandidates` for its shapes."""
        weights = [tf.convert_to_tensor(weight) for weight in self._weights]

        def score(users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.float32]:
            # A block that the replicas cannot divide is filled up with its first users, whose scores are dropped.
            rows = np.resize(np.arange(len(users)), -(-len(users) // self._num_shares) * self._num_shares)
            scores: NDArray[np.float32] = self._score(
                weights, tf.constant(users[rows]), tf.constant(items[rows])
            ).numpy()
            return scores[: len(users)]

        return score

    def weights(self) -> Weights:
        """Returns copies of the weights, in the order of `Architecture.weight_shapes`."""
        return [weight.numpy() for weight in self._weights]

    def state(self) -> Weights:
        """Returns copies of all that changes from step to step: the weights, then the optimizer's slots."""
        return [variable.numpy() for variable in (*self._weights, *self._slots)]

    def load_state(self, state: Sequence[NDArray[np.float32]]) -> None:
        """Takes up what `state` returned."""
        for variable, value in zip((*self._weights, *self._slots), state, strict=True):
            variable.assign(value)

    def _run_on_one(
        self, window: Window, keys: tf.Tensor, first_step: tf.Tensor, num_steps: tf.Tensor, done_before: tf.Tensor
    ) -> Totals:
        """Takes steps as one compiled program.

        Args:
            window: The rows that the batches are cut out of.
            keys: uint32 [2, 2]: those of the epoch's order and of its negatives.
            first_step: int32 [], of the window.
            num_steps: int32 [], at most `steps_per_call`.
            done_before: int32 [], steps of the whole run before these.
        """
        batches = self.math.batches(self._seen, window, keys, first_step, tf.constant(0))
        optimizer, num_look_ups = self.math.optimizer, self.math.num_look_ups(self._group_size)

        # Not `for step in tf.range(…)`: XLA takes the bounds of a range as constants and compiles once for each.
        def take_steps(
            first: tf.Tensor, weights: list[tf.Tensor], slots: list[tf.Tensor], totals: Totals
        ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor], Totals]:
            last = tf.minimum(first + optimizer.max_age, num_steps)

            def take_step(
                index: tf.Tensor, weights: list[tf.Tensor], state: Unsettled, totals: Totals
            ) -> tuple[tf.Tensor, list[tf.Tensor], Unsettled, Totals]:
                batch = batches.at(index)
                ids = self.math.by_weight(batch.users, tf.reshape(batch.items, [-1]))
                weights = optimizer.catch_up(weights, state, ids)
                loss, gradients = self.math.gradients(weights, batch)
                weights, state = self.math.update(weights, state, gradients, done_before + index, index - first)
                return index + 1, weights, state, totals.with_step(first_step + index, loss)

            start = (first, weights, optimizer.unsettle(weights, slots, num_look_ups, self._steps_per_call), totals)
            _, weights, state, totals = tf.while_loop(lambda index, *_: index < last, take_step, start)
            return last, *optimizer.settle(weights, state, last - first), totals

        weights, slots = ([tf.convert_to_tensor(v) for v in part] for part in (self._weights, self._slots))
        start = (tf.constant(0), weights, slots, Totals.of_no_step())
        totals: Totals
        _, weights, slots, totals = tf.while_loop(lambda first, *_: first < num_steps, take_steps, start)
        for variable, value in zip((*self._weights, *self._slots), (*weights, *slots), strict=True):
            variable.assign(value)
        return totals

    def _run_on_tpu(
        self, window: Window, keys: tf.Tensor, first_step: tf.Tensor, num_steps: tf.Tensor, done_before: tf.Tensor
    ) -> Totals:
        """The same in each replica, with one all-reduce a step and a settlement after each."""
        variables, num_weights = (*self._weights, *self._slots), len(self._weights)
        shapes = [tuple(weight.shape) for weight in self._weights]
        exchange = GradientExchange(shapes, [None for _ in shapes], self.math.num_replicas)

        def run_replica() -> Totals:
            context = tf.distribute.get_replica_context()
            batches = self.math.batches(self._seen, window, keys, first_step, context.replica_id_in_sync_group)

            def body(
                index: tf.Tensor, state: list[tf.Tensor], totals: Totals
            ) -> tuple[tf.Tensor, list[tf.Tensor], Totals]:
                own = self.math.gradients(state[:num_weights], batches.at(index))
                packed = exchange.pack(*own, context.replica_id_in_sync_group)
                summed = context.all_reduce(tf.distribute.ReduceOp.SUM, packed)
                loss, gradients = exchange.unpack(summed, [None for _ in shapes])
                weights, slots = self.math.update_settled(
                    state[:num_weights], state[num_weights:], gradients, done_before + index
                )
                state = [*weights, *slots]
                return index + 1, state, totals.with_step(first_step + index, loss)

            start = (tf.constant(0), [tf.convert_to_tensor(v) for v in variables], Totals.of_no_step())
            totals: Totals
            _, state, totals = tf.while_loop(lambda index, *_: index < num_steps, body, start)
            # Each core assigns its own copy; all come to the same values.
            for variable, value in zip(variables, state, strict=True):
                variable.assign(value)
            return totals

        totals: Totals = self._strategy.run(run_replica)
        return Totals(*(self._strategy.experimental_local_results(part)[0] for part in totals))

    def _logits(self, weights: list[tf.Tensor], users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return neumf_logits(self.architecture, weights, users, items)

    def _logits_of_shares(self, weights: list[tf.Tensor], users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """The same with as many users on each replica."""
        num_users, num_candidates = items.shape
        users = tf.reshape(users, [self._num_shares, num_users // self._num_shares])
        items = tf.reshape(items, [*users.shape, num_candidates])

        def score_share() -> tf.Tensor:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return self._logits_on_replica(weights, users[replica], items[replica])

        return tf.concat(self._strategy.experimental_local_results(self._strategy.run(score_share)), axis=0)

    def _has_small_parts(self) -> bool:
        # The whole model's layers: a tower that is trained by itself first would decide for it.
        layers, num_weights = self._config.mlp_layers, sum(math.prod(weight.shape) for weight in self._weights)
        is_in_parts = self.math.num_replicas == 1 and _is_on_cpu(self._strategy) and len(layers) > 1
        return is_in_parts and are_buffers_small(self.examples_per_step, layers, num_weights)

    def _keys(self, epoch: int) -> tf.Tensor:
        streams = (Stream.EPOCH_ORDER, Stream.TRAIN_NEGATIVES)
        return tf.constant([derive_key(self._config.seed, stream, epoch) for stream in streams], tf.uint32)

    def _decay(self, phase: Phase) -> tuple[int, int] | None:
        num_steps = phase.num_epochs * self.steps_per_epoch
        return None if phase.decay_start == 1.0 else (round(phase.decay_start * num_steps), num_steps)

    def _steps_of(self, window: int) -> int:
        return math.ceil(self.data.rows_of(window) / self._groups_per_step)

    def _locate(self, order: list[int], num_steps: int) -> tuple[int, int]:
        """Finds the window, by its place in the order, and the step in it that come after `num_steps`."""
        for place, window in enumerate(order):
            if num_steps < self._steps_of(window):
                return place, num_steps
            num_steps -= self._steps_of(window)
        return len(order), 0

    def _check_finite(
        self, loss: float, penalty: float, bad_index: int, epoch: int, progress: EpochProgress, num_steps: int
    ) -> None:
        if math.isfinite(loss + penalty):
            return
        first = progress.num_steps + 1
        place = (
            f"at step {first + bad_index}" if bad_index >= 0 else f"between steps {first} and {first + num_steps - 1}"
        )
        raise InputError(
            f"The loss is {loss + penalty} in epoch {epoch + 1} {place}: lower train.learning_rate (now "
            f"{self._config.learning_rate})."
        )


def _is_on_cpu(strategy: tf.distribute.Strategy) -> bool:
    return not (isinstance(strategy, tf.distribute.TPUStrategy) or tf.config.list_logical_devices("GPU"))


def _on_device(seen: SeenItems) -> SeenItems:
    gaps, row_starts, row_lengths = (tf.constant(array) for array in seen[:3])
    return seen._replace(gaps=gaps, row_starts=row_starts, row_lengths=row_lengths)


def _check_counters(data: TrainingData, config: TrainConfig) -> None:
    """The device counts in 32 bits: positives in the table of seen items, and draws per item."""
    limit = 2**31
    if len(data.rows) + config.global_batch_size >= limit or data.num_items * config.num_train_negatives >= limit:
        raise InputError(
            f"{len(data.rows)} rows with train.global_batch_size {config.global_batch_size}, or {data.num_items} "
            f"items with train.num_train_negatives {config.num_train_negatives}, exceed 2**31: lower the parameter."
        )
