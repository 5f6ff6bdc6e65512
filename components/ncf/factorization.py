"""A matrix factorization, as the baseline fits it and evaluation ranks with it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Factorization:
    """Scores by the product of a user's and an item's row; a `Scorer`.

    Attributes:
        user_factors: float32 [num_users, num_factors].
        item_factors: float32 [num_items, num_factors].
    """

    user_factors: NDArray[np.float32]
    item_factors: NDArray[np.float32]

    def score_candidates(self, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `Scorer`."""
        scores: NDArray[np.float32] = (self.item_factors[items] @ self.user_factors[users][:, :, None])[..., 0]
        return scores

    def score_catalogue(self, users: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `Scorer`."""
        return self.user_factors[users] @ self.item_factors.T
