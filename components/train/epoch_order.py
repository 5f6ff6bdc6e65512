"""The order of an epoch as a function: which row of a window stands at which position, without a table or a sort.

The device's twin of `components.ncf.permutation`, bit for bit: a Feistel network over 2**b cells is a bijection, and a
position that lands outside the window walks on until it is back. The data position is therefore one number, so that a
run resumes exactly, and no replica has to hold or exchange a permutation.
"""

import tensorflow as tf

from components.ncf.permutation import GOLDEN, MIX_1, MIX_2, NUM_ROUNDS


def shuffled_rows(positions: tf.Tensor, num_rows: tf.Tensor, num_bits: int, key: tf.Tensor) -> tf.Tensor:
    """Maps positions to rows, one to one.

    Args:
        positions: int32, any shape, each in [0, num_rows).
        num_rows: int32 [], at most 2**num_bits; more than half of that, or the walks become long.
        num_bits: Size of the network, from 2 to 31.
        key: uint32 [2]; another key gives another order.

    Returns:
        int32 like `positions`, each in [0, num_rows).
    """
    bound = tf.cast(num_rows, tf.uint32)

    # All positions take a first step; then only those outside the domain walk on. One loop with one copy of the
    # network, because XLA compiles every copy.
    def walk(cells: tf.Tensor, is_outside: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        moved = tf.where(is_outside, _encrypt(cells, num_bits, key), cells)
        return moved, moved >= bound

    start = (tf.cast(positions, tf.uint32), tf.ones_like(positions, tf.bool))
    rows, _ = tf.while_loop(lambda _, is_outside: tf.reduce_any(is_outside), walk, start)
    return tf.cast(rows, tf.int32)


def _encrypt(cells: tf.Tensor, num_bits: int, key: tf.Tensor) -> tf.Tensor:
    num_right_bits = num_bits // 2
    left_mask, right_mask = (_word((1 << bits) - 1) for bits in (num_bits - num_right_bits, num_right_bits))
    left, right = tf.bitwise.right_shift(cells, _word(num_right_bits)), cells & right_mask
    for round_index in range(NUM_ROUNDS):
        word = key[round_index % 2] + _word(round_index * int(MIX_1))
        if round_index % 2:
            right ^= _mix(left, word) & right_mask
        else:
            left ^= _mix(right, word) & left_mask
    return tf.bitwise.left_shift(left, _word(num_right_bits)) | right


def _mix(half: tf.Tensor, word: tf.Tensor) -> tf.Tensor:
    """Returns 32 bits that look random in `half` and the round's word."""
    mixed = half * _word(int(GOLDEN)) + word
    for multiplier, shift in ((MIX_1, 16), (MIX_2, 13)):
        mixed = (mixed ^ tf.bitwise.right_shift(mixed, _word(shift))) * _word(int(multiplier))
    return mixed ^ tf.bitwise.right_shift(mixed, _word(16))


def _word(value: int) -> tf.Tensor:
    return tf.constant(value & 0xFFFFFFFF, tf.uint32)
