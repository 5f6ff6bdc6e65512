import contextlib
import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import yaml

Neumf = Callable[..., subprocess.CompletedProcess[str]]
Run = tuple[Path, subprocess.CompletedProcess[str]]
STEPS = ("download", "generate", "baseline", "train", "evaluate", "gate", "recommend")


def summary_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


def test_every_step_is_announced_as_it_starts_and_ends(smoke_run: Run) -> None:
    _, result = smoke_run
    assert result.returncode == 0, result.stdout + result.stderr
    started = re.findall(r"\[(\d)/7\] (\w+) started", result.stdout)
    assert [int(number) for number, _ in started] == list(range(1, 8))
    names = [name for _, name in started]
    # Neither of train and baseline waits for the other.
    assert names[:2] + names[4:] == [step for step in STEPS if step not in ("train", "baseline")]
    assert set(names) == set(STEPS)
    for number, name in started:
        assert f"[{number}/7] {name} finished in " in result.stdout


def test_the_run_ends_with_metrics_and_the_places_of_report_and_model(smoke_run: Run) -> None:
    run_dir, result = smoke_run
    summary = summary_of(run_dir)
    assert f"{summary['metrics']['loo-99']['hr@10']:.4f}" in result.stdout
    for path in (summary["report"], summary["data_card"], summary["artifacts"]["model"]):
        assert path in result.stdout
        assert Path(path).exists()


def test_the_summary_holds_what_later_runs_are_compared_by(smoke_run: Run) -> None:
    summary = summary_of(smoke_run[0])
    assert set(summary["steps"]) == set(STEPS)
    assert all(step["duration_s"] > 0 for step in summary["steps"].values())
    folders = {"ratings", "examples", "model", "baseline", "evaluation", "decision", "recommendations"}
    assert set(summary["artifacts"]) == folders
    assert all((Path(folder) / "manifest.json").is_file() for folder in summary["artifacts"].values())
    assert summary["parameters"]["train"]["num_epochs"] == 2
    assert summary["versions"]["kfp"] == "2.17.0"
    for metrics in (summary["metrics"]["loo-99"], summary["metrics"]["loo-99"]["popularity"]):
        for name in ("hr@10", "ndcg@10"):
            low, high = metrics[f"{name}_interval"]
            assert 0 <= low <= metrics[name] <= high <= 1


def test_the_metrics_are_those_of_the_ranks_of_each_user(smoke_run: Run) -> None:
    summary = summary_of(smoke_run[0])
    per_user = pq.read_table(Path(summary["artifacts"]["evaluation"]) / "per_user.parquet")
    for column, metrics in (
        ("rank_loo-99", summary["metrics"]["loo-99"]),
        ("rank_loo-99_popularity", summary["metrics"]["loo-99"]["popularity"]),
    ):
        ranks = per_user[column].to_pylist()
        assert len(ranks) == 200
        assert metrics["hr@10"] == pytest.approx(sum(rank < 10 for rank in ranks) / 200)
        gains = [1 / np.log2(rank + 2) if rank < 10 else 0.0 for rank in ranks]
        assert metrics["ndcg@10"] == pytest.approx(sum(gains) / 200)


