"""The parameters of the baseline, checked before anything is read."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

from components.ncf.errors import InputError

MODEL_SELECTIONS = ("validation", "test", "last")
# Solving for a row takes memory and time by the square of the width.
_LARGEST_WIDTH = 4096
_LARGEST_COUNT = 10**6


@dataclass(frozen=True)
class Setting:
    """One point of the grid.

    Attributes:
        num_factors: Width of both tables.
        regularization: L2 factor of their rows.
        alpha: Weight of a positive's squared error; that of every pair without interaction is 1.
    """

    num_factors: int
    regularization: float
    alpha: float


@dataclass(frozen=True)
class BaselineConfig:
    """Every choice that the step makes. Defaults live in the presets, not here.

    Attributes:
        num_factors: Widths to try.
        regularization: L2 factors to try.
        alpha: Weights of a positive to try.
        num_iterations: How often each table is solved for.
        model_selection: That of train, so that the two learn from the same data. The settings are always compared on
            the validation item; unless this is "validation", the best is then fitted again with the validation items
            among the positives. The test item is never looked at.
        seed: Seeds the initial tables.

    Raises:
        InputError: A value is out of range.
    """

    num_factors: tuple[int, ...]
    regularization: tuple[float, ...]
    alpha: tuple[float, ...]
    num_iterations: int
    model_selection: str
    seed: int

    def __post_init__(self) -> None:
        for name in ("num_factors", "regularization", "alpha"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InputError(f"baseline.{name} is {list(values)}: name at least one value to try, each once.")
        if not all(1 <= width <= _LARGEST_WIDTH for width in self.num_factors):
            raise InputError(
                f"baseline.num_factors {list(self.num_factors)} must be numbers of at least 1 and at most "
                f"{_LARGEST_WIDTH}."
            )
        for name in ("regularization", "alpha"):
            if not all(math.isfinite(value) and value > 0 for value in getattr(self, name)):
                raise InputError(f"baseline.{name} {list(getattr(self, name))} must be numbers in (0, inf).")
        if not 1 <= self.num_iterations <= _LARGEST_COUNT:
            raise InputError(
                f"baseline.num_iterations is {self.num_iterations}: it must be at least 1 and at most {_LARGEST_COUNT}."
            )
        if self.model_selection not in MODEL_SELECTIONS:
            raise InputError(
                f"baseline.model_selection is {self.model_selection!r}: choose one of {', '.join(MODEL_SELECTIONS)}, "
                "the one that train has."
            )
        if not 0 <= self.seed < 2**63:
            raise InputError(f"baseline.seed {self.seed} is outside [0, 2**63): choose a non-negative number.")

    def settings(self) -> tuple[Setting, ...]:
        """Returns every combination of the values to try."""
        return tuple(
            Setting(*values) for values in itertools.product(self.num_factors, self.regularization, self.alpha)
        )

    def parameters_of(self, setting: Setting) -> dict[str, Any]:
        """Returns what one fit depends on, as JSON-serializable values."""
        return {**vars(setting), "num_iterations": self.num_iterations, "seed": self.seed}
