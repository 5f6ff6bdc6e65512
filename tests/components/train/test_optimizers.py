"""The optimizers, against their definitions in double precision."""

import numpy as np
import pytest
import tensorflow as tf

from components.train.optimizers import Adam

NUM_STEPS, NUM_LOOK_UPS, WIDTH = 500, 10, 3


@pytest.mark.parametrize(
    ("beta1", "beta2", "epsilon", "max_age", "scale"),
    [(0.9, 0.999, 1e-6, 218, 1.0), (0.8, 0.65, 1e-6, 53, 1e12), (0.0, 0.9, 1e-6, 1, 1e14), (0.9, 0.999, 0.1, 218, 1.0)],
)
@pytest.mark.parametrize(("num_rows", "can_lag"), [(40, False), (400, True)])
def test_adam_is_that_of_the_paper(
    beta1: float, beta2: float, epsilon: float, max_age: int, scale: float, num_rows: int, can_lag: bool
) -> None:
    """A table of which a step looks up some rows, some twice, and some rows never; and a kernel.

    The rate falls, and is 0 for a while. An epsilon of the size of the second moments' roots makes their decay matter.
    """
    adam = Adam(learning_rate=0.01, beta1=beta1, beta2=beta2, epsilon=epsilon)
    assert adam.max_age == max_age
    rng = np.random.default_rng(7)
    expected = [rng.normal(size=shape) for shape in ((num_rows, WIDTH), (4, 2))]
    moments = [np.zeros((2, *weight.shape)) for weight in expected]
    weights = [tf.constant(weight, tf.float32) for weight in expected]
    slots = [tf.zeros_like(weight) for weight in weights for _ in range(2)]
    catch_up, update = (tf.function(function, jit_compile=True) for function in (adam.catch_up, adam.update))
    age = 0
    for step in range(NUM_STEPS):
        rows = rng.integers(0, num_rows - 5, NUM_LOOK_UPS)
        values, kernel = (scale * rng.normal(size=shape) for shape in ((len(rows), WIDTH), (4, 2)))
        ids = tf.constant(rows, tf.int32)
        gradient = tf.IndexedSlices(tf.constant(values, tf.float32), ids, tf.constant([num_rows, WIDTH]))
        rate_scale = 0.0 if 300 <= step < 330 else 1.0 - step / NUM_STEPS
        if age == 0:
            state = adam.unsettle(weights, slots, [NUM_LOOK_UPS, None], NUM_STEPS)
            # Only the usual betas let rows lag behind.
            assert bool(state.look_ups[0].shape[0]) == (can_lag and beta2 == 0.999)
        weights = catch_up(weights, state, [ids, None])
        looked_up = tf.gather(weights[0], rows).numpy()
        np.testing.assert_allclose(looked_up, expected[0][rows], rtol=1e-5, atol=1e-5)
        weights, state = update(
            weights, state, [gradient, tf.constant(kernel, tf.float32)], tf.constant(step), tf.constant(age),
            tf.constant(rate_scale),
        )  # fmt: skip
        age += 1
        if age == max_age or step % 171 == 170 or step == NUM_STEPS - 1:
            (weights, slots), age = adam.settle(weights, state, tf.constant(age)), 0
        dense = np.zeros((num_rows, WIDTH))
        np.add.at(dense, rows, values)
        for weight, moment, g in zip(expected, moments, (dense, kernel), strict=True):
            moment[0] = beta1 * moment[0] + (1 - beta1) * g
            moment[1] = beta2 * moment[1] + (1 - beta2) * g**2
            # Section 2 of the paper: the bias corrections belong to the rate, and epsilon hat to the plain root.
            rate = 0.01 * rate_scale * np.sqrt(1 - beta2 ** (step + 1)) / (1 - beta1 ** (step + 1))
            weight -= rate * moment[0] / (np.sqrt(moment[1]) + epsilon)
    for actual, weight in zip(weights, expected, strict=True):
        np.testing.assert_allclose(actual, weight, rtol=1e-5, atol=1e-5)
    for actual, moment in zip(slots, (part for pair in moments for part in pair), strict=True):
        np.testing.assert_allclose(actual, moment, rtol=1e-4, atol=1e-6 * scale)


def test_betas_near_1_are_settled_before_their_decays_are_a_long_table() -> None:
    assert Adam(learning_rate=0.01, beta1=0.9999999, beta2=1 - 2**-53, epsilon=1e-8).max_age == 500


@pytest.mark.parametrize(("num_rows", "num_steps", "lags"), [(100, 5, True), (100, 4, False), (99, 5, False)])
def test_rows_lag_where_few_are_looked_up_in_calls_of_some_steps(num_rows: int, num_steps: int, lags: bool) -> None:
    adam = Adam(learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8)
    state = adam.unsettle([tf.zeros([num_rows, 2])], [tf.zeros([num_rows, 2])] * 2, [10], num_steps)
    assert state.look_ups[0].shape == [num_rows if lags else 0]
