import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from components.ncf.counter_random import Stream, derive_key
from components.ncf.permutation import shuffled_positions
from components.train.epoch_order import shuffled_rows


def order_of_epoch(num_rows: int, epoch: int) -> np.ndarray:
    num_bits = max(2, (num_rows - 1).bit_length())

    @tf.function(jit_compile=True)
    def order(key: tf.Tensor) -> tf.Tensor:
        return shuffled_rows(tf.range(num_rows), tf.constant(num_rows), num_bits, key)

    return order(tf.constant(derive_key(1, Stream.EPOCH_ORDER, epoch), tf.uint32)).numpy()


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 16, 17, 97, 1000, 99_991])
def test_every_row_comes_exactly_once(num_rows: int) -> None:
    np.testing.assert_array_equal(np.sort(order_of_epoch(num_rows, epoch=0)), np.arange(num_rows))


@pytest.mark.parametrize("num_rows", [3, 97, 99_991])
def test_the_device_computes_the_bits_of_the_host(num_rows: int) -> None:
    key = derive_key(1, Stream.EPOCH_ORDER, 4)
    on_host = shuffled_positions(np.arange(num_rows, dtype=np.uint32), num_rows, key)
    np.testing.assert_array_equal(order_of_epoch(num_rows, epoch=4), on_host)


def test_epochs_have_orders_of_their_own() -> None:
    first, second = order_of_epoch(5000, 0), order_of_epoch(5000, 1)
    assert (first == second).mean() < 0.01
    assert abs(stats.spearmanr(first, second).statistic) < 0.05


def test_the_order_does_not_follow_the_rows() -> None:
    order = order_of_epoch(20_000, 3)
    assert abs(stats.spearmanr(np.arange(20_000), order).statistic) < 0.03
    # Neighbours in the epoch are no neighbours in the files: their distance is that of a random permutation, whose
    # mean is a third of the size.
    assert np.abs(np.diff(order)).mean() == pytest.approx(20_000 / 3, rel=0.03)


def test_rows_spread_evenly_over_the_batches_of_an_epoch() -> None:
    batch_of_row = np.argsort(order_of_epoch(10_000, 5)) // 1000
    counts = np.stack(
        [np.bincount(batch_of_row[start : start + 1000], minlength=10) for start in range(0, 10_000, 1000)]
    )
    assert stats.chi2_contingency(counts).pvalue > 1e-3
