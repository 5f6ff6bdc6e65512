"""Options that several commands have, and what becomes of them."""

from collections.abc import Callable
from pathlib import Path
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
    """Returns the overrides with those that --dataset and --mirror stand for, before them; places become absolute."""
    given = {
        "download.dataset": absolute_place(dataset) if dataset and dataset.startswith(("csv:", "ncf:")) else dataset,
        "download.mirror": mirror,
    }
    return [
        *(f"{name}={value}" for name, value in given.items() if value is not None),
        *(absolute_place(text, "=") if text.startswith("download.titles=") else text for text in overrides),
    ]


def absolute_place(text: str, separator: str = ":") -> str:
    """Completes a relative path behind the separator: a step may run in another working directory."""
    head, _, place = text.partition(separator)
    return text if "://" in place or not place else f"{head}{separator}{Path(place).expanduser().absolute()}"
