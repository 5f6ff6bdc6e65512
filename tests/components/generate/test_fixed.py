"""Data sets that bring their own test items and candidates."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.generate.config import GenerateConfig
from components.generate.generate import generate
from components.ncf.errors import InputError
from components.ncf.manifest import read_manifest

# User u has the items 10u, 10u + 1, ..., 10u + 4, in that order of time. Item 999 only ever is a candidate.
ROWS = [(f"u{user}", f"i{10 * user + step:03d}", 1.0, step) for user in range(7) for step in range(5)]
DROPPED = [("short", "i000", 1.0, 0), ("short", "i001", 1.0, 1)]
# The test item is the first one; the candidates repeat one item, and hold the test item itself.
FIXED = [(f"u{user}", f"i{10 * user:03d}", ["i999", "i062", "i999", f"i{10 * user:03d}"]) for user in range(7)]


@pytest.fixture
def config(config: GenerateConfig) -> GenerateConfig:
    changes = {"min_ratings": 3, "protocols": ("loo-99",), "num_shards": 2, "eval_prebatch_size": 1_000, "seed": 0}
    # A worker that fails in a thread of its own is waited for a second; how its error comes back is tested elsewhere.
    return replace(config, **changes, beam_options=("direct_running_mode=in_memory",))


def test_the_given_test_items_and_candidates_are_used(
    config: GenerateConfig, write_ratings: Any, tmp_path: Path, read_column_files: Any
) -> None:
    ratings = write_ratings(ROWS + DROPPED, fixed=[*FIXED[::-1], ("short", "i000", ["i001"] * 4)])
    generate(config, ratings, tmp_path / "out")
    items = sorted({row[1] for row in ROWS} | {"i999"})
    expected: dict[int, list[int]] = {
        user: [items.index(name) for name in (*FIXED[user][2], FIXED[user][1])] for user in range(7)
    }
    (example,) = read_column_files(tmp_path / "out", "eval_fixed")
    assert example["user_id"] == [user for user in range(7) for _ in range(5)] + [0] * 5 * 193
    for user in range(7):
        rows = slice(5 * user, 5 * user + 5)
        assert example["item_id"][rows] == expected[user]
        is_own = FIXED[user][1] == "i062"
        assert example["duplicate_mask"][rows] == [0, int(is_own), 1, 1, 0]
    assert example["duplicate_mask"][35:] == [1, 1, 1, 1, 0] * 193
    manifest = read_manifest(tmp_path / "out", "examples")
    assert manifest["protocols"]["fixed"] == {
        "folder": "eval_fixed", "num_candidates": 4, "prebatch_size": 1_000, "num_rows": 1_000, "num_users": 7,
    }  # fmt: skip
    assert manifest["num_items"] == len(items)
    for example in read_column_files(tmp_path / "out", "eval_loo-99"):
        held_out = dict(zip(example["user_id"][99:700:100], example["item_id"][99:700:100], strict=True))
        assert held_out == {user: expected[user][-1] for user in range(7)}
    for example in read_column_files(tmp_path / "out", "validation"):
        held_out = dict(zip(example["user_id"][99:700:100], example["item_id"][99:700:100], strict=True))
        assert held_out == {user: items.index(f"i{10 * user + 4:03d}") for user in range(7)}


def test_as_many_whole_users_as_fit_make_an_example(
    config: GenerateConfig, write_ratings: Any, tmp_path: Path, read_column_files: Any
) -> None:
    fixed = [(user, item, [f"i{number:03d}" for number in range(100, 499)]) for user, item, _ in FIXED]
    generate(config, write_ratings(ROWS, fixed=fixed), tmp_path / "out")
    found = read_column_files(tmp_path / "out", "eval_fixed")
    # 400 rows a user: two fit into 1,000 rows, and the seventh user gets company.
    assert [len(example["user_id"]) for example in found] == [800] * 4
    assert read_manifest(tmp_path / "out", "examples")["protocols"]["fixed"]["prebatch_size"] == 800


@pytest.mark.parametrize(
    ("fixed", "words"),
    [
        (FIXED[1:], "no row for user u0"),
        ([*FIXED, FIXED[2]], "names user u2 more than once"),
        ([("u0", "i999", ["i001"] * 4), *FIXED[1:]], "item i999 as the test item of user u0"),
        ([("u0", "i010", ["i001"] * 4), *FIXED[1:]], "item i010 as the test item of user u0"),
        ([*FIXED[:-1], ("u6", "i060", ["i001"] * 3)], "gives user u6 3 candidates where others have 4"),
        ([("u0", "i000", [])], "holds no candidates"),
    ],
    ids=["missing_user", "repeated_user", "unknown_positive", "positive_of_another", "too_few_candidates", "empty"],
)
def test_a_fixed_file_that_does_not_fit_is_refused(
    config: GenerateConfig, write_ratings: Any, tmp_path: Path, fixed: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        generate(config, write_ratings(ROWS, fixed=fixed), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_naming_the_fixed_protocol_without_candidates_is_refused(
    config: GenerateConfig, write_ratings: Any, tmp_path: Path
) -> None:
    config = replace(config, protocols=("fixed",))
    with pytest.raises(InputError, match=r"no fixed\.parquet"):
        generate(config, write_ratings(ROWS), tmp_path / "out")
