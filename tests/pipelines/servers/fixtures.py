"""Servers for the tests of `neumf submit` and of the publish step, and an environment that leads clients to them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main
from tests.pipelines.servers.certificates import Credentials, make_credentials
from tests.pipelines.servers.grpc_server import VertexServer
from tests.pipelines.servers.kubeflow_server import TOKEN, KubeflowServer, KubeflowServices
from tests.pipelines.servers.storage_server import StorageServer
from tests.pipelines.servers.vertex_services import LOCATION, PROJECT, VertexServices, World


@dataclass(frozen=True)
class Vertex:
    """A Vertex on loopback, and the command line pointed at it."""

    server: VertexServer
    services: VertexServices

    def place(self) -> list[str]:
        return ["--backend", "vertex", "--project", PROJECT, "--location", LOCATION,
                "--endpoint", self.server.endpoint, "--poll", "0.001"]  # fmt: skip

    def submit(self, *arguments: str | Path) -> Result:
        """Runs `neumf submit` here and now."""
        return CliRunner().invoke(main, ["submit", *self.place(), *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Credentials]:
    """Credentials that the environment names, and a server that gives tokens for them."""
    storage = StorageServer()
    made = make_credentials(tmp_path_factory.mktemp("credentials"), f"{storage.url}/token")
    given = {
        "GOOGLE_APPLICATION_CREDENTIALS": str(made.service_account),
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(made.certificate),
        "STORAGE_EMULATOR_HOST": storage.url,
        "NO_GCE_CHECK": "true",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    yield made
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    storage.stop()


@pytest.fixture(scope="session")
def vertex_server(credentials: Credentials) -> Iterator[VertexServer]:
    server = VertexServer(VertexServices(), credentials.certificate, credentials.key)
    yield server
    server.stop()


@pytest.fixture
def vertex(vertex_server: VertexServer) -> Vertex:
    """A Vertex that knows nothing yet."""
    services = VertexServices()
    services.world = World()
    vertex_server.reset(services)
    return Vertex(vertex_server, services)


@dataclass(frozen=True)
class Kubeflow:
    """A Kubeflow Pipelines on loopback, and the command line pointed at it."""

    server: KubeflowServer
    services: KubeflowServices
    sign_in: tuple[str, ...]

    def submit(self, *arguments: str | Path) -> Result:
        """Runs `neumf submit` here and now."""
        place = ["--backend", "kfp", "--host", self.server.url, *self.sign_in, "--poll", "0.001"]
        return CliRunner().invoke(main, ["submit", *place, *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture(scope="session")
def kubeflow_server(credentials: Credentials) -> Iterator[KubeflowServer]:
    server = KubeflowServer(credentials.certificate, credentials.key)
    yield server
    server.stop()


@pytest.fixture
def kubeflow(kubeflow_server: KubeflowServer, credentials: Credentials, tmp_path: Path) -> Kubeflow:
    """A Kubeflow Pipelines that knows nothing yet."""
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    sign_in = ("--token-file", str(token), "--ca-certificate", str(credentials.certificate))
    return Kubeflow(kubeflow_server, kubeflow_server.reset(), sign_in)
