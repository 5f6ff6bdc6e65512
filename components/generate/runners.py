"""Makes the Beam pipeline for a runner.

Functions and classes of `components` travel to the workers by name, not by value: whatever starts a worker (a worker
process of this machine, a process or container of a cluster) must have this package installed in the same version.
Nothing of the main program's session is sent along.
"""

import argparse
import difflib
import os
import shlex
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser
from apache_beam.portability import python_urns
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from components.generate.runner_options import DATAFLOW, FLINK, IN_MEMORY, RUNNERS, check_runner_options, split_option
from components.ncf.errors import InputError

# Options that only Beam's Flink job server knows, not Beam's Python.
_JOB_SERVER_OPTIONS = frozenset(
    {"execution_mode_for_batch", "execution_retry_delay", "flink_conf_dir", "number_of_execution_retries"}
)
# Who heeds the options of Beam's modules; those of the modules that are not here, everyone does, and these few.
_HEEDED_BY_ALL = frozenset(
    {
        "--default_sdk_harness_log_level",
        "--element_processing_timeout_minutes",
        "--job_name",
        "--max_cache_memory_usage_mb",
        "--sdk_harness_log_level_overrides",
    }
)
_RUNNERS_OF_MODULES = {
    "DirectOptions": {IN_MEMORY},
    "PortableOptions": {FLINK},
    "JobServerOptions": {FLINK},
    "FlinkRunnerOptions": {FLINK},
    "GoogleCloudOptions": {DATAFLOW},
    "WorkerOptions": {DATAFLOW},
    "SparkRunnerOptions": set[str](),
    "PrismRunnerOptions": set[str](),
}
# Characters of an engine's own account of what went wrong, which may hold whole stack traces.
_MAX_REASON = 400


_CONNECT_TIMEOUT_S = 10


def make_pipeline(runner: str, options: Sequence[str]) -> beam.Pipeline:
    """Returns an empty pipeline.

    Args:
        runner: "in_memory" (Beam's FnApiRunner, in this process and, with direct_num_workers=N and
            direct_running_mode=multi_processing, N more), "flink" or "dataflow".
        options: Texts "name=value" with the names of Beam's pipeline options; "name" alone switches one on.

    Raises:
        InputError: The runner or an option is unknown, an option's value does not fit or one is missing.
    """
    check_runner_options(runner, options)
    # Beam would send the main program's session to the workers of some runners.
    flags = ["--no_save_main_session", *_flags(runner, options)]
    # Flags are always given: Beam would take those of the command line otherwise, which are not its own.
    try:
        return beam.Pipeline(runner=_make_runner(runner), options=PipelineOptions(flags=flags))
    except ValueError as error:
        # Beam's own check of the options' values: a heading and one line for each.
        faults = " ".join(str(error).splitlines()[1:]) or str(error)
        raise InputError(f"generate.beam_options: {faults}") from error


def read_counters(result: Any, namespace: str) -> dict[str, int]:
    """Returns the counters of a running or ended pipeline, by name.

    Args:
        result: What `Pipeline.run` returned.
        namespace: That of the counters; some runners add many of their own in others.
    """
    # The portable runners' results remember their first answer, which may be that of a job just begun.
    if getattr(result, "_metrics", None) is not None and hasattr(result, "_job_service"):
        result._metrics = None
    found = result.metrics().query(MetricsFilter().with_namespace(namespace))["counters"]
    totals: Counter[str] = Counter()
    for counter in found:
        totals[counter.key.metric.name] += counter.result or 0
    return dict(totals)


def check_job_server(options: Sequence[str]) -> None:
    """Finds out at once that nobody answers at `job_endpoint`: Beam itself would wait for minutes without a word.

    Raises:
        InputError: It is not of the form HOST:PORT, or nobody answers there.
    """
    endpoint = dict(split_option(text) for text in options).get("job_endpoint")
    if not endpoint:
        return
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"job_endpoint {endpoint!r} in generate.beam_options is not of the form HOST:PORT.")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"Nobody answers at job_endpoint {endpoint} in generate.beam_options ({error}): start the job server, or "
            "give the address of one that runs."
        ) from error


