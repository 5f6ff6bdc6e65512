"""Compiles the DAG into the YAML that every runner takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.ncf.errors import InputError
from components.ncf.manifest import explain_os_error
from pipelines.parameters import check_parameters
from pipelines.placement import Placement


def compile_pipeline(placement: Placement, parameters: Mapping[str, Mapping[str, Any]], output: Path) -> None:
    """Writes the compiled pipeline.

    Args:
        placement: Where it will run; `Placement.on(target)` for a target as it comes.
        parameters: Every parameter of every step; they become the pipeline's defaults.
        output: The YAML file.

    Raises:
        InputError: The name does not end in .yaml, a parameter is wrong as placed, or the file cannot be written.
    """
    if output.suffix not in (".yaml", ".yml"):
        raise InputError(f"The output {output} must end in .yaml.")
    from kfp import compiler

    from pipelines.neumf import COMPONENTS, build_pipeline, pipeline_parameter
    from pipelines.placed_steps import check_digests, placed_parameters

    check_digests(placement, COMPONENTS)
    placed = placed_parameters(placement, parameters)
    check_parameters(placed)
    flat = {pipeline_parameter(step, name): v for step, values in placed.items() for name, v in values.items()}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(build_pipeline(placement), str(output), pipeline_parameters=flat)
    except OSError as error:
        raise InputError(explain_os_error(error, output)) from error
