"""The optimizers, against their definitions in double precision."""

import numpy as np
import pytest
import tensorflow as tf

from components.train.optimizers import Adam

NUM_ROWS, WIDTH = 40, 3


@pytest.mark.parametrize(
    ("beta1", "beta2", "max_age", "scale"),
    [(0.9, 0.999, 218, 1.0), (0.8, 0.65, 53, 1e12), (0.0, 0.9, 1, 1e14)],
)
def test_adam_is_that_of_the_paper(beta1: float, beta2: float, max_age: int, scale: float) -> None:
    """A table of which a step looks up few rows, some twice, and some rows never; and a kernel."""
    adam = Adam(learning_rate=0.01, beta1=beta1, beta2=beta2, epsilon=1e-6)
    assert adam.max_age == max_age
    rng = np.random.default_rng(7)
    expected = [rng.normal(size=shape) for shape in ((NUM_ROWS, WIDTH), (4, 2))]
    moments = [np.zeros((2, *weight.shape)) for weight in expected]
    weights = [tf.constant(weight, tf.float32) for weight in expected]
    slots = [tf.zeros_like(weight) for weight in weights for _ in range(2)]
    update = tf.function(adam.update, jit_compile=True)
    age = 0
    for step in range(500):
        rows = rng.integers(0, NUM_ROWS - 5, NUM_ROWS // 4)
        values, kernel = (scale * rng.normal(size=shape) for shape in ((len(rows), WIDTH), (4, 2)))
        gradient = tf.IndexedSlices(
            tf.constant(values, tf.float32), tf.constant(rows, tf.int32), tf.constant([NUM_ROWS, WIDTH])
        )
        weights, slots = update(
            weights, slots, [gradient, tf.constant(kernel, tf.float32)], tf.constant(step), tf.constant(age),
            tf.constant(1.0),
        )  # fmt: skip
        age += 1
        if age == max_age or step % 171 == 170 or step == 499:
            slots, age = adam.settle(slots, tf.constant(age)), 0
        dense = np.zeros((NUM_ROWS, WIDTH))
        np.add.at(dense, rows, values)
        for weight, moment, g in zip(expected, moments, (dense, kernel), strict=True):
            moment[0] = beta1 * moment[0] + (1 - beta1) * g
            moment[1] = beta2 * moment[1] + (1 - beta2) * g**2
            # Section 2 of the paper: the bias corrections belong to the rate, and epsilon hat to the plain root.
            rate = 0.01 * np.sqrt(1 - beta2 ** (step + 1)) / (1 - beta1 ** (step + 1))
            weight -= rate * moment[0] / (np.sqrt(moment[1]) + 1e-6)
    for actual, weight in zip(weights, expected, strict=True):
        np.testing.assert_allclose(actual, weight, rtol=1e-4, atol=1e-4)
    for actual, moment in zip(slots, (part for pair in moments for part in pair), strict=True):
        np.testing.assert_allclose(actual, moment, rtol=1e-4, atol=1e-6 * scale)


def test_betas_near_1_are_settled_before_their_decays_are_a_long_table() -> None:
    assert Adam(learning_rate=0.01, beta1=0.9999999, beta2=1 - 2**-53, epsilon=1e-8).max_age == 500
