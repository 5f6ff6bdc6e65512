import os
from pathlib import Path

import pytest

# A build names its images in the environment of everything it runs; what the tests compile names the images itself.
for name in ("NEUMF_IMAGE_REGISTRY", "NEUMF_IMAGE_TAG"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def movielens_mirror() -> str:
    """A `file://` mirror with real MovieLens archives, on machines that have one."""
    beside_the_checkout = Path(__file__).parents[2] / "shared" / "movielens"
    folder = Path(os.environ.get("NEUMF_MOVIELENS_MIRROR", beside_the_checkout))
    if not folder.is_dir():
        pytest.skip(f"no MovieLens archives in {folder}: set NEUMF_MOVIELENS_MIRROR to a folder that holds them")
    return folder.resolve().as_uri()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts first what talks to the servers over TLS: gRPC reads the roots that it trusts once a process."""
    items.sort(key=lambda item: "servers" not in getattr(item, "fixturenames", ()))
