"""Makes the Beam pipeline for a runner."""

from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner


def make_pipeline(runner: str, options: Sequence[str]) -> beam.Pipeline:
    """Returns an empty pipeline."""
    del runner
    return beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(flags=[f"--{text}" for text in options]))
