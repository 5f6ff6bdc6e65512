"""The image of generate with a bucket: it lacks most packages for Google Cloud, and needs those for storage."""

from typing import Any

import pytest

from components.images import image_uri
from images.engine import output_of
from images.table import ROOT

EMULATOR = ROOT / ".tools/bin/fake-gcs-server"
FILE = "tests/components/generate/test_storage.py"
# Two of the tests start the command line, which images do not have.
WITHOUT_COMMAND_LINE = "not same_bytes_as_a_disk and not killed_while_it_writes_a_bucket"


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_the_tests_of_buckets_pass_in_the_image(engine: Any) -> None:
    """Run in the image's `test` target with the emulator, which is not built there, bound to its place."""
    if not EMULATOR.exists():
        pytest.skip("the Cloud Storage emulator is not built: `make emulator` builds it (and `make test` does)")
    image = image_uri("generate") + "-test"
    said = output_of(
        engine, image, ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", WITHOUT_COMMAND_LINE, FILE],
        network_mode="host",
        environment={"PYTHONPATH": "/opt/tests:/checkout"},
        volumes={str(EMULATOR): {"bind": f"/checkout/.tools/bin/{EMULATOR.name}", "mode": "ro"}},
    )  # fmt: skip
    assert " passed" in said
    assert "emulator is not built" not in said
