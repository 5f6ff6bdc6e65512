import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.ncf.errors import InputError
from components.ncf.examples import read_positives
from components.ncf.manifest import read_manifest
from components.train.config import TrainConfig
from components.train.input_pipeline import TrainingData, load_training_data
from components.train.train import train

Make = Callable[..., TrainConfig]


def load(config: TrainConfig, examples: Path) -> TrainingData:
    return load_training_data(examples, read_manifest(examples, "examples"), config)


def test_recent_positives_weigh_more_and_all_weigh_one_on_average(make_config: Make, examples: Path) -> None:
    data = load(make_config(recency_decay=4.0, recency_floor=0.1), examples)
    columns = data.rows.read(0, 0, len(data.rows))
    assert columns.weights is not None
    assert columns.weights.mean() == pytest.approx(1.0, rel=1e-5)
    names = ("user_id", "item_id", "recency")
    recency = read_positives(examples, read_manifest(examples, "examples"), names)["recency"]
    expected = np.array([0.1 + 2.718281828 ** (-int(later) / 4.0) for later in recency])
    np.testing.assert_allclose(columns.weights, expected / expected.mean(), rtol=1e-4)


def test_validation_items_that_are_trained_on_are_the_most_recent(make_config: Make, examples: Path) -> None:
    config = make_config(recency_decay=4.0, recency_floor=0.1, model_selection="last")
    data = load(config, examples)
    columns = data.rows.read(0, 0, len(data.rows))
    assert columns.weights is not None
    held_out = pq.read_table(examples / "held_out.parquet")
    validation = set(zip(held_out["user_id"].to_pylist(), held_out["validation_item_id"].to_pylist(), strict=True))
    by_pair = {
        (int(u), int(i)): float(w) for u, i, w in zip(columns.users, columns.items, columns.weights, strict=True)
    }
    assert validation <= by_pair.keys()
    greatest = max(by_pair.values())
    assert {by_pair[pair] for pair in validation} == {greatest}
    assert sorted(by_pair.values())[-len(validation) - 1] < 0.9 * greatest


@pytest.mark.parametrize("selection", ["validation", "last"])
def test_rows_read_from_the_files_are_those_in_memory(make_config: Make, examples: Path, selection: str) -> None:
    resident, streamed = (
        load(make_config(device_data_limit_mb=mb, model_selection=selection, recency_decay=9.0), examples)
        for mb in (100, 0)
    )
    assert resident.is_resident
    assert not streamed.is_resident
    # A run that was saved at the very end of an epoch has none left of it.
    assert list(resident.windows(0, [])) == list(streamed.windows(0, [])) == []
    num_rows = len(resident.rows)
    assert len(streamed.rows) == num_rows
    rng = np.random.default_rng(0)
    for start, stop in [(0, num_rows), (num_rows - 50, num_rows), *np.sort(rng.integers(0, num_rows, (20, 2)))]:
        for a, b in zip(resident.rows.read(0, start, stop), streamed.rows.read(0, start, stop), strict=True):
            np.testing.assert_array_equal(a, b)


def test_too_few_offline_epochs_are_refused(make_config: Make, examples: Path) -> None:
    with pytest.raises(InputError, match=r"holds 0 offline epochs and train.num_epochs is 3.*--offline-epochs 3"):
        load(make_config(training_records="offline"), examples)


@pytest.mark.slow
def test_offline_epochs_are_trained_on_as_they_are(make_config: Make, examples: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "generate", "--preset", "smoke"]
    places = ["--ratings", str(examples.parent / "ratings"), "--output", str(tmp_path / "examples")]
    subprocess.run([*command, *places, "--offline-epochs", "2"], check=True)
    config = make_config(training_records="offline", num_epochs=2)
    data = load(config, tmp_path / "examples")
    manifest = read_manifest(tmp_path / "examples", "examples")
    positives = read_positives(tmp_path / "examples", manifest)
    expected = sorted(zip(*(positives[name].tolist() for name in ("user_id", "item_id")), strict=True))
    assert len(data.rows) == 5 * len(expected)
    epochs = [data.rows.read(epoch, 0, len(data.rows)) for epoch in range(2)]
    for users, items, labels, _ in epochs:
        assert labels is not None
        assert sorted(zip(users[labels == 1].tolist(), items[labels == 1].tolist(), strict=True)) == expected
    assert not np.array_equal(epochs[0].items, epochs[1].items)
    train(config, tmp_path / "examples", tmp_path / "model", None)
    training = json.loads((tmp_path / "model/training.json").read_text())
    assert training["num_rows_per_epoch"] == len(data.rows)
    first, second = training["history"]
    assert second["loss"] < first["loss"] < np.log(2)
