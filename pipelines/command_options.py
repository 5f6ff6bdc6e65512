"""Options that several commands have, and what becomes of them."""

from collections.abc import Callable
from typing import Any

import click

from pipelines.presets import DEFAULT_PRESET

Command = Callable[..., Any]


def preset_options(command: Command) -> Command:
    """Adds --preset and --set."""
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="STEP.PARAMETER=VALUE",
        help="Change one parameter, as train.num_epochs=5 or generate.min_ratings=10; may be repeated.",
    )(command)
    return click.option(
        "--preset", default=DEFAULT_PRESET, show_default=True, help="Named choice of parameters; see `neumf presets`."
    )(command)


def dataset_options(required: bool) -> Callable[[Command], Command]:
    """Adds --dataset and --mirror."""

    def decorate(command: Command) -> Command:
        command = click.option(
            "--mirror", help="Where NAME.zip and NAME.zip.md5 are: a https://, gs:// or file:// folder."
        )(command)
        return click.option(
            "--dataset", required=required, help="A name of `neumf datasets`, csv:URI or ncf:URI-PREFIX."
        )(command)

    return decorate


def with_dataset(dataset: str | None, mirror: str | None, overrides: tuple[str, ...]) -> list[str]:
    """Returns the overrides with those that --dataset and --mirror stand for, before them."""
    given = {"download.dataset": dataset, "download.mirror": mirror}
    return [*(f"{name}={value}" for name, value in given.items() if value is not None), *overrides]
