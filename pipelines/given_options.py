"""The options on the command line of the command that runs, and those among them that are of no use there."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from components.ncf.errors import InputError


class File(click.Path):
    """A `Path`; one without a value stays an empty text, which `empty_options` finds: as a `Path` it would be here."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the path of a text."""
        return super().convert(value, param, ctx) if value else value


def given_flags() -> dict[str, str]:
    """Returns the flags on the command line by their parameters' names; what a variable sets is not among them."""
    context = click.get_current_context()
    flags = {}
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            is_switched_off = context.params.get(name) is False and parameter.secondary_opts
            flags[name] = (parameter.secondary_opts if is_switched_off else parameter.opts)[0]
    return flags


def empty_options() -> dict[str, str]:
    """Returns the options without a value, as an unset variable of a shell leaves them, each with a sentence."""
    values = click.get_current_context().params
    return {
        name: f"{flag} is empty, as an unset variable leaves it: give a value, or leave {flag} out."
        for name, flag in given_flags().items()
        if values.get(name) == "" or (isinstance(values.get(name), tuple) and "" in values[name])
    }


def refuse_beside(action: str, used: Collection[str]) -> None:
    """Refuses options that do nothing beside another one.

    Args:
        action: The other one's flag.
        used: Names of the parameters that are of use beside it, its own among them.

    Raises:
        InputError: Another one was given.
    """
    for name, flag in given_flags().items():
        if name not in used:
            raise InputError(f"{flag} is of no use with {action}: leave one of them out.")
