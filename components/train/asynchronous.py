"""Workers that train at their own pace against variables on parameter servers."""

from dataclasses import replace

import tensorflow as tf

from components.train.input_pipeline import Window
from components.train.negative_sampler import SeenItems
from components.train.step import StepMath, Totals

# Pieces that each worker gets of a call, so that a fast one gets more and a lost one loses little.
_PIECES_PER_WORKER = 4


class AsynchronousWorkers:
    """Spreads the steps of a call over the workers of a parameter-server cluster.

    Each step reads the weights, computes its gradients compiled, and adds its change to the weights, whatever other
    workers have added meanwhile. Every step of a call is done when the call returns; one whose worker is lost is done
    again by another, so that it may count twice.
    """

    def __init__(
        self,
        strategy: tf.distribute.ParameterServerStrategy,
        math: StepMath,
        weights: list[tf.Variable],
        slots: list[tf.Variable],
        seen: SeenItems | None,
    ) -> None:
        """Connects to the workers.

        Args:
            strategy: The cluster's.
            math: What a step computes.
            weights, slots: The variables, on the parameter servers.
            seen: The positives that are never drawn.
        """
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        self._num_workers = strategy._num_workers
        self._weights, self._slots, self._seen = weights, slots, seen
        num_pieces = self._num_workers * _PIECES_PER_WORKER
        self._steps_per_piece = -(-math.steps_per_call // num_pieces)
        self._math = replace(math, steps_per_call=self._steps_per_piece)
        self._draw = tf.function(self._math.batches, jit_compile=True)
        self._gradients = tf.function(self._math.gradients, jit_compile=True)
        self._update = tf.function(self._math.update_settled, jit_compile=True)
        self._piece = tf.function(self._run_piece)

    def run(
        self, window: Window, keys: tf.Tensor, first_step: tf.Tensor, num_steps: tf.Tensor, done_before: tf.Tensor
    ) -> Totals:
        """Has the steps done; arguments and result as those of the compiled loop of one replica."""
        pieces = []
        for start in range(0, int(num_steps), self._steps_per_piece):
            length = min(self._steps_per_piece, int(num_steps) - start)
            arguments = (window, keys, first_step + start, tf.constant(length), done_before + start)
            pieces.append(self._coordinator.schedule(self._piece, args=arguments))
        self._coordinator.join()
        totals: list[Totals] = [piece.fetch() for piece in pieces]
        bad_steps = [int(one.first_bad_step) for one in totals if one.first_bad_step >= 0]
        loss = sum(float(one.loss) for one in totals)
        return Totals(tf.constant(loss), tf.constant(min(bad_steps, default=-1)))

    def _run_piece(
        self, window: Window, keys: tf.Tensor, first_step: tf.Tensor, num_steps: tf.Tensor, done_before: tf.Tensor
    ) -> Totals:
        batches = self._draw(self._seen, window, keys, first_step, tf.constant(0))

        def body(index: tf.Tensor, totals: Totals) -> tuple[tf.Tensor, Totals]:
            weights, slots = ([tf.convert_to_tensor(v) for v in part] for part in (self._weights, self._slots))
            loss, gradients = self._gradients(weights, batches.at(index))
            new_weights, new_slots = self._update(weights, slots, gradients, done_before + index)
            for variable, before, after in zip(self._weights, weights, new_weights, strict=True):
                variable.assign_add(after - before)
            for variable, after in zip(self._slots, new_slots, strict=True):
                variable.assign(after)
            return index + 1, totals.with_step(first_step + index, loss)

        start = (tf.constant(0), Totals.of_no_step())
        totals: Totals
        _, totals = tf.while_loop(lambda index, _: index < num_steps, body, start)
        return totals
