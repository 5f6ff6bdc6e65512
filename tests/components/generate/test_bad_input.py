"""What goes wrong gives one sentence, and leaves nothing that looks complete."""

import logging
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.generate.config import GenerateConfig
from components.generate.generate import generate
from components.ncf.errors import InputError

Row = tuple[Any, Any, float, int]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"min_ratings": 2}, "min_ratings 2 is too small: it must be at least 3"),
        ({"protocols": ("loo-100",)}, "'loo-100', which is not one of loo-99, loo-999-masked, fixed"),
        ({"protocols": ()}, "name one or more of loo-99"),
        ({"protocols": ("loo-99", "loo-99")}, "each once"),
        ({"num_shards": 0}, "num_shards 0 is out of range"),
        ({"eval_prebatch_size": 99_400}, "99400 is not a multiple of 1000: the nearest one is 99000"),
        ({"eval_prebatch_size": 1_500}, "the nearest one is 2000"),
        ({"eval_prebatch_size": 0}, "the nearest one is 1000"),
        ({"offline_epochs": -1}, "offline_epochs -1 is out of range: it must be between 0 and"),
        ({"num_offline_negatives": 0}, "num_offline_negatives 0 is out of range: it must be between 1 and"),
        ({"train_prebatch_size": 0}, "train_prebatch_size 0 is out of range: it must be between 1 and"),
        ({"beam_runner": "spark"}, "spark"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"seed": 1 << 63}, "is out of range"),
    ],
)
def test_a_parameter_out_of_range_is_named(config: GenerateConfig, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(config, **change)


def assert_is_a_sentence(raised: pytest.ExceptionInfo[InputError]) -> None:
    """Without what Beam adds to a message on its way."""
    text = str(raised.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert "while running" not in text


def change_column(name: str, change: Callable[[pa.ChunkedArray], Any] | None) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = next(folder.glob("interactions-*"))
        table = pq.read_table(path)
        place = table.schema.get_field_index(name)
        table = table.remove_column(place) if change is None else table.set_column(place, name, change(table[name]))
        pq.write_table(table, path)

    return damage


def flip_bytes_of_a_page(folder: Path) -> None:
    path = next(folder.glob("interactions-*"))
    content = bytearray(path.read_bytes())
    content[10:60] = b"\xff" * 50
    path.write_bytes(content)


def cut_short(folder: Path) -> None:
    path = next(folder.glob("interactions-*"))
    path.write_bytes(path.read_bytes()[:-100])


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def with_a_missing_value(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([None, *column.to_pylist()[1:]], column.type)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_bytes_of_a_page, r"interactions-\S+ cannot be read as Parquet"),
        (cut_short, r"interactions-\S+ cannot be read as Parquet"),
        (change_column("timestamp", None), "has no column timestamp, only raw_user_id, raw_item_id, rating"),
        (change_column("raw_user_id", with_a_missing_value), "1 missing values in column raw_user_id"),
        (change_column("timestamp", as_text), "has string values in column timestamp where int64 is due"),
        (change_column("rating", as_text), "string values in column rating"),
        (change_column("raw_item_id", as_text), "int64 values in raw_item_id where"),
        (lambda folder: (folder / "manifest.json").unlink(), r"holds no manifest\.json"),
        (lambda folder: next(folder.glob("interactions-*")).unlink(), "holds no interactions-"),
        (lambda folder: (folder / "items.parquet").write_bytes(b"x"), r"items\.parquet cannot be read as Parquet"),
    ],
    ids=[
        "corrupt_page", "truncated", "missing_column", "missing_value", "text_timestamps", "text_ratings",
        "mixed_id_types", "no_manifest", "no_interactions", "corrupt_items",
    ],
)  # fmt: skip
def test_damaged_ratings_give_one_sentence(
    rows: list[Row], write_ratings: Any, config: GenerateConfig, tmp_path: Path, damage: Callable[[Path], None],
    words: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    ratings = write_ratings(rows)
    damage(ratings)
    with caplog.at_level(logging.INFO), pytest.raises(InputError, match=words) as raised:
        generate(config, ratings, tmp_path / "out")
    assert_is_a_sentence(raised)
    assert not [record for record in caplog.records if record.name.startswith("apache_beam")]
    assert "Traceback" not in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ratings"]


def test_too_few_users_are_counted_out(
    rows: list[Row], write_ratings: Any, config: GenerateConfig, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="min_ratings 5000 leaves 0 of 151 users, 0 items and 0 of") as raised:
        generate(replace(config, min_ratings=5_000), write_ratings(rows), tmp_path / "out")
    assert_is_a_sentence(raised)
    # Without the second for which a failed worker in a thread of its own is waited for.
    config = replace(config, beam_options=("direct_running_mode=in_memory",))
    one_user = [("u", f"i{item}", 1.0, item) for item in range(9)] + [("v", "i0", 1.0, 0)]
    with pytest.raises(InputError, match="min_ratings 5 leaves 1 of 2 users, 9 items and 9 of 10 rows") as raised:
        generate(config, write_ratings(one_user, "one-user"), tmp_path / "out")
    assert_is_a_sentence(raised)
    with pytest.raises(InputError, match="leaves 0 of 0 users") as raised:
        generate(config, write_ratings([], "empty"), tmp_path / "out")
    assert_is_a_sentence(raised)


def test_a_user_who_has_seen_everything_is_named(write_ratings: Any, config: GenerateConfig, tmp_path: Path) -> None:
    rows = [("all", f"i{item}", 1.0, item) for item in range(9)] + [
        ("five", f"i{item}", 1.0, item) for item in range(5)
    ]
    with pytest.raises(InputError, match="User all has interacted with every one of the 9 items") as raised:
        generate(config, write_ratings(rows), tmp_path / "out")
    assert_is_a_sentence(raised)


def test_an_output_that_is_taken_stays_as_it_is(
    rows: list[Row], write_ratings: Any, config: GenerateConfig, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(InputError, match="already exists and is not empty"):
        generate(config, write_ratings(rows), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


def test_a_file_that_cannot_grow_ends_in_a_sentence_and_a_second_run_succeeds(
    rows: list[Row], write_ratings: Any, config: GenerateConfig, tmp_path: Path
) -> None:
    """The operating system refuses a write inside a Beam worker, as on a full disk."""
    ratings = write_ratings(rows)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError, match="File too large") as raised:
            generate(config, ratings, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_is_a_sentence(raised)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ratings"]
    generate(config, ratings, tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_a_defect_keeps_its_traceback(
    rows: list[Row], write_ratings: Any, config: GenerateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.generate import beam_pipeline

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("not the user's fault")

    monkeypatch.setattr(beam_pipeline, "write_items", broken)
    # Beam hands on the worker's traceback as text, as an error of its own type.
    with pytest.raises(Exception, match="ZeroDivisionError: not the user's fault"):
        generate(config, write_ratings(rows), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ratings"]
