"""Measures the host-side data work of the TensorFlow official models' online generator. Needs their environment.

Without record files, their trainer draws each epoch's negatives, shuffles and cuts batches in a thread of its own
process. Here that thread's work is done with nothing beside it.
"""

import json
import time
from pathlib import Path

from absl import app, flags
from official.recommendation import data_preprocessing  # type: ignore[import-not-found]

_DATASET = flags.DEFINE_string("dataset", "ml-1m", "Their name of it: a folder with ratings.csv in --data_dir.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "The folder that holds it.", required=True)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 4_000, "Examples in a step.")
_NUM_NEGATIVES = flags.DEFINE_integer("num_negatives", 4, "Negatives for each positive.")
_OUTPUT = flags.DEFINE_string("output", None, "The file that takes the seconds as JSON.", required=True)
# Of no consequence: no evaluation data is made here.
_EVAL_BATCH_SIZE = 100_000


def main(_argv: list[str]) -> None:
    """Reports preprocessing_s, once a run, and epoch_s, once an epoch."""
    started = time.perf_counter()
    parameters = {
        "train_epochs": 1,
        "batch_size": _BATCH_SIZE.value,
        "eval_batch_size": _EVAL_BATCH_SIZE,
        "batches_per_step": 1,
        "num_neg": _NUM_NEGATIVES.value,
        "stream_files": False,
    }
    *_, producer = data_preprocessing.instantiate_pipeline(
        _DATASET.value, _DATA_DIR.value, parameters, constructor_type="bisection"
    )
    producer._start_shuffle_iterator()
    producer.construct_lookup_variables()
    preprocessed = time.perf_counter()
    producer._construct_training_epoch()
    seconds = {"preprocessing_s": preprocessed - started, "epoch_s": time.perf_counter() - preprocessed}
    Path(_OUTPUT.value).write_text(json.dumps(seconds) + "\n")


if __name__ == "__main__":
    app.run(main)
