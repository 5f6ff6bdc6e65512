"""The commands that say where a pipeline runs, and run nothing: compile, preflight, pools."""

from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from components.ncf.errors import InputError
from pipelines.command_options import dataset_options, preset_options, with_dataset
from pipelines.findings import Mistakes
from pipelines.given_options import File
from pipelines.parameters import resolve_parameters
from pipelines.placement import Placement
from pipelines.placement_options import placement_options
from pipelines.presets import DEFAULT_PRESET
from pipelines.resource_names import check_name
from pipelines.template import open_template


@click.command("compile")
@placement_options(has_identity=False, notes_mistakes=False)
@dataset_options(required=False)
@preset_options
@click.option("--output", type=File(), required=True, help="The YAML file to write.")
def compile_command(
    placement: Placement,
    dataset: str | None,
    mirror: str | None,
    preset: str,
    overrides: tuple[str, ...],
    output: Path,
) -> None:
    """Compile the pipeline to YAML, with the chosen parameters as its defaults."""
    from pipelines.compile import compile_pipeline

    if placement.service_account and not placement.is_vertex:
        raise InputError(
            f"--service-account {placement.service_account}: a pipeline that is compiled for Kubeflow names none; give "
            "it to `neumf submit`."
        )
    parameters = resolve_parameters(preset, with_dataset(dataset, mirror, overrides))
    compile_pipeline(placement, parameters, output)


@click.command("preflight")
@placement_options(has_identity=False, notes_mistakes=True)
@click.option("--template", type=File(), metavar="FILE", help="What `neumf compile` wrote, instead of --target.")
@dataset_options(required=False)
@preset_options
@click.option("--region", "--location", "region", envvar="GOOGLE_CLOUD_REGION", metavar="REGION",
              help="Where Vertex AI is to run it, as us-central1.")  # fmt: skip
@click.option("--pipeline-root", metavar="gs://…", help="Where the run's artifacts go.")
@click.option("--pipeline-service-account", metavar="ACCOUNT",
              help="What the steps act as, if training acts as another.  [default: --service-account]")  # fmt: skip
@click.option("--num-users", type=click.IntRange(min=1), help="Of your own data, for the estimate of memory.")
@click.option("--num-items", type=click.IntRange(min=1), help="Of your own data.")
@click.option("--num-interactions", type=click.IntRange(min=1), help="Of your own data.")
@click.option("--online", is_flag=True, help="Ask Google Cloud too, with the application default credentials.")
@click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", metavar="ID", help="With --online: the project.")
def preflight_command(
    placement: Placement,
    mistakes: Mistakes,
    template: Path | None,
    dataset: str | None,
    mirror: str | None,
    preset: str | None,
    overrides: tuple[str, ...],
    region: str | None,
    pipeline_root: str | None,
    pipeline_service_account: str | None,
    num_users: int | None,
    num_items: int | None,
    num_interactions: int | None,
    online: bool,
    project: str | None,
) -> None:
    """Check a run before it costs anything; status 1 if it would fail.

    Looks at machines, regions, batch sizes, memory, images and places without any network; --online looks whether what
    is named exists and may be used. With --template, of what a compiled pipeline says.
    """
    from pipelines.preflight import Plan
    from pipelines.preflight_command import chosen_size, plan_of_template, preflight, readable_overrides

    known_preset, size, account = DEFAULT_PRESET, None, None
    with mistakes.about("parameters"):
        if preset is not None:  # as an empty one is, which is among the mistakes
            resolve_parameters(preset, ())
            known_preset = preset
    readable = readable_overrides(known_preset, with_dataset(dataset, mirror, overrides), mistakes)
    with mistakes.about("options"):
        size = chosen_size(num_users, num_items, num_interactions)
    with mistakes.about("options"):
        check_name("--pipeline-service-account", "service_account", pipeline_service_account)
        account = pipeline_service_account
    plan = Plan(placement, resolve_parameters(known_preset, readable), region, pipeline_root, account, size)
    if template is not None:
        plan = plan_of_template(template, open_template(template, known_preset), readable, plan, mistakes)
    target = plan.placement.target
    if online and not plan.placement.is_vertex:
        sentence = f"--online asks Google Cloud about Vertex AI, and the target is {target}: leave it out."
        mistakes.note("options", sentence)
    elif online and not (project and region):
        mistakes.note("options", "--online needs --project and --region.")
    preflight(replace(plan, mistakes=tuple(mistakes.found)), project if online else None, Console())


@click.command()
def pools() -> None:
    """List the hardware that --pool takes for training on Vertex AI."""
    from pipelines.worker_pools import POOLS

    table = Table("name", "replicas", "machine", "what it is", box=None)
    for pool in POOLS.values():
        table.add_row(pool.name, str(pool.num_replicas), pool.chief.machine_type, pool.description)
    Console().print(table)
