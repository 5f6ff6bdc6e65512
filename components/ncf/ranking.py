"""Ranks each user's held-out item among its candidates, in blocks of one static shape."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from components.ncf.errors import InputError
from components.ncf.examples import Candidates
from components.ncf.metrics import positive_ranks

# Scores users int32 [b] and items int32 [b, c] as float32 [b, c]. It is always called with the same shapes, so that
# a compiled function is compiled once.
ScoreCandidates = Callable[[NDArray[np.int32], NDArray[np.int32]], NDArray[np.float32]]

# Scores computed at once: the widest activation of a block of 2**17 rows and 256 columns takes 128 MiB.
_SCORES_PER_BLOCK = 1 << 17


def rank_held_out_items(score: ScoreCandidates, candidates: Candidates) -> NDArray[np.int64]:
    """Returns int64 [num_users]: how many candidates score at least as high as the held-out item (0 is best).

    Raises:
        InputError: A score is not finite.
    """
    num_users, num_candidates = candidates.items.shape
    users_per_block = max(1, min(num_users, _SCORES_PER_BLOCK // (num_candidates + 1)))
    ranks = np.empty(num_users, np.int64)
    for start in range(0, num_users, users_per_block):
        stop = min(start + users_per_block, num_users)
        # The last block is filled up with its own first users: their ranks are computed and dropped.
        block = np.resize(np.arange(start, stop), users_per_block)
        items = np.concatenate([candidates.items[block], candidates.positives[block, None]], axis=1)
        scores = score(candidates.users[block], items)[: stop - start]
        mask = candidates.duplicate_mask[start:stop]
        try:
            ranks[start:stop] = positive_ranks(scores[:, :-1], scores[:, -1], mask)
        except ValueError as error:
            raise InputError(f"The candidates of users {start} to {stop - 1} cannot be ranked: {error}.") from error
    return ranks
