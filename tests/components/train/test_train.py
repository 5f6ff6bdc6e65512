import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from components.ncf.errors import InputError
from components.ncf.examples import read_candidates
from components.ncf.manifest import read_manifest
from components.train.config import TrainConfig
from components.train.train import train

Make = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def finished(make_config: Make, examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of three epochs and its checkpoints, which no test changes."""
    folder = tmp_path_factory.mktemp("finished")
    train(make_config(num_epochs=3), examples, folder / "model", folder / "checkpoints")
    return folder


def hit_rate_of_saved_model(model: Path, examples: Path, protocol: str) -> float:
    """Counts hits pair by pair through the serving signature, which takes raw ids."""
    score = tf.saved_model.load(str(model / "saved_model")).signatures["score"]
    held_out = read_candidates(examples, read_manifest(examples, "examples"), protocol)
    raw_user_ids, raw_item_ids = (
        pq.read_table(examples / f"{side}s.parquet")[f"raw_{side}_id"].to_numpy() for side in ("user", "item")
    )
    hits = 0
    for user, items, positive, mask in zip(
        held_out.users, held_out.items, held_out.positives, held_out.duplicate_mask, strict=True
    ):
        pool = raw_item_ids[np.append(items[~mask], positive)]
        users = tf.constant(np.repeat(raw_user_ids[user], len(pool)))
        scores = score(user_id=users, item_id=tf.constant(pool))["scores"].numpy()
        hits += int(np.sum(scores[:-1] >= scores[-1]) < 10)
    return hits / len(held_out.users)


@pytest.mark.slow
@pytest.mark.parametrize("selection", ["validation", "test"])
def test_the_exported_model_is_the_best_epoch(
    make_config: Make, examples: Path, tmp_path: Path, selection: str
) -> None:
    # So high a learning rate that later epochs are mostly worse than the best; else another seed.
    for seed in range(4):
        model = tmp_path / f"model-{seed}"
        train(make_config(num_epochs=9, learning_rate=0.2, model_selection=selection, seed=seed), examples, model, None)
        training = json.loads((model / "training.json").read_text())
        figures = [(entry["hr@10"], entry["ndcg@10"]) for entry in training["history"]]
        assert training["best_epoch"] == 1 + figures.index(max(figures))
        best, last = max(figures)[0], figures[-1][0]
        if last < best - 0.006:
            break
    else:
        pytest.fail("the last epoch is always the best: this test shows nothing")
    protocol = "validation" if selection == "validation" else "loo-99"
    assert training["selection_protocol"] == protocol
    assert hit_rate_of_saved_model(model, examples, protocol) == pytest.approx(best, abs=0.006)


@pytest.mark.slow
def test_selection_by_the_test_item_trains_on_the_validation_items_too(
    make_config: Make, examples: Path, tmp_path: Path
) -> None:
    counts = {}
    for selection in ("validation", "test"):
        train(make_config(num_epochs=1, model_selection=selection), examples, tmp_path / selection, None)
        counts[selection] = json.loads((tmp_path / selection / "training.json").read_text())["num_rows_per_epoch"]
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


def command_of(examples: Path, output: Path, *settings: str) -> list[str]:
    options = [word for setting in settings for word in ("--set", f"train.{setting}")]
    return [
        sys.executable, "-c", "from pipelines.cli import main; main()", "train", "--preset", "smoke", *options,
        "--examples", str(examples), "--output", str(output),
    ]  # fmt: skip


def newest_step(folder: Path) -> int:
    return max((int(path.stem.split("-")[1]) for path in folder.glob("checkpoint-*.npz")), default=0)


def start_and_signal(command: list[str], checkpoints: Path, after_step: int, signal_number: int) -> tuple[int, str]:
    """Sends a signal as soon as a checkpoint of that step or a later one is there."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while newest_step(checkpoints) < after_step and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal_number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def history_of(model: Path) -> list[dict[str, float]]:
    history: list[dict[str, float]] = json.loads((model / "training.json").read_text())["history"]
    return history


def assert_same_model(a: Path, b: Path) -> None:
    first, second = (tf.saved_model.load(str(model / "saved_model")) for model in (a, b))
    for one, two in zip(first._variables, second._variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    for name in ("loss", "hr@10", "ndcg@10", "num_steps"):
        assert [entry[name] for entry in history_of(a)] == [entry[name] for entry in history_of(b)]


@pytest.mark.slow
def test_a_run_killed_at_random_steps_gives_the_weights_of_one_never_killed(examples: Path, tmp_path: Path) -> None:
    settings = ("num_epochs=12", "checkpoint_every_steps=7", "steps_per_loop=2", "early_stopping_patience=0")
    subprocess.run(command_of(examples, tmp_path / "whole", *settings), check=True)
    steps_per_epoch = json.loads((tmp_path / "whole/training.json").read_text())["num_steps_per_epoch"]
    command = command_of(examples, tmp_path / "killed", *settings)
    targets = np.sort(np.random.default_rng().integers(1, 11 * steps_per_epoch, 3))
    for target in targets:
        status, errors = start_and_signal(command, tmp_path / "killed-checkpoints/neumf", int(target), signal.SIGKILL)
        assert status == -signal.SIGKILL, f"targets {targets}: {errors}"
        assert not (tmp_path / "killed").exists()
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "resumed from" in again.stderr
    assert_same_model(tmp_path / "whole", tmp_path / "killed")
    assert not (tmp_path / "killed-checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_saves_first(examples: Path, tmp_path: Path, signal_number: int) -> None:
    # No checkpoint is due within an epoch: the one in its middle is that of the signal.
    settings = ("num_epochs=12", "steps_per_loop=1", "early_stopping_patience=0")
    command = command_of(examples, tmp_path / "model", *settings)
    checkpoints = tmp_path / "model-checkpoints/neumf"
    status, errors = start_and_signal(command, checkpoints, 1, signal_number)
    assert status == 128 + signal_number
    saved_at = re.search(r"told to stop: saved after step (\d+) of epoch (\d+)", errors)
    assert saved_at, errors
    assert not (tmp_path / "model").exists()
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"resumed after epoch {int(saved_at[2]) - 1} and {saved_at[1]} steps" in again.stderr
    subprocess.run(command_of(examples, tmp_path / "whole", *settings), check=True)
    assert_same_model(tmp_path / "whole", tmp_path / "model")


@pytest.mark.slow
def test_a_step_that_the_memory_does_not_hold_is_refused(examples: Path, tmp_path: Path) -> None:
    command = command_of(examples, tmp_path / "model", "num_epochs=1", "global_batch_size=1000000000")
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "error: The memory does not hold a step with train.global_batch_size 1000000000," in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.endswith("lower one of them.\n")
    assert not [path for path in tmp_path.iterdir() if path.name != "model-checkpoints"]


@pytest.mark.slow
def test_the_results_of_a_small_step_share_no_memory_and_are_the_same(examples: Path, tmp_path: Path) -> None:
    """What XLA reports of the memory that it gave the loop: one block that is divided, or one block for each result."""

    def blocks(name: str, setting: str, flags: str = "") -> int:
        environment = {
            **os.environ,
            "XLA_FLAGS": f"--xla_dump_to={tmp_path / name} {flags}",
            "CUDA_VISIBLE_DEVICES": "",
        }
        command = command_of(examples, tmp_path / f"model-{name}", "num_epochs=1", setting)
        subprocess.run(command, check=True, env=environment)
        (report,) = (tmp_path / name).glob("*_run_on_one_*buffer-assignment.txt")
        return report.read_text().count("preallocated-temp:")

    assert blocks("small", "global_batch_size=1000") > 20
    assert blocks("unwanted", "global_batch_size=1000", "--xla_multiheap_size_constraint_per_heap=-1") == 1
    assert_same_model(tmp_path / "model-small", tmp_path / "model-unwanted")
    assert blocks("large", "global_batch_size=100000") == 1


@pytest.mark.slow
def test_records_read_window_by_window_train_like_those_in_memory(
    make_config: Make, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.train.input_pipeline.TrainingData.window_rows_limit", 700)
    for name, limit_mb in (("resident", 100), ("streamed", 0)):
        train(make_config(num_epochs=2, device_data_limit_mb=limit_mb), examples, tmp_path / name, None)
    assert_same_model(tmp_path / "resident", tmp_path / "streamed")


@pytest.mark.slow
def test_streamed_training_on_the_validation_items_too(make_config: Make, examples: Path, tmp_path: Path) -> None:
    for name, limit_mb in (("resident", 100), ("streamed", 0)):
        config = make_config(num_epochs=2, device_data_limit_mb=limit_mb, model_selection="test")
        train(config, examples, tmp_path / name, None)
    assert_same_model(tmp_path / "resident", tmp_path / "streamed")


def test_without_a_selection_the_last_epoch_is_exported(make_config: Make, examples: Path, tmp_path: Path) -> None:
    train(make_config(num_epochs=2, model_selection="last"), examples, tmp_path / "model", None)
    training = json.loads((tmp_path / "model/training.json").read_text())
    assert training["best_epoch"] == 2
    assert not any("hr@10" in entry for entry in training["history"])
    manifest = read_manifest(examples, "examples")
    assert training["num_rows_per_epoch"] == manifest["num_train_positives"] + manifest["num_users"]


@pytest.mark.slow
def test_pretrained_towers_are_where_the_fused_model_starts(make_config: Make, examples: Path, tmp_path: Path) -> None:
    # With so small a learning rate the fused model stays where it starts: half of each tower's score.
    config = make_config(num_epochs=1, pretraining_epochs=2, learning_rate=1e-12, optimizer="sgd")
    train(config, examples, tmp_path / "model", tmp_path / "checkpoints")
    users, items = np.array([3, 7]), np.array([11, 2])
    towers = {}
    for phase in ("gmf", "mlp"):
        newest = max((tmp_path / "checkpoints" / phase).glob("checkpoint-*.npz"))
        archive = np.load(newest)
        arrays = [archive[name] for name in sorted(archive.files) if name.startswith("array")]
        num_weights = 4 if phase == "gmf" else 8
        towers[phase] = arrays[-num_weights:]
    gmf, mlp = towers["gmf"], towers["mlp"]
    gmf_logits = (gmf[0][users] * gmf[1][items]) @ gmf[2][:, 0] + gmf[3]
    hidden = np.maximum(np.concatenate([mlp[0][users], mlp[1][items]], axis=1) @ mlp[2] + mlp[3], 0)
    mlp_logits = np.maximum(hidden @ mlp[4] + mlp[5], 0) @ mlp[6][:, 0] + mlp[7]
    loaded = tf.saved_model.load(str(tmp_path / "model/saved_model"))
    actual = loaded.score_candidates(tf.constant(users, tf.int32), tf.constant(items[:, None], tf.int32))[:, 0]
    np.testing.assert_allclose(actual, (gmf_logits + mlp_logits) / 2, rtol=1e-4, atol=1e-5)
    training = json.loads((tmp_path / "model/training.json").read_text())
    assert [len(history) for history in training["pretraining"]] == [2, 2]


@pytest.mark.parametrize("name", ["model", "model/checkpoints"])
def test_checkpoints_in_the_output_are_refused(make_config: Make, examples: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"--checkpoint-dir .* lies in --output"):
        train(make_config(), examples, tmp_path / "model", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_is_started_again_after_its_end_leaves_the_model_as_it_is(
    make_config: Make, examples: Path, finished: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "model").rglob("*")}
    train(make_config(num_epochs=3), examples, finished / "model", finished / "checkpoints")
    assert {path: path.stat().st_mtime_ns for path in (finished / "model").rglob("*")} == before
    with pytest.raises(InputError, match="already exists and is not empty"):
        train(make_config(num_epochs=4), examples, finished / "model", finished / "checkpoints")


@pytest.mark.slow
def test_a_job_killed_while_its_model_is_moved_to_its_place_ends_with_that_model(
    examples: Path, tmp_path: Path
) -> None:
    """Where a folder cannot be renamed, as in a bucket mounted as one, the model's files are moved one by one."""
    on_mount = """
import os, signal
from pathlib import Path

def refuse(source, target):
    raise OSError(95, "Operation not supported", str(source))

def replace(source, target, replace=Path.replace):
    replace(source, target)
    if Path(target).name == "saved_model.pb" and "RESTARTED" not in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)

Path.rename, Path.replace = refuse, replace
"""
    command = command_of(examples, tmp_path / "model", "num_epochs=2")
    command[2] = on_mount + command[2].replace("; ", "\n")
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert (tmp_path / "model/saved_model/saved_model.pb").is_file()
    assert not (tmp_path / "model/manifest.json").exists()
    again = subprocess.run(command, env={**os.environ, "RESTARTED": "1"}, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "resumed after epoch 2" in again.stderr, "it trains nothing twice"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    subprocess.run(command_of(examples, tmp_path / "whole", "num_epochs=2"), check=True)
    assert_same_model(tmp_path / "model", tmp_path / "whole")
    names = [
        sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "events" not in path.name)
        for folder in (tmp_path / "model", tmp_path / "whole")
    ]
    assert names[0] == names[1]


def test_fewer_epochs_than_were_trained_are_refused(
    make_config: Make, examples: Path, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"of epoch 3 and train.num_epochs is 2: set it to at least 3"):
        train(make_config(num_epochs=2), examples, tmp_path / "other", finished / "checkpoints")
    assert not (tmp_path / "other").exists()


def test_a_checkpoint_folder_that_cannot_be_written_is_found_before_training(
    make_config: Make, examples: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level("INFO", "components"), pytest.raises(InputError, match=r"file.neumf cannot be written"):
        train(make_config(), examples, tmp_path / "model", tmp_path / "file")
    assert "compiled" not in caplog.text


def test_a_batch_beyond_an_epoch_is_remarked_on(
    make_config: Make, examples: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "components"):
        train(make_config(num_epochs=1, global_batch_size=100_000), examples, tmp_path / "model", None)
    assert "train.global_batch_size 100000 is more than the" in caplog.text


def test_checkpoints_of_another_run_are_refused(
    make_config: Make, examples: Path, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"another run \(learning_rate 0.01 then, 0.02 now\)"):
        train(make_config(learning_rate=0.02), examples, tmp_path / "other", finished / "checkpoints")
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


def test_tensorboard_has_a_point_for_each_epoch(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "model/tensorboard/neumf"))
    events.Reload()
    history = history_of(finished / "model")
    written_at = (finished / "model/training.json").stat().st_mtime
    for name in ("loss", "hr@10", "ndcg@10"):
        points = events.Tensors(name)
        assert [point.step for point in points] == [1, 2, 3]
        assert points[0].wall_time == pytest.approx(written_at, abs=3600)
        values = [tf.make_ndarray(point.tensor_proto) for point in points]
        np.testing.assert_allclose(values, [entry[name] for entry in history], rtol=1e-6)


def test_tensorboards_files_are_also_where_the_platform_looks(
    make_config: Make, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's file system in memory stands in for a bucket: its places are no paths either."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    monkeypatch.setenv("AIP_TENSORBOARD_LOG_DIR", "ram://bucket/logs/")
    train(make_config(num_epochs=2, pretraining_epochs=1), examples, tmp_path / "model", None)
    for phase, epochs in (("gmf", [1]), ("mlp", [1]), ("neumf", [1, 2])):
        assert len(list((tmp_path / "model/tensorboard" / phase).glob("events*"))) == 1
        (place,) = tf.io.gfile.glob(f"ram://bucket/logs/{phase}/events*")
        tf.io.gfile.copy(place, str(tmp_path / phase))
        events = EventFileLoader(str(tmp_path / phase)).Load()
        steps = [(value.tag, event.step) for event in events for value in event.summary.value]
        for name in ("loss", "step_time_ms"):
            assert [step for tag, step in steps if tag == name] == epochs


def test_a_platform_that_takes_no_files_does_not_end_training(
    make_config: Make, examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AIP_TENSORBOARD_LOG_DIR", f"{tmp_path}/file/logs")
    with caplog.at_level("WARNING", "components"):
        train(make_config(num_epochs=1), examples, tmp_path / "model", None)
    assert f"TensorBoard's files cannot be written to {tmp_path}/file/logs/neumf (" in caplog.text
    assert list((tmp_path / "model/tensorboard/neumf").glob("events*"))
