"""Replicas that take every step together, on one machine or several."""

from collections.abc import Sequence

import tensorflow as tf

from components.train.exchange import GradientExchange
from components.train.input_pipeline import Window
from components.train.negative_sampler import SeenItems
from components.train.optimizers import Unsettled, are_few
from components.train.step import Batches, StepMath, Totals


class SynchronousReplicas:
    """Spreads each step over the replicas of a strategy, with one all-reduce a step.

    XLA compiles what a replica computes; between that stand the strategy's collectives, which work outside of XLA for
    every strategy. The state stays where it is: a replica changes its copies of the variables in place. Of a table of
    which all replicas together look up few rows in a step, those are sent instead of the whole gradient, and every
    replica adds up the others' rows for itself.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        math: StepMath,
        weights: list[tf.Variable],
        slots: list[tf.Variable],
        seen: SeenItems | None,
        group_size: int,
    ) -> None:
        """Creates what the replicas need besides.

        Args:
            strategy: MirroredStrategy or MultiWorkerMirroredStrategy.
            math: What a step computes.
            weights, slots: The variables, created under the strategy.
            seen: The positives that are never drawn.
            group_size: Examples that share a user.
        """
        self._strategy, self._math, self._seen = strategy, math, seen
        shapes = [tuple(weight.shape) for weight in weights]
        by_row = [
            count if count is not None and are_few(math.num_replicas * count, shape[0]) else None
            for count, shape in zip(math.num_look_ups(group_size), shapes, strict=True)
        ]
        exchange = GradientExchange(shapes, by_row, math.num_replicas)
        sides = zip(math.by_weight("user", "item"), by_row, strict=True)
        sides_by_row = sorted({side for side, count in sides if side is not None and count is not None})
        by_all = [None if count is None else math.num_replicas * count for count in by_row]
        state = math.optimizer.unsettle(weights, slots, by_all, math.steps_per_call)
        with strategy.scope():
            # TensorFlow has no int32 variables on a GPU.
            look_ups = [tf.Variable(tf.cast(value, tf.int64), trainable=False) for value in state.look_ups]
            drift = tf.Variable(state.drift, trainable=False)

        def copies(variables: list[tf.Variable], number: int) -> list[tf.Variable]:
            return [strategy.experimental_local_results(variable)[number] for variable in variables]

        self._replicas = [
            _Replica(
                math, exchange, sides_by_row, *(copies(part, number) for part in (weights, slots, look_ups, [drift]))
            )
            for number in range(len(strategy.experimental_local_results(drift)))
        ]
        # On GPUs, rows that occur more than once are added up in any order: a call ends with the same state everywhere.
        self._copies_may_differ = bool(tf.config.list_logical_devices("GPU"))
        self._run = tf.function(self._run_steps)

    def run(
        self, window: Window, keys: tf.Tensor, first_step: tf.Tensor, num_steps: tf.Tensor, done_before: tf.Tensor
    ) -> Totals:
        """Takes steps; arguments and result as those of `TrainingLoop._run_on_one`."""
        totals: Totals = self._run(window, keys, first_step, num_steps, done_before)
        return totals

    def _run_steps(
        self, window: Window, keys: tf.Tensor, first_step: tf.Tensor, num_steps: tf.Tensor, done_before: tf.Tensor
    ) -> Totals:
        strategy = self._strategy

        def draw() -> tuple[Batches, dict[str, tf.Tensor]]:
            context = tf.distribute.get_replica_context()
            replica = context.replica_id_in_sync_group
            batches, ids = self._own().draw(self._seen, window, keys, first_step, replica)
            return batches, context.all_reduce(tf.distribute.ReduceOp.SUM, ids) if ids else ids

        def take_step(batches: Batches, ids: dict[str, tf.Tensor], index: tf.Tensor, age: tf.Tensor) -> tf.Tensor:
            own, context = self._own(), tf.distribute.get_replica_context()
            packed = own.gradients(batches, ids, index, context.replica_id_in_sync_group)
            summed = context.all_reduce(tf.distribute.ReduceOp.SUM, packed)
            return own.update(summed, ids, index, done_before, age)

        batches, ids = strategy.run(draw)

        def take_steps(first: tf.Tensor, totals: Totals) -> tuple[tf.Tensor, Totals]:
            last = tf.minimum(first + self._math.optimizer.max_age, num_steps)
            strategy.run(lambda: self._own().unsettle())

            def body(index: tf.Tensor, totals: Totals) -> tuple[tf.Tensor, Totals]:
                losses = strategy.run(take_step, args=(batches, ids, index, index - first))
                loss = strategy.experimental_local_results(losses)[0]
                return index + 1, totals.with_step(first_step + index, loss)

            _, totals = tf.while_loop(lambda index, _: index < last, body, (first, totals))
            strategy.run(lambda: self._own().settle(last - first))
            return last, totals

        totals: Totals
        start = (tf.constant(0), Totals.of_no_step())
        _, totals = tf.while_loop(lambda first, _: first < num_steps, take_steps, start)
        if self._copies_may_differ:
            strategy.run(self._take_up_the_first)
        return totals

    def _take_up_the_first(self) -> None:
        """Makes all replicas' copies of the state those of the first one."""
        context = tf.distribute.get_replica_context()
        variables = self._own().saved
        is_first = context.replica_id_in_sync_group == 0
        shares = [tf.where(is_first, variable, tf.zeros_like(variable)) for variable in variables]
        _assign(variables, context.all_reduce(tf.distribute.ReduceOp.SUM, shares))

    def _own(self) -> "_Replica":
        """Returns the replica in whose context this is called."""
        number = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
        return self._replicas[int(number) % len(self._replicas)]


