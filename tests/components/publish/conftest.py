from tests.pipelines.servers.fixtures import servers, storage, vertex  # noqa: F401
