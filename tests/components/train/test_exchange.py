import numpy as np
import tensorflow as tf

from components.train.exchange import GradientExchange

NUM_REPLICAS, NUM_ROWS, NUM_LOOK_UPS = 3, 50, 4


def test_replicas_learn_each_other_s_rows_and_the_sum_of_everything_else() -> None:
    rng = np.random.default_rng(3)
    exchange = GradientExchange([(NUM_ROWS, 2), (5, 3), (3,)], [NUM_LOOK_UPS, None, None], NUM_REPLICAS)
    losses, kernels, biases = (rng.normal(size=(NUM_REPLICAS, *shape)) for shape in ((), (5, 3), (3,)))
    values = rng.normal(size=(NUM_REPLICAS, NUM_LOOK_UPS, 2))
    ids = rng.integers(0, NUM_ROWS, (NUM_REPLICAS, NUM_LOOK_UPS))
    ids[1, :2] = ids[0, 0]
    packed = [
        exchange.pack(
            tf.constant(losses[replica], tf.float32),
            [
                tf.IndexedSlices(tf.constant(values[replica], tf.float32), tf.constant(ids[replica])),
                tf.constant(kernels[replica], tf.float32),
                tf.constant(biases[replica], tf.float32),
            ],
            tf.constant(replica),
        )
        for replica in range(NUM_REPLICAS)
    ]
    # The table, of 100 numbers, travels as the 24 that were looked up.
    assert packed[0].shape == [1 + NUM_REPLICAS * NUM_LOOK_UPS * 2 + 15 + 3]
    loss, (table, kernel, bias) = exchange.unpack(tf.add_n(packed), [tf.constant(ids.ravel()), None, None])
    np.testing.assert_allclose(loss, losses.sum(), rtol=1e-6)
    np.testing.assert_allclose(kernel, kernels.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(bias, biases.sum(axis=0), rtol=1e-5)
    expected = np.zeros((NUM_ROWS, 2))
    np.add.at(expected, ids, values)
    np.testing.assert_allclose(tf.convert_to_tensor(table), expected, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_is_not_finite_spoils_no_other_replica_s_rows() -> None:
    exchange = GradientExchange([(NUM_ROWS, 1)], [1], 2)
    packed = [
        exchange.pack(
            tf.constant(0.0), [tf.IndexedSlices(tf.constant([[value]]), tf.constant([7]))], tf.constant(replica)
        )
        for replica, value in enumerate((float("nan"), 2.0))
    ]
    np.testing.assert_array_equal(tf.add_n(packed), [0.0, float("nan"), 2.0])
