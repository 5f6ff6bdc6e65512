"""Trains NeuMF on an `examples` folder and writes a `model` folder."""

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from components.ncf.errors import InputError
from components.ncf.manifest import Manifest, check_output_path, read_manifest, write_manifest, writing_artifact
from components.ncf.metrics import hit_rate_at_k, ndcg_at_k
from components.ncf.ranking import rank_held_out_items
from components.train.checkpoints import Checkpoints, Progress
from components.train.config import TrainConfig
from components.train.input_pipeline import TrainingData, load_training_data
from components.train.loop import TrainingLoop
from components.train.model import ServingModel
from components.train.strategy import build_strategy

_LOG = logging.getLogger(__name__)
SELECTION_CUTOFF = 10
# May change between a run and its continuation: they do not alter what an epoch computes.
_NOT_IDENTITY = ("num_epochs", "early_stopping_patience", "steps_per_loop", "max_checkpoints")


def train(config: TrainConfig, examples: Path, output: Path, checkpoint_dir: Path | None) -> None:
    """Trains until the last epoch or until the model stops getting better, and exports the best epoch.

    Args:
        config: The parameters.
        examples: An `examples` folder.
        output: The `model` folder to write: saved_model/, training.json, tensorboard/, manifest.json.
        checkpoint_dir: Where the epochs are saved and a killed run is taken up. None: beside `output`, and removed
            when the model is written.

    Raises:
        InputError: Parameters, data and devices do not fit together, or the loss became non-finite.
    """
    started = time.perf_counter()
    check_output_path(output)
    manifest = read_manifest(examples, "examples")
    checkpoints_folder = checkpoint_dir or output.parent / f"{output.name}-checkpoints"
    with writing_artifact(output) as partial, _explaining_full_disks(output, checkpoints_folder):
        data = load_training_data(examples, manifest, config.model_selection)
        loop = TrainingLoop(config, data, build_strategy(config.strategy))
        identity = {key: value for key, value in config.as_dict().items() if key not in _NOT_IDENTITY}
        identity["examples_digest"] = manifest["digest"]
        checkpoints = Checkpoints(checkpoints_folder, loop, identity, config.max_checkpoints)
        loop.compile()
        _LOG.info("compiled after %.1f s; %d steps an epoch", time.perf_counter() - started, loop.num_steps)
        progress = _run_epochs(config, data, loop, checkpoints, partial / "tensorboard")
        checkpoints.load_best()
        serving = ServingModel(loop.model)
        tf.saved_model.save(serving, str(partial / "saved_model"), signatures={"score": serving.score})
        training = {
            "parameters": config.as_dict(),
            "model_selection": config.model_selection,
            "selection_protocol": data.selection_protocol,
            **progress,
            "num_positives": len(data.users),
            "num_steps_per_epoch": loop.num_steps,
            "examples_per_step": loop.examples_per_step,
            "examples_digest": manifest["digest"],
            "duration_s": time.perf_counter() - started,
            "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        }
        (partial / "training.json").write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
        write_manifest(partial, "model", _describe(training, manifest))
    if checkpoint_dir is None:
        shutil.rmtree(checkpoints_folder, ignore_errors=True)


@contextmanager
def _explaining_full_disks(output: Path, checkpoints_folder: Path) -> Iterator[None]:
    """TensorFlow reports a disk without space as an error of its own kinds."""
    try:
        yield
    except tf.errors.OpError as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise InputError(
            f"No space is left on the disk that holds {output} or {checkpoints_folder}: free some space or choose "
            "another --output and --checkpoint-dir."
        ) from error


def _describe(training: Mapping[str, Any], manifest: Manifest) -> Manifest:
    names = ("parameters", "model_selection", "selection_protocol", "best_epoch", "examples_digest", "versions")
    return {name: training[name] for name in names} | {name: manifest[name] for name in ("num_users", "num_items")}


def _run_epochs(
    config: TrainConfig, data: TrainingData, loop: TrainingLoop, checkpoints: Checkpoints, logs: Path
) -> Progress:
    progress = checkpoints.restore() or {"history": [], "best_epoch": 0}
    history = progress["history"]
    with tf.summary.create_file_writer(str(logs)).as_default():
        for entry in history:
            _write_scalars(entry)
        while len(history) < config.num_epochs and not _is_stale(progress, config.early_stopping_patience):
            entry = _run_epoch(len(history), data, loop)
            history.append(entry)
            is_best = progress["best_epoch"] == 0 or _quality(entry) > _quality(history[progress["best_epoch"] - 1])
            if is_best:
                progress["best_epoch"] = entry["epoch"]
            checkpoints.save(progress, is_best)
            _write_scalars(entry)
            _LOG.info(
                "epoch %d/%d: loss %.4f, HR@10 %.4f, NDCG@10 %.4f on %s, %.2f M examples/s%s",
                entry["epoch"], config.num_epochs, entry["loss"], entry["hr@10"], entry["ndcg@10"],
                data.selection_protocol, entry["examples_per_s"] / 1e6, " (best so far)" if is_best else "",
            )  # fmt: skip
    return progress


def _run_epoch(epoch: int, data: TrainingData, loop: TrainingLoop) -> dict[str, Any]:
    result = loop.run_epoch(epoch)
    started = time.perf_counter()
    ranks = rank_held_out_items(loop.score_candidates, data.selection)
    return {
        "epoch": epoch + 1,
        "loss": result.loss,
        "hr@10": hit_rate_at_k(ranks, SELECTION_CUTOFF),
        "ndcg@10": ndcg_at_k(ranks, SELECTION_CUTOFF),
        "duration_s": result.duration_s,
        "evaluation_duration_s": time.perf_counter() - started,
        "examples_per_s": result.num_examples / result.duration_s,
    }


def _quality(entry: Mapping[str, Any]) -> tuple[float, float]:
    return entry["hr@10"], entry["ndcg@10"]


def _is_stale(progress: Progress, patience: int) -> bool:
    return bool(0 < patience <= len(progress["history"]) - progress["best_epoch"])


def _write_scalars(entry: Mapping[str, Any]) -> None:
    for name in ("loss", "hr@10", "ndcg@10", "examples_per_s"):
        tf.summary.scalar(name, entry[name], step=entry["epoch"])
