from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.bench_train import Bench, Run, format_table, plan_runs, read_our_figures, write_interactions
from benchmarks.throughput import Throughput, read_throughput


def entry(examples_per_s: float, evaluation_s: float) -> dict[str, float]:
    return {"examples_per_s": examples_per_s, "evaluation_duration_s": evaluation_s}


def test_first_epoch_does_not_count_and_time_before_the_step_s_clock_does() -> None:
    training = {"history": [entry(1.0, 9.0), entry(3e6, 0.5), entry(2e6, 0.7)], "duration_s": 10.0}
    figures = read_our_figures(training, "train: compiled after 3.5 s; 242 steps an epoch\n", wall_s=14.0)
    assert figures.examples_per_s == 2.5e6
    assert figures.evaluation_s == pytest.approx(0.6)
    assert figures.first_step_s == pytest.approx(4.0 + 3.5)


def test_a_single_epoch_counts_and_a_log_without_compilation_leaves_its_time_open() -> None:
    figures = read_our_figures({"history": [entry(2e5, 20.0)], "duration_s": 70.0}, "", wall_s=75.0)
    assert (figures.examples_per_s, figures.first_step_s) == (2e5, None)


def test_table_has_medians_ranges_and_how_many_times_as_fast_ours_is() -> None:
    runs = [
        Run("`neumf train`", "ml-1m", 4_096, 2e6, 900_000_000, first_step_s=9.0, evaluation_s=0.8),
        Run("RecBole", "ml-1m", 4_096, 5e5, 600_000_000),
        Run("`neumf train`", "ml-1m", 4_096, 3e6, 950_000_000, first_step_s=8.0, evaluation_s=1.0),
        Run("RecBole", "ml-1m", 4_096, 2.5e5, 700_000_000),
        Run("official training loop", "mlperf", 99_000, 1.2e5, 1_000_000_000, host_data_s=1.5),
    ]
    _, _, *lines = format_table(runs).splitlines()
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines] == [
        ["ml-1m", "4,096", "`neumf train`", "2,500 k (2,000 k to 3,000 k)", "", "950 MB", "8.50 s", "0.90 s", ""],
        ["ml-1m", "4,096", "RecBole", "375 k (250 k to 500 k)", "6.67", "700 MB", "", "", ""],
        ["mlperf", "99,000", "official training loop", "120 k (120 k to 120 k)", "", "1,000 MB", "", "", "1.50 s"],
    ]


def test_a_round_takes_the_programs_in_turn_for_each_batch(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "", 3_000_000, (), with_official=False)
    labels = [label for label, _ in plan_runs(bench, ["ml-1m", "mlperf"], [2_048, 4_096], ["ours", "recbole"], False)]
    assert labels == ["ours, ml-1m, 2,048", "RecBole, ml-1m, 2,048", "ours, ml-1m, 4,096", "RecBole, ml-1m, 4,096",
                      "RecBole at its own batch, ml-1m, 4,096", "ours, mlperf, 99,000"]  # fmt: skip
    labels = [label for label, _ in plan_runs(bench, ["ml-20m"], [2_048], ["ours", "recbole"], False)]
    assert labels == ["ours, ml-20m, 2,048", "RecBole, ml-20m, 2,048"]
    labels = [label for label, _ in plan_runs(bench, ["mlperf"], [], ["bare", "official", "recbole"], True)]
    assert labels == [
        "bare step, mlperf, 99,000",
        "bare step in bfloat16, mlperf, 99,000",
        "official loop, mlperf, 99,000",
    ]


def test_recbole_runs_at_ours_and_at_its_own_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recbole/ml-1m").mkdir(parents=True)
    (tmp_path / "recbole/ml-1m/ml-1m.inter").touch()
    bench = Bench(tmp_path, "", 3_000_000, (), with_official=False)
    run = Run("", "", 0, 0.0, 0)
    calls: list[tuple[str, str, int]] = []

    def run_peer(program: str, _shape: object, batch: int, command: list[str], *_: object) -> Run:
        calls.append((program, command[command.index("--batch") + 1], batch))
        return run

    monkeypatch.setattr(bench, "_run_peer", run_peer)
    assert [call() for _, call in plan_runs(bench, ["ml-1m"], [4_096], ["recbole"], False)] == [run, run]
    assert calls == [("RecBole", "4096", 4_096), ("RecBole at its own batch, 2,048", "2048", 4_096)]


def test_interactions_are_written_with_the_names_that_a_reader_wants(tmp_path: Path) -> None:
    for part, users in enumerate(([7, 7], [9])):
        table = pa.table({"raw_user_id": users, "raw_item_id": [1] * len(users), "rating": [0.5] * len(users)})
        pq.write_table(table, tmp_path / f"interactions-{part:05}.parquet")
    path = tmp_path / "name" / "name.inter"
    write_interactions(tmp_path, path, {"raw_item_id": "item_id:token", "raw_user_id": "user_id:token"}, "\t")
    assert path.read_text() == "item_id:token\tuser_id:token\n1\t7\n1\t7\n1\t9\n"


def test_throughput_is_that_of_the_median_interval_and_is_read_as_it_was_written(tmp_path: Path) -> None:
    throughput = Throughput("ml-1m", 4_096, 1_000, [9.0, 0.5, 0.4], {"torch": "2"})
    throughput.write(tmp_path / "throughput.json")
    assert read_throughput(tmp_path / "throughput.json") == throughput
    assert throughput.examples_per_s == 2_000
