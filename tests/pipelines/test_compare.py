"""`compare_runs` on evaluations that are made up, so that the differences are known, and on two real runs."""

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import stats

from components.ncf.errors import InputError
from components.ncf.manifest import write_manifest
from pipelines.compare import Comparison, Figure, compare_runs, find_evaluation, print_comparison

Neumf = Callable[..., subprocess.CompletedProcess[str]]
METRICS = ("hr@10", "ndcg@10")
NUM_USERS = 1_000


def ranks(seed: int, worse: float = 1.0) -> np.ndarray:
    """Ranks around what is common to all systems: some users are harder than others."""
    hardness = np.random.default_rng(0).exponential(12.0, NUM_USERS)
    return np.random.default_rng(seed).poisson(hardness * worse)


def write_evaluation(folder: Path, by_protocol: dict[str, Any], **changes: Any) -> Path:
    folder.mkdir(parents=True)
    columns = {f"rank_{protocol}": values for protocol, values in by_protocol.items()}
    pq.write_table(pa.table(columns), folder / "per_user.parquet")
    content = {
        "dataset": "made-up", "examples_digest": "d" * 64, "model_selection": "validation",
        "protocols": list(by_protocol), "systems": ["model"], "champion": None, **changes,
    }  # fmt: skip
    write_manifest(folder, "evaluation", content)
    return folder


def write_run(folder: Path, by_protocol: dict[str, Any], **changes: Any) -> Path:
    evaluation = write_evaluation(folder / "artifacts/neumf-1/evaluate/evaluation", by_protocol, **changes)
    (folder / "summary.json").write_text(json.dumps({"artifacts": {"evaluation": str(evaluation)}}))
    return folder


def compare(*paths: Path) -> Comparison:
    return compare_runs(paths, METRICS, num_samples=1_000, seed=1)


def figure_of(comparison: Comparison, run: int, protocol: str = "loo-99", metric: str = "hr@10") -> Figure:
    (figure,) = [f for f in comparison.figures if (f.run, f.protocol, f.metric) == (run, protocol, metric)]
    return figure


def printed(comparison: Comparison, width: int = 140) -> str:
    text = io.StringIO()
    print_comparison(Console(file=text, width=width), comparison)
    return text.getvalue()


