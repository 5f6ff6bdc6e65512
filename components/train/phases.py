"""What is trained one after the other: NeuMF alone, or first its two towers by themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.train.config import TrainConfig
from components.train.model import Architecture, Weights
from components.train.optimizers import SGD, Adam, Optimizer

# He et al. (2017), section 3.4.1: the share of the pretrained GMF in the output layer; the MLP has the rest.
_GMF_SHARE = 0.5


@dataclass(frozen=True)
class Phase:
    """One model that is trained.

    Attributes:
        name: "gmf", "mlp" or "neumf".
        architecture: Its shape.
        optimizer: Applies its gradients.
        num_epochs: Upper bound.
        decay_start: Share of the epochs after which the learning rate falls; 1 for never.
    """

    name: str
    architecture: Architecture
    optimizer: Optimizer
    num_epochs: int
    decay_start: float = 1.0

    @property
    def is_pretraining(self) -> bool:
        """Whether another phase starts from its weights."""
        return self.name != "neumf"

    def initial_weights(self, earlier: Sequence[Weights]) -> Weights | None:
        """Returns the weights to start from, None for random ones.

        Args:
            earlier: What the phases before this one came to: nothing, or GMF and then MLP.
        """
        if self.is_pretraining or not earlier:
            return None
        gmf, mlp = earlier
        kernel = np.concatenate([_GMF_SHARE * gmf[-2], (1 - _GMF_SHARE) * mlp[-2]])
        bias = _GMF_SHARE * gmf[-1] + (1 - _GMF_SHARE) * mlp[-1]
        return [*gmf[:-2], *mlp[:-2], kernel, bias]


def plan_phases(config: TrainConfig, num_users: int, num_items: int) -> list[Phase]:
    """Returns the phases of a run; the last one is the model that is exported."""

    def architecture(num_factors: int, mlp_layers: tuple[int, ...]) -> Architecture:
        return Architecture(num_users, num_items, num_factors, mlp_layers)

    optimizer = _optimizer(config, config.optimizer, config.learning_rate)
    model = Architecture(num_users, num_items, config.num_factors, config.mlp_layers, bool(config.mlp_layers))
    phases = [Phase("neumf", model, optimizer, config.num_epochs, config.learning_rate_decay_start)]
    if config.pretraining_epochs:
        adam = _optimizer(config, "adam", config.pretraining_learning_rate)
        gmf, mlp = architecture(config.num_factors, ()), architecture(0, config.mlp_layers)
        epochs = config.pretraining_epochs
        phases = [Phase("gmf", gmf, adam, epochs), Phase("mlp", mlp, adam, epochs), *phases]
    return phases


def _optimizer(config: TrainConfig, name: str, learning_rate: float) -> Optimizer:
    if name == "sgd":
        return SGD(learning_rate)
    return Adam(learning_rate, config.beta1, config.beta2, config.epsilon)
