"""The same data and seed give the same bytes, however they are cut, ordered or carried."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.generate import beam_pipeline, block_store, ratings
from components.generate.config import GenerateConfig
from components.generate.generate import generate

Row = tuple[Any, Any, float, int]


@pytest.fixture(scope="module")
def config(config: GenerateConfig) -> GenerateConfig:
    return replace(config, offline_epochs=2)


def run(config: GenerateConfig, ratings: Path, output: Path) -> dict[str, bytes]:
    generate(config, ratings, output)
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}


@pytest.fixture
def fixed(rows: list[Row]) -> list[tuple[Any, Any, list[Any]]]:
    """A test item and three candidates of each user."""
    items_of: dict[Any, list[Any]] = {}
    for user, item, _, _ in rows:
        items_of.setdefault(user, []).append(item)
    items = sorted({row[1] for row in rows})
    return [(user, min(mine), [item for item in items if item not in mine][:3]) for user, mine in items_of.items()]


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_how_the_input_is_cut_or_ordered(
    rows: list[Row], fixed: Any, write_ratings: Any, config: GenerateConfig, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    expected = run(config, write_ratings(rows, "once", row_group_size=10**6, fixed=fixed), tmp_path / "a")
    assert len(expected) > 12
    assert run(config, tmp_path / "once", tmp_path / "again") == expected
    shuffled = random.Random(3).sample(rows, len(rows))
    others = random.Random(3).sample(fixed, len(fixed))
    eight = write_ratings(shuffled, "eight", num_files=8, row_group_size=97, fixed=others)
    assert run(config, eight, tmp_path / "b") == expected
    # Nor on how much is worked on at a time, nor on who carries the blocks between stages.
    monkeypatch.setattr(beam_pipeline, "ROWS_PER_PARTITION", 150)
    monkeypatch.setattr(ratings, "MAX_BLOCK_ROWS", 300)
    assert run(config, eight, tmp_path / "c") == expected
    # Nor on the number of workers.
    assert run(replace(config, beam_options=()), eight, tmp_path / "one-thread") == expected
    store = block_store.BlockStore
    monkeypatch.setattr(block_store, "BlockStore", lambda _folder: store(None))
    assert run(config, eight, tmp_path / "d") == expected


@pytest.mark.slow
def test_two_worker_processes_give_the_same_bytes(
    rows: list[Row], write_ratings: Any, config: GenerateConfig, tmp_path: Path
) -> None:
    ratings = write_ratings(rows, num_files=4)
    expected = run(config, ratings, tmp_path / "one")
    processes = replace(config, beam_options=("direct_num_workers=2", "direct_running_mode=multi_processing"))
    assert run(processes, ratings, tmp_path / "two") == expected


def test_the_number_of_shards_moves_rows_but_changes_none(
    rows: list[Row], write_ratings: Any, config: GenerateConfig, tmp_path: Path, read_column_files: Any
) -> None:
    ratings = write_ratings(rows)
    one, five = replace(config, num_shards=1), replace(config, num_shards=5)
    files = [run(one, ratings, tmp_path / "one"), run(five, ratings, tmp_path / "five")]
    assert [sum(name.startswith("positives/") for name in names) for names in files] == [1, 5]
    for folder in ("positives", "eval", "eval_loo-99", "validation"):
        found = [
            sorted(
                row
                for example in read_column_files(tmp_path / name, folder)
                for row in zip(*(example[column] for column in sorted(example)), strict=True)
            )
            for name in ("one", "five")
        ]
        assert found[0] == found[1]
    # The shards one after the other are the one shard.
    in_order = [
        [
            pair
            for example in read_column_files(tmp_path / name, "positives")
            for pair in zip(example["user_id"], example["item_id"], strict=True)
        ]
        for name in ("one", "five")
    ]
    assert in_order[0] == in_order[1]


def test_another_seed_changes_the_draws(
    rows: list[Row], write_ratings: Any, config: GenerateConfig, tmp_path: Path
) -> None:
    ratings = write_ratings(rows)
    first = run(config, ratings, tmp_path / "one")
    second = run(replace(config, seed=config.seed + 1), ratings, tmp_path / "two")
    assert set(first) == set(second)
    assert [name for name in first if name.endswith(".tfrecord") and first[name] == second[name]] == []
