"""The baseline in a checkerboard world: even users like even items and odd users odd ones, so the answer is known."""

import dataclasses
import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.baseline.als import Positives, fit
from components.baseline.baseline import baseline
from components.baseline.config import BaselineConfig, Setting
from components.ncf.errors import InputError
from components.ncf.factorization import Factorization
from components.ncf.manifest import read_manifest, write_manifest
from components.ncf.records import RecordWriter, encode_example

pytest.importorskip("implicit", reason="the library implicit has packages for Python 3.11 alone")

NUM_USERS, NUM_ITEMS = 40, 60
CONFIG = BaselineConfig(
    num_factors=(2,), regularization=(0.1,), alpha=(2.0,), num_iterations=10, model_selection="validation", seed=1
)


class World:
    """Each user had all items of its colour but some; the last two are held out."""

    def __init__(self, noise: float = 0.0) -> None:
        rng = np.random.default_rng(0)
        users, items, validation, test = [], [], [], []
        for user in range(NUM_USERS):
            same, other = np.arange(user % 2, NUM_ITEMS, 2), np.arange(1 - user % 2, NUM_ITEMS, 2)
            chosen = rng.choice(same, 12, replace=False)
            # Noise: interactions with items of the other colour.
            strange = rng.choice(other, rng.binomial(12, noise), replace=False)
            train = np.concatenate([chosen[2:], strange])
            users += [user] * len(train)
            items += train.tolist()
            validation.append(int(chosen[0]))
            test.append(int(chosen[1]))
        self.users, self.items = np.array(users, np.int32), np.array(items, np.int32)
        self.validation, self.test = np.array(validation, np.int32), np.array(test, np.int32)

    def matrix(self, with_validation: bool) -> np.ndarray:
        """0 or 1, [num_users, num_items]."""
        liked = np.zeros((NUM_USERS, NUM_ITEMS))
        liked[self.users, self.items] = 1
        if with_validation:
            liked[np.arange(NUM_USERS), self.validation] = 1
        return liked

    def write(self, folder: Path) -> Path:
        """Writes the parts of an `examples` folder that the step reads."""
        # The candidates are the items of the other colour that the user had not.
        had = self.matrix(False).astype(bool)
        others = [np.flatnonzero((np.arange(NUM_ITEMS) % 2 != user % 2) & ~had[user])[:15] for user in range(NUM_USERS)]
        rows = np.stack([np.append(row, item) for row, item in zip(others, self.validation, strict=True)])
        pairs = {"user_id": self.users, "item_id": self.items}
        candidates = {
            "user_id": np.repeat(np.arange(NUM_USERS), 16),
            "item_id": rows.ravel(),
            "duplicate_mask": np.zeros(rows.size, int),
        }
        files = [
            write_records(folder, f"{name}/{name}.tfrecord", columns)
            for name, columns in (("positives", pairs), ("validation", candidates))
        ]
        held_out = {
            "user_id": np.arange(NUM_USERS), "validation_item_id": self.validation, "test_item_id": self.test,
        }  # fmt: skip
        pq.write_table(pa.table(held_out), folder / "held_out.parquet")
        content = {
            "dataset": "checkerboard", "digest": "c" * 64, "num_users": NUM_USERS, "num_items": NUM_ITEMS,
            "protocols": {"validation": {"folder": "validation", "num_candidates": 15}}, "files": files,
        }  # fmt: skip
        write_manifest(folder, "examples", content)
        return folder


def write_records(folder: Path, name: str, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    path = folder / name
    path.parent.mkdir(parents=True)
    with path.open("wb") as stream:
        # Readers check the file's digest and not each record's checksum.
        RecordWriter(stream, lambda data: 0).write(encode_example(columns))  # noqa: ARG005
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"path": name, "num_rows": len(columns["user_id"]), "sha256": digest}


