"""The order of an epoch as a function: which positive stands at which position, without a table or a sort.

A Feistel network over a near-square grid is a bijection of its cells (Black and Rogaway, "Ciphers with arbitrary
finite domains", CT-RSA 2002); positions that leave the domain walk on until they are back. The data position is
therefore one number, so that a run resumes exactly, and no replica has to hold or exchange a permutation.
"""

import math

import tensorflow as tf

_NUM_ROUNDS = 6
# Multipliers of the 32-bit finalizer of MurmurHash3 (Appleby), and 2**32 divided by the golden ratio.
_MIX_1, _MIX_2, _GOLDEN = 0x85EBCA6B, 0xC2B2AE35, 0x9E3779B9


def shuffled_index(positions: tf.Tensor, num_rows: int, key: tf.Tensor) -> tf.Tensor:
    """Maps positions in an epoch to rows, one to one.

    Args:
        positions: int32 [n], each in [0, num_rows).
        num_rows: Size of the epoch, below 2**31 - 2**16.
        key: uint32 [2]; another key gives another order.

    Returns:
        int32 [n] in [0, num_rows).
    """
    num_left = math.isqrt(num_rows - 1) + 1
    num_right = -(-num_rows // num_left)

    def encrypt(cells: tf.Tensor) -> tf.Tensor:
        left, right = cells // num_right, cells % num_right
        for round_index in range(_NUM_ROUNDS):
            if round_index % 2:
                right = (right + _round_value(left, round_index, num_right, key)) % num_right
            else:
                left = (left + _round_value(right, round_index, num_left, key)) % num_left
        return left * num_right + right

    # All positions take a first step; then only those outside the domain walk on. One loop with one copy of the
    # network, because XLA compiles every copy.
    def walk(cells: tf.Tensor, is_outside: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        moved = tf.where(is_outside, encrypt(cells), cells)
        return moved, moved >= num_rows

    rows, _ = tf.while_loop(
        lambda _, is_outside: tf.reduce_any(is_outside), walk, (positions, tf.ones_like(positions, tf.bool))
    )
    return rows


def _round_value(half: tf.Tensor, round_index: int, bound: int, key: tf.Tensor) -> tf.Tensor:
    """Returns int32 values in [0, bound) that look random in `half`, the round and the key."""
    mixed = tf.cast(half, tf.uint32) * tf.constant(_GOLDEN, tf.uint32) + key[round_index % 2]
    mixed += tf.constant(round_index * _MIX_1 % 2**32, tf.uint32)
    for multiplier, shift in ((_MIX_1, 16), (_MIX_2, 13)):
        mixed = (mixed ^ tf.bitwise.right_shift(mixed, tf.constant(shift, tf.uint32))) * tf.constant(
            multiplier, tf.uint32
        )
    mixed = mixed ^ tf.bitwise.right_shift(mixed, tf.constant(16, tf.uint32))
    return tf.cast(mixed % tf.constant(bound, tf.uint32), tf.int32)
