"""Looks through every layer of images for what must never be in one: python -m images.leaks IMAGE…

A file that a later layer removes is still in the image: whoever pulls it has the layer.
"""

import io
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any

_PATHS = {
    "the repository's history": r"(^|/)\.git(/|$)",
    "tests": r"^(checkout|opt/tests)(/|$)|(^|/)tests/components/",
    "data": r"(^|/)(ml-[\w-]+\.zip|ratings\.(csv|dat)|u\.data)$",
    "a run": r"(^|/)runs/",
    "credentials": r"(^|/)(\.netrc|\.pypirc|pip\.conf|\.env|id_(rsa|ed25519|ecdsa)"
    r"|application_default_credentials\.json|\.docker/config\.json|\.config/gcloud/.*|\.aws/.*|\.ssh/.*|[\w-]*service[-_]account[\w-]*\.json)$",
    "a cache of packages": r"(^|/)(root|tmp)/\.cache/|^var/cache/apt/archives/.*\.deb$",
}
# Keys that are more than an example's words.
_SECRET_TEXT = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----(?:\\n|\s)+[A-Za-z0-9+/=]{40}|\bAKIA[0-9A-Z]{16}\b"
    rb"|\bghp_[A-Za-z0-9]{36}\b|\bya29\.[A-Za-z0-9_-]{20}"
)
_SECRET_NAME = re.compile(r"(?i)(TOKEN|PASSWORD|SECRET|CREDENTIAL|PRIVATE_KEY|API_KEY)")
_READ_BYTES = 1 << 20


def leaks_in(engine: Any, name: str) -> list[str]:
    """Returns a sentence for each thing that an image must not hold."""
    image = engine.images.get(name)
    settings = [line.partition("=")[0] for line in image.attrs["Config"].get("Env") or []]
    found = [f"{name} has the variable {setting}" for setting in settings if _SECRET_NAME.search(setting)]
    with tarfile.open(fileobj=_Stream(image.save()), mode="r|") as archive:
        for member in archive:
            if member.isfile() and (stream := archive.extractfile(member)):
                found += [f"{name} holds {what}: /{path}" for what, path in _leaks_in_layer(stream)]
    return sorted(set(found))


def _leaks_in_layer(stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    try:
        layer = tarfile.open(fileobj=stream, mode="r|*")  # noqa: SIM115 (what is no layer is left alone)
    except tarfile.ReadError:
        return
    for member in layer:
        path = str(PurePosixPath(member.name))
        yield from ((what, path) for what, pattern in _PATHS.items() if re.search(pattern, path))
        file = layer.extractfile(member) if member.isfile() and member.size <= _READ_BYTES else None
        if file is not None and _SECRET_TEXT.search(file.read()):
            yield "a secret", path


class _Stream(io.RawIOBase):
    """Makes a file of an engine's chunks."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def main() -> None:
    """Runs the command line."""
    import docker

    engine = docker.from_env(timeout=600)
    found = [sentence for name in sys.argv[1:] for sentence in leaks_in(engine, name)]
    if found:
        sys.exit("error: " + "\n".join(found))


if __name__ == "__main__":
    main()
