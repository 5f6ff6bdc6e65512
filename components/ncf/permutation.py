"""A random order of many rows as a function: each row's position, without a table or a sort.

A Feistel network over 2**b cells, the next power of two, is a bijection; a row that lands outside the domain walks on
until it is back (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). Every worker therefore
knows where its rows belong, and a file can be filled in whatever order its rows arrive.
"""

import numpy as np
from numpy.typing import NDArray

NUM_ROUNDS = 4
# Multipliers of the 32-bit finalizer of MurmurHash3 (Appleby), and 2**32 divided by the golden ratio.
MIX_1, MIX_2, GOLDEN = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35), np.uint32(0x9E3779B9)
# Bounds what is worked on at a time, so that the intermediate arrays stay in the processor's cache.
_ROWS_AT_A_TIME = 1 << 15


def shuffled_positions(rows: NDArray[np.uint32], num_rows: int, key: tuple[int, int]) -> NDArray[np.uint32]:
    """Maps rows to positions, one to one.

    Args:
        rows: uint32 [n], each in [0, num_rows).
        num_rows: At most 2**32.
        key: Two words, from `derive_key`; another key gives another order.

    Returns:
        uint32 [n] in [0, num_rows).
    """
    num_bits = max(2, (num_rows - 1).bit_length())
    positions = np.empty_like(rows)
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        cells = _encrypt(rows[start : start + _ROWS_AT_A_TIME], num_bits, key)
        while len(outside := np.flatnonzero(cells > num_rows - 1)):
            cells[outside] = _encrypt(cells[outside], num_bits, key)
        positions[start : start + _ROWS_AT_A_TIME] = cells
    return positions


def _encrypt(cells: NDArray[np.uint32], num_bits: int, key: tuple[int, int]) -> NDArray[np.uint32]:
    num_right_bits = num_bits // 2
    left_mask, right_mask = (np.uint32((1 << bits) - 1) for bits in (num_bits - num_right_bits, num_right_bits))
    left, right = cells >> np.uint32(num_right_bits), cells & right_mask
    for round_index in range(NUM_ROUNDS):
        word = np.uint32((key[round_index % 2] + round_index * int(MIX_1)) & 0xFFFFFFFF)
        if round_index % 2:
            right ^= _mix(left, word) & right_mask
        else:
            left ^= _mix(right, word) & left_mask
    return (left << np.uint32(num_right_bits)) | right


def _mix(half: NDArray[np.uint32], word: np.uint32) -> NDArray[np.uint32]:
    """Returns 32 bits that look random in `half` and the round's word."""
    mixed = half * GOLDEN
    mixed += word
    for multiplier, shift in ((MIX_1, 16), (MIX_2, 13)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= multiplier
    mixed ^= mixed >> np.uint32(16)
    return mixed
