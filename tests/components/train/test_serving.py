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
from tests.components.train.rest import answer

PAGE = Path(__file__).parents[3] / "docs" / "serve.md"

NUM_USERS, NUM_ITEMS = 5, 8
USER_IDS, ITEM_IDS = (7, 1, 12, 42, 99), (10, 20, 30, 40, 1193, 60, 70, 2858)
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


@pytest.fixture(scope="module", params=["int64", "string"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, type]:
    """A SavedModel with the ids of the documentation, its logits, [num_users, num_items], and the type of its ids."""
    weights = [np.asarray(weight) for weight in ARCHITECTURE.initial_weights(3, embedding_stddev=1.0)]
    kind = int if request.param == "int64" else str
    ids = [np.array([kind(i) for i in side], np.int64 if kind is int else object) for side in (USER_IDS, ITEM_IDS)]
    serving = ServingModel(ARCHITECTURE, weights, Catalogue(*ids, SEEN))
    place = tmp_path_factory.mktemp("served") / "1"
    tf.saved_model.save(serving, str(place), signatures={"score": serving.score, "top_k": serving.top_k})
    pairs = tf.tile(tf.range(NUM_ITEMS)[None], [NUM_USERS, 1])
    return place, np.array(neumf_logits(ARCHITECTURE, weights, tf.range(NUM_USERS), pairs)), kind


def documented_requests(kind: type) -> list[str]:
    """The bodies of the page's requests, their ids as the data's."""
    if not PAGE.is_file():
        pytest.skip("no docs here, as in an image: no requests to send")
    bodies = re.findall(r"curl -d '(.*?)'", PAGE.read_text())
    if kind is int:
        return bodies
    quoted = [re.sub(r'("(?:user|item)_id": )(\d+)', r'\1"\2"', body) for body in bodies]
    return [re.sub(r"\[(\d+), (\d+)\]", r'["\1", "\2"]', body) for body in quoted]


def test_the_documented_requests_are_answered(served: tuple[Path, np.ndarray, type]) -> None:
    place, logits, kind = served
    top_k, score = documented_requests(kind)
    outputs = answer(place, top_k)["outputs"]
    assert outputs["is_known"] == [True, True]
    # The page's users are the second and the fourth, who had items {5} and {0, 1, 5}; of ten items there are eight.
    for row, (user, had) in enumerate([(1, {5}), (3, {0, 1, 5})]):
        best = sorted(set(range(NUM_ITEMS)) - had, key=lambda item: -logits[user, item])
        assert outputs["item_id"][row][: len(best)] == [kind(ITEM_IDS[item]) for item in best]
        np.testing.assert_allclose(outputs["scores"][row][: len(best)], logits[user, best], rtol=1e-5)
        assert outputs["scores"][row][len(best) :] == [pytest.approx(-3.4028235e38)] * len(had)
    # Its pairs are of the items 4 and 7.
    first, second = answer(place, score)["predictions"]
    assert [first["is_known"], second["is_known"]] == [True, True]
    np.testing.assert_allclose([first["scores"], second["scores"]], [logits[1, 4], logits[3, 7]], rtol=1e-5)


def test_what_the_page_says_of_requests_holds(served: tuple[Path, np.ndarray, type]) -> None:
    place, _, kind = served
    user = json.dumps(kind(1))
    with pytest.raises(ValueError, match="has not the shape"):
        answer(place, f'{{"signature_name": "top_k", "instances": [{{"user_id": {user}, "k": 3}}]}}')
    other = json.dumps("1" if kind is int else 1)
    with pytest.raises(ValueError, match="is not of type"):
        answer(place, f'{{"signature_name": "top_k", "inputs": {{"user_id": [{other}], "k": 3}}}}')
    nobody = json.dumps(kind(987654321))
    outputs = answer(place, f'{{"signature_name": "top_k", "inputs": {{"user_id": [{nobody}], "k": 2}}}}')["outputs"]
    # What most users had: item 5 (three of them), item 1 (two).
    assert outputs == {"item_id": [[kind(ITEM_IDS[5]), kind(ITEM_IDS[1])]], "scores": [[3.0, 2.0]], "is_known": [False]}


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
