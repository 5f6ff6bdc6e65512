import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from components.ncf.errors import InputError
from components.ncf.ranking import rank_held_out_items
from components.train.config import TrainConfig
from components.train.input_pipeline import TrainingData
from components.train.loop import TrainingLoop
from components.train.strategy import build_strategy

Make = Callable[..., TrainConfig]


def run(config: TrainConfig, data: TrainingData, num_epochs: int) -> tuple[list[float], list[np.ndarray]]:
    loop = TrainingLoop(config, data, build_strategy(config.strategy))
    losses = [loop.run_epoch(epoch).loss for epoch in range(num_epochs)]
    return losses, [np.asarray(weight) for weight in loop.model.get_weights()]


def test_two_devices_compute_what_one_does(make_config: Make, data: TrainingData) -> None:
    losses_of_one, weights_of_one = run(make_config(strategy="one_device"), data, 4)
    losses_of_two, weights_of_two = run(make_config(strategy="mirrored"), data, 4)
    assert build_strategy("mirrored").num_replicas_in_sync == 2
    np.testing.assert_allclose(losses_of_two, losses_of_one, rtol=0, atol=1e-5)
    for one, two in zip(weights_of_one, weights_of_two, strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=1e-4)


def test_the_loss_falls(make_config: Make, data: TrainingData) -> None:
    losses, _ = run(make_config(), data, 12)
    assert losses[-1] < 0.8 * losses[0]


def test_steps_per_loop_changes_nothing(make_config: Make, data: TrainingData) -> None:
    one_by_one, _ = run(make_config(steps_per_loop=1), data, 2)
    at_once, _ = run(make_config(steps_per_loop=1000), data, 2)
    np.testing.assert_allclose(one_by_one, at_once, rtol=1e-6)


def test_the_same_seed_repeats_bit_for_bit_and_another_does_not(make_config: Make, data: TrainingData) -> None:
    (_, first), (_, again), (_, other) = (run(make_config(seed=seed), data, 2) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_regularization_is_in_the_loss_and_shrinks_the_tables(make_config: Make, data: TrainingData) -> None:
    plain, regularized = make_config(strategy="mirrored"), make_config(strategy="mirrored", mf_regularization=0.05)
    (_, free), (losses, held) = run(plain, data, 3), run(regularized, data, 3)
    assert np.sum(held[0] ** 2) < 0.5 * np.sum(free[0] ** 2)
    one_device, _ = run(make_config(mf_regularization=0.05), data, 3)
    np.testing.assert_allclose(losses, one_device, atol=1e-5)


def test_the_first_loss_is_that_of_chance(make_config: Make, data: TrainingData) -> None:
    """At the start every logit is near 0, so the binary cross-entropy is log 2 per example, padding not counted."""
    for global_batch_size in (80, 4 * 33, 4 * 1000):  # 440 positives: 22 full steps, 13 and a third, one of 440
        (loss,), _ = run(make_config(learning_rate=1e-12, global_batch_size=global_batch_size), data, 1)
        assert loss == pytest.approx(np.log(2), rel=1e-3)


def test_padding_contributes_nothing(make_config: Make, data: TrainingData) -> None:
    """An epoch in one step: a batch far larger than the data gives the gradient of the data alone."""
    exact, wide = make_config(global_batch_size=4 * 440), make_config(global_batch_size=4 * 1000)
    gradients = []
    for config in (exact, wide):
        loop = TrainingLoop(config, data, build_strategy("one_device"))
        weights = [tf.convert_to_tensor(weight.value) for weight in loop.model.trainable_variables]
        loss, gradient = loop._compute_gradients(weights, loop._epoch_keys(0), tf.constant(0), tf.constant(440))
        gradients.append([np.asarray(loss), *map(np.asarray, gradient)])
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_gradient_is_that_of_finite_differences(make_config: Make, data: TrainingData) -> None:
    config = make_config(mf_regularization=0.01, mlp_regularization=(0.0, 0.02), global_batch_size=400)
    loop = TrainingLoop(config, data, build_strategy("one_device"))
    rng = np.random.default_rng(1)
    weights = [rng.normal(scale=0.5, size=weight.shape).astype(np.float32) for weight in loop.model.weights]

    def loss_at(step: float, direction: list[np.ndarray]) -> float:
        moved = [tf.constant(w + np.float32(step) * d) for w, d in zip(weights, direction, strict=True)]
        summed_loss, _ = loop._compute_gradients(moved, loop._epoch_keys(0), tf.constant(0), tf.constant(100))
        return float(summed_loss / 400 + loop.model.regularization_loss(moved))

    start = [tf.constant(weight) for weight in weights]
    _, gradient = loop._compute_gradients(start, loop._epoch_keys(0), tf.constant(0), tf.constant(100))
    for index in range(len(weights)):
        direction = [rng.normal(size=w.shape).astype(np.float32) * (i == index) for i, w in enumerate(weights)]
        slope = sum(float(np.sum(np.asarray(g) * d)) for g, d in zip(gradient, direction, strict=True))
        differences = (loss_at(1e-3, direction) - loss_at(-1e-3, direction)) / 2e-3
        assert slope == pytest.approx(differences, rel=0.03, abs=2e-4), loop.model.weights[index].name


def test_a_loss_that_is_not_finite_stops_the_run(make_config: Make, data: TrainingData) -> None:
    with pytest.raises(InputError, match=r"epoch 1, between steps .* lower train.learning_rate"):
        run(make_config(learning_rate=1e30), data, 3)


def test_weights_that_are_not_finite_are_found_by_the_ranking(make_config: Make, data: TrainingData) -> None:
    """One step an epoch: the loss is that of the weights before the step, and says nothing yet."""
    loop = TrainingLoop(make_config(learning_rate=1e38, global_batch_size=4000), data, build_strategy("one_device"))
    loop.run_epoch(0)
    with pytest.raises(InputError, match=r"not finite.*the model has diverged"):
        rank_held_out_items(loop.score_candidates, data.selection)


def test_counters_beyond_32_bits_are_refused(make_config: Make, data: TrainingData) -> None:
    huge = make_config(num_train_negatives=999_999_999, global_batch_size=10**9)
    with pytest.raises(InputError, match=r"exceed 2\*\*31"):
        TrainingLoop(huge, data, build_strategy("one_device"))


def test_replicas_that_cannot_share_the_batch_are_refused(make_config: Make, data: TrainingData) -> None:
    with pytest.raises(InputError, match="not divisible by 2 replicas"):
        run(make_config(strategy="mirrored", global_batch_size=81), data, 1)


def test_every_positive_is_trained_on_exactly_once_an_epoch(make_config: Make, data: TrainingData) -> None:
    loop = TrainingLoop(make_config(), data, build_strategy("one_device"))
    rows = []
    for step in range(loop.num_steps):
        users, items, labels, is_valid = loop._sample_batch(loop._epoch_keys(3), tf.constant(step * 20))
        np.testing.assert_array_equal(labels, np.repeat([[1.0, 0.0, 0.0, 0.0]], 20, axis=0))
        rows += [(int(u), int(row[0])) for u, row, ok in zip(users, items, is_valid, strict=True) if ok]
    assert sorted(rows) == sorted(zip(data.users.tolist(), data.items.tolist(), strict=True))


def test_scoring_goes_through_the_model(make_config: Make, data: TrainingData) -> None:
    loop = TrainingLoop(dataclasses.replace(make_config()), data, build_strategy("one_device"))
    scores = loop.score_candidates(data.selection.users[:3], data.selection.items[:3])
    expected = loop.model(tf.constant(data.selection.users[:3]), tf.constant(data.selection.items[:3]))
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-7)
