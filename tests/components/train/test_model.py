from collections.abc import Callable

import numpy as np
import tensorflow as tf

from components.train.config import TrainConfig
from components.train.model import NeuMF, ServingModel

Make = Callable[..., TrainConfig]


def published_score(weights: list[np.ndarray], num_factors: int, user: int, item: int) -> float:
    """Equations (9) to (12) of He et al. (2017), one pair at a time, over towers with tables of their own."""
    user_row, item_row = weights[0][user], weights[1][item]
    gmf = user_row[:num_factors] * item_row[:num_factors]
    z = np.concatenate([user_row[num_factors:], item_row[num_factors:]])
    dense = weights[2:]
    for kernel, bias in zip(dense[:-2:2], dense[1:-2:2], strict=True):
        z = np.maximum(kernel.T @ z + bias, 0.0)
    return float(np.concatenate([gmf, z]) @ dense[-2][:, 0] + dense[-1][0])


def randomized(model: NeuMF) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape).astype(np.float32) for weight in model.weights])
    return [np.asarray(weight, np.float64) for weight in model.get_weights()]


def test_scores_are_the_published_formula(make_config: Make) -> None:
    for layers in ((8, 6, 4), (8,)):
        model = NeuMF(5, 7, make_config(mlp_layers=layers, mlp_regularization=(0.0,) * len(layers)))
        weights = randomized(model)
        users, items = np.array([3, 0, 3]), np.array([[1, 6], [2, 2], [0, 5]])
        expected = [[published_score(weights, 4, u, i) for i in row] for u, row in zip(users, items, strict=True)]
        np.testing.assert_allclose(model(tf.constant(users), tf.constant(items)), expected, rtol=1e-4, atol=1e-4)


def test_regularization_is_factor_times_sum_of_squares(make_config: Make) -> None:
    config = make_config(mlp_layers=(8, 6, 4), mf_regularization=0.1, mlp_regularization=(0.0, 0.2, 0.3))
    model = NeuMF(5, 7, config)
    w = randomized(model)
    expected = 0.1 * (np.sum(w[0] ** 2) + np.sum(w[1] ** 2)) + 0.2 * np.sum(w[2] ** 2) + 0.3 * np.sum(w[4] ** 2)
    actual = model.regularization_loss([tf.constant(x, tf.float32) for x in w])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_the_same_seed_gives_the_same_start_and_another_seed_another(make_config: Make) -> None:
    first, again, other = (NeuMF(5, 7, make_config(seed=seed)).get_weights() for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0][:5], first[1][:5]), "the tables start differently"


def test_the_saved_model_scores_pairs_and_candidates_alike(make_config: Make, tmp_path) -> None:
    model = NeuMF(5, 7, make_config())
    weights = randomized(model)
    serving = ServingModel(model)
    tf.saved_model.save(serving, str(tmp_path / "saved"), signatures={"score": serving.score})
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    users, items = tf.constant([1, 4], tf.int64), tf.constant([6, 0], tf.int64)
    pairs = loaded.signatures["score"](user_id=users, item_id=items)["scores"]
    expected = [published_score(weights, 4, 1, 6), published_score(weights, 4, 4, 0)]
    np.testing.assert_allclose(pairs, expected, rtol=1e-4)
    np.testing.assert_allclose(loaded.score_candidates(users, items[:, None])[:, 0], expected, rtol=1e-4)
