"""One run from parameters to summary.json."""

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from rich.console import Console

from components.ncf.errors import InputError
from components.ncf.manifest import check_output_path, explain_os_error, read_manifest
from pipelines.compile import compile_pipeline
from pipelines.display import RunDisplay
from pipelines.parameters import check_champion, check_parameters
from pipelines.placement import Placement
from pipelines.presets import Parameters
from pipelines.run_local import LocalRun, run_local

PIPELINE_NAME = "pipeline.yaml"
SUMMARY_NAME = "summary.json"
_PACKAGES = ("neumf-pipeline", "kfp", "tensorflow", "tensorflow-cpu", "keras", "apache-beam", "numpy", "pyarrow")


def run_pipeline(parameters: Parameters, runner: str, run_dir: Path, console: Console) -> dict[str, Any]:
    """Compiles the DAG, runs it and writes its summary.

    Args:
        parameters: Every parameter of every step.
        runner: One of `pipelines.run_local.RUNNERS`.
        run_dir: A new or empty folder for pipeline.yaml, run.log, artifacts/ and summary.json.
        console: Where to show the run.

    Returns:
        What summary.json holds.

    Raises:
        InputError: A parameter is wrong, the folder is taken, or a step failed.
    """
    check_parameters(parameters)
    check_champion(parameters)
    run_dir = run_dir.absolute()
    check_output_path(run_dir)
    try:
        if run_dir.is_dir() and any(run_dir.iterdir()):
            raise InputError(f"{run_dir} already holds a run or other files: choose another --run-dir or remove it.")
        run_dir.mkdir(parents=True, exist_ok=True)
        compile_pipeline(Placement.on("local"), parameters, run_dir / PIPELINE_NAME)
        num_steps = len(parameters) - (not parameters["publish"]["project"])
        with (run_dir / "run.log").open("w", encoding="utf-8") as log, RunDisplay(console, num_steps) as display:
            finished = run_local(run_dir / PIPELINE_NAME, runner, run_dir / "artifacts", log, display)
        summary = _summarize(parameters, runner, finished)
        _write_atomically(run_dir / SUMMARY_NAME, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(explain_os_error(error, run_dir)) from error
    return summary


def _summarize(parameters: Parameters, runner: str, run: LocalRun) -> dict[str, Any]:
    examples = read_manifest(run.artifacts["examples"], "examples")
    evaluation = read_manifest(run.artifacts["evaluation"], "evaluation")
    metrics, decision = (
        json.loads((run.artifacts[folder] / f"{name}.json").read_text(encoding="utf-8"))
        for folder, name in (("evaluation", "metrics"), ("decision", "decision"))
    )
    return {
        "parameters": parameters,
        "runner": runner,
        "versions": _versions(),
        "steps": {step: {"duration_s": round(duration, 3)} for step, duration in run.durations_s.items()},
        "artifacts": {name: str(path) for name, path in run.artifacts.items() if path.is_dir()},
        "report": str(run.artifacts["evaluation"] / "report.html"),
        "data_card": str(run.artifacts["examples"] / "card.html"),
        "model_selection": evaluation["model_selection"],
        "systems": evaluation["systems"],
        "best_hr@10": examples.get("best_hr@10"),
        "decision": decision,
        "metrics": metrics,
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