@pytest.fixture(scope="module")
def second_run(neumf: Neumf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the smoke run, from other initial weights."""
    run_dir = tmp_path_factory.mktemp("second") / "run"
    result = neumf("run", "--preset", "smoke", "--set", "train.seed=2", "--run-dir", run_dir)
    assert result.returncode == 0, result.stdout + result.stderr
    return run_dir


@pytest.mark.slow
def test_two_real_runs_are_paired_over_their_users(
    smoke_run: tuple[Path, subprocess.CompletedProcess[str]], second_run: Path
) -> None:
    first_run = smoke_run[0]
    comparison = compare(first_run, second_run)
    hits = []
    for run_dir, number in ((first_run, 1), (second_run, 2)):
        summary = json.loads((run_dir / "summary.json").read_text())
        for protocol in ("loo-99", "loo-full"):
            for metric in METRICS:
                assert figure_of(comparison, number, protocol, metric).value == summary["metrics"][protocol][metric]
        table = pq.read_table(Path(summary["artifacts"]["evaluation"]) / "per_user.parquet")
        hits.append(np.array(table["rank_loo-99"].to_pylist()) < 10)
    figure = figure_of(comparison, 2)
    assert (figure.compared_with, figure.num_users) == (1, 200)
    assert figure.difference is not None
    assert figure.difference.difference == pytest.approx(hits[1].mean() - hits[0].mean())
    assert figure.difference.low <= figure.difference.difference <= figure.difference.high


@pytest.mark.slow
def test_a_run_that_was_moved_is_found(second_run: Path, tmp_path: Path) -> None:
    shutil.copytree(second_run, tmp_path / "moved")
    assert find_evaluation(tmp_path / "moved").is_relative_to(tmp_path / "moved")


def test_the_difference_is_that_of_the_same_users(tmp_path: Path) -> None:
    first, second = ranks(1, worse=1.2), ranks(2)
    paths = [write_run(tmp_path / name, {"loo-99": r}) for name, r in (("first", first), ("second", second))]
    comparison = compare(*paths)
    figure = figure_of(comparison, 2)
    differences = (second < 10) * 1.0 - (first < 10)
    low, high = stats.t.interval(0.95, NUM_USERS - 1, differences.mean(), stats.sem(differences))
    assert figure.difference is not None
    assert figure.difference.difference == pytest.approx(differences.mean())
    assert figure.difference.low == pytest.approx(low, abs=0.1 * (high - low))
    assert figure.difference.high == pytest.approx(high, abs=0.1 * (high - low))
    assert figure_of(comparison, 1).difference is None
    assert figure_of(comparison, 1).obstacle is None
    assert figure_of(comparison, 1).value == np.mean(first < 10)
    assert f"{differences.mean():+.4f}" in printed(comparison)
    # The end of a path tells runs apart: nothing is cut off, however narrow the terminal.
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed(comparison, width=80)


def test_runs_may_be_named_by_their_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"loo-99": ranks(1)})
    evaluation = write_evaluation(tmp_path / "evaluation", {"loo-99": ranks(2)})
    assert figure_of(compare(run, evaluation), 2).compared_with == 1


def test_a_run_whose_artifacts_are_elsewhere_is_found_by_its_summary(tmp_path: Path) -> None:
    elsewhere = write_evaluation(tmp_path / "elsewhere/evaluation", {"loo-99": ranks(1)})
    (tmp_path / "run").mkdir()
    (tmp_path / "run/summary.json").write_text(json.dumps({"artifacts": {"evaluation": str(elsewhere)}}))
    assert find_evaluation(tmp_path / "run") == elsewhere


def test_a_moved_run_is_not_mistaken_for_what_now_lies_in_its_old_place(tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.move(write_run(tmp_path / "runs/last", {"loo-99": ranks(1)}), moved)
    newer = write_run(tmp_path / "runs/last", {"loo-99": ranks(2)})
    assert find_evaluation(moved).is_relative_to(moved)
    figure = figure_of(compare(moved, newer), 2)
    assert figure.difference is not None
    assert figure.difference.difference == pytest.approx(np.mean(ranks(2) < 10) - np.mean(ranks(1) < 10))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": "ml-1m", "examples_digest": "e" * 64}, "ml-1m is another data set than made-up of run 1"),
        ({"examples_digest": "e" * 64}, "its examples are not those of run 1 (dddddddddddd)"),
        ({"model_selection": "test"}, "the test item chose the epoch of run 3 alone, which flatters it"),
    ],
)
def test_what_cannot_be_compared_says_why(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    names = {"a": {}, "b": {}, "c": changes}
    paths = [write_run(tmp_path / name, {"loo-99": ranks(1)}, **change) for name, change in names.items()]
    comparison = compare(*paths)
    figure = figure_of(comparison, 3)
    assert (figure.compared_with, figure.difference, figure.obstacle) == (None, None, words)
    assert figure.value == figure_of(comparison, 1).value
    assert figure_of(comparison, 2).compared_with == 1
    assert f"not comparable: {words}" in printed(comparison)
    # Alone with one that it cannot be compared with, it is refused.
    with pytest.raises(InputError) as error:
        compare(paths[0], paths[2])
    assert words.replace("run 3", "run 2") in str(error.value)
    assert "\n" not in str(error.value)


def test_the_command_prints_a_table_or_json_and_refuses_with_status_1(neumf: Neumf, tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / str(seed), {"loo-99": ranks(seed)}, examples_digest=digest * 64)
        for seed, digest in ((1, "d"), (2, "d"), (3, "e"))
    ]
    comparison = compare_runs(paths)
    table = neumf("compare", *paths)
    assert table.returncode == 0, table.stderr
    figure = figure_of(comparison, 2)
    assert figure.difference is not None
    assert f"{figure.difference.difference:+.4f}" in table.stdout
    assert "not comparable: its examples" in table.stdout
    assert json.loads(neumf("compare", "--json", *paths).stdout) == json.loads(comparison.as_json())
    refused = neumf("compare", paths[0], paths[2])
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: No two of these runs can be compared")
    assert refused.stderr.count("\n") == 1


def test_chosen_metrics_are_compared_alone(neumf_here: Neumf, tmp_path: Path) -> None:
    by_seed = {seed: ranks(seed) for seed in (1, 2)}
    paths = [write_run(tmp_path / str(seed), {"loo-99": values}) for seed, values in by_seed.items()]
    chosen = [word for name in ("mrr", "hr@3", "mrr") for word in ("--metric", name)]
    result = neumf_here("compare", "--json", *chosen, *paths)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)["figures"]
    assert [(f["metric"], f["run"]) for f in figures] == [("mrr", 1), ("mrr", 2), ("hr@3", 1), ("hr@3", 2)]
    expected = np.mean(1 / (1 + by_seed[2])) - np.mean(1 / (1 + by_seed[1]))
    assert figures[1]["difference"]["difference"] == pytest.approx(expected)
    expected_hits = np.mean(by_seed[2] < 3) - np.mean(by_seed[1] < 3)
    assert f"{expected_hits:+.4f}" in neumf_here("compare", "--metric", "hr@3", *paths).stdout
    refused = neumf_here("compare", "--metric", "auc", *paths)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        "error: --metric is 'auc': it must be hr@K, recall@K or ndcg@K, such as ndcg@10, or mrr.\n"
    )


def test_a_protocol_of_one_run_alone_is_shown_and_not_compared(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", {"loo-99": ranks(1)})
    second = write_run(tmp_path / "second", {"loo-99": ranks(2), "loo-full": ranks(3)})
    comparison = compare(first, second)
    assert figure_of(comparison, 2).compared_with == 1
    figure = figure_of(comparison, 2, "loo-full")
    assert figure.obstacle == "run 1 was not evaluated by loo-full"
    assert [f.run for f in comparison.figures if f.protocol == "loo-full"] == [2, 2]


def test_runs_that_share_no_protocol_are_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", {"loo-99": ranks(1)})
    second = write_run(tmp_path / "second", {"loo-full": ranks(2)})
    with pytest.raises(InputError, match=r"No two of these runs .*run 1 was not evaluated by loo-full"):
        compare(first, second)


def test_a_run_is_compared_with_the_first_that_it_can_be(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / f"run-{seed}", {"loo-99": ranks(seed)}, examples_digest=digest * 64)
        for seed, digest in enumerate("abab")
    ]
    comparison = compare(*paths)
    assert [figure_of(comparison, run).compared_with for run in (1, 2, 3, 4)] == [None, None, 1, 2]


def test_runs_refitted_without_looking_are_compared_with_those_chosen_by_validation(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path / selection, {"loo-99": ranks(1)}, model_selection=selection)
        for selection in ("validation", "last")
    ]
    assert figure_of(compare(*paths), 2).compared_with == 1
    both = [write_run(tmp_path / f"test-{seed}", {"loo-99": ranks(seed)}, model_selection="test") for seed in (1, 2)]
    assert figure_of(compare(*both), 2).compared_with == 1


def test_users_that_a_protocol_leaves_out_are_left_out_of_both(tmp_path: Path) -> None:
    without = np.arange(NUM_USERS) % 5 == 0
    paths = [write_run(tmp_path / str(seed), {"fixed": pa.array(ranks(seed), mask=without)}) for seed in (1, 2)]
    figure = figure_of(compare(*paths), 2, "fixed")
    assert figure.num_users == 800
    assert figure.difference is not None
    expected = np.mean(ranks(2)[~without] < 10) - np.mean(ranks(1)[~without] < 10)
    assert figure.difference.difference == pytest.approx(expected)
    damaged = write_run(tmp_path / "damaged", {"fixed": pa.array(ranks(3), mask=~without)})
    with pytest.raises(InputError, match="rank different users"):
        compare(paths[0], damaged)


def test_the_document_is_json_with_every_figure(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / str(seed), {"loo-99": ranks(seed)}) for seed in (1, 2)]
    comparison = compare(*paths)
    document = json.loads(comparison.as_json())
    assert [run["name"] for run in document["runs"]] == [str(path) for path in paths]
    assert [(f["run"], f["metric"]) for f in document["figures"]] == [(r, m) for m in METRICS for r in (1, 2)]
    assert set(document["figures"][1]["difference"]) == {"difference", "low", "high", "num_users", "num_different"}
    assert compare(*paths) == comparison


def test_wrong_arguments_are_one_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"loo-99": ranks(1)})
    other = write_run(tmp_path / "other", {"loo-99": ranks(2)})
    with pytest.raises(InputError, match="name at least two"):
        compare(run)
    with pytest.raises(InputError, match="are the same run"):
        compare(run, run / "artifacts/neumf-1/evaluate/evaluation")
    with pytest.raises(InputError, match=r"nowhere is neither the folder of a finished run nor"):
        compare(run, tmp_path / "nowhere")
    (tmp_path / "model").mkdir()
    write_manifest(tmp_path / "model", "model", {})
    with pytest.raises(InputError, match="`model` folder where a `evaluation` folder"):
        compare(run, tmp_path / "model")
    with pytest.raises(InputError, match="metric is 'auc'"):
        compare_runs([run, other], ["auc"], 100, 1)
    with pytest.raises(InputError, match="bootstrap samples is 0"):
        compare_runs([run, other], METRICS, 0, 1)
    (find_evaluation(other) / "per_user.parquet").unlink()
    with pytest.raises(InputError, match=r"per_user\.parquet cannot be read"):
        compare(run, other)