class _Replica:
    """One replica's copies of the variables, and what it computes with them, compiled."""

    def __init__(
        self,
        math: StepMath,
        exchange: GradientExchange,
        sides_by_row: list[str],
        weights: list[tf.Variable],
        slots: list[tf.Variable],
        look_ups: list[tf.Variable],
        drift: list[tf.Variable],
    ) -> None:
        """Compiles nothing yet.

        Args:
            math: What a step computes.
            exchange: How gradients travel.
            sides_by_row: "user", "item": the tables of these travel as rows.
            weights, slots, look_ups, drift: Its copies of the weights, of the optimizer's slots, of
                `Unsettled.look_ups`, as int64, and of `Unsettled.drift`, the only one in its list.
        """
        self._math, self._exchange, self._sides_by_row = math, exchange, sides_by_row
        self._weights, self._slots, self._look_ups, (self._drift,) = weights, slots, look_ups, drift
        self.saved = [*self._weights, *self._slots]
        self.draw = tf.function(self._draw, jit_compile=True)
        self.unsettle = tf.function(self._unsettle, jit_compile=True)
        self.gradients = tf.function(self._packed_gradients, jit_compile=True)
        self.update = tf.function(self._update, jit_compile=True)
        self.settle = tf.function(self._settle, jit_compile=True)

    def _draw(
        self, seen: SeenItems | None, window: Window, keys: tf.Tensor, first_step: tf.Tensor, replica: tf.Tensor
    ) -> tuple[Batches, dict[str, tf.Tensor]]:
        """Returns the replica's batches and, by side, what it looks up.

        The look-ups are int64 [steps, num_replicas, num_look_ups], zeros in the places of other replicas, so that the
        sum over the replicas holds all. TensorFlow keeps int32 tensors of a GPU in the host's memory.
        """
        batches = self._math.batches(seen, window, keys, first_step, replica)
        is_own = tf.range(self._math.num_replicas)[:, None] == replica
        own_ids = {}
        for side in self._sides_by_row:
            ids = tf.cast(batches.users if side == "user" else batches.items, tf.int64)
            own_ids[side] = tf.where(is_own, tf.reshape(ids, [ids.shape[0], 1, -1]), tf.constant(0, tf.int64))
        return batches, own_ids

    def _unsettle(self) -> None:
        for variable in (*self._look_ups, self._drift):
            variable.assign(tf.zeros_like(variable))

    def _packed_gradients(
        self, batches: Batches, ids: dict[str, tf.Tensor], index: tf.Tensor, replica: tf.Tensor
    ) -> tf.Tensor:
        weights, state = self._read()
        weights = self._math.optimizer.catch_up(weights, state, self._ids_of_step(ids, index))
        _assign(self._weights, weights)
        return self._exchange.pack(*self._math.gradients(weights, batches.at(index)), replica)

    def _update(
        self, summed: tf.Tensor, ids: dict[str, tf.Tensor], index: tf.Tensor, done_before: tf.Tensor, age: tf.Tensor
    ) -> tf.Tensor:
        loss, gradients = self._exchange.unpack(summed, self._ids_of_step(ids, index))
        weights, state = self._math.update(*self._read(), gradients, done_before + index, age)
        _assign(self._weights, weights)
        _assign([*self._slots, *self._look_ups, self._drift], [*state.slots, *state.look_ups, state.drift])
        return loss

    def _ids_of_step(self, ids: dict[str, tf.Tensor], index: tf.Tensor) -> list[tf.Tensor | None]:
        """Returns, weight by weight, the rows that all replicas look up, int32, one replica after the other."""
        of_step = {
            side: tf.reshape(tf.cast(tf.gather(of_steps, index), tf.int32), [-1]) for side, of_steps in ids.items()
        }
        return self._math.by_weight(of_step.get("user"), of_step.get("item"))

    def _settle(self, age: tf.Tensor) -> None:
        weights, slots = self._math.optimizer.settle(*self._read(), age)
        _assign(self._weights, weights)
        _assign(self._slots, slots)

    def _read(self) -> tuple[list[tf.Tensor], Unsettled]:
        weights, slots = (
            [tf.convert_to_tensor(variable) for variable in part] for part in (self._weights, self._slots)
        )
        look_ups = [tf.cast(variable, tf.int32) for variable in self._look_ups]
        return weights, Unsettled(slots, look_ups, tf.convert_to_tensor(self._drift))


def _assign(variables: Sequence[tf.Variable], values: Sequence[tf.Tensor]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(tf.cast(value, variable.dtype))
