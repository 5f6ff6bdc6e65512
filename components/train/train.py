"""Trains NeuMF on an `examples` folder and writes a `model` folder."""

import atexit
import errno
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.ncf.errors import InputError
from components.ncf.manifest import (
    MANIFEST_NAME,
    Manifest,
    check_output_path,
    explain_os_error,
    read_manifest,
    write_manifest,
    writing_artifact,
)
from components.train.checkpoints import Checkpoints
from components.train.config import TrainConfig
from components.train.epochs import Epochs, Outcome, StopRequested
from components.train.input_pipeline import load_training_data
from components.train.loop import TrainingLoop
from components.train.model import build_keras_model
from components.train.phases import plan_phases
from components.train.recovery import restarting_when_the_cluster_is_lost
from components.train.reporting import Reporter
from components.train.serving import ServingModel, read_catalogue
from components.train.strategy import Placement, Server, place, read_cluster

_LOG = logging.getLogger(__name__)
# May change between a run and its continuation: they do not alter what a step computes, but for its rounding (where a
# call ends, Adam's moments are settled). The examples of a step, which the replicas may alter, are held against each
# other instead of the strategy.
_NOT_IDENTITY = (
    "strategy", "num_epochs", "early_stopping_patience", "device_data_limit_mb", "steps_per_loop",
    "checkpoint_every_steps", "max_checkpoints", "profile",
)  # fmt: skip
# Where a platform wants TensorBoard's files, to show them while training goes on: a path or a gs:// address.
_PLATFORM_LOGS = "AIP_TENSORBOARD_LOG_DIR"


def train(config: TrainConfig, examples: Path, output: Path, checkpoint_dir: Path | None) -> None:
    """Trains until the last epoch or until the model stops getting better, and exports the best epoch.

    Args:
        config: The parameters.
        examples: An `examples` folder.
        output: The `model` folder to write: saved_model/, neumf.keras, training.json, tensorboard/, manifest.json.
        checkpoint_dir: Where the run is saved and a killed one is taken up. None: beside `output`, and removed when the
            model is written.

    Raises:
        InputError: Parameters, data and devices do not fit together, the memory does not hold a step, the loss became
            non-finite, or a file could not be written.
        SystemExit: The process was told to end by SIGTERM or Ctrl-C, and the run is saved.
    """
    started = time.perf_counter()
    check_output_path(output)
    _check_places(output, checkpoint_dir)
    manifest = read_manifest(examples, "examples")
    folder = checkpoint_dir or output.parent / f"{output.name}-checkpoints"
    cluster = read_cluster(os.environ)
    with (
        restarting_when_the_cluster_is_lost(cluster),
        _explaining_full_memory(config),
        StopRequested().listening() as stop,
    ):
        placement = place(config.strategy, os.environ)
        if isinstance(placement, Server):
            placement.wait_for_the_chief_to_end()
            return
        run = _Run(config, examples, manifest, placement, folder)
        if not placement.is_chief:
            run.fit([], stop, started)
            return
        if _is_trained(output, config, manifest):
            _LOG.info("%s holds this very model: nothing to train", output)
            return
        with writing_artifact(output) as partial, _explaining_full_disks(output, folder):
            outcomes, loop = run.fit([str(partial / "tensorboard"), *_platform_logs()], stop, started)
            run.export(partial, outcomes[-1], loop)
            training = run.describe(outcomes, loop) | {"duration_s": time.perf_counter() - started}
            (partial / "training.json").write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
            write_manifest(partial, "model", _describe(training, manifest))
    if checkpoint_dir is None:
        shutil.rmtree(folder, ignore_errors=True)


def _check_places(output: Path, checkpoint_dir: Path | None) -> None:
    if checkpoint_dir is not None and checkpoint_dir.resolve().is_relative_to(output.resolve()):
        raise InputError(
            f"--checkpoint-dir {checkpoint_dir} lies in --output {output}, which has to be empty until the model is "
            "written: choose a folder beside it."
        )


def _platform_logs() -> list[str]:
    """Returns where TensorBoard's files go beside the model's folder: nowhere, or to one place."""
    place = os.environ.get(_PLATFORM_LOGS, "").rstrip("/")
    return [place] if place else []


def _is_trained(output: Path, config: TrainConfig, examples_manifest: Manifest) -> bool:
    """Says whether the model is there already, as where a job is started again by a platform after its end."""
    if not (output / MANIFEST_NAME).is_file():
        return False
    manifest = read_manifest(output, "model")
    return (manifest["parameters"], manifest["examples_digest"]) == (config.as_dict(), examples_manifest["digest"])


