"""The digest of the data that a run is about to read, so that changed data run again what read the old."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

_TIMEOUT_S = 30.0


def source_uri(download: Mapping[str, Any]) -> str:
    """Returns the one file that download reads, or an empty text where it is generated, official or several files.

    Args:
        download: The step's parameters.
    """
    kind, separator, place = str(download["dataset"]).partition(":")
    if separator:
        return place if kind == "csv" else ""
    return f"{download['mirror'].rstrip('/')}/{kind}.zip" if download["mirror"] else ""


def stored_md5(uri: str) -> str:
    """Returns the md5 that Cloud Storage keeps of an object, in hexadecimal; empty where it keeps or shows none."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage
    from requests import RequestException

    bucket, _, name = uri.removeprefix("gs://").partition("/")
    try:
        found = storage.Client(project="").bucket(bucket).get_blob(name, timeout=_TIMEOUT_S, retry=None)
    except (GoogleAPIError, GoogleAuthError, RequestException):
        return ""
    try:
        return base64.b64decode(found.md5_hash).hex() if found is not None and found.md5_hash else ""
    except binascii.Error:
        return ""