def factors_in(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.load(folder / "user_factors.npy"), np.load(folder / "item_factors.npy")


def settings_in(folder: Path) -> list[dict[str, Any]]:
    settings: list[dict[str, Any]] = json.loads((folder / "tuning.json").read_text())["settings"]
    return settings


def test_every_unseen_item_of_a_users_colour_is_above_all_of_the_other(tmp_path: Path) -> None:
    world = World()
    trial = baseline(CONFIG, world.write(tmp_path / "examples"), tmp_path / "baseline")
    assert (trial.hit_rate, trial.ndcg) == (1.0, 1.0)
    users, items = factors_in(tmp_path / "baseline")
    assert (users.shape, items.shape) == ((NUM_USERS, 2), (NUM_ITEMS, 2))
    assert users.dtype == items.dtype == np.float32
    scores = users @ items.T
    for user in range(NUM_USERS):
        # Some item may have no interaction at all: nothing can be known of it.
        same = [item for item in range(user % 2, NUM_ITEMS, 2) if item in world.items]
        assert scores[user, same].min() > scores[user, 1 - user % 2 :: 2].max()


@pytest.mark.parametrize(("alpha", "regularization"), [(1.0, 0.5), (6.0, 0.5), (3.0, 5.0)])
def test_the_items_solve_the_published_equations(alpha: float, regularization: float) -> None:
    """Hu et al. (2008), equation 5: (X'CX + regularization) y = X'C p for each item, alpha weighing the positives."""
    world = World(noise=0.3)
    positives = Positives(world.users, world.items, NUM_USERS, NUM_ITEMS)
    factors = fit(Setting(4, regularization, alpha), 200, 1, positives)
    liked, x = world.matrix(False), factors.user_factors.astype(float)
    for item in range(NUM_ITEMS):
        weights = np.where(liked[:, item] > 0, alpha, 1.0)
        left = (x.T * weights) @ x + regularization * np.eye(4)
        np.testing.assert_allclose(
            factors.item_factors[item], np.linalg.solve(left, (x.T * weights) @ liked[:, item]), atol=2e-3
        )


@pytest.mark.parametrize("order", [(1e6, 0.1), (0.1, 1e6)])
def test_the_setting_that_ranks_the_validation_items_best_is_chosen(tmp_path: Path, order: tuple[float, ...]) -> None:
    examples = World().write(tmp_path / "examples")
    # So much regularization leaves tables of zeros, which rank nothing.
    config = dataclasses.replace(CONFIG, regularization=order)
    trial = baseline(config, examples, tmp_path / "baseline")
    assert trial.setting == Setting(2, 0.1, 2.0)
    baseline(CONFIG, examples, tmp_path / "alone")
    for chosen, alone in zip(factors_in(tmp_path / "baseline"), factors_in(tmp_path / "alone"), strict=True):
        np.testing.assert_array_equal(chosen, alone)
    manifest = read_manifest(tmp_path / "baseline", "baseline")
    assert manifest["parameters"]["regularization"] == 0.1


def test_every_setting_is_tried_and_the_best_ndcg_wins(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, num_factors=(8, 1), regularization=(0.1, 10.0), alpha=(1.0, 20.0))
    baseline(config, World(noise=0.45).write(tmp_path / "examples"), tmp_path / "baseline")
    settings = settings_in(tmp_path / "baseline")
    tried = {(entry["num_factors"], entry["regularization"], entry["alpha"]) for entry in settings}
    assert tried == {(f, r, a) for f in (1, 8) for r in (0.1, 10.0) for a in (1.0, 20.0)}
    values = [entry["ndcg@10"] for entry in settings]
    assert len(set(values)) > 3, "the world does not tell the settings apart"
    chosen = json.loads((tmp_path / "baseline/tuning.json").read_text())["chosen"]
    assert chosen == settings[int(np.argmax(values))] != settings[0]


@pytest.mark.parametrize("selection", ["validation", "test", "last"])
def test_the_validation_items_are_fitted_only_where_the_model_may(tmp_path: Path, selection: str) -> None:
    """The expectation is the library's own result for a dense matrix of what may be known."""
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    world = World(noise=0.3)
    config = dataclasses.replace(CONFIG, model_selection=selection)
    baseline(config, world.write(tmp_path / "examples"), tmp_path / "baseline")
    model = AlternatingLeastSquares(2, 0.1, 2.0, iterations=10, random_state=np.random.default_rng(1))
    model.fit(csr_matrix(world.matrix(selection != "validation").astype(np.float32)), show_progress=False)
    users, items = factors_in(tmp_path / "baseline")
    np.testing.assert_allclose(users @ items.T, model.user_factors @ model.item_factors.T, atol=1e-5)
    # What is written of the choice is what was known when it was made.
    assert settings_in(tmp_path / "baseline")[0]["hr@10"] < 1.0
    assert read_manifest(tmp_path / "baseline", "baseline")["model_selection"] == selection


def test_the_manifest_says_what_was_fitted_on_what(tmp_path: Path) -> None:
    baseline(CONFIG, World().write(tmp_path / "examples"), tmp_path / "baseline")
    manifest = read_manifest(tmp_path / "baseline", "baseline")
    assert (manifest["name"], manifest["library"]) == ("als", "implicit 0.7.2")
    assert (manifest["examples_digest"], manifest["dataset"]) == ("c" * 64, "checkerboard")
    assert (manifest["num_users"], manifest["num_items"]) == (NUM_USERS, NUM_ITEMS)
    assert manifest["parameters"] == {
        "num_factors": 2, "regularization": 0.1, "alpha": 2.0, "num_iterations": 10, "seed": 1,
    }  # fmt: skip


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = World(noise=0.3).write(tmp_path / "examples")
    bytes_of = {}
    for name, processors, seed in (("one", {0}, 1), ("four", {0, 1, 2, 3}, 1), ("other", {0}, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, processors=processors: processors)
        baseline(dataclasses.replace(CONFIG, seed=seed), examples, tmp_path / name)
        bytes_of[name] = [path.read_bytes() for path in sorted((tmp_path / name).glob("*.npy"))]
    assert bytes_of["one"] == bytes_of["four"] != bytes_of["other"]


def test_candidates_are_scored_by_the_products_of_rows() -> None:
    rng = np.random.default_rng(0)
    factors = Factorization(rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(7, 3)).astype(np.float32))
    scores = factors.score_candidates(np.array([4, 0], np.int32), np.array([[1, 2], [6, 6]], np.int32))
    expected = [
        [sum(factors.user_factors[u] * factors.item_factors[i]) for i in row] for u, row in ((4, (1, 2)), (0, (6, 6)))
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_progress_names_each_setting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = dataclasses.replace(CONFIG, alpha=(1.0, 2.0), model_selection="last")
    with caplog.at_level(logging.INFO, "components"):
        baseline(config, World().write(tmp_path / "examples"), tmp_path / "baseline")
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in lines[:2]] == [
        f"setting {number} of 2, 2 factors, regularization 0.1, alpha {number}" for number in (1, 2)
    ]
    assert lines[2].startswith("fitted again with the validation items")


def test_a_fit_that_diverges_leaves_nothing_behind(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, alpha=(1e39,))
    with np.errstate(all="ignore"), pytest.raises(InputError, match=r"diverged with 2 factors.*raise baseline\.reg"):
        baseline(config, World().write(tmp_path / "examples"), tmp_path / "baseline")
    assert not (tmp_path / "baseline").exists()


def test_a_missing_library_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(InputError, match=r"needs the library implicit.*the extra `als`"):
        baseline(CONFIG, World().write(tmp_path / "examples"), tmp_path / "baseline")


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no manifest"):
        baseline(CONFIG, tmp_path / "nowhere", tmp_path / "baseline")


@pytest.mark.parametrize(
    "changes",
    [
        {"num_factors": ()}, {"regularization": ()}, {"alpha": ()}, {"num_factors": (8, 8)}, {"num_factors": (0,)},
        {"num_factors": (10**9,)}, {"regularization": (0.0,)}, {"regularization": (float("nan"),)},
        {"alpha": (-1.0,)}, {"alpha": (float("inf"),)}, {"num_iterations": 0}, {"model_selection": "train"},
        {"seed": -1},
    ],
)  # fmt: skip
def test_wrong_parameters_are_named(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(InputError, match=rf"^baseline\.{name} .*\.$"):
        dataclasses.replace(CONFIG, **changes)
