import logging
from pathlib import Path

import numpy as np
import pytest

from components.ncf.errors import InputError
from components.train.checkpoints import Checkpoint, Checkpoints

IDENTITY = {"num_factors": 8, "examples_digest": "abc"}


def checkpoint(step: int) -> Checkpoint:
    state = [np.full((3, 2), step, np.float32), np.arange(4, dtype=np.float32)]
    return Checkpoint(state, [np.full(5, -step, np.float32)], {"history": [{"epoch": step}]})


def open_folder(folder: Path, max_to_keep: int = 3, **changes: object) -> Checkpoints:
    return Checkpoints(folder, IDENTITY | changes, max_to_keep, is_writer=True)


def save(folder: Path, *steps: int, max_to_keep: int = 3) -> None:
    checkpoints = open_folder(folder, max_to_keep)
    for step in steps:
        checkpoints.save(step, checkpoint(step))
    checkpoints.wait()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    save(tmp_path / "run", 5, 20)
    restored = open_folder(tmp_path / "run").restore()
    assert restored is not None
    expected = checkpoint(20)
    for a, b in zip([*restored.state, *restored.best_weights], [*expected.state, *expected.best_weights], strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(restored.state) == 2
    assert restored.progress == {"history": [{"epoch": 20}]}


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 10, 100, max_to_keep=2)
    assert names(tmp_path) == ["checkpoint-0000000010.npz", "checkpoint-0000000100.npz"]


def test_a_folder_without_checkpoints_starts_a_run(tmp_path: Path) -> None:
    assert open_folder(tmp_path / "missing").restore() is None
    assert open_folder(tmp_path).restore() is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    save(tmp_path, 1, 2)
    path = tmp_path / "checkpoint-0000000002.npz"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[content.index(np.full(6, 2, np.float32).tobytes()) + 3] ^= 1
    path.write_bytes({"cut": content[: len(content) // 2], "flipped": content, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING, "components"):
        restored = open_folder(tmp_path).restore()
    assert restored is not None
    assert restored.progress["history"] == [{"epoch": 1}]
    assert f"{path} is damaged" in caplog.text


def test_nothing_but_damaged_checkpoints_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "checkpoint-0000000001.npz").write_bytes(b"not an archive")
    with pytest.raises(InputError, match="None of the 1 checkpoints"):
        open_folder(tmp_path).restore()


def test_a_half_written_file_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / ".checkpoint-0000000002.npz.partial").write_bytes(b"PK")
    restored = open_folder(tmp_path).restore()
    assert restored is not None
    assert restored.progress["history"] == [{"epoch": 1}]


def test_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(InputError, match=r"another run \(num_factors 8 then, 16 now\)"):
        open_folder(tmp_path, num_factors=16).restore()


def test_progress_is_saved_as_it_was_then(tmp_path: Path) -> None:
    checkpoints = open_folder(tmp_path)
    one = checkpoint(1)
    checkpoints.save(1, one)
    one.progress["history"].append("later")
    checkpoints.wait()
    restored = open_folder(tmp_path).restore()
    assert restored is not None
    assert restored.progress["history"] == [{"epoch": 1}]


def test_a_folder_that_cannot_be_made_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        open_folder(tmp_path / "file" / "folder")


def test_a_failure_to_write_surfaces_in_the_thread_that_trains(tmp_path: Path) -> None:
    checkpoints = open_folder(tmp_path / "folder")
    (tmp_path / "folder").rmdir()
    checkpoints.save(1, checkpoint(1))
    with pytest.raises(OSError, match="folder"):
        checkpoints.wait()


def test_workers_beside_the_chief_write_nothing(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run", IDENTITY, 2, is_writer=False)
    checkpoints.save(1, checkpoint(1))
    checkpoints.wait()
    assert not (tmp_path / "run").exists()
