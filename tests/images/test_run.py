"""The whole compiled DAG with kfp's DockerRunner in the images, beside the same DAG in this environment."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.images import image_uri
from images.engine import output_of
from pipelines.compile import compile_pipeline
from pipelines.parameters import resolve_parameters
from pipelines.placement import Placement
from pipelines.run_local import run_local
from tests.pipelines.conftest import run_neumf

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("built")]
SOMEBODY = 12345


def flattened(metrics: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in metrics.items():
        flat |= flattened(value, f"{prefix}{name} ") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def summary_of(run_dir: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    return summary


def test_real_ratings_have_the_same_metrics_in_containers_to_the_last_digit(
    tmp_path: Path, movielens_mirror: str
) -> None:
    tables = {}
    for runner in ("subprocess", "docker"):
        result = run_neumf(
            "run", "--dataset", "ml-latest-small", "--mirror", movielens_mirror, "--runner", runner,
            "--run-dir", tmp_path / runner,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        summary = summary_of(tmp_path / runner)
        assert summary["runner"] == runner
        tables[runner] = flattened(summary["metrics"])
    names = tables["subprocess"].keys() | tables["docker"].keys()
    side_by_side = "\n".join(
        f"{name:45} {tables['subprocess'].get(name)!s:45} {tables['docker'].get(name)!s:45}" for name in sorted(names)
    )
    print(f"{'':45} {'subprocess':45} docker\n{side_by_side}")  # noqa: T201 (shown with -s, and where the test fails)
    assert len(names) > 20
    assert tables["subprocess"] == tables["docker"]


def test_a_step_that_fails_in_its_container_ends_the_run_with_its_own_sentence(tmp_path: Path, engine: Any) -> None:
    """kfp alone reports a success here, since the container is gone before it asks."""
    events = tmp_path / "events.csv"
    events.write_text("user,item\n1,2\n1,-3\n")
    for attempt in range(3):
        run_dir = tmp_path / f"run-{attempt}"
        result = run_neumf("run", "--dataset", f"csv:{events}", "--runner", "docker", "--run-dir", run_dir)
        assert result.returncode == 1
        (sentence,) = result.stderr.splitlines()
        assert sentence.startswith("error: The step download failed: ")
        assert "events.csv, line 3" in sentence
        assert "] download failed in " in result.stdout
        assert "generate" not in result.stdout
        assert not (run_dir / "summary.json").exists()
    assert not containers_of(engine, tmp_path)


def test_a_file_that_does_not_exist_is_named_by_the_step(tmp_path: Path) -> None:
    result = run_neumf("run", "--dataset", "csv:/no/events.csv", "--runner", "docker", "--run-dir", tmp_path / "run")
    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("error: The step download failed: ")
    assert "/no/events.csv does not exist" in sentence


def test_own_events_titles_and_checkpoints_reach_the_containers(tmp_path: Path) -> None:
    events, titles, checkpoints = tmp_path / "in put/events.csv", tmp_path / "titles.csv", tmp_path / "kept"
    events.parent.mkdir()
    lines = [f"{user},{(user * 7 + item) % 400},{item}" for user in range(60) for item in range(50)]
    events.write_text("user,item,timestamp\n" + "\n".join(lines) + "\n")
    titles.write_text("item,title\n" + "".join(f"{item},Title {item}\n" for item in range(400)))
    result = run_neumf(
        "run", "--preset", "smoke", "--dataset", f"csv:{events}", "--set", f"download.titles={titles}",
        "--checkpoint-dir", checkpoints, "--runner", "docker", "--run-dir", tmp_path / "run",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    items = pq.read_table(Path(summary_of(tmp_path / "run")["artifacts"]["examples"]) / "items.parquet")
    assert "Title 399" in items["title"].to_pylist()
    assert list(checkpoints.rglob("checkpoint-*.npz"))


def test_a_missing_image_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUMF_IMAGE_TAG", "no-such-tag")
    result = run_neumf("run", "--preset", "smoke", "--runner", "docker", "--run-dir", tmp_path / "run")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    expected = ":no-such-tag, which this machine does not have: build it with `make images`"
    assert expected in result.stderr


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_no_container_behind(tmp_path: Path, engine: Any, signal_number: int) -> None:
    command = [
        str(Path(sys.executable).parent / "neumf"), "run", "--preset", "smoke", "--set", "train.num_epochs=100000",
        "--set", "train.early_stopping_patience=0", "--runner", "docker", "--run-dir", str(tmp_path / "run"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 2/" in line:
            break
    assert containers_of(engine, tmp_path)
    process.send_signal(signal_number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal_number
    assert error == "error: Interrupted in the step train: the run is incomplete, and so is its folder.\n"
    assert not containers_of(engine, tmp_path)
    assert not list(tmp_path.glob("run/artifacts/*/train/model"))


def test_what_containers_write_belongs_to_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where root runs this, the containers are told that somebody else does: they write, nothing else is asked."""
    caller = (os.getuid(), os.getgid()) if os.getuid() else (SOMEBODY, SOMEBODY)
    monkeypatch.setattr("os.getuid", lambda: caller[0])
    monkeypatch.setattr("os.getgid", lambda: caller[1])
    compile_pipeline(Placement.on("local"), resolve_parameters("smoke", ()), tmp_path / "pipeline.yaml")
    root = tmp_path / "artifacts"
    root.mkdir()
    os.chown(root, *caller)
    run_local(tmp_path / "pipeline.yaml", "docker", root, io.StringIO(), Silent())
    written = list(root.rglob("*"))
    assert len(written) > 30
    assert {(path.stat().st_uid, path.stat().st_gid) for path in written} == {caller}


class Silent:
    def step_started(self, step: str) -> None: ...

    def step_logged(self, step: str, line: str) -> None: ...

    def step_ended(self, step: str, duration_s: float, succeeded: bool) -> None: ...


@pytest.mark.parametrize("name", ["download", "generate", "train"])
def test_a_container_starts_as_nobody_in_particular_on_a_read_only_file_system(engine: Any, name: str) -> None:
    shown = output_of(
        engine, image_uri(name), ["sh", "-c", "id -u && touch /tmp/a && ! touch /opt/neumf/a 2>/dev/null && pwd"],
        read_only=True, tmpfs={"/tmp": ""}, cap_drop=["ALL"],
    )  # fmt: skip
    assert shown.split() == ["10001", "/tmp"]


def containers_of(engine: Any, folder: Path) -> list[Any]:
    """Returns the containers that have something below a folder mounted."""
    every = [engine.containers.get(container.id) for container in engine.containers.list(all=True)]
    return [c for c in every if any(mount["Source"].startswith(str(folder)) for mount in c.attrs["Mounts"])]
