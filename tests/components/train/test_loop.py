import dataclasses
import os
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from components.ncf.errors import InputError
from components.ncf.examples import Candidates
from components.ncf.ranking import rank_held_out_items
from components.train.config import TrainConfig
from components.train.input_pipeline import ArrayRows, Columns, TrainingData
from components.train.loop import EpochProgress, TrainingLoop
from components.train.model import Architecture
from components.train.negative_sampler import build_seen_items
from components.train.phases import plan_phases
from components.train.strategy import Placement, place

MakeConfig = Callable[..., TrainConfig]
MakeLoop = Callable[..., TrainingLoop]


def train(loop: TrainingLoop, num_epochs: int) -> tuple[list[float], list[np.ndarray]]:
    return [loop.run_epoch(epoch).loss for epoch in range(num_epochs)], loop.weights()


def batches_of(loop: TrainingLoop, data: TrainingData, epoch: int, first_step: int = 0):
    (window,) = data.windows(epoch, [0])
    return loop.math.batches(loop._seen, window, loop._keys(epoch), tf.constant(first_step), tf.constant(0))


@pytest.mark.parametrize(
    "changes", [{}, {"global_batch_size": 4, "num_train_negatives": 1, "row_regularization": 0.01}]
)
def test_two_devices_compute_what_one_does(
    make_config: MakeConfig, make_loop: MakeLoop, data: TrainingData, changes: dict[str, float]
) -> None:
    """With few look-ups a step, rows lag behind, and two devices tell each other rows."""
    one = make_loop(make_config(strategy="one_device", **changes))
    tensors = [[tf.constant(part) for part in parts] for parts in (one._weights, one._slots)]
    look_ups = one.math.optimizer.unsettle(
        *tensors, one.math.num_look_ups(one._group_size), one._steps_per_call
    ).look_ups
    tables_that_lag = [part.shape[0] for part in look_ups if part.shape[0]]
    assert tables_that_lag == ([data.num_users, data.num_items] * 2 if changes else [])
    losses_of_one, weights_of_one = train(one, 4)
    losses_of_two, weights_of_two = train(make_loop(make_config(strategy="mirrored", **changes)), 4)
    placement = place("mirrored", {})
    assert isinstance(placement, Placement)
    assert placement.strategy.num_replicas_in_sync == 2
    np.testing.assert_allclose(losses_of_two, losses_of_one, rtol=0, atol=1e-5)
    for one, two in zip(weights_of_one, weights_of_two, strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=1e-4)


