from collections.abc import Callable

import pytest

from components.ncf.errors import InputError
from components.train.config import TrainConfig

Make = Callable[..., TrainConfig]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mlp_layers": (7, 4)}, ["train.mlp_layers[0]", "7", "odd", "8"]),
        ({"mlp_layers": (8, 0)}, ["train.mlp_layers", "positive widths", "[] for none"]),
        ({"mlp_layers": (), "mlp_regularization": (), "pretraining_epochs": 1}, ["train.pretraining_epochs", "1", "0"]),
        ({"learning_rate_decay_start": 1.5}, ["train.learning_rate_decay_start", "1.5", "[0, 1]"]),
        ({"recency_decay": -1.0}, ["train.recency_decay", "-1.0"]),
        (
            {"mlp_layers": ()},
            ["train.mlp_regularization is [0.0, 0.0, 0.0]", "train.mlp_layers is []", "set both to []"],
        ),
        ({"mlp_regularization": (0.0,)}, ["train.mlp_regularization", "3 numbers"]),
        ({"mlp_regularization": (0.1, 0.0, 0.0)}, ["train.mlp_regularization", "first"]),
        ({"mf_regularization": -1.0}, ["train.mf_regularization", "-1.0"]),
        ({"strategy": "tpv"}, ["train.strategy", "tpv", "one_device", "mirrored"]),
        ({"model_selection": "best"}, ["train.model_selection", "validation", "test"]),
        ({"learning_rate": 0.0}, ["train.learning_rate", "0.0"]),
        ({"learning_rate": float("nan")}, ["train.learning_rate", "nan"]),
        ({"beta2": 1.0}, ["train.beta2", "1.0", "[0, 1)"]),
        ({"num_epochs": 0}, ["train.num_epochs", "0", "at least 1"]),
        ({"global_batch_size": 3}, ["train.global_batch_size", "3", "at least 4"]),
        ({"seed": -1}, ["train.seed", "-1"]),
        ({"global_batch_size": 10**14}, ["train.global_batch_size", "100000000000000", "at most"]),
        ({"num_epochs": 10**20}, ["train.num_epochs", "at most"]),
        ({"mlp_regularization": (0.0, float("nan"), 0.0)}, ["train.mlp_regularization[1]", "nan"]),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value(
    make_config: Make, changes: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(InputError) as error:
        make_config(**changes)
    for word in words:
        assert word in str(error.value)


def test_a_batch_that_replicas_cannot_share_is_refused(make_config: Make) -> None:
    with pytest.raises(InputError, match=r"global_batch_size 81 is not divisible by 2 replicas: use 8[02]"):
        make_config(global_batch_size=81).groups_per_replica(2, 4)


def test_a_replica_without_a_positive_is_refused(make_config: Make) -> None:
    with pytest.raises(InputError, match="at least 16"):
        make_config(global_batch_size=8).groups_per_replica(4, 4)


def test_a_step_takes_whole_groups_of_a_positive_and_its_negatives(make_config: Make) -> None:
    assert make_config(global_batch_size=80).groups_per_replica(1, 4) == 20
    assert make_config(global_batch_size=80).groups_per_replica(2, 4) == 10
    assert make_config(global_batch_size=83).groups_per_replica(1, 4) == 20