def engine_failure(runner: str, error: BaseException) -> InputError:
    """Tells in one sentence that the runner itself gave up, for errors that carry no failure of our own."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if type(error).__name__ == "FutureTimeoutError":
        reason = "its job server does not answer"
    if len(reason) > _MAX_REASON:
        reason = f"{reason[:_MAX_REASON]}…"
    return InputError(
        f"The {runner} runner gave up and nothing was written ({reason}): see the logs of its job manager and workers, "
        "then run it again."
    )


def _make_runner(runner: str) -> Any:
    if runner == FLINK:
        return FlinkRunner()
    if runner == DATAFLOW:
        # Imported here because it loads the clients of Google Cloud.
        from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

        return DataflowRunner()
    # Named, because Beam's default runner may try to download one.
    return _InMemoryRunner()


class _InMemoryRunner(FnApiRunner):
    """Beam's, with worker processes that end when this one is killed."""

    def run_via_runner_api(self, pipeline_proto: Any, options: PipelineOptions) -> Any:
        for environment in pipeline_proto.components.environments.values():
            if environment.urn == python_urns.SUBPROCESS_SDK:
                command = [sys.executable, "-m", "components.generate.local_worker", str(os.getpid())]
                environment.payload = f"exec {shlex.join(command)}".encode()
        return super().run_via_runner_api(pipeline_proto, options)


def _flags(runner: str, options: Sequence[str]) -> list[str]:
    """Returns the options as Beam's flags, each known to Beam and with a value that it takes."""
    parser, runners_of = _parser()
    actions = {name: action for action in parser._actions for name in action.option_strings}
    flags = []
    for text in options:
        name, value = split_option(text)
        action = actions.get(f"--{name}")
        if action is None and not (runner == FLINK and name in _JOB_SERVER_OPTIONS):
            nearest = difflib.get_close_matches(name, [known.removeprefix("--") for known in actions], n=1)
            hint = f" (did you mean {nearest[0]}?)" if nearest else ""
            raise InputError(f"generate.beam_options has {name!r}, which is no option of Beam{hint}.")
        users = runners_of.get(f"--{name}", {runner})
        if runner not in users:
            owners = " and ".join(sorted(users)) or "a runner that is none of ours"
            raise InputError(
                f"generate.beam_options has {name!r}, an option of {owners}, which generate.beam_runner {runner} would "
                "ignore: leave it out or change the runner."
            )
        if action is not None and action.nargs == 0:
            if (value or "true").lower() not in ("true", "false"):
                raise InputError(f"generate.beam_options has {text!r}, but {name} is either true or false.")
            is_on = (value or "true").lower() == "true"
            # Where it is not off by itself, Beam has a switch for the opposite.
            flags += [switch for switch in [f"--{name}" if is_on else f"--no_{name}"] if switch in actions]
            continue
        if value is None:
            raise InputError(f"generate.beam_options has {text!r} without a value: give {name}=VALUE.")
        flags.append(f"--{name}={value}")
    parser.parse_known_args(flags)
    return flags


class _Parser(_BeamArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"generate.beam_options: {message}.")


def _parser() -> tuple[argparse.ArgumentParser, dict[str, set[str]]]:
    """Returns one parser with the options of all of Beam's modules, and the runners that heed those of some only."""
    parser = _Parser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    runners_of: dict[str, set[str]] = {}
    pending: list[type[PipelineOptions]] = [PipelineOptions]
    while pending:
        options = pending.pop()
        pending += options.__subclasses__()
        add_arguments = options.__dict__.get("_add_argparse_args")
        if add_arguments is not None:
            own = _Parser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
            for one in (own, parser):
                add_arguments.__get__(None, options)(one)
            users = _RUNNERS_OF_MODULES.get(options.__name__, set(RUNNERS))
            for name in own._option_string_actions:
                runners_of.setdefault(name, set()).update(RUNNERS if name in _HEEDED_BY_ALL else users)
    return parser, runners_of
