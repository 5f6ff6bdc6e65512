"""Measures RecBole's NeuMF over whole epochs, its drawing of negatives included. Needs its environment."""

import argparse
import contextlib
import importlib.metadata
import tempfile
import time
from pathlib import Path

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import NeuMF
from recbole.trainer import Trainer
from recbole.utils import init_seed

from benchmarks.shapes import SHAPES, Shape
from benchmarks.throughput import Throughput


def configure(shape: Shape, data_path: Path, global_batch_size: int, checkpoints: Path) -> Config:
    """Returns RecBole's configuration: the last two items of each user held out, uniform negatives, no dropout."""
    return Config(
        model="NeuMF",
        dataset=shape.name,
        config_dict={
            "data_path": str(data_path),
            "checkpoint_dir": str(checkpoints),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
            "mf_embedding_size": shape.num_factors,
            "mlp_embedding_size": shape.mlp_layers[0] // 2,
            "mlp_hidden_size": list(shape.mlp_layers[1:]),
            "dropout_prob": 0.0,
            "learning_rate": shape.learning_rate,
            "train_batch_size": global_batch_size,
            "train_neg_sample_args": {
                "distribution": "uniform",
                "sample_num": shape.num_train_negatives,
                "alpha": 1.0,
                "dynamic": False,
                "candidate_num": 0,
            },
            "use_gpu": False,
            "show_progress": False,
            "seed": 1,
        },
    )


def measure_epochs(shape: Shape, data_path: Path, global_batch_size: int, num_epochs: int) -> Throughput:
    """Trains some epochs; nothing is compiled, so that the first one counts like the others.

    Args:
        shape: Widths and learning rate; the name of the data set.
        data_path: A folder that holds NAME/NAME.inter.
        global_batch_size: Examples in a step; RecBole rounds it down to whole groups of a positive and its negatives.
        num_epochs: Epochs to measure over.
    """
    # It writes log folders into the working directory.
    with tempfile.TemporaryDirectory(prefix="recbole-") as folder, contextlib.chdir(folder):
        config = configure(shape, data_path, global_batch_size, Path(folder))
        init_seed(config["seed"], config["reproducibility"])
        train_data, _, _ = data_preparation(config, create_dataset(config))
        trainer = Trainer(config, NeuMF(config, train_data.dataset).to(config["device"]))
        durations_s = []
        for epoch in range(num_epochs):
            started = time.perf_counter()
            trainer._train_epoch(train_data, epoch)
            durations_s.append(time.perf_counter() - started)
    num_examples = len(train_data.dataset) * (1 + shape.num_train_negatives)
    versions = {"recbole": importlib.metadata.version("recbole"), "torch": torch.__version__}
    return Throughput(shape.name, global_batch_size, num_examples, durations_s, versions)


def main() -> None:
    """Measures as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), default="ml-1m")
    parser.add_argument("--data-path", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=2_048)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    throughput = measure_epochs(shape, arguments.data_path.absolute(), arguments.batch, arguments.epochs)
    throughput.write(arguments.output)


if __name__ == "__main__":
    main()
