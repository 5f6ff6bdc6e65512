"""Metrics by their names: `hr@10`, `ndcg@20`, `mrr`."""

import re

import numpy as np
from numpy.typing import NDArray

from components.ncf.errors import InputError
from components.ncf.metrics import discounted_gains_at_k, hits_at_k, reciprocal_ranks

_AT_CUTOFF = {"hr": hits_at_k, "recall": hits_at_k, "ndcg": discounted_gains_at_k}


def check_metric(parameter: str, name: str) -> None:
    """Refuses a name that is no metric.

    Args:
        parameter: Where it comes from, for the message.
        name: For example "ndcg@10".

    Raises:
        InputError: It is none.
    """
    if name != "mrr" and not re.fullmatch(r"(hr|recall|ndcg)@[1-9][0-9]{0,5}", name):
        raise InputError(f"{parameter} is {name!r}: it must be hr@K, recall@K or ndcg@K, such as ndcg@10, or mrr.")


def per_user_values(name: str, positive_ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns a metric's value for each user, float64 [num_users].

    Args:
        name: As `check_metric` accepts it.
        positive_ranks: int64 [num_users], 0 is best.
    """
    if name == "mrr":
        return reciprocal_ranks(positive_ranks)
    metric, _, cutoff = name.partition("@")
    return _AT_CUTOFF[metric](positive_ranks, int(cutoff))
