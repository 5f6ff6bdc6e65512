"""Two virtual processors, before anything initialises TensorFlow, so that strategies have something to spread over."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.ncf.examples import Candidates
from components.train.config import TrainConfig
from components.train.input_pipeline import TrainingData

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

NUM_USERS, NUM_ITEMS = 40, 60


@pytest.fixture
def make_config() -> Callable[..., TrainConfig]:
    """Builds a small valid configuration with some parameters changed."""

    def make(**changes: Any) -> TrainConfig:
        parameters: dict[str, Any] = {
            "strategy": "one_device",
            "num_factors": 4,
            "mlp_layers": (8, 4),
            "num_train_negatives": 3,
            "global_batch_size": 80,
            "learning_rate": 0.01,
            "beta1": 0.9,
            "beta2": 0.999,
            "epsilon": 1e-8,
            "mf_regularization": 0.0,
            "mlp_regularization": (0.0, 0.0),
            "num_epochs": 3,
            "early_stopping_patience": 0,
            "model_selection": "validation",
            "steps_per_loop": 7,
            "max_checkpoints": 2,
            "seed": 5,
        }
        return TrainConfig(**(parameters | changes))

    return make


@pytest.fixture
def data() -> TrainingData:
    """Random positives, no pair twice, and for each user the last positive as a stand-in for a held-out item."""
    rng = np.random.default_rng(0)
    seen = np.stack([rng.choice(NUM_ITEMS, 12, replace=False) for _ in range(NUM_USERS)]).astype(np.int32)
    users, items = np.repeat(np.arange(NUM_USERS, dtype=np.int32), 11), seen[:, :11].ravel()
    order = rng.permutation(len(users))
    unseen = np.stack([rng.permutation(np.setdiff1d(np.arange(NUM_ITEMS), row))[:20] for row in seen]).astype(np.int32)
    candidates = Candidates(np.arange(NUM_USERS, dtype=np.int32), unseen, seen[:, 11], np.zeros(unseen.shape, np.bool_))
    return TrainingData(users[order], items[order], candidates, "validation", NUM_USERS, NUM_ITEMS)
