from tests.pipelines.servers.fixtures import credentials, vertex, vertex_server  # noqa: F401
