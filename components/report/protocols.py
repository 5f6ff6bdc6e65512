"""What the protocols are, in the words that every page uses."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# What the held-out item is ranked against, in one line for each protocol of the house.
CANDIDATES_BY_PROTOCOL = {
    "loo-99": "The held-out item among 99 distinct items that the user never saw, drawn at random with a seed.",
    "loo-999-masked": (
        "The held-out item among 999 items drawn at random with replacement, duplicates not counted "
        "(as TensorFlow's official models and MLPerf v0.5 do)."
    ),
    "loo-full": "The held-out item among every item that the user never saw.",
    "fixed": "The held-out item among the candidates listed in the data set's own files.",
}

# How many distinct items the protocols draw that draw without replacement: in a small catalogue a user may have fewer.
_NUM_DISTINCT = {"loo-99": 99}


@dataclass(frozen=True)
class Shortage:
    """Users who have fewer unseen items than a protocol draws.

    Attributes:
        num_users: Of those.
        num_all: Of all users that the protocol ranks.
        fewest: Unseen items that one of them has, the held-out item not counted.
    """

    num_users: int
    num_all: int
    fewest: int


def shortage_of(protocol: str, num_unseen: NDArray[np.int64], num_users_with: NDArray[np.int64]) -> Shortage | None:
    """Returns who has too few items for a protocol, or None where nobody has.

    Args:
        protocol: Its name.
        num_unseen: int64 [n], different or equal numbers of items that a user never had.
        num_users_with: int64 [n], how many users have each.
    """
    is_short = num_unseen < _NUM_DISTINCT.get(protocol, 0)
    num_users = int(num_users_with[is_short].sum())
    if not num_users:
        return None
    return Shortage(num_users, int(num_users_with.sum()), int(num_unseen[is_short & (num_users_with > 0)].min()))


def describe_candidates(protocol: str, shortage: Shortage | None) -> str | None:
    """Says what the held-out item is ranked against; None for a protocol that is none of the house."""
    text = CANDIDATES_BY_PROTOCOL.get(protocol)
    if text is None or shortage is None:
        return text
    return (
        f"{text} Users who have fewer such items ({shortage.num_users:,} of {shortage.num_all:,}; the fewest are "
        f"{shortage.fewest}) are ranked among all of theirs."
    )