def test_the_steps_ran_from_the_compiled_pipeline(smoke_run: Run) -> None:
    """Each step's own executor, which kfp makes from the YAML, has left its output file."""
    run_dir, _ = smoke_run
    spec = yaml.safe_load((run_dir / "pipeline.yaml").read_text())
    assert set(spec["root"]["dag"]["tasks"]) == {*STEPS[:-1], "condition-1"}
    for step in STEPS:
        assert list(run_dir.glob(f"artifacts/neumf-*/{step}/executor_output.json")), step
    metadata = json.loads(next(run_dir.glob("artifacts/neumf-*/evaluate/executor_output.json")).read_text())
    logged = metadata["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert logged["loo-99/hr@10"] == pytest.approx(summary_of(run_dir)["metrics"]["loo-99"]["hr@10"])


def test_a_promoted_model_recommends_to_every_user(smoke_run: Run) -> None:
    run_dir, result = smoke_run
    summary = summary_of(run_dir)
    assert summary["decision"]["promoted"] is True
    assert "promoted: The model (ndcg@10 " in result.stdout
    parts = Path(summary["artifacts"]["recommendations"]).glob("parquet/*.parquet")
    users = [user for part in parts for user in pq.read_table(part)["raw_user_id"].to_pylist()]
    assert len(users) == 200 * 10
    assert len(set(users)) == 200


@pytest.mark.slow
def test_a_model_that_is_not_promoted_recommends_nothing(neumf: Neumf, tmp_path: Path) -> None:
    result = neumf("run", "--preset", "smoke", "--set", "gate.min_value=0.99", "--run-dir", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    summary = summary_of(tmp_path / "run")
    assert summary["decision"]["promoted"] is False
    assert set(summary["steps"]) == set(STEPS[:-1])
    assert "recommendations" not in summary["artifacts"]
    assert not list(tmp_path.glob("run/artifacts/*/recommend*"))
    assert "not promoted: The model" in result.stdout
    assert "falls short of the threshold of 0.9900" in result.stdout


@pytest.mark.slow
def test_a_champion_that_is_the_same_model_is_not_beaten(smoke_run: Run, neumf: Neumf, tmp_path: Path) -> None:
    champion = summary_of(smoke_run[0])["artifacts"]["model"]
    result = neumf("run", "--preset", "smoke", "--champion", champion, "--run-dir", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    summary = summary_of(tmp_path / "run")
    assert summary["systems"] == ["model", "popularity", "als", "champion"]
    (check,) = (check for check in summary["decision"]["checks"] if check["name"] == "champion")
    assert check["paired"] == {"difference": 0.0, "low": 0.0, "high": 0.0, "num_users": 200, "num_different": 0}
    assert summary["decision"]["promoted"] is False


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(smoke_run: Run, neumf: Neumf) -> None:
    run_dir, _ = smoke_run
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    result = neumf("run", "--preset", "smoke", "--run-dir", run_dir)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert str(run_dir) in result.stderr
    assert "already holds a run" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before


@pytest.mark.slow
def test_steps_by_hand_give_what_the_pipeline_gave(smoke_run: Run, neumf: Neumf, tmp_path: Path) -> None:
    run_dir, _ = smoke_run
    for arguments in (
        ["download", "--dataset", "synthetic:num_users=200,num_items=300", "--output", "ratings"],
        ["generate", "--ratings", "ratings", "--output", "examples"],
        ["train", "--examples", "examples", "--output", "model"],
        ["baseline", "--examples", "examples", "--output", "baseline"],
        ["evaluate", "--model", "model", "--examples", "examples", "--baseline", "baseline", "--output", "evaluation"],
        ["gate", "--evaluation", "evaluation", "--output", "decision"],
        ["recommend", "--model", "model", "--examples", "examples", "--output", "recommendations"],
    ):
        result = neumf(*arguments, "--preset", "smoke", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "evaluation/metrics.json").read_text())
    summary = summary_of(run_dir)
    assert metrics == summary["metrics"]
    assert json.loads((tmp_path / "decision/decision.json").read_text()) == summary["decision"]
    for part in (tmp_path / "recommendations/parquet").iterdir():
        assert pq.read_table(part) == pq.read_table(
            Path(summary["artifacts"]["recommendations"]) / "parquet" / part.name
        )


def test_a_failed_step_ends_the_run_with_its_name_and_its_own_error(neumf: Neumf, tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_text("user,item\n1,2\n1,-3\n")
    result = neumf("run", "--preset", "smoke", "--dataset", f"csv:{events}", "--run-dir", tmp_path / "run")
    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("error: The step download failed: ")
    assert "events.csv" in sentence
    assert "line 3" in sentence
    assert "[1/7] download failed" in result.stdout
    assert "generate" not in result.stdout
    assert not (tmp_path / "run/summary.json").exists()
    assert not list(tmp_path.glob("run/artifacts/*/download/ratings"))


def test_a_wrong_parameter_is_found_before_the_first_step(neumf: Neumf, tmp_path: Path) -> None:
    result = neumf("run", "--preset", "smoke", "--set", "train.mlp_layers=7,4", "--run-dir", tmp_path / "run")
    assert result.returncode == 1
    assert "train.mlp_layers[0] is 7, an odd number" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_named(neumf: Neumf, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = neumf("run", "--preset", "smoke", "--run-dir", tmp_path / "file/run")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "cannot be written" in result.stderr


@pytest.mark.slow
def test_a_checkerboard_is_learned_perfectly(neumf: Neumf, tmp_path: Path) -> None:
    """Even users like even items: each user has had all of theirs, so only the held-out one is left to be found."""
    rng = np.random.default_rng(0)
    with (tmp_path / "checkerboard.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["user", "item", "timestamp"])
        for user in range(60):
            for second, item in enumerate(rng.permutation(np.arange(user % 2, 240, 2))):
                writer.writerow([user, item, second])
    result = neumf(
        "run", "--dataset", f"csv:{tmp_path / 'checkerboard.csv'}", "--set", "train.global_batch_size=500",
        "--run-dir", tmp_path / "run",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    metrics = summary_of(tmp_path / "run")["metrics"]
    assert metrics["loo-99"]["hr@10"] == 1.0
    assert metrics["loo-99"]["popularity"]["hr@10"] < 0.5


@pytest.mark.slow
def test_real_ratings_through_the_whole_pipeline(neumf: Neumf, tmp_path: Path, movielens_mirror: str) -> None:
    result = neumf("run", "--dataset", "ml-latest-small", "--mirror", movielens_mirror, "--run-dir", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    summary = summary_of(tmp_path / "run")
    examples = json.loads((Path(summary["artifacts"]["examples"]) / "manifest.json").read_text())
    assert examples["num_users"] == 610
    assert examples["num_items"] == 9724
    metrics = summary["metrics"]["loo-99"]
    # The intervals do not touch: NeuMF is better than popularity beyond doubt.
    assert metrics["hr@10_interval"][0] > metrics["popularity"]["hr@10"] + 0.03


@pytest.mark.slow
def test_the_demo_keeps_what_the_readme_promises(neumf: Neumf, tmp_path: Path) -> None:
    result = neumf("run", "--preset", "demo", "--run-dir", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    summary = summary_of(tmp_path / "run")
    metrics = summary["metrics"]["loo-99"]
    assert metrics["hr@10"] > metrics["popularity"]["hr@10"] + 0.10
    assert metrics["hr@10"] > 0.85 * summary["best_hr@10"]


def test_the_docker_runner_without_an_engine_is_one_sentence(
    neumf: Neumf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    result = neumf("run", "--preset", "smoke", "--runner", "docker", "--run-dir", tmp_path / "run")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "needs a Docker engine" in result.stderr
    assert "--runner subprocess" in result.stderr


def run_on_a_terminal(arguments: list[str]) -> tuple[int, str]:
    output = bytearray()

    def read(descriptor: int) -> bytes:
        block = os.read(descriptor, 4096)
        output.extend(block)
        return block

    # What the child prints is kept, and not shown here a second time.
    with mock.patch("pty._copy", lambda master, *_: drain(master, read)):
        status = pty.spawn([str(Path(sys.executable).parent / "neumf"), *arguments])
    return os.waitstatus_to_exitcode(status), output.decode(errors="replace")


def drain(master: int, read: Callable[[int], bytes]) -> None:
    with contextlib.suppress(OSError):  # the terminal of a process that is gone
        while read(master):
            pass


def test_on_a_terminal_the_steps_lines_reach_the_log_and_the_error_the_user(tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_text("user,item\n" + "".join(f"{user},{item}\n" for user in range(3) for item in range(2)))
    status, shown = run_on_a_terminal(
        ["run", "--preset", "smoke", "--dataset", f"csv:{events}", "--run-dir", str(tmp_path / "run")]
    )
    assert status == 1
    assert "The step generate failed: " in shown
    assert "min_ratings" in shown
    assert "executor_input" not in shown, "the runner's own lines belong into the log"
    log = (tmp_path / "run/run.log").read_text()
    assert "download: csv" in log
    assert "error: " in log


def start_endless_training(run_dir: Path) -> subprocess.Popen[str]:
    """Returns a run whose train step is in its third epoch."""
    command = [
        str(Path(sys.executable).parent / "neumf"), "run", "--preset", "smoke", "--set", "train.num_epochs=100000",
        "--set", "train.early_stopping_patience=0", "--run-dir", str(run_dir),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 2/" in line:
            break
    return process


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_no_process_behind(tmp_path: Path, signal_number: int) -> None:
    process = start_endless_training(tmp_path / "run")
    steps = psutil.Process(process.pid).children(recursive=True)
    assert steps
    process.send_signal(signal_number)
    shown, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal_number
    assert "started" not in shown, "baseline, which does not need the model, has nothing to run for"
    assert error == "error: Interrupted in the step train: the run is incomplete, and so is its folder.\n"
    _, alive = psutil.wait_procs(steps, timeout=30)
    assert not alive
    assert not list(tmp_path.glob("run/artifacts/*/train/model"))


@pytest.mark.slow
def test_a_step_that_the_system_kills_is_not_blamed_on_its_last_line(tmp_path: Path) -> None:
    process = start_endless_training(tmp_path / "run")
    for child in psutil.Process(process.pid).children(recursive=True):
        if "executor_main" in " ".join(child.cmdline()):
            child.kill()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The step train failed: it ended without an error of its own, perhaps killed" in error
