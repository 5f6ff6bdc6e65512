"""Local folders and Cloud Storage behave alike; the latter against an emulator, with Google's own client."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from google.cloud import storage as google_storage

from components.generate import storage
from components.generate.config import GenerateConfig
from components.generate.generate import generate
from components.ncf.errors import InputError

EMULATOR = Path(__file__).parents[3] / ".tools" / "bin" / "fake-gcs-server"

Row = tuple[Any, Any, float, int]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Cloud Storage emulator with an empty bucket `neumf`, which Google's client is told to use."""
    if not EMULATOR.exists():
        pytest.skip("the Cloud Storage emulator is not built: `make emulator` builds it (and `make test` does)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    log = (tmp_path_factory.mktemp("emulator") / "log").open("wb")
    server = subprocess.Popen(
        [EMULATOR, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory",
         "-public-host", f"127.0.0.1:{port}"],
        stdout=log, stderr=log,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                requests.post(
                    f"{address}/storage/v1/b?project=test", json={"name": "neumf"}, timeout=5
                ).raise_for_status()
                break
            except requests.ConnectionError:
                assert server.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < deadline, "the emulator does not answer"
                time.sleep(0.05)
        yield address
    finally:
        server.kill()
        server.wait()
        log.close()


@pytest.fixture
def bucket(emulator: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The emulator's bucket, emptied; this process's client talks to it too."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    storage._client.cache_clear()
    bucket = google_storage.Client().bucket("neumf")
    for blob in bucket.list_blobs():
        blob.delete()
    yield bucket
    storage._client.cache_clear()


@pytest.fixture(params=["local", "gs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "folder")
    request.getfixturevalue("bucket")
    return "gs://neumf/folder"


def write(place: str, content: bytes) -> None:
    with storage.writing_file(place) as stream:
        stream.write(content)


def test_a_folder_keeps_files_by_name(folder: str) -> None:
    assert storage.list_files(folder) == []
    write(storage.join(folder, "b/c.txt"), b"first")
    write(storage.join(folder, "a.txt"), b"0123456789")
    write(storage.join(folder, "b/c.txt"), b"second")
    write(f"{folder}-not", b"another one whose name begins alike")
    assert storage.list_files(folder) == ["a.txt", "b/c.txt"]
    with storage.open_reading(storage.join(folder, "b/c.txt")) as stream:
        assert stream.read() == b"second"
    with storage.open_reading(storage.join(folder, "a.txt")) as stream:
        stream.seek(4)
        assert stream.read(3) == b"456"
    storage.remove_folder(folder)
    assert storage.list_files(folder) == []
    with storage.open_reading(f"{folder}-not") as stream:
        assert stream.read().startswith(b"another")


def test_a_file_that_failed_halfway_does_not_exist(folder: str) -> None:
    def fail_halfway() -> None:
        with storage.writing_file(storage.join(folder, "x")) as stream:
            stream.write(b"abc")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert storage.list_files(folder) == []


def test_a_missing_file_is_an_os_error_that_names_it(folder: str) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        storage.open_reading(storage.join(folder, "none"))
    assert raised.value.filename == storage.join(folder, "none")


def fill(output: str) -> None:
    with storage.writing_output(output) as partial:
        write(storage.join(partial, "data"), b"x")
        write(storage.join(partial, "manifest.json"), b"{}")


def test_an_output_is_there_when_its_block_ends_and_is_not_written_twice(folder: str) -> None:
    fill(folder)
    assert storage.list_files(folder) == ["data", "manifest.json"]
    with pytest.raises(InputError, match="already exists and is not empty: remove it or choose another folder"):
        fill(folder)
    assert storage.list_files(folder) == ["data", "manifest.json"]


def test_an_output_whose_block_fails_leaves_nothing(folder: str) -> None:
    def fail() -> None:
        with storage.writing_output(folder) as partial:
            write(storage.join(partial, "data"), b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert storage.list_files(folder) == []


def test_somebody_elses_objects_are_not_touched(bucket: Any) -> None:
    bucket.blob("folder/precious").upload_from_string("x")
    with pytest.raises(InputError, match="gs://neumf/folder already exists and is not empty"):
        fill("gs://neumf/folder")
    assert [blob.name for blob in bucket.list_blobs()] == ["folder/precious"]


def test_a_bucket_that_is_missing_or_a_scheme_that_is_not_ours_is_named(bucket: Any) -> None:  # noqa: ARG001
    with pytest.raises(InputError, match=r"gs://nowhere/out\S* failed: no such bucket or object"):
        fill("gs://nowhere/out")
    with pytest.raises(InputError, match=r"s3://bucket/out.* is not of the form gs://bucket/name"):
        fill("s3://bucket/out")


def neumf_generate(emulator: str, ratings: str, output: str) -> list[str]:
    assert emulator
    return [
        str(Path(sys.executable).with_name("neumf")), "generate", "--ratings", ratings, "--output", output,
        "--set", "generate.min_ratings=5", "--set", "generate.eval_prebatch_size=4000",
        "--set", "generate.offline_epochs=1", "--set", "generate.train_prebatch_size=700",
    ]  # fmt: skip


@pytest.fixture
def remote_ratings(bucket: Any, rows: list[Row], write_ratings: Callable[..., Path]) -> tuple[Path, str]:
    """One `ratings` folder, on the local disk and in the bucket."""
    local = write_ratings(rows, num_files=2)
    for path in local.iterdir():
        bucket.blob(f"runs/ratings/{path.name}").upload_from_filename(path)
    return local, "gs://neumf/runs/ratings"


@pytest.mark.slow
def test_generate_reads_and_writes_a_bucket_with_the_same_bytes_as_a_disk(
    emulator: str, bucket: Any, remote_ratings: tuple[Path, str], tmp_path: Path
) -> None:
    local, remote = remote_ratings
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": emulator}
    for ratings, output in ((str(local), str(tmp_path / "out")), (remote, "gs://neumf/runs/out")):
        subprocess.run(neumf_generate(emulator, ratings, output), env=environment, check=True)
    written = {blob.name: blob.download_as_bytes() for blob in bucket.list_blobs(prefix="runs/out/")}
    expected = {
        f"runs/out/{path.relative_to(tmp_path / 'out').as_posix()}": path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert len(expected) > 12
    assert written == expected


@pytest.mark.slow
def test_killed_while_it_writes_a_bucket_it_leaves_nothing_complete_and_the_next_run_succeeds(
    emulator: str, bucket: Any, remote_ratings: tuple[Path, str]
) -> None:
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": emulator}
    command = neumf_generate(emulator, remote_ratings[1], "gs://neumf/runs/out")
    process = subprocess.Popen(command, env=environment)
    while not list(bucket.list_blobs(prefix="runs/out/eval/")):
        assert process.poll() is None, "the process ended before it wrote"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = {blob.name for blob in bucket.list_blobs(prefix="runs/out/")}
    assert "runs/out/.unfinished" in left
    assert "runs/out/manifest.json" not in left
    bucket.blob("runs/out/eval/left-behind").upload_from_string("by the first attempt")
    subprocess.run(command, env=environment, check=True)
    names = {blob.name for blob in bucket.list_blobs(prefix="runs/out/")}
    assert "runs/out/manifest.json" in names
    assert not names & {"runs/out/.unfinished", "runs/out/eval/left-behind"}
    assert not [name for name in names if ".scratch" in name]


def test_a_service_that_does_not_answer_is_one_sentence(
    rows: list[Row], config: GenerateConfig, write_ratings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", nobody)
    monkeypatch.setattr(storage, "_RETRY", storage._RETRY.with_timeout(0.5))
    storage._client.cache_clear()
    try:
        with pytest.raises(InputError, match=r"gs://neumf/ratings/manifest\.json cannot be read \(.*refused") as raised:
            generate(config, "gs://neumf/ratings", "gs://neumf/out")
        assert "\n" not in str(raised.value)
        with pytest.raises(InputError, match=r"gs://neumf/out.* failed: .*refused"):
            generate(config, write_ratings(rows), "gs://neumf/out")
    finally:
        storage._client.cache_clear()


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    write(str(tmp_path / "eval" / "a.tfrecord"), b"x")
    writer = storage.writing_file(str(tmp_path / "eval" / "b.tfrecord"))
    # Never left: what a kill does to the block.
    with writer as stream:
        stream.write(b"half")
        (left,) = [path for path in (tmp_path / "eval").iterdir() if path.name != "a.tfrecord"]
        shutil.copy(left, left.with_name(left.name + "0"))
    (tmp_path / "eval" / "b.tfrecord").unlink()
    assert len(list((tmp_path / "eval").iterdir())) == 2
    storage.remove_unfinished(str(tmp_path))
    assert [path.name for path in (tmp_path / "eval").iterdir()] == ["a.tfrecord"]
