"""The parameters of training, checked before anything is read."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from components.ncf.errors import InputError

STRATEGIES = ("one_device", "mirrored")
MODEL_SELECTIONS = ("validation", "test")
# Far above what makes sense, and low enough that sums of two fit the device's 32-bit integers.
_LARGEST_COUNT = 10**9


@dataclass(frozen=True)
class TrainConfig:
    """Every choice that training makes. Defaults live in the presets, not here.

    Attributes:
        strategy: How the work is spread over devices, one of `STRATEGIES`.
        num_factors: Width of the generalized matrix factorization tower.
        mlp_layers: Widths of the multi-layer perceptron. The first is the width of its input: half of it comes
            from the user table and half from the item table.
        num_train_negatives: Sampled negatives beside each positive.
        global_batch_size: Examples (positives and negatives) in one step over all replicas.
        learning_rate, beta1, beta2, epsilon: Adam's parameters, as in Kingma and Ba (2015); epsilon is the
            "epsilon hat" of their section 2, added to the root before the bias correction.
        mf_regularization: L2 factor of both embedding tables.
        mlp_regularization: L2 factor of each MLP layer's kernel, one number a layer of `mlp_layers`; the first
            belongs to the input, has no kernel and must be 0.
        num_epochs: Upper bound of passes over the positives.
        early_stopping_patience: Epochs without a better HR@10 after which training ends; 0 never stops early.
        model_selection: "validation" holds the second-latest item of each user back and exports the epoch that
            ranks it best. "test" is the published practice: it trains on everything but the test item and exports
            the epoch that ranks the test item best, which flatters the result.
        steps_per_loop: Training steps in one call of the compiled loop.
        max_checkpoints: Epoch checkpoints that are kept.
        seed: Seeds the initial weights, the order of each epoch and its negatives.
    """

    strategy: str
    num_factors: int
    mlp_layers: tuple[int, ...]
    num_train_negatives: int
    global_batch_size: int
    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float
    mf_regularization: float
    mlp_regularization: tuple[float, ...]
    num_epochs: int
    early_stopping_patience: int
    model_selection: str
    steps_per_loop: int
    max_checkpoints: int
    seed: int

    def __post_init__(self) -> None:
        _one_of("strategy", self.strategy, STRATEGIES)
        _one_of("model_selection", self.model_selection, MODEL_SELECTIONS)
        for name in ("num_factors", "num_train_negatives", "num_epochs", "steps_per_loop", "max_checkpoints"):
            _between(name, getattr(self, name), 1, _LARGEST_COUNT)
        _between("global_batch_size", self.global_batch_size, 1, _LARGEST_COUNT)
        _between("early_stopping_patience", self.early_stopping_patience, 0, _LARGEST_COUNT)
        self._check_layers()
        for name in ("learning_rate", "epsilon"):
            _finite_in(name, getattr(self, name), 0.0, math.inf, "(0, inf)", exclude_low=True)
        for name in ("beta1", "beta2"):
            _finite_in(name, getattr(self, name), 0.0, 1.0, "[0, 1)")
        _finite_in("mf_regularization", self.mf_regularization, 0.0, math.inf, "[0, inf)")
        for index, factor in enumerate(self.mlp_regularization):
            _finite_in(f"mlp_regularization[{index}]", factor, 0.0, math.inf, "[0, inf)")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"train.seed {self.seed} is outside [0, 2**63): choose a non-negative number.")
        if self.global_batch_size < 1 + self.num_train_negatives:
            raise InputError(
                f"train.global_batch_size {self.global_batch_size} does not hold one positive and its "
                f"{self.num_train_negatives} negatives: set it to at least {1 + self.num_train_negatives}."
            )

    def _check_layers(self) -> None:
        layers, factors = self.mlp_layers, self.mlp_regularization
        if not layers or any(not 1 <= width <= _LARGEST_COUNT for width in layers):
            raise InputError(
                f"train.mlp_layers {list(layers)} must be one or more positive widths, such as [64,32,16,8]."
            )
        if layers[0] % 2:
            raise InputError(
                f"train.mlp_layers[0] is {layers[0]}, an odd number: half of it comes from the user and half from the "
                f"item table, so use {layers[0] + 1}."
            )
        if len(factors) != len(layers) or factors[0] != 0:
            raise InputError(
                f"train.mlp_regularization {list(factors)} must hold {len(layers)} numbers, one for each of "
                f"train.mlp_layers {list(layers)}, the first of them 0 because the input layer has no kernel."
            )

    def per_replica_positives(self, num_replicas: int) -> int:
        """Returns how many positives, each with its negatives, one replica takes in one step.

        Raises:
            InputError: The global batch is not divisible by the replicas, or leaves a replica without a positive.
        """
        if self.global_batch_size % num_replicas:
            nearest = max(1, round(self.global_batch_size / num_replicas)) * num_replicas
            raise InputError(
                f"train.global_batch_size {self.global_batch_size} is not divisible by {num_replicas} replicas: "
                f"use {nearest}."
            )
        positives = self.global_batch_size // num_replicas // (1 + self.num_train_negatives)
        if positives == 0:
            raise InputError(
                f"train.global_batch_size {self.global_batch_size} over {num_replicas} replicas leaves no room for a "
                f"positive and its {self.num_train_negatives} negatives: use at least "
                f"{num_replicas * (1 + self.num_train_negatives)}."
            )
        return positives

    def as_dict(self) -> dict[str, Any]:
        """Returns the parameters as JSON-serializable values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"train.{name} is {value!r}: choose one of {', '.join(allowed)}.")


def _between(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InputError(f"train.{name} is {value}: it must be at least {low} and at most {high}.")


def _finite_in(name: str, value: float, low: float, high: float, interval: str, exclude_low: bool = False) -> None:
    if not (math.isfinite(value) and low <= value < high) or (exclude_low and value == low):
        raise InputError(f"train.{name} is {value}: it must be a number in {interval}.")
