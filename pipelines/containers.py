"""What kfp's DockerRunner needs from this side: the images, the places that a step reads, and an honest exit status.

kfp 2.17.0 lets the engine remove a step's container as soon as it ends, and takes one that it no longer finds for a
success; the container's last words are lost with it. `honest_containers` puts another way to run a container in the
place of kfp's: it waits, reads to the end, and removes the container itself.
"""

import codecs
import contextlib
import hashlib
import itertools
import os
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import components
from components.ncf.errors import InputError
from components.ncf.manifest import file_digest
from pipelines.places import PLACES

# Settings that decide how numbers are computed or what is logged: a step in a container has those of the caller.
_ENVIRONMENT_PREFIXES = ("OPENBLAS_", "OMP_", "TF_", "XLA_")
# The pipeline's parameters that name a file or folder: the one that train writes to, and the others.
_WRITTEN = "train_checkpoint_dir"
_READ = tuple(name for name in map("_".join, PLACES) if name != _WRITTEN)
# What images/build.sh says of the steps' code in an image.
CODE_LABEL = "neumf.code"


def connect() -> Any:
    """Returns a client of the Docker engine.

    Raises:
        InputError: None answers.
    """
    import docker

    try:
        engine = docker.from_env()
        engine.ping()
    except docker.errors.DockerException as error:
        raise InputError(
            f"--runner docker needs a Docker engine, and none answered ({error}): start it or use --runner subprocess."
        ) from None
    return engine


def require_images(engine: Any, names: Iterable[str]) -> None:
    """Checks that the engine has the images, made from the very code that runs here.

    Other code may not know a parameter, or mean something else by it.

    Raises:
        InputError: It lacks one, or has an older or a newer one.
    """
    import docker

    code = code_digest()
    for name in sorted(set(names)):
        try:
            image = engine.images.get(name)
        except docker.errors.ImageNotFound:
            raise InputError(
                f"--runner docker needs the image {name}, which this machine does not have: build it with `make "
                "images`, or use --runner subprocess."
            ) from None
        if image.labels.get(CODE_LABEL) != code:
            raise InputError(
                f"The image {name} was not made from the components as they are here, but from older or newer ones: "
                "build it with `make images`, or use --runner subprocess."
            )


def code_digest() -> str:
    """Returns the digest of the steps' files, as images/build.sh computes it: of what sha256sum says of them all."""
    (root,) = map(Path, components.__path__)
    paths = {path.relative_to(root.parent).as_posix(): path for path in root.rglob("*") if path.is_file()}
    lines = [
        f"{file_digest(path)}  {name}\n"
        for name, path in sorted(paths.items())
        if not any(part == "__pycache__" or part.startswith(".") for part in name.split("/"))
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def make_docker_runner(parameters: Mapping[str, Any]) -> Any:
    """Returns kfp's runner: containers of the caller's user, with the host's network and the files that steps read.

    Args:
        parameters: The pipeline's parameters; paths among them are bound at the same place.
    """
    import docker
    from kfp import local

    mounts = [
        docker.types.Mount(str(path), str(path), type="bind", read_only=is_read_only)
        for path, is_read_only in places(parameters).items()
    ]
    environment = {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT_PREFIXES)}
    return local.DockerRunner(
        user=f"{os.getuid()}:{os.getgid()}", network_mode="host", mounts=mounts, environment=environment
    )


def places(parameters: Mapping[str, Any]) -> dict[Path, bool]:
    """Returns the files and folders of this machine that steps use beside their artifacts; True where they only read.

    A place that does not exist is left out: the step says so in its own words.
    """
    read = [_local(str(parameters.get(name, ""))) for name in _READ]
    kind, _, place = str(parameters.get("download_dataset", "")).partition(":")
    if kind == "csv":
        read.append(_local(place))
    elif kind == "ncf" and (prefix := _local(place)):
        read.append(prefix.parent)
    found = {path: True for path in read if path is not None and path.exists()}
    written = _local(str(parameters.get(_WRITTEN, "")))
    if written is not None:
        # An engine makes what it does not find as root.
        written.mkdir(parents=True, exist_ok=True)
        found[written] = False
    return found


def _local(place: str) -> Path | None:
    """Returns the path that a text names on this machine, if it names one."""
    if place.startswith("file://"):
        place = urllib.request.url2pathname(urllib.parse.urlsplit(place).path)
    return Path(place) if Path(place).is_absolute() else None


class Containers:
    """The containers of a run, to be stopped when the run is."""

    def __init__(self) -> None:
        self._running: set[str] = set()

    def run(self, client: Any, image: str, command: list[str], volumes: Mapping[str, Any], **options: Any) -> int:
        """Runs a container to its end, prints what it writes line by line and returns its exit status."""
        container = client.containers.run(image=image, command=command, volumes=volumes, detach=True, **options)
        self._running.add(container.id)
        try:
            for line in _log_of(container):
                print(line)  # noqa: T201 (kfp indents what is printed while a step runs)
            return int(container.wait()["StatusCode"])
        finally:
            self._running.discard(container.id)
            container.remove(force=True)

    def stop(self) -> None:
        """Ends those that run."""
        import docker

        for identifier in tuple(self._running):
            with contextlib.suppress(docker.errors.DockerException):
                docker.from_env().containers.get(identifier).kill()


@contextlib.contextmanager
def honest_containers() -> Iterator[Containers]:
    """Has kfp run containers by `Containers.run` while the block runs."""
    from kfp.local import docker_task_handler

    containers = Containers()
    original = docker_task_handler.run_docker_container
    docker_task_handler.run_docker_container = containers.run
    try:
        yield containers
    finally:
        docker_task_handler.run_docker_container = original


def _log_of(container: Any) -> Iterator[str]:
    """Follows a container's log to its end, line by line.

    An engine that follows may stop before the last lines, which say why a step failed (Podman does, on a busy machine).
    So the log is read again at the end, and all is given from the first line on that differs from those seen: a line
    that was cut comes again, whole, and so does what is left of a log that the engine shortened.
    """
    import docker

    seen = []
    for line in _lines(container.logs(stream=True, follow=True)):
        seen.append(line)
        yield line
    container.wait()
    whole = b""
    # The step has ended well or not by now; what an engine says of its log must not change that.
    with contextlib.suppress(docker.errors.DockerException, OSError):
        whole = container.logs()
    given = iter(seen)
    yield from itertools.dropwhile(lambda line: line == next(given, None), _lines([whole]))


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Splits an engine's stream into lines: its chunks begin and end anywhere, within a letter even."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    pending = ""
    for chunk in chunks:
        *lines, pending = (pending + decoder.decode(chunk)).split("\n")
        yield from lines
    if pending:
        yield pending
