"""An artifact appears complete at its place, wherever that is, and is written by one process at a time."""

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.ncf.errors import InputError
from components.ncf.manifest import write_manifest, writing_artifact


def write(path: Path) -> None:
    with writing_artifact(path) as partial:
        (partial / "below").mkdir()
        (partial / "below" / "data").write_text("data")
        write_manifest(partial, "test", {})


# An object store mounted as a folder: folders are not renamed, and the process is killed after some files.
ON_OBJECT_STORE = """
import os, signal, sys
from pathlib import Path
from components.ncf.manifest import write_manifest, writing_artifact

def refuse(source, target):
    raise OSError(95, "Operation not supported", str(source))

def replace(source, target, replace=Path.replace):
    global num_moved
    if num_moved == num_before_end:
        if end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(5, "Input/output error", str(source))
    num_moved += 1
    return replace(source, target)

Path.rename, Path.replace = refuse, replace
place, end, num_before_end, num_moved = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), 0
with writing_artifact(place) as partial:
    (partial / "below/deep").mkdir(parents=True)
    for name in sys.argv[4:]:
        (partial / name).write_text(name)
    write_manifest(partial, "test", {})
"""


def write_on_object_store(path: Path, end: str, num_before_end: int, *names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ON_OBJECT_STORE, str(path), end, str(num_before_end), *names]
    return subprocess.run(command, capture_output=True, text=True)


def files_of(path: Path) -> list[str]:
    return sorted(found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file())


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    folder = shared / uuid.uuid4().hex
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "mount"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here, user {os.geteuid()}: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_link_to_a_folder_on_another_disk_is_followed(other_disk: Path, tmp_path: Path) -> None:
    (other_disk / "examples").mkdir()
    link = tmp_path / "link"
    link.symlink_to(other_disk / "examples")
    write(link)
    assert files_of(other_disk) == ["examples/below/data", "examples/manifest.json"]
    assert list(tmp_path.iterdir()) == [link]
    assert link.is_symlink()


def test_a_link_to_what_is_not_there_yet_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write(tmp_path / "link")
    assert files_of(tmp_path / "target") == ["below/data", "manifest.json"]


def test_a_folder_that_is_a_disk_of_its_own_is_filled_from_inside(mount: Path) -> None:
    (mount / ".partial").mkdir()
    (mount / ".partial" / "data").write_text("left by an attempt that was killed")
    write(mount)
    assert files_of(mount) == ["below/data", "manifest.json"]
    assert {found.name for found in mount.iterdir()} == {"below", "manifest.json"}
    with pytest.raises(InputError, match="already exists and is not empty"):
        write(mount)


def test_one_writes_while_another_is_refused(tmp_path: Path) -> None:
    with writing_artifact(tmp_path / "examples") as partial:
        write_manifest(partial, "test", {})
        with pytest.raises(InputError, match=f"Another process is writing the output {tmp_path}/examples: wait"):
            write(tmp_path / "examples")
        write(tmp_path / "others")
        (partial / "still").write_text("there")
    assert files_of(tmp_path / "examples") == ["manifest.json", "still"]


def test_what_a_killed_attempt_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".examples.partial").mkdir()
    (tmp_path / ".examples.partial" / "old").write_text("old")
    write(tmp_path / "examples")
    assert files_of(tmp_path) == ["examples/below/data", "examples/manifest.json"]


@pytest.mark.parametrize("num_moved", [0, 1, 2, 3])
def test_a_job_killed_between_the_files_of_its_output_writes_it_when_it_is_started_again(
    tmp_path: Path, num_moved: int
) -> None:
    place = tmp_path / "model"
    killed = write_on_object_store(place, "kill", num_moved, "below/deep/a", "below/b", "old")
    assert killed.returncode == -signal.SIGKILL
    assert len(files_of(place)) == num_moved
    assert "manifest.json" not in files_of(place)
    again = write_on_object_store(place, "kill", 4, "below/deep/a", "below/b", "new")
    assert again.returncode == 0, again.stderr
    assert files_of(tmp_path) == [f"model/{name}" for name in ("below/b", "below/deep/a", "manifest.json", "new")]


def test_what_others_put_beside_the_files_of_a_killed_job_stays(tmp_path: Path) -> None:
    place = tmp_path / "model"
    write_on_object_store(place, "kill", 2, "below/b", "c", "d")
    (place / "below/mine").write_text("mine")
    with pytest.raises(InputError, match="already exists and is not empty"):
        write(place)
    assert files_of(place) == ["below/mine"]
    assert (place / "below/mine").read_text() == "mine"


def test_an_output_whose_files_cannot_all_be_moved_is_taken_back(tmp_path: Path) -> None:
    failed = write_on_object_store(tmp_path / "model", "fail", 2, "below/b", "c")
    assert "components.ncf.errors.InputError" in failed.stderr
    assert "failed: Input/output error." in failed.stderr
    assert files_of(tmp_path) == []
