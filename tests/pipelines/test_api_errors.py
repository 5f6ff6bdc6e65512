"""What the answers of Vertex mean that a server on loopback is not asked for in test_submit_vertex.py."""

import click
import pytest
from click.testing import CliRunner
from google.api_core import exceptions

from components.ncf.errors import InputError
from pipelines.api_errors import explaining_vertex_errors, is_transient
from pipelines.submit_options import SubmitOptions, submit_options

ACCOUNT = "pipeline@my-project.iam.gserviceaccount.com"


def explained(error: Exception) -> str:
    @click.command()
    @submit_options
    def command(options: SubmitOptions) -> None:
        with explaining_vertex_errors(options):
            raise error

    arguments = ["--backend", "vertex", "--project", "p", "--location", "us-west1", "--schedules"]
    with pytest.raises(InputError) as caught:
        CliRunner().invoke(command, arguments, catch_exceptions=False)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "The request's location is not supported: moon.",
        "Location us-west1 is not found or access is unauthorized.",
        "Unsupported region for Vertex AI.",
    ],
)
def test_a_region_that_is_not_taken_is_named(text: str) -> None:
    assert explained(exceptions.InvalidArgument(text)).startswith("Vertex does not take the region us-west1")


@pytest.mark.parametrize(
    "text",
    [
        "The KMS key projects/p/locations/us/keyRings/r/cryptoKeys/k must be in the same region.",
        "The bucket must be in the location of the job.",
        "Machine type n2-standard-4 is not supported in the region us-west1.",
    ],
)
def test_what_else_is_said_of_a_region_is_left_as_it_is(text: str) -> None:
    assert explained(exceptions.InvalidArgument(text)) == f"Vertex refused the job: {text}"


def test_an_account_that_does_not_exist_is_so_by_any_status() -> None:
    text = f"Service account {ACCOUNT} does not exist."
    for kind in (exceptions.InvalidArgument, exceptions.NotFound, exceptions.FailedPrecondition):
        assert explained(kind(text)).endswith("create it, or correct --service-account.")


def test_http_answers_are_explained_as_those_of_grpc() -> None:
    assert explained(exceptions.TooManyRequests("Quota exceeded.")).endswith("another --location or a smaller --pool.")
    assert explained(exceptions.ResourceExhausted("Quota exceeded.")).endswith("a smaller --pool.")
    assert "wait a minute" in explained(exceptions.TooManyRequests("Too many requests per minute."))
    assert "does not answer" in explained(exceptions.BadGateway("Error 502"))


def test_what_a_gateway_could_not_pass_on_is_tried_again() -> None:
    assert is_transient(exceptions.BadGateway("502"))
    assert is_transient(exceptions.GatewayTimeout("504"))
    assert not is_transient(exceptions.TooManyRequests("429"))
