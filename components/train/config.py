"""The parameters of training, checked before anything is read."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from components.ncf.errors import InputError

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker_mirrored", "parameter_server", "tpu")
_CHOICES = {
    "strategy": STRATEGIES,
    "precision": ("float32", "bfloat16"),
    "optimizer": ("adam", "sgd"),
    "model_selection": ("validation", "test", "last"),
    "training_records": ("positives", "offline"),
}
# Far above what makes sense, and low enough that sums of two fit the device's 32-bit integers.
_LARGEST_COUNT = 10**9


@dataclass(frozen=True)
class TrainConfig:
    """Every choice that training makes. Defaults live in the presets, not here.

    Attributes:
        strategy: How the work is spread over devices, one of `STRATEGIES`.
        num_factors: Width of the generalized matrix factorization tower.
        mlp_layers: Widths of the multi-layer perceptron. The first is the width of its input: half of it comes
            from the user table and half from the item table. Empty leaves the perceptron and the output layer out:
            plain matrix factorization, whose score is the product of two rows.
        num_train_negatives: Sampled negatives beside each positive.
        recency_decay: How many interactions back from a user's latest training positive the weight of a positive and
            its negatives falls to 1/e; 0 weighs all alike.
        recency_floor: What is added to that weight, which is 1 for the latest; then all are scaled to a mean of 1.
        global_batch_size: Examples (positives and negatives) in one step over all replicas.
        precision: What the inputs of matrix products are rounded to, float32 or bfloat16; everything else is float32.
        embedding_stddev: Standard deviation of the tables' initial values.
        optimizer: "adam" or "sgd".
        learning_rate: Of the loss's mean over the global batch.
        learning_rate_decay_start: Share of the epochs after which the learning rate falls linearly, to 0 at the end of
            the last; 1 for never.
        beta1, beta2, epsilon: Adam's parameters, as in Kingma and Ba (2015); epsilon is the "epsilon hat" of their
            section 2, added to the root before the bias correction.
        mf_regularization: L2 factor of the embedding tables.
        row_regularization: L2 factor of the table rows that an example looks up, counted once an example.
        mlp_regularization: L2 factor of each MLP layer's kernel, one number a layer of `mlp_layers`; the first
            belongs to the input, has no kernel and must be 0.
        pretraining_epochs: Epochs that the towers are trained by themselves before, with Adam; 0 for none.
        pretraining_learning_rate: Adam's in those.
        num_epochs: Upper bound of passes over the positives.
        early_stopping_patience: Epochs without a better HR@10 after which training ends; 0 never stops early.
        model_selection: "validation" holds the second-latest item of each user back and exports the epoch that
            ranks it best. "test" is the published practice: it trains on everything but the test item and exports
            the epoch that ranks the test item best, which flatters the result. "last" trains on everything but the
            test item, looks at nothing and exports the last epoch: a refit with choices made before.
        training_records: "positives", whose negatives are drawn as they are needed, or "offline": the whole training
            epochs that generate wrote.
        device_data_limit_mb: Positives that take more than this are read window by window in every epoch.
        steps_per_loop: Upper bound of the training steps in one call of the compiled loop.
        checkpoint_every_steps: Steps between checkpoints, beside those after each epoch; 0 for none.
        max_checkpoints: Checkpoints that are kept.
        profile: Whether one epoch is traced for TensorBoard's profiler.
        seed: Seeds the initial weights, the order of each epoch and its negatives.
    """

    strategy: str
    num_factors: int
    mlp_layers: tuple[int, ...]
    num_train_negatives: int
    recency_decay: float
    recency_floor: float
    global_batch_size: int
    precision: str
    embedding_stddev: float
    optimizer: str
    learning_rate: float
    learning_rate_decay_start: float
    beta1: float
    beta2: float
    epsilon: float
    mf_regularization: float
    row_regularization: float
    mlp_regularization: tuple[float, ...]
    pretraining_epochs: int
    pretraining_learning_rate: float
    num_epochs: int
    early_stopping_patience: int
    model_selection: str
    training_records: str
    device_data_limit_mb: int
    steps_per_loop: int
    checkpoint_every_steps: int
    max_checkpoints: int
    profile: bool
    seed: int

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            _one_of(name, getattr(self, name), allowed)
        for name in ("num_factors", "num_train_negatives", "num_epochs", "steps_per_loop", "max_checkpoints"):
            _between(name, getattr(self, name), 1, _LARGEST_COUNT)
        _between("global_batch_size", self.global_batch_size, 1, _LARGEST_COUNT)
        for name in ("early_stopping_patience", "pretraining_epochs", "device_data_limit_mb", "checkpoint_every_steps"):
            _between(name, getattr(self, name), 0, _LARGEST_COUNT)
        self._check_layers()
        for name in ("learning_rate", "pretraining_learning_rate", "epsilon", "embedding_stddev"):
            _finite_in(name, getattr(self, name), 0.0, math.inf, "(0, inf)", exclude_low=True)
        for name in ("beta1", "beta2"):
            _finite_in(name, getattr(self, name), 0.0, 1.0, "[0, 1)")
        for name in ("mf_regularization", "row_regularization", "recency_decay", "recency_floor"):
            _finite_in(name, getattr(self, name), 0.0, math.inf, "[0, inf)")
        if not 0.0 <= self.learning_rate_decay_start <= 1.0:
            raise InputError(
                f"train.learning_rate_decay_start is {self.learning_rate_decay_start}: it must be a number in [0, 1]."
            )
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
        if any(not 1 <= width <= _LARGEST_COUNT for width in layers):
            raise InputError(
                f"train.mlp_layers {list(layers)} must be positive widths, such as [64,32,16,8], or [] for none."
            )
        if layers and layers[0] % 2:
            raise InputError(
                f"train.mlp_layers[0] is {layers[0]}, an odd number: half of it comes from the user and half from the "
                f"item table, so use {layers[0] + 1}."
            )
        if factors and not layers:
            raise InputError(f"train.mlp_regularization is {list(factors)} and train.mlp_layers is []: set both to [].")
        if len(factors) != len(layers) or (factors and factors[0] != 0):
            raise InputError(
                f"train.mlp_regularization {list(factors)} must hold {len(layers)} numbers, one for each of "
                f"train.mlp_layers {list(layers)}, the first of them 0 because the input layer has no kernel."
            )
        if self.pretraining_epochs and not layers:
            raise InputError(
                f"train.pretraining_epochs is {self.pretraining_epochs}, but train.mlp_layers [] leaves one tower "
                "alone: set it to 0."
            )

    def groups_per_replica(self, num_replicas: int, group_size: int) -> int:
        """Returns how many groups, of a positive with its negatives or of one example, a replica takes in one step.

        Args:
            num_replicas: How many share a global batch.
            group_size: Examples in a group.

        Raises:
            InputError: The global batch is not divisible by the replicas, or leaves a replica without a group.
        """
        if self.global_batch_size % num_replicas:
            nearest = max(1, round(self.global_batch_size / num_replicas)) * num_replicas
            raise InputError(
                f"train.global_batch_size {self.global_batch_size} is not divisible by {num_replicas} replicas: "
                f"use {nearest}."
            )
        groups = self.global_batch_size // num_replicas // group_size
        if groups == 0:
            raise InputError(
                f"train.global_batch_size {self.global_batch_size} over {num_replicas} replicas leaves no room for a "
                f"positive and its {self.num_train_negatives} negatives: use at least {num_replicas * group_size}."
            )
        return groups

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
