from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.download.download import download
from components.ncf.errors import InputError

TRAIN = "0\t1\t4\t100\n0\t2\t5\t101\n1\t3\t3\t50\n1\t4\t3\t60\n"
TEST = "0\t3\t5\t102\n1\t2\t1\t70\n"
NEGATIVE = "(0,3)\t4\t5\n(1,2)\t1\t5\n"
EXTRA_TRAIN = "2\t5\t1\t1\n"


@pytest.fixture
def read(tmp_path: Path, config: Callable[..., Any]) -> Callable[..., Path]:
    def run(train: str = TRAIN + EXTRA_TRAIN, test: str = TEST, negative: str = NEGATIVE, **changes: Any) -> Path:
        for suffix, text in (("train.rating", train), ("test.rating", test), ("test.negative", negative)):
            (tmp_path / f"tiny.{suffix}").write_text(text)
        output = tmp_path / "out" / "ratings"
        download(config(f"ncf:{tmp_path / 'tiny'}", **changes), output)
        return output

    return run


def test_interactions_are_train_then_test(read: Callable[..., Path]) -> None:
    table = pq.read_table(read() / "interactions-00000.parquet")
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        (0, 1, 4.0, 100),
        (0, 2, 5.0, 101),
        (1, 3, 3.0, 50),
        (1, 4, 3.0, 60),
        (2, 5, 1.0, 1),
        (0, 3, 5.0, 102),
        (1, 2, 1.0, 70),
    ]


def test_fixed_holds_the_positive_and_the_candidates(read: Callable[..., Path]) -> None:
    table = pq.read_table(read() / "fixed.parquet")
    assert table.schema.field("candidates").type.value_type == pa.int64()
    assert table.to_pylist() == [
        {"raw_user_id": 0, "raw_item_id": 3, "candidates": [4, 5]},
        {"raw_user_id": 1, "raw_item_id": 2, "candidates": [1, 5]},
    ]


def test_the_test_files_may_be_in_different_orders(read: Callable[..., Path]) -> None:
    output = read(negative="(1,2)\t1\t5\n(0,3)\t4\t5\n")
    assert pq.read_table(output / "fixed.parquet")["raw_item_id"].to_pylist() == [2, 3]


def test_candidates_that_a_user_has_seen_are_kept_and_reported(
    read: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    output = read(negative="(0,3)\t1\t5\n(1,2)\t1\t5\n")
    assert pq.read_table(output / "fixed.parquet")["candidates"].to_pylist() == [[1, 5], [1, 5]]
    assert "1 candidates are training items of their user" in caplog.text


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"negative": "(0,3)\t4\t5\n"}, r"tiny.test.negative has 1 lines and tiny.test.rating has 2"),
        ({"negative": "(0,3)\t4\t5\n(1,3)\t1\t5\n"}, r"tiny.test.negative, line 2: \(1,3\) is not in tiny.test.rating"),
        ({"negative": "(0,3)\t4\t5\n(2,2)\t1\t5\n"}, r"tiny.test.negative, line 2: \(2,2\) is not in tiny.test.rating"),
        ({"negative": "(0,3)\t4\t3\n(1,2)\t1\t5\n"}, r"line 1: the held-out item 3 is among its own candidates"),
        ({"negative": "(0,3)\t4\t5\n(1,2)\t1\n"}, r"line 2 has 1 candidates where line 1 has 2"),
        ({"negative": "(0,3)\t4\t5\n(1,2)\t1\t77\n"}, r"line 2: candidate 77 occurs in no rating"),
        ({"negative": "(0,3)\t4\t5\n(1,2)\n"}, r"line 2 is bad \(missing field: no candidates\)"),
        ({"negative": "0,3\t4\t5\n(1,2)\t1\t5\n"}, r"line 1 is bad \(it starts with '0,3' where \(user,item\)"),
        ({"negative": "(0,3)\t4\t-5\n(1,2)\t1\t5\n"}, r"line 1 is bad \(item id -5 is negative\)"),
        ({"test": "0\t3\t5\t102\n0\t2\t1\t70\n"}, r"tiny.test.rating holds user 0 twice"),
        ({"test": "0\t3\t5\t102\n1\t2\t1\n"}, r"tiny.test.rating, line 2 is bad \(missing field"),
        ({"test": "", "negative": ""}, r"tiny.test.rating is empty"),
        ({"train": TRAIN + EXTRA_TRAIN + "0\t3\t5\t7\n"}, r"the held-out item 3 of user 0 is in the training file too"),
        ({"train": TRAIN + EXTRA_TRAIN + "0,3,5,7\n"}, r"tiny.train.rating, line 6 is bad.*1 of 6 lines"),
    ],
)
def test_contradictions(read: Callable[..., Path], tmp_path: Path, files: dict[str, str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read(**files)
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_training_lines_may_be_left_out_but_no_test_line(read: Callable[..., Path]) -> None:
    output = read(train=TRAIN + EXTRA_TRAIN + "bad\n", max_rejected_fraction=0.5)
    assert "tiny.train.rating,6," in (output / "rejected.csv").read_text()


def test_no_test_line_may_be_left_out(read: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"tiny.test.rating, line 3 is bad .*: mend the file\.$"):
        read(test=TEST + "bad\n", max_rejected_fraction=1.0)


def test_a_missing_file_of_the_three(tmp_path: Path, config: Callable[..., Any]) -> None:
    (tmp_path / "tiny.train.rating").write_text(TRAIN)
    with pytest.raises(InputError, match=r"tiny.test.rating does not exist"):
        download(config(f"ncf:{tmp_path / 'tiny'}"), tmp_path / "ratings")
