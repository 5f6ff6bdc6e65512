"""The forms of names that Google Cloud and Kubernetes give their resources."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from components.ncf.errors import InputError

_NAME = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
# Names of domains that organisations have are part of old projects' names: "example.com:project".
_PROJECT = f"([a-z0-9.-]+:)?{_NAME}"
_BUCKET = "gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]"

_LABEL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Form:
    """What a name looks like.

    Attributes:
        pattern: A regular expression.
        words: The same for people.
    """

    pattern: str
    words: str

    def fits(self, name: str) -> bool:
        """Whether a name has this form."""
        return re.fullmatch(self.pattern, name) is not None


FORMS: Mapping[str, Form] = {
    "project": Form(_PROJECT, "PROJECT, its id and not its title"),
    "service_account": Form(
        rf"{_NAME}@({_NAME}\.iam|[a-z0-9.-]+\.[a-z0-9-]+\.iam|developer|appspot)\.gserviceaccount\.com",
        "NAME@PROJECT.iam.gserviceaccount.com",
    ),
    "kubernetes_service_account": Form(
        rf"(?=.{{1,253}}$){_NAME}(\.{_NAME})*",
        "pipeline-runner, the name of a Kubernetes service account in the namespace and not Google's e-mail address",
    ),
    "namespace": Form(rf"(?=.{{1,63}}$){_NAME}", "NAMESPACE, lower-case letters, digits and hyphens, at most 63"),
    "host": Form(
        r"(https?://)?(\[[0-9a-fA-F:]+\]|[^\s/:]+)(:[0-9]+)?(/\S*)?",
        "https://HOST/PATH, or http:// where it has no TLS",
    ),
    "network": Form(
        rf"projects/[0-9]+/global/networks/{_NAME}",
        "projects/PROJECT-NUMBER/global/networks/NAME, with the project's number and not its name",
    ),
    "dataflow_network": Form(
        rf"(https://www\.googleapis\.com/compute/v1/)?(projects/{_PROJECT}/global/networks/)?{_NAME}",
        "NETWORK, its name",
    ),
    "subnetwork": Form(
        rf"(https://www\.googleapis\.com/compute/v1/)?(projects/{_PROJECT}/)?regions/{_NAME}/subnetworks/{_NAME}",
        "regions/REGION/subnetworks/NAME",
    ),
    "tensorboard": Form(
        rf"projects/{_PROJECT}/locations/{_NAME}/tensorboards/[0-9]+",
        "projects/PROJECT/locations/REGION/tensorboards/ID",
    ),
    "encryption_key": Form(
        rf"projects/{_PROJECT}/locations/{_NAME}/keyRings/[A-Za-z0-9_-]+/cryptoKeys/[A-Za-z0-9_-]+",
        "projects/PROJECT/locations/REGION/keyRings/RING/cryptoKeys/KEY",
    ),
    "checkpoint_root": Form(rf"{_BUCKET}(/[^/*?\[\]#]+)*/?", "gs://BUCKET/FOLDER"),
    "pipeline_root": Form(rf"{_BUCKET}(/\S*)?", "gs://BUCKET/FOLDER"),
    "kubeflow_pipeline_root": Form(
        r"(gs|s3|minio)://[a-z0-9][a-z0-9._-]*(/\S*)?",
        "gs://BUCKET/FOLDER, s3://BUCKET/FOLDER or minio://BUCKET/FOLDER",
    ),
}


def check_name(flag: str, kind: str, name: str | None) -> None:
    """Checks a name that somebody gave, or did not.

    Args:
        flag: What it was given with.
        kind: A key of `FORMS`.
        name: The name; None is none.

    Raises:
        InputError: It is not of the form.
    """
    if name is not None and not FORMS[kind].fits(name):
        raise InputError(f"{flag} {name!r} is not of the form {FORMS[kind].words}.")


def check_label(name: str, value: str) -> None:
    """Checks a label of Google Cloud.

    Raises:
        InputError: It is not as Google Cloud wants it.
    """
    if not _LABEL_NAME.fullmatch(name) or not _LABEL_VALUE.fullmatch(value):
        raise InputError(
            f"--label {name}={value} must consist of lower-case letters, digits, hyphens and underscores, at most 63 "
            "on each side, and begin with a letter."
        )


def region_of(name: str) -> str:
    """Returns the region or location that is part of a resource's name; empty where there is none."""
    found = re.search(r"(?:locations|regions)/([^/]+)/", name)
    return found.group(1) if found else ""
