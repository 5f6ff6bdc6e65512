import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.ncf.errors import InputError
from components.ncf.examples import read_candidates
from components.ncf.manifest import read_manifest
from components.train.config import TrainConfig
from components.train.train import train

Make = Callable[..., TrainConfig]


def hit_rate_of_saved_model(model: Path, examples: Path, protocol: str) -> float:
    """Counts hits pair by pair through the serving signature."""
    score = tf.saved_model.load(str(model / "saved_model")).signatures["score"]
    held_out = read_candidates(examples, read_manifest(examples, "examples"), protocol)
    hits = 0
    for user, items, positive, mask in zip(
        held_out.users, held_out.items, held_out.positives, held_out.duplicate_mask, strict=True
    ):
        pool = np.append(items[~mask], positive).astype(np.int64)
        scores = score(user_id=tf.fill([len(pool)], tf.cast(user, tf.int64)), item_id=tf.constant(pool))[
            "scores"
        ].numpy()
        hits += int(np.sum(scores[:-1] >= scores[-1]) < 10)
    return hits / len(held_out.users)


@pytest.mark.slow
@pytest.mark.parametrize("selection", ["validation", "test"])
def test_the_exported_model_is_the_best_epoch(
    make_config: Make, examples: Path, tmp_path: Path, selection: str
) -> None:
    # So high a learning rate that later epochs are worse than the best.
    config = make_config(num_epochs=10, learning_rate=0.3, model_selection=selection)
    train(config, examples, tmp_path / "model", None)
    training = json.loads((tmp_path / "model/training.json").read_text())
    hit_rates = [entry["hr@10"] for entry in training["history"]]
    assert training["best_epoch"] == 1 + int(np.argmax(hit_rates))
    protocol = "validation" if selection == "validation" else "loo-99"
    assert training["selection_protocol"] == protocol
    assert hit_rate_of_saved_model(tmp_path / "model", examples, protocol) == pytest.approx(max(hit_rates), abs=0.006)
    assert hit_rates[-1] < max(hit_rates) - 0.006, "the last epoch is the best: this test shows nothing"


@pytest.mark.slow
def test_selection_by_the_test_item_trains_on_the_validation_items_too(
    make_config: Make, examples: Path, tmp_path: Path
) -> None:
    counts = {}
    for selection in ("validation", "test"):
        train(make_config(num_epochs=1, model_selection=selection), examples, tmp_path / selection, None)
        counts[selection] = json.loads((tmp_path / selection / "training.json").read_text())["num_positives"]
    num_users = read_manifest(examples, "examples")["num_users"]
    assert counts["test"] == counts["validation"] + num_users


def test_training_stops_when_it_no_longer_gets_better(make_config: Make, examples: Path, tmp_path: Path) -> None:
    config = make_config(num_epochs=40, learning_rate=0.1, early_stopping_patience=2)
    train(config, examples, tmp_path / "model", None)
    training = json.loads((tmp_path / "model/training.json").read_text())
    assert len(training["history"]) == training["best_epoch"] + 2 < 40


@pytest.mark.slow
def test_a_run_that_was_cut_short_goes_on_as_if_it_had_not_been(
    make_config: Make, examples: Path, tmp_path: Path
) -> None:
    train(make_config(num_epochs=5), examples, tmp_path / "whole", tmp_path / "checkpoints-a")
    train(make_config(num_epochs=2), examples, tmp_path / "first", tmp_path / "checkpoints-b")
    train(make_config(num_epochs=5), examples, tmp_path / "second", tmp_path / "checkpoints-b")
    whole, second = (tf.saved_model.load(str(tmp_path / name / "saved_model")) for name in ("whole", "second"))
    for a, b in zip(whole._variables, second._variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    histories = [json.loads((tmp_path / name / "training.json").read_text())["history"] for name in ("whole", "second")]
    assert [entry["loss"] for entry in histories[0]] == [entry["loss"] for entry in histories[1]]


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_looks_complete_and_resumes(examples: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-c", "from pipelines.cli import main; main()", "train", "--preset", "smoke",
        "--set", "train.num_epochs=400", "--examples", str(examples), "--output", str(tmp_path / "model"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "epoch 3/" in line:
            break
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "".join(lines)
    assert not (tmp_path / "model").exists()
    command[command.index("train.num_epochs=400")] = "train.num_epochs=5"
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "resumed after epoch" in again.stderr
    assert "epoch 1/" not in again.stderr
    assert len(json.loads((tmp_path / "model/training.json").read_text())["history"]) >= 5
    assert not (tmp_path / "model-checkpoints").exists()


def test_checkpoints_of_another_run_are_refused(make_config: Make, examples: Path, tmp_path: Path) -> None:
    train(make_config(num_epochs=1), examples, tmp_path / "model", tmp_path / "checkpoints")
    with pytest.raises(InputError, match=r"another run \(learning_rate 0.01 then, 0.02 now\)"):
        train(make_config(learning_rate=0.02), examples, tmp_path / "other", tmp_path / "checkpoints")
    assert not (tmp_path / "other").exists()


def test_a_diverging_run_leaves_no_model(make_config: Make, examples: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"loss is (nan|inf)"):
        train(make_config(learning_rate=1e30), examples, tmp_path / "model", None)
    assert not (tmp_path / "model").exists()


def test_damaged_records_are_refused(make_config: Make, examples: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "examples"
    shutil.copytree(examples, copy)
    (path,) = sorted(copy.glob("positives/*"))[:1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="differs from its sha256"):
        train(make_config(), copy, tmp_path / "model", None)


def test_tensorboard_has_a_point_for_each_epoch(make_config: Make, examples: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    started = time.time()
    train(make_config(num_epochs=3), examples, tmp_path / "model", None)
    events = EventAccumulator(str(tmp_path / "model/tensorboard"))
    events.Reload()
    history = json.loads((tmp_path / "model/training.json").read_text())["history"]
    for name in ("loss", "hr@10", "ndcg@10"):
        points = events.Tensors(name)
        assert [point.step for point in points] == [1, 2, 3]
        assert points[0].wall_time >= started - 1
        values = [tf.make_ndarray(point.tensor_proto) for point in points]
        np.testing.assert_allclose(values, [entry[name] for entry in history], rtol=1e-6)
