"""Servers for the tests of `neumf submit` and of the publish step, and an environment that leads clients to them."""

import atexit
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pipelines.servers.certificates import Credentials, make_credentials
from tests.pipelines.servers.grpc_server import VertexServer
from tests.pipelines.servers.kubeflow_server import TOKEN, KubeflowServer, KubeflowServices
from tests.pipelines.servers.storage_server import StorageServer
from tests.pipelines.servers.vertex_services import LOCATION, PROJECT, VertexServices

if TYPE_CHECKING:
    from click.testing import Result


@dataclass(frozen=True)
class Vertex:
    """A Vertex on loopback, and the command line pointed at it."""

    server: VertexServer
    services: VertexServices

    def place(self) -> list[str]:
        return ["--backend", "vertex", "--project", PROJECT, "--location", LOCATION,
                "--endpoint", self.server.endpoint, "--poll", "0.001"]  # fmt: skip

    def submit(self, *arguments: str | Path) -> "Result":
        """Runs `neumf submit` here and now."""
        return run_neumf("submit", *self.place(), *arguments)


@dataclass(frozen=True)
class Servers:
    """All servers, once a process: gRPC reads the roots that it trusts only once."""

    storage: StorageServer
    credentials: Credentials
    vertex: VertexServer
    kubeflow: KubeflowServer


@functools.cache
def _servers(folder: Path) -> Servers:
    storage = StorageServer()
    (folder / "credentials").mkdir()
    credentials = make_credentials(folder / "credentials", f"{storage.url}/token")
    vertex = VertexServer(VertexServices(), credentials.certificate, credentials.key)
    kubeflow = KubeflowServer(credentials.certificate, credentials.key)
    for server in (storage, vertex, kubeflow):
        atexit.register(server.stop)
    return Servers(storage, credentials, vertex, kubeflow)


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Servers:
    """The servers, and an environment that names credentials for them."""
    made = _servers(tmp_path_factory.getbasetemp())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(made.credentials.service_account))
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(made.credentials.certificate))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", made.storage.url)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    # Whatever else Google's clients look up by themselves ends at a port that nobody listens on.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    return made


@pytest.fixture
def storage(servers: Servers) -> StorageServer:
    """A Cloud Storage with nothing in it."""
    servers.storage.uploads.clear()
    servers.storage.objects.clear()
    servers.storage.refused.clear()
    return servers.storage


@pytest.fixture
def vertex(servers: Servers) -> Vertex:
    """A Vertex that knows nothing yet."""
    services = VertexServices()
    servers.vertex.reset(services)
    return Vertex(servers.vertex, services)


@dataclass(frozen=True)
class Kubeflow:
    """A Kubeflow Pipelines on loopback, and the command line pointed at it."""

    server: KubeflowServer
    services: KubeflowServices
    sign_in: tuple[str, ...]

    def submit(self, *arguments: str | Path) -> "Result":
        """Runs `neumf submit` here and now."""
        place = ["--backend", "kfp", "--host", self.server.url, *self.sign_in, "--poll", "0.001"]
        return run_neumf("submit", *place, *arguments)


def run_neumf(*arguments: str | Path) -> "Result":
    """Runs a command here and now."""
    # Imported here: where the publish step is tested, in its image, there is no command line.
    from click.testing import CliRunner

    from pipelines.cli import main

    return CliRunner().invoke(main, [*map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def kubeflow(servers: Servers, tmp_path: Path) -> Kubeflow:
    """A Kubeflow Pipelines that knows nothing yet."""
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    sign_in = ("--token-file", str(token), "--ca-certificate", str(servers.credentials.certificate))
    return Kubeflow(servers.kubeflow, servers.kubeflow.reset(), sign_in)
