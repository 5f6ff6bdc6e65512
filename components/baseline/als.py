"""Implicit alternating least squares, by the library implicit."""

import importlib.metadata
import platform
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.baseline.config import Setting
from components.ncf.errors import InputError
from components.ncf.factorization import Factorization
from components.ncf.ranking import num_processors


@dataclass(frozen=True)
class Positives:
    """Who interacted with what.

    Attributes:
        users: int32 [num_positives], dense.
        items: int32 [num_positives], dense; no pair twice.
        num_users, num_items: How many there are.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    num_users: int
    num_items: int

    def with_one_more(self, items: NDArray[np.int32]) -> "Positives":
        """Adds one item for each user, int32 [num_users]."""
        users = np.concatenate([self.users, np.arange(self.num_users, dtype=np.int32)])
        return Positives(users, np.concatenate([self.items, items]), self.num_users, self.num_items)


def fit(setting: Setting, num_iterations: int, seed: int, positives: Positives) -> Factorization:
    """Fits one setting.

    The rows of a table are solved for by a thread a processor, each row by one thread alone, so that their number does
    not change a bit of the result.

    Args:
        setting: Width, regularization and weight.
        num_iterations: How often each table is solved for.
        seed: Of the initial tables.
        positives: What to fit.

    Raises:
        InputError: The library is not installed, or the result is not finite.
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from implicit.recommender_base import ModelFitError
        from scipy.sparse import csr_matrix
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise InputError(
            f"The step baseline needs the library implicit, which is not there ({error}): install the extra `als` with "
            f"Python 3.11, the one that it has packages for (this is {platform.python_version()})."
        ) from error

    weights = np.ones(len(positives.users), np.float32)
    matrix = csr_matrix((weights, (positives.users, positives.items)), (positives.num_users, positives.num_items))
    # One thread for the products inside a thread's row: with as many for each, they wait for each other.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=setting.num_factors,
            regularization=setting.regularization,
            alpha=setting.alpha,
            iterations=num_iterations,
            num_threads=num_processors(),
            random_state=np.random.default_rng(seed),
        )
        try:
            model.fit(matrix, show_progress=False)
        except ModelFitError as error:
            raise _divergence(setting) from error
    if not (np.isfinite(model.user_factors).all() and np.isfinite(model.item_factors).all()):
        raise _divergence(setting)
    return Factorization(model.user_factors, model.item_factors)


def _divergence(setting: Setting) -> InputError:
    return InputError(
        f"Alternating least squares diverged with {setting.num_factors} factors, regularization "
        f"{setting.regularization:g} and alpha {setting.alpha:g}: raise baseline.regularization or lower "
        "baseline.alpha."
    )


def library_name() -> str:
    """Returns the library's name and version."""
    return f"implicit {importlib.metadata.version('implicit')}"
