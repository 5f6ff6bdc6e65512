"""Trains the TensorFlow official models' NeuMF on the record files of an `examples` folder, as they are."""

import re
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.official.environment import OFFICIAL_PYTHON, check_official_environment, official_variables
from components.ncf.manifest import read_manifest

# What their trainer says of an epoch, and the last hit rate with all its decimals.
_WORTH_SHOWING = re.compile(r"Done (?:training|eval) epoch .*|eval_hit_rate.*?numpy=[\d.]+|\S*Error: .*")


def trainer_command(
    examples: Path, manifest: dict[str, Any], num_epochs: int, learning_rate: float, model: Path
) -> list[str]:
    """Returns the command that trains on the folder.

    Args:
        examples: The folder, with training_cycle_<epoch>/ and eval/.
        manifest: Its manifest, which the trainer reads as its meta data.
        num_epochs: Epochs to train, at most those of the folder.
        learning_rate: Adam's.
        model: The folder for what it saves.
    """
    flags = {
        "train_dataset_path": examples / "training_cycle_*" / "*",
        "eval_dataset_path": examples / "eval" / "*",
        "input_meta_data_path": examples / "manifest.json",
        # It takes no other batch than the pre-batch.
        "batch_size": manifest["train_prebatch_size"],
        "eval_batch_size": manifest["eval_prebatch_size"],
        "train_epochs": num_epochs,
        "learning_rate": learning_rate,
        "seed": 1,
        "num_gpus": 0,
        "distribution_strategy": "one_device",
        "model_dir": model,
        "verbosity": 0,
    }
    # Their own training loop. ml_perf is what makes it leave masked duplicates out of the ranking: loo-999-masked.
    switches = ["--keras_use_ctl", "--ml_perf"]
    module = "official.recommendation.ncf_keras_main"
    return [str(OFFICIAL_PYTHON), "-m", module, *switches, *(f"--{name}={value}" for name, value in flags.items())]


@click.command()
@click.option("--examples", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True,
              help="What `neumf generate` wrote with offline epochs and the protocol loo-999-masked.")  # fmt: skip
@click.option("--epochs", type=int, default=2, show_default=True)
@click.option("--learning-rate", type=float, default=0.002, show_default=True)
def main(examples: Path, epochs: int, learning_rate: float) -> None:
    """Train the official models' NeuMF on an examples folder and show its hit rates."""
    check_official_environment()
    manifest = read_manifest(examples, "examples")
    for name, needed in (("num_train_epochs", epochs), ("num_eval_steps", 1)):
        if manifest[name] < needed:
            raise click.ClickException(
                f"{examples} has {name} {manifest[name]}, not {needed} or more: generate it with "
                f"generate.offline_epochs={epochs} and generate.protocols=loo-999-masked."
            )
    with tempfile.TemporaryDirectory(prefix="official-trainer-") as model:
        command = trainer_command(examples.absolute(), manifest, epochs, learning_rate, Path(model))
        click.echo(shlex.join(command))
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=official_variables()
        )
        assert process.stdout is not None
        for line in process.stdout:
            if found := _WORTH_SHOWING.search(line):
                click.echo(found.group())
    if process.wait():
        raise click.ClickException(f"the official trainer ended with status {process.returncode}")


if __name__ == "__main__":
    main()
