"""Where the images of the steps live."""

import os

# SubprocessRunner warns about an image whose name lacks "python"; the default needs no registry.
_DEFAULT_REGISTRY = "neumf-python"
_DEFAULT_TAG = "latest"


def image_uri(name: str) -> str:
    """Returns the reference of one image, for example "neumf-python/train:latest".

    NEUMF_IMAGE_REGISTRY and NEUMF_IMAGE_TAG replace the registry and the tag; `neumf compile` takes digests.

    Args:
        name: The step's dependency set, a table of images/images.toml: "download", "train" ….
    """
    registry = os.environ.get("NEUMF_IMAGE_REGISTRY", _DEFAULT_REGISTRY)
    tag = os.environ.get("NEUMF_IMAGE_TAG", _DEFAULT_TAG)
    return f"{registry}/{name}:{tag}"
