"""`neumf`, the command line."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.ncf.errors import InputError
from pipelines.command_options import dataset_options, preset_options, with_dataset
from pipelines.dataflow import DataflowOptions, dataflow_options
from pipelines.parameters import resolve_parameters, step_config
from pipelines.placement import Placement
from pipelines.placement_commands import compile_command, pools, preflight_command
from pipelines.placement_options import placement_options
from pipelines.presets import PRESETS
from pipelines.run_local import RUNNERS
from pipelines.submit_options import SubmitOptions, submit_options

_FOLDER = click.Path(path_type=Path)

Command = Callable[..., Any]


class _Group(click.Group):
    """Prints a user's mistake as one sentence and exits with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(getattr(error, "exit_status", 1))
        except click.UsageError as error:
            error.show()
            ctx.exit(1)  # click's own 2 is that of a run which failed


@click.group(
    cls=_Group,
    commands=[compile_command, preflight_command, pools],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="neumf-pipeline")
def main() -> None:
    """Train and evaluate a NeuMF recommender, as a pipeline or step by step.

    \b
    neumf run                                   the whole pipeline on a small embedded data set
    neumf run --dataset ml-1m --preset he2017   on MovieLens, as published
    neumf run --dataset csv:events.csv          on your own events

    A mistake ends a command with one sentence on standard error and status 1.
    """
    # TensorFlow reads this when it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@main.command()
@dataset_options(required=False)
@preset_options
@click.option("--runner", type=click.Choice(RUNNERS), default="subprocess", show_default=True,
              help="Which of kfp's local runners runs the steps.")  # fmt: skip
@click.option("--run-dir", type=_FOLDER, help="A new folder for everything the run writes.  [default: runs/TIME]")
@click.option("--checkpoint-dir", type=_FOLDER, help="Where epochs are saved: a new run with the same folder resumes "
              "a killed one's training.")  # fmt: skip
@click.option("--champion", metavar="FOLDER|gs://…", help="Another run's model, which this one has to beat.")
def run(
    dataset: str | None,
    mirror: str | None,
    preset: str,
    overrides: tuple[str, ...],
    runner: str,
    run_dir: Path | None,
    checkpoint_dir: Path | None,
    champion: str | None,
) -> None:
    """Compile the pipeline and run it on this machine.

    Runs every step with kfp's local runner, from the compiled pipeline. RUN-DIR then holds pipeline.yaml, run.log, the
    artifacts and summary.json with parameters, versions, durations, metrics and the gate's decision.
    """
    from pipelines.display import print_summary
    from pipelines.run import SUMMARY_NAME, run_pipeline

    short = {"train.checkpoint_dir": checkpoint_dir, "evaluate.champion": champion}
    overrides = (*overrides, *(f"{name}={value}" for name, value in short.items() if value is not None))
    parameters = resolve_parameters(preset, with_dataset(dataset, mirror, overrides))
    # This very stream: while kfp runs, sys.stdout is what its lines are read from.
    console = Console(file=sys.stdout)
    run_dir = run_dir or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    summary = run_pipeline(parameters, runner, run_dir, console)
    print_summary(console, summary)
    console.print(f"summary {escape(str(run_dir.absolute() / SUMMARY_NAME))}", soft_wrap=True, highlight=False)


@main.command()
@dataset_options(required=True)
@preset_options
@click.option("--output", type=_FOLDER, required=True, help="The `ratings` folder to write.")
def download(dataset: str, mirror: str | None, preset: str, overrides: tuple[str, ...], output: Path) -> None:
    """Fetch interactions, check and parse them into Parquet."""
    from components.download.download import download as run_step
    from components.ncf.step import running_step

    config = _step_config("download", preset, with_dataset(dataset, mirror, overrides))
    with running_step("download"):
        run_step(config, output)


@main.command()
@click.option("--ratings", required=True, metavar="FOLDER|gs://…", help="The folder that download wrote.")
@preset_options
@click.option("--offline-epochs", type=int, help="Short for --set generate.offline_epochs=N: training epochs to write "
              "with their negatives, for trainers that draw none.")  # fmt: skip
@click.option("--beam-runner", help="Short for --set generate.beam_runner=NAME: in_memory, flink or dataflow.")
@click.option("--beam-option", "beam_options", multiple=True, metavar="NAME=VALUE",
              help="One of the runner's own options; may be repeated.")  # fmt: skip
@dataflow_options
@click.option("--output", required=True, metavar="FOLDER|gs://…", help="The `examples` folder to write.")
def generate(
    dataflow: DataflowOptions,
    ratings: str,
    preset: str,
    overrides: tuple[str, ...],
    offline_epochs: int | None,
    beam_runner: str | None,
    beam_options: tuple[str, ...],
    output: str,
) -> None:
    """Hold items out, draw evaluation candidates and write TFRecords."""
    short = {"offline_epochs": offline_epochs, "beam_runner": beam_runner}
    overrides = (*overrides, *(f"generate.{name}={value}" for name, value in short.items() if value is not None))
    values = _step_parameters("generate", preset, overrides)
    values["beam_options"] = [*values["beam_options"], *dataflow.as_beam_options(), *beam_options]
    config = step_config("generate", values)
    from components.generate.generate import generate as run_step
    from components.ncf.step import running_step

    with running_step("generate"):
        run_step(config, ratings, output)


