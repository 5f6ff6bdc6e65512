"""The SavedModel as whoever serves it sees it: in a process that has TensorFlow and nothing of this project."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.ncf.interactions import ItemLists
from components.train.config import TrainConfig
from components.train.model import Architecture, neumf_logits
from components.train.serving import Catalogue, ServingModel
from components.train.train import train

PAGE = Path(__file__).parents[3] / "docs" / "serve.md"

NUM_USERS, NUM_ITEMS = 5, 8
ARCHITECTURE = Architecture(NUM_USERS, NUM_ITEMS, 3, (6, 4))
SEEN = ItemLists.from_pairs(np.array([0, 0, 1, 3, 3, 3, 4]), np.array([1, 5, 5, 0, 1, 5, 2]), NUM_USERS)
ALONE = """
import json, sys
import numpy as np
import tensorflow as tf
assert not any(name.split(".")[0] in ("components", "pipelines") for name in sys.modules)
loaded = tf.saved_model.load(sys.argv[1])
kind, users, items, k = json.loads(sys.argv[2])
score, top_k = loaded.signatures["score"], loaded.signatures["top_k"]
result = {
    **score(user_id=tf.constant(users, kind), item_id=tf.constant(items, kind)),
    **{f"top_{name}": value for name, value in top_k(user_id=tf.constant(users, kind), k=tf.constant(k)).items()},
}
print(json.dumps({
    name: (value.numpy().astype(str) if value.dtype == tf.string else value.numpy()).tolist()
    for name, value in result.items()
}))
"""


def serve(place: Path, kind: str, users: list, items: list, k: int) -> dict:
    command = [sys.executable, "-I", "-c", ALONE, str(place), json.dumps([kind, users, items, k])]
    result = subprocess.run(command, capture_output=True, text=True, cwd=place)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int64", "string"])
def test_raw_ids_are_scored_and_recommended_without_this_project(tmp_path: Path, kind: str) -> None:
    weights = [np.asarray(weight) for weight in ARCHITECTURE.initial_weights(3, embedding_stddev=1.0)]
    raw_user_ids, raw_item_ids = 100 + 7 * np.arange(NUM_USERS), 900 + 11 * np.arange(NUM_ITEMS)
    if kind == "string":
        raw_user_ids, raw_item_ids = (
            np.array([f"{prefix} {i}" for i in ids], object)
            for prefix, ids in (("usér", raw_user_ids), ("item", raw_item_ids))
        )
    serving = ServingModel(ARCHITECTURE, weights, Catalogue(raw_user_ids, raw_item_ids, SEEN))
    signatures = {"score": serving.score, "top_k": serving.top_k}
    tf.saved_model.save(serving, str(tmp_path / "saved"), signatures=signatures)
    unknown = 1 if kind == "int64" else "nobody"
    users = [*raw_user_ids[[3, 0]].tolist(), unknown]
    served = serve(tmp_path / "saved", kind, users, raw_item_ids[[4, 5, 0]].tolist(), k=4)

    table = np.array(
        neumf_logits(ARCHITECTURE, weights, tf.range(NUM_USERS), tf.tile(tf.range(NUM_ITEMS)[None], [NUM_USERS, 1]))
    )
    np.testing.assert_allclose(served["scores"][:2], [table[3, 4], table[0, 5]], rtol=1e-5)
    assert served["is_known"] == [True, True, False]
    assert served["top_is_known"] == [True, True, False]
    for row, (user, had) in enumerate([(3, {0, 1, 5}), (0, {1, 5})]):
        best = sorted(set(range(NUM_ITEMS)) - had, key=lambda item: -table[user, item])[:4]
        assert served["top_item_id"][row] == raw_item_ids[best].tolist()
        np.testing.assert_allclose(served["top_scores"][row], table[user, best], rtol=1e-5)
    # An unknown user gets what most users had: item 5 (three of them), item 1 (two), then the first of those with one.
    assert served["top_item_id"][2] == raw_item_ids[[5, 1, 0, 2]].tolist()
    assert served["top_scores"][2] == [3.0, 2.0, 1.0, 1.0]


def test_more_items_than_there_are_end_with_the_lowest_score() -> None:
    weights = [np.asarray(weight) for weight in ARCHITECTURE.initial_weights(0)]
    serving = ServingModel(ARCHITECTURE, weights, Catalogue(np.arange(NUM_USERS), np.arange(NUM_ITEMS), SEEN))
    served = serving.top_k(tf.constant([3], tf.int64), 50)
    assert served["item_id"].shape == (1, NUM_ITEMS)
    is_recommended = served["scores"][0].numpy() > np.finfo(np.float32).min
    assert is_recommended.tolist() == [True] * 5 + [False] * 3
    assert set(served["item_id"][0].numpy()[is_recommended]) == {2, 3, 4, 6, 7}


@pytest.mark.slow
def test_the_documented_script_runs_beside_a_trained_model(
    make_config: Callable[..., TrainConfig], examples: Path, tmp_path: Path
) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    train(make_config(num_epochs=1), examples, tmp_path / "model", None)
    command = [sys.executable, "-I", "-c", script]
    output = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()
    assert re.match(r"1 known \[.*\]", output[0])
    assert any(line.startswith("987654321 unknown") for line in output)
    # The last line scores the first pair again.
    assert re.fullmatch(r"\[(-?[\d.e-]+)\] \[ True\]", output[-1])
