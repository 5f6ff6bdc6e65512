"""Two systems measured on the same users: the mean difference and how sure it is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.ncf.metrics import bootstrap_interval


@dataclass(frozen=True)
class PairedDifference:
    """The mean over users of one system's value minus the other's, with its bootstrap interval.

    Attributes:
        difference: Above 0 where the first system is better.
        low, high: Ends of the interval.
        num_users: How many users both were measured on.
        num_different: How many of them tell the two apart.
    """

    difference: float
    low: float
    high: float
    num_users: int
    num_different: int


def paired_bootstrap(
    values: NDArray[np.float64],
    other_values: NDArray[np.float64],
    num_samples: int,
    seed: int,
    confidence: float = 0.95,
) -> PairedDifference:
    """Percentile bootstrap over users of the mean difference of two systems (Efron and Tibshirani 1993, chapter 13).

    Each resample draws users, and with a user both systems' values: what the users have in common cancels. That is
    resampling each user's difference.

    Args:
        values: float64 [num_users], one metric's value for each user.
        other_values: The same of the other system, in the same order.
        num_samples: As in `bootstrap_interval`.
        seed: As in `bootstrap_interval`.
        confidence: As in `bootstrap_interval`.

    Raises:
        ValueError: The two differ in length, or as in `bootstrap_interval`.
    """
    if values.shape != other_values.shape:
        raise ValueError(f"{len(values)} values do not pair with {len(other_values)}: they are of different users")
    # Rounded, so that equal differences are one value and not several that differ in the last bit.
    differences = np.round(values - other_values, 12)
    low, high = bootstrap_interval(differences, num_samples, seed, confidence)
    return PairedDifference(float(differences.mean()), low, high, len(differences), int(np.count_nonzero(differences)))
