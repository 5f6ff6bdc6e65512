"""Measures the TensorFlow official models' custom training loop on record files. Needs their environment.

The loop, the model and the clock are theirs: their callback notes the time after every few steps. Only the number of
steps and of evaluation batches is bounded here, through the meta data that they read.
"""

import itertools
import json
import tempfile
from pathlib import Path

import tensorflow as tf
from absl import app, flags
from official.recommendation import ncf_common, ncf_keras_main  # type: ignore[import-not-found]

from benchmarks.throughput import Throughput

# Their callback notes the time so many times; the first interval holds the compilation.
_NUM_INTERVALS = 10

_SHAPE = flags.DEFINE_string("shape", None, "Name of the shape, for the report.", required=True)
_NUM_STEPS = flags.DEFINE_integer("num_steps", 1_000, "Steps to run, at most those of an epoch.")
_OUTPUT = flags.DEFINE_string("output", None, "The file that takes the figures as JSON.", required=True)


def main(_argv: list[str]) -> None:
    """Runs their trainer for one epoch of few steps and reports the steady ones."""
    flag_values = flags.FLAGS
    meta_data = json.loads(Path(flag_values.input_meta_data_path).read_text())
    num_steps = min(_NUM_STEPS.value, meta_data["num_train_steps"])
    flag_values.log_steps = max(1, num_steps // _NUM_INTERVALS)
    flag_values.train_epochs = 1
    with tempfile.NamedTemporaryFile("w", suffix=".json") as stream:
        json.dump({**meta_data, "num_train_steps": num_steps, "num_eval_steps": 1}, stream)
        stream.flush()
        flag_values.input_meta_data_path = stream.name
        stats = ncf_keras_main.run_ncf(None)
    # The first note is taken before the first step; the first interval compiles.
    times_s = [note.timestamp for note in stats["step_timestamp_log"]][1:]
    Throughput(
        shape=_SHAPE.value,
        global_batch_size=flag_values.batch_size,
        num_examples=flag_values.log_steps * flag_values.batch_size,
        durations_s=[end - start for start, end in itertools.pairwise(times_s)],
        versions={"tensorflow": tf.__version__},
    ).write(Path(_OUTPUT.value))


if __name__ == "__main__":
    ncf_common.define_ncf_flags()
    app.run(main)