@main.command()
@click.option("--examples", type=_FOLDER, required=True, help="The folder that generate wrote.")
@preset_options
@click.option("--seed", type=int, help="Short for --set train.seed=SEED.")
@click.option("--checkpoint-dir", type=_FOLDER, help="Where epochs are saved and a killed run resumes.")
@click.option("--output", type=_FOLDER, required=True, help="The `model` folder to write.")
def train(
    examples: Path, preset: str, overrides: tuple[str, ...], seed: int | None, checkpoint_dir: Path | None, output: Path
) -> None:
    """Train NeuMF and export its best epoch as a SavedModel."""
    from components.ncf.manifest import read_manifest
    from components.ncf.step import quiet_standard_error, running_step

    overrides = (*overrides, *([f"train.seed={seed}"] if seed is not None else []))
    if checkpoint_dir is not None:
        overrides = (*overrides, f"train.checkpoint_dir={checkpoint_dir}")
    values = _step_parameters("train", preset, overrides)
    config = step_config("train", values)
    read_manifest(examples, "examples")  # TensorFlow takes seconds to import; a wrong folder is found before
    with quiet_standard_error():
        from components.train.train import train as run_step

    with running_step("train"):
        run_step(config, examples, output, Path(values["checkpoint_dir"]) if values["checkpoint_dir"] else None)


@main.command()
@click.option("--examples", type=_FOLDER, required=True, help="The folder that generate wrote.")
@preset_options
@click.option("--model-selection", help="That of the model it is compared with.  [default: the preset's]")
@click.option("--output", type=_FOLDER, required=True, help="The `baseline` folder to write.")
def baseline(
    examples: Path, preset: str, overrides: tuple[str, ...], model_selection: str | None, output: Path
) -> None:
    """Fit a matrix factorization by alternating least squares."""
    from components.baseline.baseline import baseline as run_step
    from components.ncf.step import running_step

    selection = model_selection or PRESETS[preset].parameters()["train"]["model_selection"]
    values = _step_parameters("baseline", preset, overrides)
    config = step_config("baseline", {**values, "model_selection": selection})
    with running_step("baseline"):
        run_step(config, examples, output)


@main.command()
@click.option("--model", type=_FOLDER, required=True, help="The folder that train wrote.")
@click.option("--examples", type=_FOLDER, required=True, help="The folder that generate wrote.")
@click.option("--baseline", type=_FOLDER, help="The folder that baseline wrote, to rank beside the model.")
@click.option("--champion", metavar="FOLDER|gs://…", help="Short for --set evaluate.champion=MODEL: another run "
              "'s model to rank.")  # fmt: skip
@preset_options
@click.option("--output", type=_FOLDER, required=True, help="The `evaluation` folder to write.")
def evaluate(
    model: Path,
    examples: Path,
    baseline: Path | None,
    champion: str | None,
    preset: str,
    overrides: tuple[str, ...],
    output: Path,
) -> None:
    """Rank the held-out items, beside popularity, and write the report."""
    from components.ncf.manifest import read_manifest
    from components.ncf.step import quiet_standard_error, running_step

    overrides = (*overrides, *([f"evaluate.champion={champion}"] if champion else []))
    config = _step_config("evaluate", preset, overrides)
    read_manifest(examples, "examples")
    read_manifest(model, "model")
    with quiet_standard_error():
        from components.evaluate.evaluate import evaluate as run_step

    with running_step("evaluate"):
        run_step(config, examples, model, baseline, output)
    click.echo(output / "report.html")


@main.command()
@click.option("--evaluation", type=_FOLDER, required=True, help="The folder that evaluate wrote.")
@preset_options
@click.option("--output", type=_FOLDER, required=True, help="The `decision` folder to write.")
def gate(evaluation: Path, preset: str, overrides: tuple[str, ...], output: Path) -> None:
    """Decide whether the model is promoted; status 0 either way, see decision.json."""
    from components.gate.gate import gate as run_step
    from components.ncf.step import running_step

    config = _step_config("gate", preset, overrides)
    with running_step("gate"):
        decision = run_step(config, evaluation, output)
    click.echo("promoted" if decision.promoted else "rejected")


