import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from components.evaluate.config import EvaluateConfig
from components.evaluate.evaluate import evaluate
from components.evaluate.scorers import PopularityScorer, local_copy
from components.ncf.errors import InputError
from components.ncf.examples import Candidates, read_candidates, read_positives
from components.ncf.manifest import read_manifest, write_manifest
from components.scoring.saved_model import ModelScorer

CONFIG = EvaluateConfig(
    protocols=(), champion="", cutoffs=(5, 10, 20), num_bootstrap_samples=200, num_example_users=3, seed=1
)


class TableModel(tf.Module):
    """Scores a pair by looking it up: a model whose ranking is known."""

    def __init__(self, scores: np.ndarray) -> None:
        super().__init__()
        self.scores = tf.Variable(scores.astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)])
    def score_candidates(self, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.gather(self.scores, users), items, batch_dims=1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def score_catalogue(self, users: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.scores, users)


def write_model(folder: Path, examples: Path, scores: np.ndarray, selection: str = "validation") -> Path:
    manifest = read_manifest(examples, "examples")
    folder.mkdir()
    tf.saved_model.save(TableModel(scores), str(folder / "saved_model"))
    training = {
        "parameters": {"num_factors": 8, "mlp_layers": [16, 8]}, "model_selection": selection, "best_epoch": 1,
        "history": [{"epoch": 1, "loss": 0.5, "hr@10": 0.4, "ndcg@10": 0.2}], "examples_digest": manifest["digest"],
        "versions": {"tensorflow": tf.__version__}, "duration_s": 1.0, "selection_protocol": selection,
    }  # fmt: skip
    (folder / "training.json").write_text(json.dumps(training))
    names = ("model_selection", "selection_protocol", "examples_digest")
    write_manifest(folder, "model", {name: training[name] for name in names})
    return folder


def shape_of(examples: Path) -> tuple[int, int]:
    manifest = read_manifest(examples, "examples")
    return manifest["num_users"], manifest["num_items"]


def test_a_constant_scorer_hits_exactly_nothing(examples: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", examples, np.zeros(shape_of(examples)))
    metrics = evaluate(CONFIG, examples, model, None, tmp_path / "evaluation")
    assert metrics["loo-99/hr@20"] == 0.0
    assert metrics["loo-99/ndcg@20"] == 0.0


def test_a_scorer_that_knows_the_future_hits_always(examples: Path, tmp_path: Path) -> None:
    scores = np.zeros(shape_of(examples))
    held_out = pq.read_table(examples / "held_out.parquet")
    scores[held_out["user_id"].to_numpy(), held_out["test_item_id"].to_numpy()] = 1.0
    metrics = evaluate(
        CONFIG, examples, write_model(tmp_path / "model", examples, scores), None, tmp_path / "evaluation"
    )
    assert metrics["loo-99/hr@5"] == 1.0
    assert metrics["loo-99/ndcg@5"] == 1.0


def test_ranks_and_baseline_agree_with_counting_by_hand(examples: Path, tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=shape_of(examples)).astype(np.float32)
    model = write_model(tmp_path / "model", examples, scores)
    evaluate(CONFIG, examples, model, None, tmp_path / "evaluation")
    per_user = pq.read_table(tmp_path / "evaluation/per_user.parquet").to_pydict()
    manifest = read_manifest(examples, "examples")
    popularity = np.bincount(read_positives(examples, manifest)["item_id"], minlength=shape_of(examples)[1])
    candidates = read_candidates(examples, manifest, "loo-99")
    most = (~candidates.duplicate_mask).sum(axis=1).max()
    assert read_manifest(tmp_path / "evaluation", "evaluation")["num_candidates"]["loo-99"] == most
    for user in range(0, shape_of(examples)[0], 7):
        positive = candidates.positives[user]
        assert per_user["test_item_id"][user] == positive
        pool = candidates.items[user][~candidates.duplicate_mask[user]]
        by_model = sum(scores[user, item] >= scores[user, positive] for item in pool)
        more_popular = sum(popularity[item] > popularity[positive] for item in pool)
        as_popular = sum(popularity[item] >= popularity[positive] for item in pool)
        assert per_user["rank_loo-99"][user] == by_model
        # Equally popular items are in some order.
        assert more_popular <= per_user["rank_loo-99_popularity"][user] <= as_popular


def test_users_with_fewer_candidates_than_the_protocol_draws_are_counted(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "model", examples, np.zeros(shape_of(examples)))
    evaluate(CONFIG, examples, model, None, tmp_path / "enough")

    def read_few(*arguments: Any) -> Candidates:
        candidates = read_candidates(*arguments)
        candidates.duplicate_mask[3, 7:], candidates.duplicate_mask[5, 98:] = True, True
        return candidates

    monkeypatch.setattr("components.evaluate.evaluate.read_candidates", read_few)
    evaluate(CONFIG, examples, model, None, tmp_path / "few")
    words = "Users who have fewer such items (2 of 200; the fewest are 7) are ranked among all of theirs."
    for name in ("report.html", "summary.md"):
        assert "fewer such items" not in (tmp_path / "enough" / name).read_text()
        assert (tmp_path / "few" / name).read_text().count(words) == 1


def test_ranks_in_the_whole_catalogue_agree_with_counting_by_hand(examples: Path, tmp_path: Path) -> None:
    num_users, num_items = shape_of(examples)
    # Few distinct scores, so that many tie.
    scores = np.random.default_rng(0).integers(30, size=(num_users, num_items)).astype(np.float32)
    metrics = evaluate(
        CONFIG, examples, write_model(tmp_path / "model", examples, scores), None, tmp_path / "evaluation"
    )
    per_user = pq.read_table(tmp_path / "evaluation/per_user.parquet").to_pydict()
    held_out = pq.read_table(examples / "held_out.parquet").to_pylist()
    train_items: dict[int, set[int]] = {user: set() for user in range(num_users)}
    users, items = read_positives(examples, read_manifest(examples, "examples")).values()
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        train_items[user].add(item)
    most = num_items - 2 - min(map(len, train_items.values()))
    assert read_manifest(tmp_path / "evaluation", "evaluation")["num_candidates"]["loo-full"] == most
    shown: set[int] = set()
    for user, row in enumerate(held_out):
        had = train_items[user] | {row["validation_item_id"]}
        unseen = [item for item in range(num_items) if item not in had]
        positive = row["test_item_id"]
        better = sum(scores[user, item] >= scores[user, positive] for item in unseen if item != positive)
        assert per_user["rank_loo-full"][user] == better
        shown.update(sorted(unseen, key=lambda item: (-scores[user, item], item))[:10])
    assert metrics["loo-full/coverage@10"] == pytest.approx(len(shown) / num_items)
    ranks = np.array(per_user["rank_loo-full"])
    assert metrics["loo-full/mrr"] == pytest.approx(np.mean(1 / (1 + ranks)))
    assert metrics["loo-full/recall@20"] == pytest.approx(np.mean(ranks < 20))


def write_baseline(folder: Path, examples: Path, **changes: str) -> Path:
    num_users, num_items = shape_of(examples)
    rng = np.random.default_rng(5)
    folder.mkdir()
    np.save(folder / "user_factors.npy", rng.normal(size=(num_users, 4)).astype(np.float32))
    np.save(folder / "item_factors.npy", rng.normal(size=(num_items, 4)).astype(np.float32))
    same = {"examples_digest": read_manifest(examples, "examples")["digest"], "model_selection": "validation"}
    write_manifest(folder, "baseline", {"name": "als", **same, **changes})
    return folder


def _leads_under(summary: Path, protocol: str) -> list[str]:
    section = summary.read_text(encoding="utf-8").split(f"## {protocol}\n")[1]
    return section.split(" over |")[1].splitlines()


def test_baseline_and_champion_are_ranked_beside_the_model(examples: Path, tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=shape_of(examples))
    model = write_model(tmp_path / "model", examples, np.zeros(shape_of(examples)))
    champion = write_model(tmp_path / "champion", examples, scores)
    write_manifest(champion, "model", {**read_manifest(champion, "model"), "selection_protocol": "its own"})
    baseline = write_baseline(tmp_path / "baseline", examples)
    config = dataclasses.replace(CONFIG, champion=str(champion))
    evaluate(config, examples, model, baseline, tmp_path / "evaluation")
    manifest = read_manifest(tmp_path / "evaluation", "evaluation")
    assert manifest["systems"] == ["model", "popularity", "als", "champion"]
    assert manifest["champion"]["path"] == str(champion)
    assert manifest["champion"]["selection_protocol"] == "its own"
    evaluate(CONFIG, examples, champion, None, tmp_path / "of-champion")
    ranks, alone = (
        pq.read_table(tmp_path / f"{name}/per_user.parquet").to_pydict() for name in ("evaluation", "of-champion")
    )
    product = np.load(baseline / "user_factors.npy") @ np.load(baseline / "item_factors.npy").T
    evaluate(CONFIG, examples, write_model(tmp_path / "product", examples, product), None, tmp_path / "of-product")
    as_model = pq.read_table(tmp_path / "of-product/per_user.parquet").to_pydict()
    for protocol in ("loo-99", "loo-full"):
        assert ranks[f"rank_{protocol}_champion"] == alone[f"rank_{protocol}"]
        # Two ways to add four products up differ in the last bit: a rank may differ where scores nearly tie.
        differing = np.not_equal(ranks[f"rank_{protocol}_als"], as_model[f"rank_{protocol}"])
        assert differing.mean() < 0.02
    # The model, for which all scores are the same, hits nothing: what it lacks is what the others hit.
    share = np.mean(np.array(ranks["rank_loo-full_als"]) < 10)
    lead = next(line for line in _leads_under(tmp_path / "evaluation/summary.md", "loo-full") if "ALS" in line)
    assert share > 0
    assert lead.startswith(f"| ALS | \N{MINUS SIGN}{share:.3f} (\N{MINUS SIGN}")
    assert "| worse |" in lead
    report = (tmp_path / "evaluation/report.html").read_text()
    for name in ("NeuMF", "Popularity", "ALS", "Champion"):
        assert name in report


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"examples_digest": "other"}, "models of different data"),
        ({"model_selection": "test"}, "was selected by 'test'"),
    ],
)
def test_what_learned_from_other_data_is_not_compared(
    examples: Path, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    model = write_model(tmp_path / "model", examples, np.zeros(shape_of(examples)))
    champion = write_model(tmp_path / "champion", examples, np.zeros(shape_of(examples)))
    baseline = write_baseline(tmp_path / "baseline", examples, **changes)
    with pytest.raises(InputError, match=words):
        evaluate(CONFIG, examples, model, baseline, tmp_path / "evaluation")
    manifest = read_manifest(champion, "model")
    write_manifest(champion, "model", {**manifest, **changes})
    with pytest.raises(InputError, match=words):
        evaluate(dataclasses.replace(CONFIG, champion=str(champion)), examples, model, None, tmp_path / "evaluation")
    assert not (tmp_path / "evaluation").exists()


def test_a_champion_that_is_not_there_is_named(examples: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", examples, np.zeros(shape_of(examples)))
    config = dataclasses.replace(CONFIG, champion=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"nowhere holds no manifest\.json"):
        evaluate(config, examples, model, None, tmp_path / "evaluation")


def test_a_champion_elsewhere_is_copied_for_the_time(examples: Path, tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=shape_of(examples))
    champion = write_model(tmp_path / "champion", examples, scores)
    tf.io.gfile.copy(str(champion / "manifest.json"), "ram://copied/manifest.json", overwrite=True)
    with pytest.raises(InputError, match=r"evaluate\.champion ram://copied cannot be read"), local_copy("ram://copied"):
        pass
    tf.io.gfile.copy(str(champion / "training.json"), "ram://copied/training.json", overwrite=True)
    # This file system, unlike an object store, lists only folders that were made.
    tf.io.gfile.makedirs("ram://copied/saved_model/variables")
    for path in (champion / "saved_model").rglob("*"):
        if path.is_file():
            tf.io.gfile.copy(str(path), f"ram://copied/{path.relative_to(champion)}", overwrite=True)
    with local_copy("ram://copied/") as copy:
        users = np.arange(5, dtype=np.int32)
        np.testing.assert_array_equal(ModelScorer(copy).score_catalogue(users), scores[:5].astype(np.float32))
    assert not copy.exists()


def test_the_baseline_knows_the_validation_items_if_the_model_does(examples: Path, tmp_path: Path) -> None:
    scores = np.zeros(shape_of(examples))
    ranks = {}
    for selection in ("validation", "test"):
        model = write_model(tmp_path / selection, examples, scores, selection)
        evaluate(CONFIG, examples, model, None, tmp_path / f"evaluation-{selection}")
        table = pq.read_table(tmp_path / f"evaluation-{selection}/per_user.parquet")
        ranks[selection] = table["rank_loo-99_popularity"].to_pylist()
        report = (tmp_path / f"evaluation-{selection}/report.html").read_text()
        assert ("published practice" in report) == (selection == "test")
    assert ranks["validation"] != ranks["test"]


def test_recommendations_leave_out_what_the_user_has_had(examples: Path, tmp_path: Path) -> None:
    """A model that likes best what each user already had recommends none of it."""
    manifest = read_manifest(examples, "examples")
    scores = np.zeros(shape_of(examples))
    users, items = read_positives(examples, manifest).values()
    scores[users, items] = 1.0
    evaluate(CONFIG, examples, write_model(tmp_path / "model", examples, scores), None, tmp_path / "evaluation")
    # Every unseen item ties, and ties keep the order of the catalogue: the first unseen items are recommended.
    report = (tmp_path / "evaluation/report.html").read_text()
    titles = pq.read_table(examples / "items.parquet")["title"].to_pylist()
    (user,) = np.sort(np.random.default_rng(1).choice(shape_of(examples)[0], 3, replace=False))[:1]
    held_out = pq.read_table(examples / "held_out.parquet").slice(int(user), 1).to_pylist()[0]
    had = {*items[users == user].tolist(), held_out["validation_item_id"]}
    first_unseen = next(item for item in range(shape_of(examples)[1]) if item not in had)
    assert titles[first_unseen] in report


def test_a_model_of_other_examples_is_refused(examples: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", examples, np.zeros(shape_of(examples)))
    other = tmp_path / "examples"
    shutil.copytree(examples, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "digest": "another"}))
    with pytest.raises(InputError, match="was not trained on"):
        evaluate(CONFIG, other, model, None, tmp_path / "evaluation")
    assert not (tmp_path / "evaluation").exists()


def test_a_protocol_without_candidates_is_refused(examples: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", examples, np.zeros(shape_of(examples)))
    config = EvaluateConfig(("loo-999-masked",), "", (10,), 100, 0, 1)
    with pytest.raises(InputError, match=r"no candidates for the protocol 'loo-999-masked', only for loo-99"):
        evaluate(config, examples, model, None, tmp_path / "evaluation")


@pytest.mark.parametrize(
    ("cutoffs", "samples", "users", "seed"),
    [
        ((5,), 10, 1, 1),
        ((0, 10), 10, 1, 1),
        ((10, 10), 10, 1, 1),
        ((10,), 0, 1, 1),
        ((10,), 1, -1, 1),
        ((10,), 1, 1, -1),
    ],
)
def test_wrong_parameters_are_named(cutoffs: tuple[int, ...], samples: int, users: int, seed: int) -> None:
    with pytest.raises(InputError, match=r"evaluate\.(cutoffs|num_bootstrap_samples|num_example_users|seed)"):
        EvaluateConfig((), "", cutoffs, samples, users, seed)


def test_popularity_is_as_good_as_chance_on_noise() -> None:
    """Many items with the same counts: as ties, which count against what is ranked, they would put it far below."""
    rng = np.random.default_rng(0)
    scorer = PopularityScorer(rng.integers(3, size=2_000))
    items = rng.integers(2_000, size=(4_000, 100), dtype=np.int32)
    scores = scorer.score_candidates(np.zeros(4_000, np.int32), items)
    ranks = np.sum(scores[:, 1:] >= scores[:, :1], axis=1)
    assert abs(np.mean(ranks < 10) - 0.1) < 0.02
    assert np.argmax(scorer.score_catalogue(np.zeros(1, np.int32))[0]) in np.flatnonzero(
        np.random.default_rng(0).integers(3, size=2_000) == 2
    )
