"""Beam's Python worker as a process: what an engine without containers starts on each of its machines.

An engine starts `python -m components.generate.beam_worker` with the arguments of Beam's container contract (that of
the `boot` program in Beam's own images) and the worker asks the engine for the rest.
"""

import argparse
import os
from collections.abc import Sequence

import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc, endpoints_pb2
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format

# An engine that has started the worker answers at once; one that died in between never does.
_PROVISION_TIMEOUT_S = 60


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a worker until its engine lets it go.

    Args:
        arguments: `--id`, `--provision_endpoint` and optionally `--logging_endpoint`, `--control_endpoint`,
            `--artifact_endpoint` (not used: whatever the pipeline needs is installed); by default the command line's.
    """
    parser = argparse.ArgumentParser(description="Run one of Beam's Python workers.")
    parser.add_argument("--id", required=True, help="The worker's name, given by the engine.")
    parser.add_argument("--provision_endpoint", required=True, help="host:port that tells the pipeline's options.")
    for name in ("logging", "control", "artifact"):
        parser.add_argument(f"--{name}_endpoint", default="", help=f"host:port of the engine's {name} service.")
    given = parser.parse_args(arguments)
    os.environ.update(_environment(given))
    sdk_worker_main.main([])


def _environment(given: argparse.Namespace) -> dict[str, str]:
    """Returns what Beam's worker looks for in its environment."""
    metadata = (("worker_id", given.id),)
    with grpc.insecure_channel(given.provision_endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        info = service.GetProvisionInfo(request, metadata=metadata, timeout=_PROVISION_TIMEOUT_S).info
    # Endpoints that the engine does not tell are those of the command line.
    logging_endpoint = info.logging_endpoint.url or given.logging_endpoint
    control_endpoint = info.control_endpoint.url or given.control_endpoint
    return {
        "WORKER_ID": given.id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        "LOGGING_API_SERVICE_DESCRIPTOR": _descriptor(logging_endpoint),
        "CONTROL_API_SERVICE_DESCRIPTOR": _descriptor(control_endpoint),
    }


def _descriptor(url: str) -> str:
    return text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url))


if __name__ == "__main__":
    main()