@dataclass(frozen=True)
class _Run:
    """One run of the step: what it trains on, where, and where it is saved."""

    config: TrainConfig
    examples: Path
    manifest: Manifest
    placement: Placement
    checkpoints_folder: Path

    def fit(self, logs: Sequence[str], stop: StopRequested, started: float) -> tuple[list[Outcome], TrainingLoop]:
        """Trains every phase, with TensorBoard's files in `logs`; returns what they came to and the last one's loop."""
        data = load_training_data(self.examples, self.manifest, self.config)
        outcomes: list[Outcome] = []
        for phase in plan_phases(self.config, data.num_users, data.num_items):
            start = phase.initial_weights([outcome.weights for outcome in outcomes])
            loop = TrainingLoop(self.config, phase, data, self.placement.strategy, start)
            checkpoints = self._checkpoints(phase.name, loop)
            if loop.examples_per_step > loop.examples_per_epoch:
                _LOG.warning(
                    "train.global_batch_size %d is more than the %d examples of an epoch: the rest is padding",
                    self.config.global_batch_size, loop.examples_per_epoch,
                )  # fmt: skip
            loop.compile()
            _LOG.info(
                "%s compiled after %.1f s; %d steps an epoch",
                phase.name, time.perf_counter() - started, loop.steps_per_epoch,
            )  # fmt: skip
            folders = [f"{place}/{phase.name}" for place in logs]
            reporter = Reporter(folders, phase.num_epochs, self.config.profile)
            epochs = Epochs(self.config, data, loop, checkpoints, reporter, stop)
            try:
                outcomes.append(epochs.run(phase.num_epochs))
            finally:
                reporter.close()
        return outcomes, loop

    def describe(self, outcomes: list[Outcome], loop: TrainingLoop) -> dict[str, Any]:
        """Returns all that is needed to repeat the run, and how it went."""
        return {
            "parameters": self.config.as_dict(),
            "model_selection": self.config.model_selection,
            "selection_protocol": loop.data.selection_protocol,
            "best_epoch": outcomes[-1].best_epoch,
            "history": outcomes[-1].history,
            "pretraining": [earlier.history for earlier in outcomes[:-1]],
            "num_rows_per_epoch": len(loop.data.rows),
            "num_steps_per_epoch": loop.steps_per_epoch,
            "examples_per_step": loop.examples_per_step,
            "strategy": self.placement.name,
            "num_replicas": self.placement.strategy.num_replicas_in_sync,
            "devices": [device.name for device in tf.config.list_logical_devices()],
            "examples_digest": self.manifest["digest"],
            "versions": {
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "numpy": np.__version__,
            },
        }

    def export(self, folder: Path, outcome: Outcome, loop: TrainingLoop) -> None:
        """Writes the SavedModel and the Keras model."""
        architecture = loop.architecture
        for (name, _), weight in zip(architecture.weight_shapes(), outcome.weights, strict=True):
            if not np.isfinite(weight).all():
                raise InputError(f"The best epoch has weights that are not finite ({name}): lower train.learning_rate.")
        serving = ServingModel(architecture, outcome.weights, read_catalogue(self.examples, self.manifest))
        signatures = {"score": serving.score, "top_k": serving.top_k}
        tf.saved_model.save(serving, str(folder / "saved_model"), signatures=signatures)
        build_keras_model(architecture, outcome.weights).save(folder / "neumf.keras")

    def _checkpoints(self, phase: str, loop: TrainingLoop) -> Checkpoints:
        identity = {key: value for key, value in self.config.as_dict().items() if key not in _NOT_IDENTITY}
        if self.config.learning_rate_decay_start < 1.0:
            identity["num_epochs"] = self.config.num_epochs
        identity |= {"examples_digest": self.manifest["digest"], "examples_per_step": loop.examples_per_step}
        folder = self.checkpoints_folder / phase
        return Checkpoints(folder, identity, self.config.max_checkpoints, self.placement.is_chief)


@contextmanager
def _explaining_full_memory(config: TrainConfig) -> Iterator[None]:
    """Of the process or of a device; a full disk, which TensorFlow reports likewise, is explained before."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        # XLA frees some of what it had twice, when Python's objects go at the end of the process: end before.
        atexit.register(os._exit, 1)
        raise InputError(
            f"The memory does not hold a step with train.global_batch_size {config.global_batch_size}, "
            f"train.num_factors {config.num_factors} and train.mlp_layers {list(config.mlp_layers)}: lower one of them."
        ) from error


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
    except OSError as error:
        raise InputError(explain_os_error(error, checkpoints_folder)) from error


def _describe(training: Mapping[str, Any], manifest: Manifest) -> Manifest:
    names = ("parameters", "model_selection", "selection_protocol", "best_epoch", "examples_digest", "versions")
    return {name: training[name] for name in names} | {name: manifest[name] for name in ("num_users", "num_items")}
