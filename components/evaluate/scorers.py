"""What is ranked: a trained model, popularity, and a factorization that was fitted beside them."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.ncf.errors import InputError
from components.ncf.factorization import Factorization
from components.ncf.manifest import MANIFEST_NAME, Manifest


class PopularityScorer:
    """Gives every user the same scores: the order of the items by how often they were interacted with.

    Items with the same count are in a random order. Left as ties, which count against what is ranked, they would put
    popularity below chance where many items are rare, and any model with real-valued scores would beat it.
    """

    def __init__(self, num_interactions: NDArray[np.int64]) -> None:
        """Takes the counts, int64 [num_items]."""
        num_items = len(num_interactions)
        order = np.lexsort((np.random.default_rng(0).permutation(num_items), num_interactions))
        self._places = np.empty(num_items, np.float32)
        self._places[order] = np.arange(num_items)

    def score_candidates(self, _users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `Scorer`."""
        return self._places[items]

    def score_catalogue(self, users: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `Scorer`."""
        return np.broadcast_to(self._places, (len(users), len(self._places)))


def load_factors(baseline: Path) -> Factorization:
    """Returns the factorization in a `baseline` folder.

    Raises:
        InputError: A file is missing or damaged.
    """
    try:
        return Factorization(*(np.load(baseline / f"{side}_factors.npy") for side in ("user", "item")))
    except (OSError, ValueError) as error:
        raise InputError(f"{baseline} cannot be read ({error}): run the step baseline again.") from error


def check_same_data(what: str, manifest: Mapping[str, Any], model: Path, model_manifest: Manifest) -> None:
    """Refuses to compare a model with what learned from other data, or was chosen by another item.

    Raises:
        InputError: They differ.
    """
    if manifest["examples_digest"] != model_manifest["examples_digest"]:
        raise InputError(
            f"{what} was trained on the examples {manifest['examples_digest'][:12]}… and {model} on "
            f"{model_manifest['examples_digest'][:12]}…: models of different data cannot be compared, train one of "
            "them on the other's examples."
        )
    if manifest["model_selection"] != model_manifest["model_selection"]:
        raise InputError(
            f"{what} was selected by {manifest['model_selection']!r} and {model} by "
            f"{model_manifest['model_selection']!r}: train one of them again with the other's train.model_selection."
        )


@contextmanager
def local_copy(address: str) -> Iterator[Path]:
    """Yields a `model` folder as a local one; what is elsewhere is copied for as long as the block runs.

    Args:
        address: A path, or a URL that TensorFlow can read.

    Raises:
        InputError: There is no such folder.
    """
    if "://" not in address:
        yield Path(address)
        return
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model"
        try:
            _copy(address.rstrip("/"), target)
        except (tf.errors.OpError, OSError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(
                f"evaluate.champion {address} cannot be read ({reason}): name a `model` folder."
            ) from error
        yield target


def _copy(address: str, target: Path) -> None:
    """Copies what scoring needs of a `model` folder."""
    target.mkdir()
    for name in (MANIFEST_NAME, "training.json"):
        with tf.io.gfile.GFile(f"{address}/{name}", "rb") as source, (target / name).open("wb") as copy:
            shutil.copyfileobj(source, copy)
    for folder, _, names in tf.io.gfile.walk(f"{address}/saved_model"):
        place = target / folder.removeprefix(f"{address}/").strip("/")
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            tf.io.gfile.copy(f"{folder.rstrip('/')}/{name}", str(place / name))


def read_training(model: Path) -> Mapping[str, Any]:
    """Returns what training.json of a `model` folder holds.

    Raises:
        InputError: It cannot be read.
    """
    try:
        training: Mapping[str, Any] = json.loads((model / "training.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{model / 'training.json'} cannot be read ({error}): train the model again.") from error
    missing = {"parameters", "history", "model_selection", "best_epoch", "versions"} - training.keys()
    if missing:
        raise InputError(f"{model / 'training.json'} lacks {', '.join(sorted(missing))}: train the model again.")
    return training