def test_the_loss_falls(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    losses, _ = train(make_loop(make_config()), 12)
    assert losses[-1] < 0.8 * losses[0]


def test_steps_per_loop_changes_nothing(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    one_by_one, _ = train(make_loop(make_config(steps_per_loop=1)), 2)
    at_once, _ = train(make_loop(make_config(steps_per_loop=1000)), 2)
    np.testing.assert_allclose(one_by_one, at_once, rtol=1e-6)


def test_the_same_seed_repeats_bit_for_bit_and_another_does_not(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    (_, first), (_, again) = (train(make_loop(make_config(seed=1)), 2) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    one, other = make_loop(make_config(seed=1)), make_loop(make_config(seed=2))
    assert not np.array_equal(one.weights()[0], other.weights()[0])
    for key, other_key in zip(one._keys(0), other._keys(0), strict=True):
        assert not np.array_equal(key, other_key)


def test_an_epoch_goes_on_in_its_middle_bit_for_bit(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    class CutError(Exception):
        pass

    def cut_after_9(progress: EpochProgress) -> None:
        if progress.num_steps >= 9:
            raise CutError

    config = make_config(steps_per_loop=3)
    whole, second = make_loop(config), make_loop(config)
    start = whole.state()
    progress = EpochProgress()
    with pytest.raises(CutError):
        whole.run_epoch(0, progress, cut_after_9)
    assert progress.num_steps == 9
    second.load_state(whole.state())
    whole.load_state(start)
    expected = whole.run_epoch(0)
    assert second.run_epoch(0, progress).summed_loss == expected.summed_loss
    for a, b in zip(whole.state(), second.state(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_regularization_is_in_the_loss_and_shrinks_the_tables(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    plain, regularized = make_config(strategy="mirrored"), make_config(strategy="mirrored", mf_regularization=0.05)
    (_, free), (losses, held) = train(make_loop(plain), 3), train(make_loop(regularized), 3)
    assert np.sum(held[0] ** 2) < 0.5 * np.sum(free[0] ** 2)
    one_device, _ = train(make_loop(make_config(mf_regularization=0.05)), 3)
    np.testing.assert_allclose(losses, one_device, atol=1e-5)


def test_the_first_loss_is_that_of_chance(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    """At the start every logit is near 0, so the binary cross-entropy is log 2 per example, padding not counted."""
    # 440 positives: 13 full steps and a third of one.
    (loss,), _ = train(make_loop(make_config(learning_rate=1e-12, global_batch_size=4 * 33)), 1)
    assert loss == pytest.approx(np.log(2), rel=5e-3)


def test_padding_contributes_nothing(make_config: MakeConfig, make_loop: MakeLoop, data: TrainingData) -> None:
    """An epoch in one step: the gradient of a batch far larger than the data is that of the data alone, summed."""
    summed = []
    for global_batch_size in (4 * 440, 4 * 1000):
        loop = make_loop(make_config(global_batch_size=global_batch_size))
        batch = batches_of(loop, data, 0).at(tf.constant(0))
        loss, gradients = loop.math.gradients([tf.constant(weight) for weight in loop.weights()], batch)
        summed.append([loss, *(tf.convert_to_tensor(gradient) * global_batch_size for gradient in gradients)])
    for a, b in zip(*summed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_regularization_is_factor_times_sum_of_squares(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    config = make_config(mlp_layers=(8, 6, 4), mf_regularization=0.1, mlp_regularization=(0.0, 0.2, 0.3))
    loop = make_loop(config)
    w = [np.random.default_rng(1).normal(size=weight.shape) for weight in loop.weights()]
    tables = sum(np.sum(table**2) for table in w[:4])
    expected = 0.1 * tables + 0.2 * np.sum(w[4] ** 2) + 0.3 * np.sum(w[6] ** 2)
    actual = loop.math.regularization_loss([tf.constant(x, tf.float32) for x in w])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize(("mlp_layers", "is_in_parts"), [((8, 6, 4), True), ((8, 6), True), ((8,), False), ((), False)])
def test_a_processor_computes_hidden_layers_in_parts(
    make_config: MakeConfig, make_loop: MakeLoop, mlp_layers: tuple[int, ...], is_in_parts: bool
) -> None:
    config = make_config(mlp_layers=mlp_layers, mlp_regularization=(0.0,) * len(mlp_layers))
    assert make_loop(config).math.is_in_parts == is_in_parts


def test_a_gpu_computes_a_step_in_one_piece(
    make_config: MakeConfig, make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [f"/device:{kind}:0"])
    assert not make_loop(make_config()).math.is_in_parts


def test_no_call_goes_on_past_the_steps_after_which_a_checkpoint_is_due(
    make_config: MakeConfig, make_loop: MakeLoop
) -> None:
    loop = make_loop(make_config(checkpoint_every_steps=7, steps_per_loop=1000))
    ends: list[int] = []
    loop.run_epoch(0, after_call=lambda progress: ends.append(progress.num_steps))
    assert loop.steps_per_epoch > 7
    assert ends == [*range(7, loop.steps_per_epoch, 7), loop.steps_per_epoch]


@pytest.mark.parametrize(
    ("changes", "are_apart"),
    [({}, True), ({"mlp_layers": (8,), "mlp_regularization": (0.0,)}, False), ({"global_batch_size": 100_000}, False)],
    ids=["small parts", "one piece", "large parts"],
)
def test_small_parts_are_compiled_so_that_they_share_no_memory(
    make_config: MakeConfig,
    make_loop: MakeLoop,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    are_apart: bool,
) -> None:
    loop = make_loop(make_config(**changes))
    flags = []
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(loop, "_call", lambda *_: flags.append(os.environ["XLA_FLAGS"]))
    loop.compile()
    assert flags == ["--xla_multiheap_size_constraint_per_heap=1" if are_apart else ""]
    assert os.environ["XLA_FLAGS"] == ""


@pytest.mark.parametrize(
    ("num_factors", "mlp_layers", "num_groups", "precision", "row_regularization", "has_labels"),
    [
        (4, (8, 6, 4), 16, "float32", 0.0, False),
        (4, (8, 6, 4), 20, "float32", 0.02, False),
        (4, (8, 6, 4), 21, "float32", 0.0, True),
        (4, (8, 6, 4), 440, "bfloat16", 0.0, False),
        (4, (8, 6, 4), 1000, "float32", 0.02, False),
        (4, (8, 6), 20, "bfloat16", 0.02, False),
        (4, (8, 6), 440, "float32", 0.0, False),
        (0, (8, 6, 4), 20, "float32", 0.0, False),
        (0, (8, 6, 4), 440, "float32", 0.02, True),
    ],
)
def test_parts_have_the_gradients_of_the_whole(
    make_config: MakeConfig,
    make_loop: MakeLoop,
    data: TrainingData,
    num_factors: int,
    mlp_layers: tuple[int, ...],
    num_groups: int,
    precision: str,
    row_regularization: float,
    has_labels: bool,
) -> None:
    """With fewer pairs than items and with more, an odd number of groups, and 560 of 1,000 that are padding."""
    config = make_config(
        precision=precision, row_regularization=row_regularization, global_batch_size=4 * num_groups, steps_per_loop=1
    )
    loop = make_loop(config)
    batch = batches_of(loop, data, 0).at(tf.constant(0))
    if has_labels:
        labels = tf.cast(batch.users[:, None] % 3 == 0, tf.float32)
        batch = batch._replace(items=batch.items[:, :1], labels=labels)
    architecture = Architecture(data.num_users, data.num_items, num_factors, mlp_layers)
    math = dataclasses.replace(loop.math, architecture=architecture)
    rng = np.random.default_rng(1)
    weights = [tf.constant(rng.normal(size=shape), tf.float32) for _, shape in architecture.weight_shapes()]

    @tf.function(jit_compile=True)
    def gradients(is_in_parts: bool) -> tuple[tf.Tensor, list[tf.Tensor]]:
        loss, gradients = dataclasses.replace(math, is_in_parts=is_in_parts).gradients(weights, batch)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    (loss, whole), (loss_of_parts, in_parts) = gradients(False), gradients(True)
    # Where bfloat16 rounds hangs on the last bit of a sum in float32.
    tolerance = 1e-5 if precision == "float32" else 2e-2
    np.testing.assert_allclose(loss_of_parts, loss, rtol=tolerance)
    for a, b in zip(whole, in_parts, strict=True):
        np.testing.assert_allclose(b, a, atol=tolerance * np.abs(a).max())
        assert np.abs(a).max() > 0


def test_parts_divide_the_groups_among_them(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    bounds_of_parts = make_loop(make_config()).math._bounds_of_parts
    assert [bounds_of_parts(num_groups) for num_groups in (16, 17)] == [[(0, 8), (8, 16)], [(0, 8), (8, 17)]]
    assert [bounds_of_parts(num_groups) for num_groups in (1, 15)] == [[(0, 1)], [(0, 15)]]


def test_rows_that_lag_and_travel_are_those_of_all_parts(make_config: MakeConfig) -> None:
    """Tables that are large beside a step: one device in parts, in one piece, and two devices compute the same."""
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(400, dtype=np.int32), 4)
    items = np.concatenate([rng.choice(1400, 4, replace=False) for _ in range(400)]).astype(np.int32)
    held_out = Candidates(
        np.arange(400, dtype=np.int32), np.zeros((400, 1), np.int32), np.zeros(400, np.int32), np.zeros((400, 1), bool)
    )
    rows = ArrayRows(Columns(users, items))
    data = TrainingData(rows, build_seen_items(users, items, 400, 1400), held_out, "validation", 400, 1400)
    losses, weights = {}, {}
    for name in ("parts", "one piece", "mirrored"):
        config = make_config(global_batch_size=128, strategy="mirrored" if name == "mirrored" else "one_device")
        (phase,) = plan_phases(config, data.num_users, data.num_items)
        placement = place(config.strategy, {})
        assert isinstance(placement, Placement)
        loop = TrainingLoop(config, phase, data, placement.strategy)
        tensors = [[tf.constant(part) for part in parts] for parts in (loop._weights, loop._slots)]
        state = loop.math.optimizer.unsettle(*tensors, [32, 128, 32, 128, *[None] * 6], 7)
        assert [part.shape[0] for part in state.look_ups][:4] == [400, 1400, 400, 1400]
        assert len(loop.math._bounds_of_parts(loop.math.groups_per_replica)) == 2
        if name == "one piece":
            loop.math = dataclasses.replace(loop.math, is_in_parts=False)
        losses[name], weights[name] = train(loop, 2)
    for name in ("one piece", "mirrored"):
        np.testing.assert_allclose(losses[name], losses["parts"], rtol=0, atol=1e-5)
        for a, b in zip(weights[name], weights["parts"], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("global_batch_size", "width"), [(80, 3e-4), (400, 1e-3)], ids=["a row for each pair", "a row for each item"]
)
def test_the_gradient_is_that_of_finite_differences(
    make_config: MakeConfig, make_loop: MakeLoop, data: TrainingData, global_batch_size: int, width: float
) -> None:
    # One step of plain descent with learning rate 1 moves the weights by their gradient, L2 terms included.
    config = make_config(
        mf_regularization=0.01,
        mlp_regularization=(0.0, 0.02, 0.03),
        global_batch_size=global_batch_size,
        optimizer="sgd",
        learning_rate=1.0,
    )
    loop = make_loop(config)
    batch = batches_of(loop, data, 0).at(tf.constant(0))
    rng = np.random.default_rng(1)
    weights = [rng.normal(scale=0.5, size=weight.shape).astype(np.float32) for weight in loop.weights()]

    def loss_at(step: float, direction: list[np.ndarray]) -> float:
        moved = [tf.constant(w + np.float32(step) * d) for w, d in zip(weights, direction, strict=True)]
        return float(loop.math.gradients(moved, batch)[0] / global_batch_size + loop.math.regularization_loss(moved))

    start = [tf.constant(weight) for weight in weights]
    after, _ = loop.math.update_settled(start, [], loop.math.gradients(start, batch)[1], tf.constant(0))
    gradient = [w - np.asarray(a) for w, a in zip(weights, after, strict=True)]
    for index in range(len(weights)):
        direction = [rng.normal(size=w.shape).astype(np.float32) * (i == index) for i, w in enumerate(weights)]
        slope = sum(float(np.sum(g * d)) for g, d in zip(gradient, direction, strict=True))
        differences = (loss_at(width, direction) - loss_at(-width, direction)) / (2 * width)
        assert slope == pytest.approx(differences, rel=0.03, abs=2e-4), index


@pytest.mark.parametrize("mlp_layers", [(), (8, 6, 4)], ids=["matrix factorization", "neumf"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_penalty_of_looked_up_rows_is_in_loss_and_gradient(
    make_config: MakeConfig, make_loop: MakeLoop, data: TrainingData, mlp_layers: tuple[int, ...], optimizer: str
) -> None:
    """Computed another way: pair by pair, over a batch with padding in which rows occur several times."""
    config = make_config(
        mlp_layers=mlp_layers,
        mlp_regularization=(0.0,) * len(mlp_layers),
        row_regularization=0.03,
        global_batch_size=4 * 500,
        optimizer=optimizer,
    )
    loop, plain = make_loop(config), make_loop(dataclasses.replace(config, row_regularization=0.0))
    weights = [np.random.default_rng(1).normal(size=weight.shape).astype(np.float32) for weight in loop.weights()]
    batch = batches_of(loop, data, 0).at(tf.constant(0))
    tensors = [tf.constant(weight) for weight in weights]
    loss, gradients = loop.math.gradients(tensors, batch)
    plain_loss, plain_gradients = plain.math.gradients(tensors, batch)
    expected_penalty = 0.0
    expected = [np.zeros_like(weight, np.float64) for weight in weights]
    for user, items, valid in zip(batch.users.numpy(), batch.items.numpy(), batch.is_valid.numpy(), strict=True):
        for item in items if valid else []:
            for table in range(2 if not mlp_layers else 4):
                row = user if table % 2 == 0 else item
                expected_penalty += 0.03 * float(np.sum(weights[table][row].astype(np.float64) ** 2))
                expected[table][row] += 2 * 0.03 * weights[table][row] / 2000
    assert float(loss - plain_loss) == pytest.approx(expected_penalty, rel=1e-4)
    for gradient, without, share in zip(gradients, plain_gradients, expected, strict=True):
        added = tf.convert_to_tensor(gradient) - tf.convert_to_tensor(without)
        np.testing.assert_allclose(added, share, rtol=1e-3, atol=1e-5)


def test_the_learning_rate_falls_to_nothing(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    loop = make_loop(make_config(optimizer="sgd", learning_rate=1.0, learning_rate_decay_start=0.5, num_epochs=4))
    num_steps = 4 * loop.steps_per_epoch
    ones = [tf.ones_like(weight) for weight in loop.weights()]

    def moved_in(step: int) -> float:
        after, _ = loop.math.update_settled(ones, [], ones, tf.constant(step))
        return float(1 - after[0][0, 0])

    assert [moved_in(step) for step in (0, num_steps // 2, num_steps * 3 // 4, num_steps)] == [1.0, 1.0, 0.5, 0.0]


def test_a_weight_multiplies_the_losses_of_a_positive_and_its_negatives(
    make_config: MakeConfig, make_loop: MakeLoop, data: TrainingData
) -> None:
    assert isinstance(data.rows, ArrayRows)
    weights = np.where(data.rows.columns.users < 20, 3.0, 0.0).astype(np.float32)
    weighted = dataclasses.replace(data, rows=ArrayRows(data.rows.columns._replace(weights=weights)), _resident={})
    config = make_config(global_batch_size=4 * 440)
    loop = make_loop(config)
    tensors = [tf.constant(weight) for weight in loop.weights()]
    batch = batches_of(make_loop(config, weighted), weighted, 0).at(tf.constant(0))
    is_counted = tf.cast(batch.users < 20, tf.float32)
    loss, gradients = loop.math.gradients(tensors, batch)
    counted = batch._replace(weights=None, is_valid=is_counted)
    expected_loss, expected = loop.math.gradients(tensors, counted)
    np.testing.assert_allclose(loss, 3 * expected_loss, rtol=1e-5)
    for gradient, one in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(gradient), 3 * tf.convert_to_tensor(one), rtol=1e-3, atol=1e-6)


def test_compiled_and_interpreted_train_alike(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    compiled, interpreted = make_loop(make_config()), make_loop(make_config())
    interpreted._call = interpreted._run_on_one
    expected, actual = train(compiled, 2), train(interpreted, 2)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
    for a, b in zip(actual[1], expected[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(
    make_config: MakeConfig, make_loop: MakeLoop
) -> None:
    loop = make_loop(make_config(learning_rate=1e30))
    with pytest.raises(InputError, match=r"epoch 1 at step (\d+): lower train.learning_rate") as raised:
        train(loop, 3)
    bad_step = int(str(raised.value).split("at step ")[1].split(":")[0])
    # Up to the step before, every loss is finite.
    again = make_loop(make_config(learning_rate=1e30, steps_per_loop=1))
    losses: list[float] = []
    with pytest.raises(InputError):
        again.run_epoch(0, after_call=lambda progress: losses.append(progress.summed_loss))
    assert len(losses) == bad_step - 1


def test_weights_that_are_not_finite_are_found_by_the_ranking(
    make_config: MakeConfig, make_loop: MakeLoop, data: TrainingData
) -> None:
    """One step an epoch: the loss is that of the weights before the step, and says nothing yet."""
    loop = make_loop(make_config(learning_rate=1e38, global_batch_size=4000))
    loop.run_epoch(0)
    assert data.selection is not None
    with pytest.raises(InputError, match=r"not finite.*the model has diverged"):
        rank_held_out_items(loop.scorer(), data.selection, num_threads=1)


def test_counters_beyond_32_bits_are_refused(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    huge = make_config(num_train_negatives=999_999_999, global_batch_size=10**9)
    with pytest.raises(InputError, match=r"exceed 2\*\*31"):
        make_loop(huge)


def test_replicas_that_cannot_share_the_batch_are_refused(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    with pytest.raises(InputError, match="not divisible by 2 replicas"):
        make_loop(make_config(strategy="mirrored", global_batch_size=81))


@pytest.mark.parametrize("window_rows_limit", [1 << 20, 150])
def test_every_positive_is_trained_on_exactly_once_an_epoch(
    make_config: MakeConfig, make_loop: MakeLoop, data: TrainingData, window_rows_limit: int
) -> None:
    data = dataclasses.replace(data, window_rows_limit=window_rows_limit)
    assert isinstance(data.rows, ArrayRows)
    loop = make_loop(make_config(steps_per_loop=1000), data)
    rows = []
    order = data.window_order(5, 3)
    for window in data.windows(3, order):
        batches = loop.math.batches(loop._seen, window, loop._keys(3), tf.constant(0), tf.constant(0))
        assert batches.labels is None
        for users, items, is_valid in zip(batches.users, batches.items, batches.is_valid, strict=True):
            rows += [(int(u), int(row[0])) for u, row, ok in zip(users, items, is_valid, strict=True) if ok]
    assert sorted(rows) == sorted(zip(*(column.tolist() for column in data.rows.columns[:2]), strict=True))


def test_windows_come_in_another_order_in_each_epoch(data: TrainingData) -> None:
    data = dataclasses.replace(data, window_rows_limit=20)
    orders = [data.window_order(1, epoch) for epoch in range(3)]
    assert all(sorted(order) == list(range(22)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_scoring_goes_through_the_model(make_config: MakeConfig, make_loop: MakeLoop, data: TrainingData) -> None:
    loop = make_loop(make_config())
    assert data.selection is not None
    users, items = data.selection.users[:3], data.selection.items[:3]
    tables, dense = loop.weights()[:4], loop.weights()[4:]
    gmf = tables[0][users][:, None] * tables[1][items]
    pairs = np.concatenate(np.broadcast_arrays(tables[2][users][:, None], tables[3][items]), axis=-1)
    hidden = np.maximum(np.maximum(pairs @ dense[0] + dense[1], 0) @ dense[2] + dense[3], 0)
    expected = (np.concatenate([gmf, hidden], axis=-1) @ dense[4])[..., 0] + dense[5]
    np.testing.assert_allclose(loop.scorer()(users, items), expected, rtol=1e-4, atol=1e-7)
