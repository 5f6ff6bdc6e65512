"""Where Dataflow runs the generate step: the placement that the step itself does not know."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import click

from components.ncf.errors import InputError

AUTOSCALING_ALGORITHMS = ("THROUGHPUT_BASED", "NONE")

# What Beam calls each of our options.
_BEAM_NAMES = {
    "project": "project",
    "region": "region",
    "temp_location": "temp_location",
    "service_account": "service_account_email",
    "worker_image": "sdk_container_image",
    "machine_type": "machine_type",
    "autoscaling": "autoscaling_algorithm",
    "num_workers": "num_workers",
    "max_workers": "max_num_workers",
    "network": "network",
    "subnetwork": "subnetwork",
}

Command = Callable[..., Any]


@dataclass(frozen=True)
class DataflowOptions:
    """Where and with how much Dataflow runs a pipeline. None leaves a choice to Dataflow.

    What must not be None is checked where the options are used, in `components.generate.runner_options`.

    Attributes:
        project: The Google Cloud project.
        region: The region of the job and its workers.
        temp_location: A gs:// folder for what Dataflow puts aside.
        service_account: The e-mail address of the account that the workers act as.
        worker_image: The image that the workers run, NAME@sha256:DIGEST.
        machine_type: The workers' machine type.
        autoscaling: "THROUGHPUT_BASED", or "NONE" for exactly `num_workers`.
        num_workers: Workers to start with.
        max_workers: Workers to grow to.
        network, subnetwork: Where the workers' machines are.

    Raises:
        InputError: Values do not fit together.
    """

    project: str | None
    region: str | None
    temp_location: str | None
    service_account: str | None
    worker_image: str | None
    machine_type: str | None
    autoscaling: str | None
    num_workers: int | None
    max_workers: int | None
    network: str | None
    subnetwork: str | None

    def __post_init__(self) -> None:
        if self.autoscaling not in (None, *AUTOSCALING_ALGORITHMS):
            raise InputError(
                f"autoscaling {self.autoscaling!r} is unknown: it must be {' or '.join(AUTOSCALING_ALGORITHMS)}."
            )
        for name, value in (("num_workers", self.num_workers), ("max_workers", self.max_workers)):
            if value is not None and value < 1:
                raise InputError(f"{name} {value} is too small: it must be at least 1.")
        if self.autoscaling == "NONE" and self.num_workers is None:
            raise InputError("autoscaling NONE needs num_workers, how many workers there shall be.")
        if self.num_workers is not None and self.max_workers is not None and self.num_workers > self.max_workers:
            raise InputError(f"num_workers {self.num_workers} is more than max_workers {self.max_workers}: lower it.")

    def as_beam_options(self) -> list[str]:
        """Returns what is given as texts "name=value" with Beam's names."""
        given = {_BEAM_NAMES[field.name]: getattr(self, field.name) for field in fields(self)}
        options = [f"{name}={value}" for name, value in given.items() if value is not None]
        # The image holds Beam and this package; without this Beam fetches itself from a registry to send it along.
        return [*options, "sdk_location=container"] if options else []


def dataflow_options(command: Command) -> Command:
    """Adds Dataflow's options to a command, which receives them as one `DataflowOptions` named `dataflow`."""

    def with_dataflow(**parameters: Any) -> Any:
        placement = {field.name: parameters.pop(field.name) for field in fields(DataflowOptions)}
        return command(dataflow=DataflowOptions(**placement), **parameters)

    with_dataflow.__name__ = command.__name__
    with_dataflow.__doc__ = command.__doc__
    # Options that decorators further in have put on the command already.
    with_dataflow.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(_click_options()):
        option(with_dataflow)
    return with_dataflow


def _click_options() -> list[Callable[[Command], Command]]:
    count = click.IntRange(min=1)
    return [
        click.option("--project", help="Dataflow: the Google Cloud project."),
        click.option("--region", help="Dataflow: the region of the job and its workers."),
        click.option("--temp-location", help="Dataflow: a gs:// folder for what it puts aside."),
        click.option("--service-account", help="Dataflow: the e-mail address that the workers act as."),
        click.option("--worker-image", help="Dataflow: the workers' image by digest, NAME@sha256:DIGEST."),
        click.option("--machine-type", help="Dataflow: the workers' machine type."),
        click.option(
            "--autoscaling", type=click.Choice(AUTOSCALING_ALGORITHMS), help="Dataflow: how it chooses their number."
        ),
        click.option("--num-workers", type=count, help="Dataflow: workers to start with."),
        click.option("--max-workers", type=count, help="Dataflow: workers to grow to."),
        click.option("--network", help="Dataflow: the workers' network."),
        click.option("--subnetwork", help="Dataflow: the workers' subnetwork, as regions/REGION/subnetworks/NAME."),
    ]
