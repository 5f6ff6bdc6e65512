"""Two virtual processors, before anything initialises TensorFlow, so that strategies have something to spread over."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.ncf.examples import Candidates
from components.train.config import TrainConfig
from components.train.input_pipeline import ArrayRows, Columns, TrainingData
from components.train.loop import TrainingLoop
from components.train.negative_sampler import build_seen_items
from components.train.phases import plan_phases
from components.train.strategy import Placement, place

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

NUM_USERS, NUM_ITEMS = 40, 60


@pytest.fixture(scope="session")
def make_config() -> Callable[..., TrainConfig]:
    """Builds a small valid configuration with some parameters changed."""

    def make(**changes: Any) -> TrainConfig:
        parameters: dict[str, Any] = {
            "strategy": "one_device",
            "num_factors": 4,
            "mlp_layers": (8, 6, 4),
            "num_train_negatives": 3,
            "recency_decay": 0.0,
            "recency_floor": 0.0,
            "global_batch_size": 80,
            "precision": "float32",
            "embedding_stddev": 0.01,
            "optimizer": "adam",
            "learning_rate": 0.01,
            "learning_rate_decay_start": 1.0,
            "beta1": 0.9,
            "beta2": 0.999,
            "epsilon": 1e-8,
            "mf_regularization": 0.0,
            "row_regularization": 0.0,
            "mlp_regularization": (0.0, 0.0, 0.0),
            "pretraining_epochs": 0,
            "pretraining_learning_rate": 0.01,
            "num_epochs": 3,
            "early_stopping_patience": 0,
            "model_selection": "validation",
            "training_records": "positives",
            "device_data_limit_mb": 100,
            "steps_per_loop": 7,
            "checkpoint_every_steps": 0,
            "max_checkpoints": 2,
            "profile": False,
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
    users, items = users[order], items[order]
    positives = build_seen_items(users, items, NUM_USERS, NUM_ITEMS)
    return TrainingData(ArrayRows(Columns(users, items)), positives, candidates, "validation", NUM_USERS, NUM_ITEMS)


@pytest.fixture
def make_loop(data: TrainingData) -> Callable[..., TrainingLoop]:
    """Builds the loop of a configuration over `data`, or over other data."""

    def make(config: TrainConfig, other: TrainingData | None = None) -> TrainingLoop:
        (phase,) = plan_phases(config, NUM_USERS, NUM_ITEMS)
        placement = place(config.strategy, {})
        assert isinstance(placement, Placement)
        return TrainingLoop(config, phase, other or data, placement.strategy)

    return make
