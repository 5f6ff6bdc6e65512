"""The gate on constructed evaluations, whose right decision is known."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from components.gate.config import GateConfig
from components.gate.gate import decide, gate
from components.ncf.errors import InputError
from components.ncf.manifest import read_manifest, write_manifest
from components.ncf.rank_metrics import per_user_values

CONFIG = GateConfig(
    protocol="", metric="hr@10", margin=0.0, min_value=0.0, must_beat=(), num_bootstrap_samples=2_000,
    confidence=0.95, seed=1,
)  # fmt: skip
NUM_USERS = 1_000
HIT, MISS = 3, 40
MANIFEST = {
    "dataset": "made-up", "examples_digest": "d" * 64, "model_selection": "validation",
    "selection_protocol": "validation", "headline_cutoff": 10,
}  # fmt: skip


def ranks_with(num_hits: int, first: int = 0) -> np.ndarray:
    """Ranks of which `num_hits` in a row are hits, from user `first` on."""
    ranks = np.full(NUM_USERS, MISS)
    ranks[(first + np.arange(num_hits)) % NUM_USERS] = HIT
    return ranks


def write_evaluation(
    folder: Path, ranks: dict[str, np.ndarray | pa.Array], protocols: tuple[str, ...] = ("loo-99",), **changes: Any
) -> Path:
    """Writes an evaluation in which every system has the same ranks under each protocol."""
    champion = None
    if "champion" in ranks:
        same = {name: MANIFEST[name] for name in ("examples_digest", "model_selection")}
        champion = {"path": "runs/before/model", **same}
    folder.mkdir()
    columns: dict[str, Any] = {"user_id": np.arange(len(ranks["model"]))}
    for protocol in protocols:
        for system, values in ranks.items():
            columns[f"rank_{protocol}" + ("" if system == "model" else f"_{system}")] = values
    pq.write_table(pa.table(columns), folder / "per_user.parquet")
    content = {**MANIFEST, "protocols": list(protocols), "systems": list(ranks), "champion": champion, **changes}
    write_manifest(folder, "evaluation", content)
    return folder


def decision_of(tmp_path: Path, ranks: dict[str, np.ndarray], config: GateConfig = CONFIG) -> dict[str, Any]:
    gate(config, write_evaluation(tmp_path / "evaluation", ranks), tmp_path / "decision")
    decision: dict[str, Any] = json.loads((tmp_path / "decision/decision.json").read_text())
    return decision


def by_t_interval(model: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    differences = (model < 10) * 1.0 - (other < 10) * 1.0
    return stats.t.interval(0.95, len(differences) - 1, differences.mean(), stats.sem(differences))


# The champion hits 500 of 1,000 users. A model that also hits d more users, and nobody less, is better by d / 1,000
# with a standard error of sqrt(d) / 1,000: for d = 100 the 95 % interval is .082 to .119.
@pytest.mark.parametrize(
    ("num_more_hits", "margin", "promoted"),
    [
        (-100, 0.0, False),
        (0, 0.0, False),
        (2, 0.0, False),  # better on two users: not clearly
        (8, 0.0, True),
        (100, 0.0, True),
        (100, 0.05, True),
        (100, 0.075, True),
        (100, 0.09, False),  # better by more than the margin, but not clearly
        (100, 0.1, False),  # better by the margin and no more
        (100, 0.2, False),
        (500, 0.45, True),
        (500, 0.5, False),
    ],
)
def test_the_champion_is_replaced_by_what_is_clearly_better_by_the_margin(
    tmp_path: Path, num_more_hits: int, margin: float, promoted: bool
) -> None:
    ranks = {"model": ranks_with(500 + num_more_hits), "champion": ranks_with(500)}
    decision = decision_of(tmp_path, ranks, dataclasses.replace(CONFIG, margin=margin))
    assert decision["promoted"] is promoted
    (check,) = decision["checks"]
    assert (check["name"], check["passed"], check["needed"]) == ("champion", promoted, margin)
    assert check["paired"]["difference"] == pytest.approx(num_more_hits / 1_000)
    if num_more_hits:
        low, high = by_t_interval(ranks["model"], ranks["champion"])
        assert check["paired"]["low"] == pytest.approx(low, abs=0.002)
        assert check["paired"]["high"] == pytest.approx(high, abs=0.002)


def test_a_difference_that_every_user_shares_is_not_more_than_itself(tmp_path: Path) -> None:
    """Without any spread the interval is the margin itself: exactly at the margin is not above it."""
    ranks = {"model": np.zeros(NUM_USERS, int), "champion": np.ones(NUM_USERS, int)}
    gain = 1 - 1 / math.log2(3)
    config = dataclasses.replace(CONFIG, metric="ndcg@10")
    for number, (margin, promoted) in enumerate([(gain - 1e-6, True), (gain, False), (gain + 1e-6, False)]):
        (place := tmp_path / str(number)).mkdir()
        assert decision_of(place, ranks, dataclasses.replace(config, margin=margin))["promoted"] is promoted


@pytest.mark.parametrize(("min_value", "promoted"), [(0.0, True), (0.499, True), (0.5, True), (0.501, False)])
def test_the_threshold_is_reached_or_not(tmp_path: Path, min_value: float, promoted: bool) -> None:
    decision = decision_of(tmp_path, {"model": ranks_with(500)}, dataclasses.replace(CONFIG, min_value=min_value))
    assert decision["promoted"] is promoted
    assert decision["value"] == 0.5
    assert [check["name"] for check in decision["checks"]] == (["threshold"] if min_value else [])


@pytest.mark.parametrize(
    ("num_hits", "min_value", "words"),
    [
        (600, 0.6, "0.6000 reaches the threshold of 0.6000"),
        (599, 0.6, "0.5990 falls short of the threshold of 0.6000"),
        (600, 0.60001, "0.60000 falls short of the threshold of 0.60001"),
        (600, 0.6000004, "0.6000000 falls short of the threshold of 0.6000004"),
        (600, 0.59999, "0.60000 reaches the threshold of 0.59999"),
        # A sum's last bits decide nothing.
        (600, 0.6 + 1e-16, "0.6000 reaches the threshold of 0.6000"),
    ],
)
def test_what_decides_differs_in_print(tmp_path: Path, num_hits: int, min_value: float, words: str) -> None:
    decision = decision_of(tmp_path, {"model": ranks_with(num_hits)}, dataclasses.replace(CONFIG, min_value=min_value))
    assert words in decision["reason"]
    assert f"(hr@10 {words.split()[0]} under" in decision["reason"]
    (row,) = [line for line in (tmp_path / "decision/decision.md").read_text().splitlines() if "| threshold" in line]
    assert f"| {words.split()[0]} |" in row
    assert f"| {words.split()[-1]} |" in row


def test_an_interval_that_ends_below_the_margin_does_so_in_print(tmp_path: Path) -> None:
    ranks = {"model": ranks_with(600), "champion": ranks_with(500)}
    low = decision_of(tmp_path, ranks)["checks"][0]["paired"]["low"]
    (place := tmp_path / "again").mkdir()
    decision = decision_of(place, ranks, dataclasses.replace(CONFIG, margin=low + 2e-6))
    assert not decision["promoted"]
    found = re.search(r"by more than (\S+): \S+, (\S+) to", decision["reason"])
    assert found is not None
    assert 0 < float(found[1]) - float(found[2]) < 1e-5


@pytest.mark.parametrize(("selection", "is_warned"), [("test", True), ("validation", False), ("last", False)])
@pytest.mark.parametrize("num_hits", [400, 600])
def test_a_model_that_the_test_item_chose_is_never_decided_on_without_a_word(
    tmp_path: Path, selection: str, is_warned: bool, num_hits: int
) -> None:
    evaluation = write_evaluation(tmp_path / "evaluation", {"model": ranks_with(num_hits)}, model_selection=selection)
    gate(dataclasses.replace(CONFIG, min_value=0.5), evaluation, tmp_path / "decision")
    for name in ("decision.json", "decision.md", "manifest.json"):
        text = (tmp_path / "decision" / name).read_text()
        assert ("the test item chose its epoch, which flatters it." in text) is is_warned, name


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("hr@100", "gate.metric hr@100 is 1 for every model under loo-99, .* at most 99 others: choose a K of at most"),
        ("recall@5000", "gate.metric recall@5000 is 1 for every model"),
        ("hr@99", None),
        ("ndcg@100", None),
        ("mrr", None),
    ],
)
def test_a_hit_rate_that_nobody_can_miss_decides_nothing(tmp_path: Path, metric: str, words: str | None) -> None:
    evaluation = write_evaluation(
        tmp_path / "evaluation", {"model": ranks_with(500)}, num_candidates={"loo-99": 99, "loo-full": 4_000}
    )
    config = dataclasses.replace(CONFIG, metric=metric)
    if words is None:
        assert gate(config, evaluation, tmp_path / "decision").promoted
        return
    with pytest.raises(InputError, match=words):
        gate(config, evaluation, tmp_path / "decision")
    assert not (tmp_path / "decision").exists()


@pytest.mark.parametrize(
    ("must_beat", "promoted"),
    [((), True), (("popularity",), True), (("als",), False), (("popularity", "als"), False)],
)
def test_the_baselines_that_are_named_have_to_be_beaten(
    tmp_path: Path, must_beat: tuple[str, ...], promoted: bool
) -> None:
    ranks = {"model": ranks_with(500), "popularity": ranks_with(400), "als": ranks_with(498)}
    decision = decision_of(tmp_path, ranks, dataclasses.replace(CONFIG, must_beat=must_beat))
    assert decision["promoted"] is promoted
    assert [check["name"] for check in decision["checks"]] == list(must_beat)
    assert ("does not clearly beat als" in decision["reason"]) is not promoted
    assert "beats popularity" not in decision["reason"] or promoted


def test_the_margin_is_the_champions_alone(tmp_path: Path) -> None:
    ranks = {"model": ranks_with(500), "popularity": ranks_with(450), "champion": ranks_with(300)}
    config = dataclasses.replace(CONFIG, must_beat=("popularity",), margin=0.1)
    decision = decision_of(tmp_path, ranks, config)
    assert decision["promoted"]
    assert [(check["name"], check["needed"]) for check in decision["checks"]] == [
        ("popularity", 0.0),
        ("champion", 0.1),
    ]


def test_one_failed_check_is_enough_and_the_reason_names_it_alone(tmp_path: Path) -> None:
    ranks = {"model": ranks_with(500), "popularity": ranks_with(300), "champion": ranks_with(500)}
    decision = decision_of(tmp_path, ranks, dataclasses.replace(CONFIG, must_beat=("popularity",), min_value=0.4))
    assert [check["passed"] for check in decision["checks"]] == [True, True, False]
    assert not decision["promoted"]
    assert "does not clearly beat champion" in decision["reason"]
    assert "popularity" not in decision["reason"]
    assert ". " not in decision["reason"], "one sentence"
    assert decision["reason"].endswith(".")


@pytest.mark.parametrize("metric", ["hr@10", "ndcg@10", "mrr"])
def test_equal_models_are_promoted_at_most_one_time_in_twenty(metric: str) -> None:
    """200 pairs of models that are equally good, each with its own luck on each user."""
    rng = np.random.default_rng(11)
    config = dataclasses.replace(CONFIG, metric=metric, num_bootstrap_samples=1_000)
    promoted = []
    for seed in range(200):
        hardness = rng.exponential(12.0, 2_000)
        values = {name: per_user_values(metric, rng.poisson(hardness)) for name in ("model", "champion")}
        promoted.append(decide(dataclasses.replace(config, seed=seed), "loo-99", values, "validation").promoted)
    assert np.mean(promoted) <= 0.05
    # A gate that never opened would pass, too.
    assert np.mean(promoted) > 0


def test_a_better_model_is_nearly_always_promoted() -> None:
    """HR@10 .57 against .50 for 2,000 users: the difference is 4.5 of its standard errors."""
    rng = np.random.default_rng(12)
    promoted = []
    for seed in range(200):
        values = {
            name: per_user_values("hr@10", np.where(rng.random(2_000) < rate, HIT, MISS))
            for name, rate in (("model", 0.57), ("champion", 0.5))
        }
        promoted.append(decide(dataclasses.replace(CONFIG, seed=seed), "loo-99", values, "validation").promoted)
    assert np.mean(promoted) >= 0.95


def test_the_decision_says_by_what_it_was_made(tmp_path: Path) -> None:
    ranks = {"model": ranks_with(600), "popularity": ranks_with(300), "champion": ranks_with(500)}
    config = dataclasses.replace(CONFIG, must_beat=("popularity",), min_value=0.4, margin=0.01)
    decision = decision_of(tmp_path, ranks, config)
    assert decision["parameters"] == {**dataclasses.asdict(config), "must_beat": ["popularity"]}
    assert (decision["protocol"], decision["metric"], decision["value"]) == ("loo-99", "hr@10", 0.6)
    assert decision["examples_digest"] == decision["champion"]["examples_digest"] == "d" * 64
    manifest = read_manifest(tmp_path / "decision", "decision")
    assert (manifest["promoted"], manifest["reason"]) == (True, decision["reason"])
    rows = [line for line in (tmp_path / "decision/decision.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 4
    assert len({row.count("|") for row in rows}) == 1, "a row of the table has more cells than another"
    assert decision["reason"] in (tmp_path / "decision/decision.md").read_text()


def test_the_same_seed_makes_the_same_decision_file(tmp_path: Path) -> None:
    evaluation = write_evaluation(tmp_path / "evaluation", {"model": ranks_with(520), "champion": ranks_with(500, 7)})
    for name in ("first", "second"):
        gate(CONFIG, evaluation, tmp_path / name)
    assert (tmp_path / "first/decision.json").read_bytes() == (tmp_path / "second/decision.json").read_bytes()


def test_the_first_protocol_decides_unless_one_is_named(tmp_path: Path) -> None:
    evaluation = write_evaluation(tmp_path / "evaluation", {"model": ranks_with(500)}, ("fixed", "loo-99"))
    assert gate(CONFIG, evaluation, tmp_path / "first").protocol == "fixed"
    named = dataclasses.replace(CONFIG, protocol="loo-99")
    assert gate(named, evaluation, tmp_path / "named").protocol == "loo-99"


def test_users_that_the_protocol_leaves_out_do_not_count(tmp_path: Path) -> None:
    without = np.arange(NUM_USERS) >= 800
    ranks = {
        "model": pa.array(ranks_with(500), mask=without),
        "champion": pa.array(ranks_with(300), mask=without),
    }
    decision = decision_of(tmp_path, ranks)
    assert decision["value"] == 500 / 800
    assert decision["checks"][0]["paired"]["num_users"] == 800


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol": "loo-999"}, r"gate\.protocol is 'loo-999', but .* has loo-99: name one"),
        ({"must_beat": ("als",)}, r"gate\.must_beat names 'als', but .* ranks model, popularity: name one"),
    ],
)
def test_what_the_evaluation_lacks_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    evaluation = write_evaluation(tmp_path / "evaluation", {"model": ranks_with(5), "popularity": ranks_with(3)})
    with pytest.raises(InputError, match=words):
        gate(dataclasses.replace(CONFIG, **changes), evaluation, tmp_path / "decision")
    assert not (tmp_path / "decision").exists()


@pytest.mark.parametrize(("name", "value"), [("examples_digest", "e" * 64), ("model_selection", "test")])
def test_a_champion_of_other_data_or_choices_is_refused(tmp_path: Path, name: str, value: str) -> None:
    champion = {"path": "runs/before/model", **MANIFEST, name: value}
    ranks = {"model": ranks_with(900), "champion": ranks_with(1)}
    evaluation = write_evaluation(tmp_path / "evaluation", ranks, champion=champion)
    with pytest.raises(InputError, match=rf"champion runs/before/model .*{value}.*cannot be compared"):
        gate(CONFIG, evaluation, tmp_path / "decision")
    assert not (tmp_path / "decision").exists()


def test_systems_ranked_on_different_users_are_refused(tmp_path: Path) -> None:
    ranks = {
        "model": pa.array(ranks_with(500), mask=np.arange(NUM_USERS) >= 800),
        "champion": pa.array(ranks_with(300), mask=np.arange(NUM_USERS) < 200),
    }
    with pytest.raises(
        InputError, match=r"per_user\.parquet does not rank the same users .*champion.*run evaluate again"
    ):
        decision_of(tmp_path, ranks)


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), (b"PAR1", "cannot be read")])
def test_a_damaged_evaluation_is_one_sentence(tmp_path: Path, content: bytes | None, words: str) -> None:
    evaluation = write_evaluation(tmp_path / "evaluation", {"model": ranks_with(5)})
    (evaluation / "per_user.parquet").unlink()
    if content is not None:
        (evaluation / "per_user.parquet").write_bytes(content)
    with pytest.raises(InputError, match=words):
        gate(CONFIG, evaluation, tmp_path / "decision")
    with pytest.raises(InputError, match="holds no manifest"):
        gate(CONFIG, tmp_path / "nowhere", tmp_path / "decision")


def test_an_evaluation_without_the_systems_ranks_is_one_sentence(tmp_path: Path) -> None:
    evaluation = write_evaluation(tmp_path / "evaluation", {"model": ranks_with(5)}, systems=["model", "als"])
    with pytest.raises(InputError, match=r"per_user\.parquet .*run evaluate again"):
        gate(CONFIG, evaluation, tmp_path / "decision")


@pytest.mark.parametrize(
    "changes",
    [
        {"metric": "accuracy"}, {"metric": "hr@0"}, {"margin": -0.1}, {"margin": float("nan")}, {"min_value": -1.0},
        {"min_value": 2.0}, {"must_beat": ("model",)}, {"must_beat": ("als", "als")}, {"num_bootstrap_samples": 0},
        {"confidence": 1.0}, {"confidence": 0.0}, {"seed": -1},
    ],
)  # fmt: skip
def test_wrong_parameters_are_named(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(InputError, match=rf"^gate\.{name} .*\.$"):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(("num_different", "promoted"), [(5, False), (6, True)])
def test_fewer_than_six_users_who_tell_two_systems_apart_decide_nothing(num_different: int, promoted: bool) -> None:
    """All of them prefer the model."""
    champion = np.zeros(num_different)
    values = {"model": np.ones(num_different), "popularity": champion, "champion": champion}
    config = GateConfig("loo-99", "hr@10", 0.0, 0.0, (), 1_000, 0.95, 1)
    decision = decide(config, "loo-99", values, "validation")
    assert decision.promoted is promoted
    assert ("from 5 users whom the two serve differently, of 6" in decision.reason) is not promoted
