"""Counter-based random numbers: a draw depends on its key and its counter, never on the draws before it.

The same bits come out whatever the runner, the number of workers or the order of the rows. The generator is
Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): additions,
rotations and exclusive ors of 32-bit words, so that a TPU computes the very same bits without 64-bit arithmetic.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Rotation distances and key-schedule parity of Threefry-2x32, from the Random123 reference implementation.
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA

Words = NDArray[np.uint32]


class Stream(IntEnum):
    """What a draw is for. Two streams never share a key, so that none of their draws coincide."""

    SHUFFLE = 1
    TIE_BREAK = 2
    LOO_99 = 3
    LOO_999_MASKED = 4
    VALIDATION = 5
    TRAIN_NEGATIVES = 6
    EPOCH_ORDER = 7
    SYNTHETIC = 8
    BOOTSTRAP = 9
    OFFLINE_SHUFFLE = 10
    WINDOWS = 11


def threefry2x32(key: tuple[ArrayLike, ArrayLike], counter: tuple[ArrayLike, ArrayLike]) -> tuple[Words, Words]:
    """Encrypts 64-bit counters into 64 random bits each.

    Args:
        key: Two words, each uint32, of one shape that broadcasts against the counter's.
        counter: Two words, each uint32 (values are taken modulo 2**32).

    Returns:
        Two uint32 arrays of the broadcast shape; each word is uniform by itself.
    """
    key_0, key_1 = (np.asarray(word).astype(np.uint32) for word in key)
    x_0, x_1 = (np.asarray(word).astype(np.uint32) for word in counter)
    x_0, x_1 = (np.array(x) for x in np.broadcast_arrays(x_0, x_1, key_0)[:2])
    high = np.empty_like(x_1)
    schedule = (key_0, key_1, key_0 ^ key_1 ^ np.uint32(PARITY))
    with np.errstate(over="ignore"):
        x_0 += schedule[0]
        x_1 += schedule[1]
        for group in range(5):
            for rotation in ROTATIONS[group % 2]:
                x_0 += x_1
                # In place: fresh memory for each of the sixty intermediate arrays would take as long as the arithmetic.
                np.left_shift(x_1, np.uint32(rotation), out=high)
                x_1 >>= np.uint32(32 - rotation)
                x_1 |= high
                x_1 ^= x_0
            x_0 += schedule[(group + 1) % 3]
            x_1 += schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x_0, x_1


def derive_key(seed: int, stream: Stream, epoch: int = 0) -> tuple[int, int]:
    """Returns the two key words of one stream of one epoch.

    Args:
        seed: The step's seed, in [0, 2**64).
        stream: What the draws are for.
        epoch: The training epoch, or 0 for draws that are made once.
    """
    low, high = seed & 0xFFFFFFFF, seed >> 32
    word_0, word_1 = threefry2x32((low, high), (int(stream), epoch))
    return int(word_0), int(word_1)


def uniform_integers(words: Words, bound: ArrayLike) -> NDArray[np.int64]:
    """Maps random words onto [0, bound) by multiplication and shift.

    The probability of any value is off by less than bound / 2**32, below 1e-4 for a hundred thousand items.

    Args:
        words: uint32, any shape.
        bound: Positive integers below 2**31 that broadcast against `words`.
    """
    return ((words.astype(np.uint64) * np.asarray(bound).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)