@main.command()
@click.option("--model", type=_FOLDER, required=True, help="The folder that train wrote.")
@click.option("--examples", type=_FOLDER, required=True, help="The folder that generate wrote.")
@click.option("--user", "users", multiple=True, help="A raw user id; may be repeated.  [default: all users]")
@preset_options
@click.option("--output", type=_FOLDER, required=True, help="The `recommendations` folder to write.")
def recommend(
    model: Path, examples: Path, users: tuple[str, ...], preset: str, overrides: tuple[str, ...], output: Path
) -> None:
    """Write the best items that users have not had yet."""
    from components.ncf.manifest import read_manifest
    from components.ncf.step import quiet_standard_error, running_step

    values = _step_parameters("recommend", preset, overrides)
    values["users"] = [*values["users"], *users]
    config = step_config("recommend", values)
    read_manifest(examples, "examples")
    read_manifest(model, "model")
    with quiet_standard_error():
        from components.recommend.recommend import recommend as run_step

    with running_step("recommend"):
        run_step(config, examples, model, output)


@main.command()
@click.option("--model", type=_FOLDER, required=True, help="The folder that train wrote.")
@click.option("--evaluation", type=_FOLDER, required=True, help="The folder that evaluate wrote.")
@click.option("--decision", type=_FOLDER, required=True, help="The folder that gate wrote.")
@click.option("--model-uri", metavar="gs://…", help="The model's folder in a bucket, if it is there too.")
@click.option("--schema-uri", metavar="gs://…", help="Where the file SCHEMA will be read from: imports the metrics.")
@click.option("--schema", type=_FOLDER, required=True, help="The YAML file to write what the metrics are to.")
@preset_options
@click.option("--output", type=_FOLDER, required=True, help="The `publication` folder to write.")
def publish(
    model: Path,
    evaluation: Path,
    decision: Path,
    model_uri: str | None,
    schema_uri: str | None,
    schema: Path,
    preset: str,
    overrides: tuple[str, ...],
    output: Path,
) -> None:
    """Register a promoted model in the Vertex Model Registry."""
    from components.ncf.step import running_step
    from components.publish.publish import Sources
    from components.publish.publish import publish as run_step

    config = _step_config("publish", preset, overrides)
    if not config.project:
        raise InputError("Publishing needs a project: give --set publish.project=ID.")
    with running_step("publish"):
        sources = Sources(model, model_uri or str(model), evaluation, decision)
        published = run_step(config, sources, schema, schema_uri or str(schema), output)
    click.echo(f"{published['model']}@{published['version']}")


@main.command()
@click.argument("runs", nargs=-1, type=_FOLDER, required=True)
@click.option("--metric", "metrics", multiple=True, metavar="NAME",
              help="hr@K, recall@K, ndcg@K or mrr; may be repeated.  [default: hr@10 and ndcg@10]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def compare(runs: tuple[Path, ...], metrics: tuple[str, ...], as_json: bool) -> None:
    """Compare RUNS: folders of `neumf run`, or `evaluation` folders.

    Where two were evaluated on the same examples by the same protocol, the difference is paired over the users.
    """
    from pipelines.compare import METRICS, compare_runs, print_comparison

    comparison = compare_runs(runs, metrics or METRICS)
    if as_json:
        click.echo(comparison.as_json())
    else:
        print_comparison(Console(), comparison)


@main.command()
@placement_options(has_identity=True, notes_mistakes=False)
@submit_options
@dataset_options(required=False)
@preset_options
def submit(
    options: SubmitOptions,
    placement: Placement,
    dataset: str | None,
    mirror: str | None,
    preset: str,
    overrides: tuple[str, ...],
) -> None:
    """Run the pipeline on Vertex AI or Kubeflow.

    Follows the run to its end: status 0 if it succeeded, 2 if it failed or was cancelled. Ctrl-C stops the following
    alone.
    """
    from pipelines.submit import submit as run_submit

    run_submit(options, placement, preset, with_dataset(dataset, mirror, overrides), Console(file=sys.stdout))


@main.command()
def datasets() -> None:
    """List the data sets that --dataset takes."""
    from components.download.catalog import CATALOG, USER_DATA_FORMS

    table = Table("name", "interactions", "what it is", box=None)
    for name, dataset in CATALOG.items():
        table.add_row(name, f"{dataset.num_interactions:,}" if dataset.num_interactions else "", dataset.description)
    for form, description in USER_DATA_FORMS.items():
        table.add_row(form, "", description)
    Console().print(table)


@main.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """List the presets, or every parameter of the preset NAME."""
    console = Console()
    if name is None:
        table = Table("name", "what it is", box=None)
        for preset in PRESETS.values():
            table.add_row(preset.name, preset.description)
        console.print(table)
        return
    table = Table("parameter", "value", box=None)
    for step, values in resolve_parameters(name, ()).items():
        for parameter, value in values.items():
            table.add_row(f"{step}.{parameter}", str(value) if value != "" else "(none)")
    console.print(table)


def _step_config(step: str, preset: str, overrides: tuple[str, ...] | list[str]) -> Any:
    return step_config(step, _step_parameters(step, preset, overrides))


def _step_parameters(step: str, preset: str, overrides: tuple[str, ...] | list[str]) -> dict[str, Any]:
    for override in overrides:
        if not override.startswith(f"{step}."):
            raise InputError(f"--set {override!r} is of no use here: this command takes {step}.PARAMETER=VALUE.")
    return resolve_parameters(preset, overrides)[step]
