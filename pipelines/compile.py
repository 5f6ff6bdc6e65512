"""Compiles the DAG into the YAML that every runner takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.ncf.errors import InputError
from components.ncf.manifest import explain_os_error

TARGETS = ("local",)


def compile_pipeline(target: str, parameters: Mapping[str, Mapping[str, Any]], output: Path) -> None:
    """Writes the compiled pipeline.

    Args:
        target: Where it will run, one of `TARGETS`.
        parameters: Every parameter of every step; they become the pipeline's defaults.
        output: The YAML file.

    Raises:
        InputError: The target is unknown, the name does not end in .yaml, or the file cannot be written.
    """
    if target not in TARGETS:
        raise InputError(f"The target {target!r} is unknown: use one of {', '.join(TARGETS)}.")
    if output.suffix not in (".yaml", ".yml"):
        raise InputError(f"The output {output} must end in .yaml.")
    from kfp import compiler

    from pipelines.neumf import neumf, pipeline_parameter

    flat = {pipeline_parameter(step, name): v for step, values in parameters.items() for name, v in values.items()}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(neumf, str(output), pipeline_parameters=flat)
    except OSError as error:
        raise InputError(explain_os_error(error, output)) from error
