from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.train.config import TrainConfig
from components.train.model import Architecture, build_keras_model, neumf_catalogue_logits, neumf_logits

Make = Callable[..., TrainConfig]
SHAPES = {
    "neumf": Architecture(5, 7, 4, (8, 6, 4)),
    "one hidden layer": Architecture(5, 7, 4, (8, 6)),
    "no hidden layer": Architecture(5, 7, 4, (8,)),
    "gmf": Architecture(5, 7, 4, ()),
    "mlp": Architecture(5, 7, 0, (8, 6, 4)),
}


def published_score(architecture: Architecture, weights: dict[str, np.ndarray], user: int, item: int) -> float:
    """Equations (9) to (12) of He et al. (2017), one pair at a time."""
    parts = []
    if architecture.num_factors:
        parts.append(weights["gmf_user_embedding"][user] * weights["gmf_item_embedding"][item])
    if architecture.mlp_layers:
        z = np.concatenate([weights["mlp_user_embedding"][user], weights["mlp_item_embedding"][item]])
        for layer in range(1, len(architecture.mlp_layers)):
            z = np.maximum(weights[f"mlp_{layer}_kernel"].T @ z + weights[f"mlp_{layer}_bias"], 0.0)
        parts.append(z)
    return float(np.concatenate(parts) @ weights["output_kernel"][:, 0] + weights["output_bias"][0])


def random_weights(architecture: Architecture) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in architecture.weight_shapes()}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("num_items_of_a_group", [2, 9], ids=["fewer pairs than items", "more pairs than items"])
def test_scores_are_the_published_formula(name: str, num_items_of_a_group: int) -> None:
    architecture = SHAPES[name]
    weights = random_weights(architecture)
    rng = np.random.default_rng(1)
    users, items = np.array([3, 0, 3]), rng.integers(0, 7, (3, num_items_of_a_group))
    expected = [
        [published_score(architecture, weights, u, i) for i in row] for u, row in zip(users, items, strict=True)
    ]
    weights_in_order = list(weights.values())
    actual = neumf_logits(architecture, weights_in_order, tf.constant(users), tf.constant(items))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_rounds_the_products_inputs_only() -> None:
    architecture = SHAPES["neumf"]
    weights = list(random_weights(architecture).values())
    users, items = tf.constant([0, 4]), tf.constant([[1, 2], [3, 6]])
    exact, rounded = (
        tf.function(lambda p=precision: neumf_logits(architecture, weights, users, items, p), jit_compile=True)()
        for precision in ("float32", "bfloat16")
    )
    assert rounded.dtype == tf.float32
    # bfloat16 has 8 bits of precision; three layers of it are off by about a percent of the typical score.
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


def test_the_same_seed_gives_the_same_start_and_another_seed_another() -> None:
    first, again, other = (SHAPES["neumf"].initial_weights(seed) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0][:5], first[1][:5]), "the tables start differently"


def test_tables_start_from_the_standard_deviation_that_is_asked_for() -> None:
    tables = Architecture(2000, 1000, 16, ()).initial_weights(0, embedding_stddev=0.3)[:2]
    for table in tables:
        assert np.std(table) == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("is_compiled", [False, True])
def test_scoring_the_whole_catalogue_is_scoring_each_pair(name: str, is_compiled: bool) -> None:
    architecture = SHAPES[name]
    weights = random_weights(architecture)
    users = np.array([3, 0, 3], np.int32)
    score = tf.function(
        lambda users: neumf_catalogue_logits(architecture, list(weights.values()), users), jit_compile=is_compiled
    )
    expected = [
        [published_score(architecture, weights, user, item) for item in range(architecture.num_items)] for user in users
    ]
    np.testing.assert_allclose(score(tf.constant(users)), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_the_keras_model_is_the_same_model(name: str, tmp_path: Path) -> None:
    architecture = SHAPES[name]
    weights = random_weights(architecture)
    build_keras_model(architecture, list(weights.values())).save(tmp_path / "neumf.keras")
    model = keras.models.load_model(tmp_path / "neumf.keras")
    users, items = np.array([[1], [4]]), np.array([[6], [0]])
    expected = [[published_score(architecture, weights, 1, 6)], [published_score(architecture, weights, 4, 0)]]
    np.testing.assert_allclose(model([users, items]), expected, rtol=1e-4)
