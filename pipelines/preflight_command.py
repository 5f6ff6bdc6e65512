"""`neumf preflight`: prints what the checks found."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.ncf.errors import InputError
from pipelines.cache_keys import own_images, step_keys
from pipelines.findings import Finding, Mistakes, by_severity, unchecked
from pipelines.memory import DataSize
from pipelines.parameters import resolve_parameters
from pipelines.preflight import Plan, check_plan, memory_of
from pipelines.template import parameters_of, placement_of, value_mistakes

_GB = 1e9
# Subjects of errors that are found in options which can be read; the region is part of the address of a server.
_WRONG_OPTIONS = ("parameters", "region")
_COLORS = {"error": "red", "warning": "yellow", "not checked": "blue"}


def chosen_size(num_users: int | None, num_items: int | None, num_interactions: int | None) -> DataSize | None:
    """Returns the size that somebody gave.

    Raises:
        InputError: A part of it is missing.
    """
    given = {"--num-users": num_users, "--num-items": num_items, "--num-interactions": num_interactions}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if num_users is None or num_items is None or num_interactions is None:
        raise InputError(f"The size of the data has three parts: give {' and '.join(missing)} too.")
    return DataSize(num_users, num_items, num_interactions)


def readable_overrides(preset: str, overrides: Iterable[str], mistakes: Mistakes) -> list[str]:
    """Returns the texts "step.parameter=value" that a preset takes; the others are noted."""
    readable = []
    for override in overrides:
        with mistakes.about("parameters"):
            resolve_parameters(preset, [override])
            readable.append(override)
    return readable


def plan_of_template(
    file: Path, spec: Mapping[str, Any], overrides: Sequence[str], given: Plan, mistakes: Mistakes
) -> Plan:
    """Returns a plan of a compiled pipeline.

    Args:
        file: Where it is.
        spec: What it holds.
        overrides: Texts "step.parameter=value".
        given: What the plan has beside placement, parameters and images.
        mistakes: Where it is noted what does not fit.

    Raises:
        InputError: It is no pipeline that `neumf compile` writes.
    """
    placement = placement_of(spec, mistakes)
    if placement is None:
        raise InputError(
            f"--template {file} is not what this version of `neumf compile` writes, so that nothing of it can be "
            "checked: compile the pipeline again."
        )
    parameters, values = parameters_of(spec, overrides)
    for mistake in value_mistakes(file, spec, values):
        mistakes.note("parameters", mistake)
    images = tuple(own_images(step_keys(spec, values)))
    return replace(given, placement=placement, parameters=parameters, compiled_images=images)


def preflight(plan: Plan, online_project: str | None, console: Console) -> None:
    """Checks a plan and prints what was found.

    Args:
        plan: The run.
        online_project: The project whose servers are asked too; None asks none.
        console: Where to print.

    Raises:
        InputError: There are errors.
    """
    findings = check_plan(plan)
    is_wrong = plan.mistakes or any(
        finding.severity == "error" and finding.subject in _WRONG_OPTIONS for finding in findings
    )
    if online_project is not None and is_wrong:
        findings.append(unchecked("--online", "Google Cloud was not asked about wrong options: correct those first."))
    elif online_project is not None:
        from pipelines.preflight_online import HOSTS, check_online, signed_session

        findings += check_online(plan, online_project, signed_session(), HOSTS)
    findings = by_severity(findings)
    _print(plan, findings, console)
    num_errors = sum(finding.severity == "error" for finding in findings)
    if num_errors:
        raise InputError(f"{num_errors} of {len(findings)} findings would stop this run: change what they say.")


def _print(plan: Plan, findings: Sequence[Finding], console: Console) -> None:
    if findings:
        table = Table("", "about", "finding", box=None, show_header=False)
        for finding in findings:
            color = _COLORS[finding.severity]
            table.add_row(f"[{color}]{finding.severity}[/{color}]", finding.subject, escape(finding.message))
        console.print(table)
    pool, memory = plan.placement.pool, memory_of(plan)
    if pool is not None:
        console.print(f"pool {pool.name}: {pool.num_machines} machines, {pool.num_replicas} replicas", highlight=False)
    if memory is not None:
        console.print(f"memory of a replica: about {memory.total / _GB:.2f} GB", highlight=False)
    if not any(finding.severity == "error" for finding in findings):
        console.print("nothing found that would stop this run", highlight=False)
