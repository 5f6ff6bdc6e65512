"""Training negatives drawn on the device, exactly uniform over the items a user has no training positive of.

No rejection loop: a random rank among the user's unseen items is turned into that item by a binary search in the
sorted positives, so every draw costs the same, shapes are static and memory is O(positives). The bits equal those
of `components.ncf.negatives.sample_train_negatives`, which draws them on the host.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.ncf.counter_random import PARITY, ROTATIONS


class SeenItems(NamedTuple):
    """The training positives in compressed rows. The arrays may live on the host or on the device.

    Attributes:
        gaps: int32 [num_positives]. For the j-th smallest item of a user, that item minus j: how many unseen items
            lie below it. Users one after the other.
        row_starts: int32 [num_users]. Where each user's row begins.
        row_lengths: int32 [num_users].
        num_items: Size of the catalogue.
        num_halvings: Halvings that find a place in the longest row.
    """

    gaps: Any
    row_starts: Any
    row_lengths: Any
    num_items: int
    num_halvings: int


def build_seen_items(users: NDArray[np.int32], items: NDArray[np.int32], num_users: int, num_items: int) -> SeenItems:
    """Sorts the positives into the rows that the sampler searches, as numpy arrays.

    Args:
        users: int32 [num_positives], dense user indices in any order.
        items: int32 [num_positives], dense item indices; no pair twice.
        num_users: Number of users.
        num_items: Number of items.
    """
    pairs = users.astype(np.int64) * num_items + items
    pairs.sort()
    row_lengths = np.bincount(users, minlength=num_users)
    row_starts = np.cumsum(row_lengths) - row_lengths
    # Taken away from pair and place in the sorted list: the user's first possible pair and the row's first place.
    pairs -= np.arange(len(pairs))
    pairs -= np.repeat(np.arange(num_users) * num_items - row_starts, row_lengths)
    return SeenItems(
        gaps=pairs.astype(np.int32),
        row_starts=row_starts.astype(np.int32),
        row_lengths=row_lengths.astype(np.int32),
        num_items=num_items,
        num_halvings=int(row_lengths.max()).bit_length(),
    )


def threefry2x32(key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """The device's twin of `components.ncf.counter_random.threefry2x32`: uint32 tensors in, uint32 tensors out."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ tf.constant(PARITY, tf.uint32))
    x_0, x_1 = counter[0] + schedule[0], counter[1] + schedule[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x_0 = x_0 + x_1
            left = tf.bitwise.left_shift(x_1, tf.constant(rotation, tf.uint32))
            right = tf.bitwise.right_shift(x_1, tf.constant(32 - rotation, tf.uint32))
            x_1 = (left | right) ^ x_0
        x_0 = x_0 + schedule[(group + 1) % 3]
        x_1 = x_1 + schedule[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return x_0, x_1


def sample_train_negatives(
    seen: SeenItems, key: tf.Tensor, users: tf.Tensor, positive_items: tf.Tensor, num_negatives: int
) -> tf.Tensor:
    """Draws the negatives of a block of positives.

    Args:
        seen: The positives that are never drawn.
        key: uint32 [2], the epoch's `components.ncf.counter_random.derive_key` of Stream.TRAIN_NEGATIVES.
        users: int32, any shape.
        positive_items: int32 of the same shape.
        num_negatives: Draws beside each positive.

    Returns:
        int32 [..., num_negatives], independent of each other and uniform over the user's unseen items.
    """
    draw = positive_items[..., None] * num_negatives + tf.range(num_negatives, dtype=tf.int32)
    counter = (tf.zeros_like(draw, tf.uint32) + tf.cast(users, tf.uint32)[..., None], tf.cast(draw, tf.uint32))
    words, _ = threefry2x32((key[0], key[1]), counter)
    row_lengths = tf.gather(seen.row_lengths, users)[..., None]
    ranks = tf.cast(_multiply_high(words, tf.cast(seen.num_items - row_lengths, tf.uint32)), tf.int32)
    return ranks + _num_seen_below(seen, ranks, tf.gather(seen.row_starts, users)[..., None], row_lengths)


def _multiply_high(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns the upper 32 bits of the 64-bit product of uint32 tensors, in 32-bit arithmetic, which TPUs have."""
    mask = tf.constant(0xFFFF, tf.uint32)

    def high(x: tf.Tensor) -> tf.Tensor:
        return tf.bitwise.right_shift(x, tf.constant(16, tf.uint32))

    a_high, a_low, b_high, b_low = high(a), a & mask, high(b), b & mask
    first = a_high * b_low + high(a_low * b_low)
    second = a_low * b_high + (first & mask)
    return a_high * b_high + high(first) + high(second)


def _num_seen_below(seen: SeenItems, ranks: tf.Tensor, row_starts: tf.Tensor, row_lengths: tf.Tensor) -> tf.Tensor:
    """Counts the seen items below each unseen item given by its rank: those with a gap of at most that rank."""

    # One number is carried from halving to halving: two bounds of a range take three times as long (measured). A
    # loop, not unrolled: XLA would fuse the dependent look-ups into code that computes them again and again.
    def take_half(half: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        more = count + half
        is_below = tf.gather(seen.gaps, row_starts + tf.minimum(more, row_lengths) - 1) <= ranks
        return tf.bitwise.right_shift(half, 1), tf.where((more <= row_lengths) & is_below, more, count)

    start = (tf.constant(1 << (seen.num_halvings - 1)), tf.zeros_like(ranks))
    _, count = tf.while_loop(lambda half, _count: half > 0, take_half, start)
    return count
