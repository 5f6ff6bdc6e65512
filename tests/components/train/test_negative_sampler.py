import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from components.ncf import counter_random
from components.ncf.counter_random import Stream, derive_key
from components.ncf.interactions import ItemLists
from components.ncf.negatives import sample_train_negatives as sample_on_host
from components.train.negative_sampler import _multiply_high, build_seen_items, sample_train_negatives, threefry2x32

NUM_USERS, NUM_ITEMS = 30, 50


@pytest.fixture
def positives() -> tuple[np.ndarray, np.ndarray]:
    """Users of very different activity: user u has seen (u * 7) % 49 + 1 items, in no order."""
    rng = np.random.default_rng(3)
    num_seen = [(user * 7) % 49 + 1 for user in range(NUM_USERS - 1)] + [NUM_ITEMS - 1]
    rows = [rng.choice(NUM_ITEMS, size, replace=False) for size in num_seen]
    users = np.repeat(np.arange(NUM_USERS), [len(row) for row in rows]).astype(np.int32)
    items = np.concatenate(rows).astype(np.int32)
    order = rng.permutation(len(users))
    return users[order], items[order]


def sample(positives: tuple[np.ndarray, np.ndarray], num_negatives: int, epoch: int = 0, compiled: bool = True):
    users, items = positives
    seen = build_seen_items(users, items, NUM_USERS, NUM_ITEMS)

    @tf.function(jit_compile=compiled)
    def draw(key: tf.Tensor) -> tf.Tensor:
        return sample_train_negatives(seen, key, tf.constant(users), tf.constant(items), num_negatives)

    return draw(tf.constant(derive_key(11, Stream.TRAIN_NEGATIVES, epoch), tf.uint32)).numpy()


def test_threefry_on_the_device_gives_the_bits_of_the_host() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**32, (4, 1000), dtype=np.uint64).astype(np.uint32)
    on_host = counter_random.threefry2x32((words[0], words[1]), (words[2], words[3]))
    device_words = [tf.constant(word) for word in words]
    for compiled in (True, False):
        on_device = tf.function(threefry2x32, jit_compile=compiled)(
            (device_words[0], device_words[1]), (device_words[2], device_words[3])
        )
        np.testing.assert_array_equal(on_device[0].numpy(), on_host[0])
        np.testing.assert_array_equal(on_device[1].numpy(), on_host[1])


def test_the_high_word_of_a_product_is_that_of_64_bit_arithmetic() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 2**32, (2, 10_000), dtype=np.uint64)
    a[:3], b[:3] = [0, 2**32 - 1, 2**32 - 1], [2**32 - 1, 2**32 - 1, 1]
    high = _multiply_high(tf.constant(a.astype(np.uint32)), tf.constant(b.astype(np.uint32)))
    np.testing.assert_array_equal(high, ((a * b) >> np.uint64(32)).astype(np.uint32))


def test_no_negative_is_a_training_positive_of_its_user(positives: tuple[np.ndarray, np.ndarray]) -> None:
    negatives = sample(positives, num_negatives=40)
    seen = {(int(u), int(i)) for u, i in zip(*positives, strict=True)}
    drawn = {(int(u), int(i)) for u, row in zip(positives[0], negatives, strict=True) for i in row}
    assert not seen & drawn
    assert negatives.min() >= 0
    assert negatives.max() < NUM_ITEMS


def test_a_user_with_one_unseen_item_always_draws_it(positives: tuple[np.ndarray, np.ndarray]) -> None:
    users, items = positives
    (user,) = np.flatnonzero(np.bincount(users, minlength=NUM_USERS) == NUM_ITEMS - 1)
    (missing,) = np.setdiff1d(np.arange(NUM_ITEMS), items[users == user])
    assert (sample(positives, num_negatives=5)[users == user] == missing).all()


def test_negatives_are_uniform_over_the_unseen_items(positives: tuple[np.ndarray, np.ndarray]) -> None:
    users, items = positives
    negatives = np.stack([sample(positives, num_negatives=50, epoch=epoch) for epoch in range(4)])
    p_values = []
    for user in range(NUM_USERS):
        unseen = np.setdiff1d(np.arange(NUM_ITEMS), items[users == user])
        if len(unseen) < 2:
            continue
        counts = np.bincount(negatives[:, users == user].ravel(), minlength=NUM_ITEMS)[unseen]
        p_values.append(stats.chisquare(counts).pvalue)
    # Under the hypothesis the p-values of the users are themselves uniform.
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_negatives_differ_between_epochs_and_repeat_for_the_same_epoch(
    positives: tuple[np.ndarray, np.ndarray],
) -> None:
    first, again, second = (sample(positives, 4, epoch) for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != second).mean() > 0.5


def test_compiled_and_interpreted_draw_the_same(positives: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(sample(positives, 4, compiled=True), sample(positives, 4, compiled=False))


def test_negatives_on_the_device_are_those_of_the_host(positives: tuple[np.ndarray, np.ndarray]) -> None:
    users, items = positives
    seen = ItemLists.from_pairs(users, items, NUM_USERS)
    key = derive_key(11, Stream.TRAIN_NEGATIVES, 2)
    on_host = sample_on_host(users, items, users, seen, NUM_ITEMS, 4, key)
    np.testing.assert_array_equal(sample(positives, 4, epoch=2), on_host)
