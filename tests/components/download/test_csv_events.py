import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.download.download import download
from components.ncf.errors import InputError

Row = tuple[int | str, int | str, float, int]


@pytest.fixture
def read(tmp_path: Path, config: Callable[..., Any]) -> Callable[..., Path]:
    """Returns a function that downloads `csv:` with the given text and returns the artifact."""

    def run(text: str | bytes, titles: str | bytes = "", **changes: Any) -> Path:
        for name, content in (("events.csv", text), ("titles.csv", titles)):
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        if titles:
            changes["titles"] = str(tmp_path / "titles.csv")
        output = tmp_path / "out" / "ratings"
        download(config(f"csv:{tmp_path / 'events.csv'}", **changes), output)
        return output

    return run


def rows(output: Path) -> list[Row]:
    return [tuple(row.values()) for row in pq.read_table(output / "interactions-00000.parquet").to_pylist()]


def items(output: Path) -> list[tuple[int | str, str, str]]:
    return [tuple(row.values()) for row in pq.read_table(output / "items.parquet").to_pylist()]


@pytest.mark.parametrize(
    "text",
    [
        "user,item,rating,timestamp\n1,2,3.5,4\n",
        "userId,movieId,rating,timestamp\r\n1,2,3.5,4\r\n",
        "\ufeffUSER_ID;Item Id;Score;Time\n1;2;3.5;4\n",
        "timestamp\tstars\tsku\tcustomer_id\n4\t3.5\t2\t1\n",
        '"user","item","comment","rating","ts"\n"1","2","so-so, really","3.5","4"\n',
        "user,item,rating,timestamp\n1,2,3.5,1970-01-01T00:00:04Z",
        "uid,iid,rating,date\n1,2,3.5,1970-01-01 00:00:04.9\n",
    ],
    ids=["plain", "movielens", "semicolons_bom", "tabs_other_order", "quotes_and_more", "iso_offset", "iso_naive"],
)
def test_headers_are_recognised(read: Callable[..., Path], text: str) -> None:
    assert rows(read(text)) == [(1, 2, 3.5, 4)]


def test_columns_can_be_named(read: Callable[..., Path]) -> None:
    text = "user,who,what,item,how,when\n9,1,2,9,3.5,4\n"
    output = read(text, columns="user=who,item=what,rating=how,timestamp=when")
    assert rows(output) == [(1, 2, 3.5, 4)]


def test_rating_and_timestamp_may_be_missing(read: Callable[..., Path]) -> None:
    assert rows(read("user,item\n1,2\n3,4\n")) == [(1, 2, 1.0, 0), (3, 4, 1.0, 0)]


@pytest.mark.parametrize(
    ("ids", "user_type", "expected"),
    [
        (["1", "22", "3"], pa.int64(), [1, 22, 3]),
        (["1", "u22", "3"], pa.string(), ["1", "u22", "3"]),
        (["007", "8", "9"], pa.string(), ["007", "8", "9"]),
        (["9" * 20, "8", "9"], pa.string(), ["9" * 20, "8", "9"]),
        ([" 7 ", "8", "x y"], pa.string(), ["7", "8", "x y"]),
    ],
    ids=["integers", "one_name", "leading_zero", "beyond_int64", "spaces"],
)
def test_ids_are_integers_only_if_all_are(
    read: Callable[..., Path], ids: list[str], user_type: pa.DataType, expected: list[int | str]
) -> None:
    output = read("user,item\n" + "".join(f"{user},5\n" for user in ids))
    table = pq.read_table(output / "interactions-00000.parquet")

    assert table.schema.field("raw_user_id").type == user_type
    assert table.schema.field("raw_item_id").type == pa.int64()
    assert table["raw_user_id"].to_pylist() == expected


def test_a_negative_id_among_integers_is_a_bad_line(read: Callable[..., Path]) -> None:
    output = read("user,item\n1,5\n-1,5\n2,5\n", max_rejected_fraction=0.5)

    assert rows(output) == [(1, 5, 1.0, 0), (2, 5, 1.0, 0)]
    assert (output / "rejected.csv").read_text() == "file,line,reason\nevents.csv,3,user id -1 is negative\n"


def test_titles_are_matched_by_id(read: Callable[..., Path]) -> None:
    output = read(
        "customer,sku\nann,b-1\nbob,a-2\nann,c-3\n",
        titles='product_id,name,category\r\nz-9,Never sold,food\r\na-2,"Tea, green",drinks\r\n'
        "b-1,Bread,\r\na-2,Again,\r\n",
    )
    assert items(output) == [
        ("z-9", "Never sold", "food"),
        ("a-2", "Tea, green", "drinks"),
        ("b-1", "Bread", ""),
        ("c-3", "", ""),
    ]


def test_titles_may_use_the_events_name_for_the_item(read: Callable[..., Path]) -> None:
    columns = "user=who,item=what,title=label"
    output = read("who,what\n1,7\n", titles="what,label\n7,Seven\n", columns=columns)
    assert items(output) == [(7, "Seven", "")]


def test_without_titles_every_item_has_a_row(read: Callable[..., Path]) -> None:
    output = read("user,item\n1,7\n1,3\n2,7\n")
    assert items(output) == [(7, "", ""), (3, "", "")]
    assert pq.read_schema(output / "items.parquet").types == [pa.int64(), pa.string(), pa.string()]


@pytest.mark.parametrize(
    ("text", "changes", "problem"),
    [
        ("", {}, r"^events.csv is empty"),
        ("user,item\n", {}, r"holds no interactions"),
        ("user,rating\n1,2\n", {}, r"^events.csv, line 1: no column for the item among 'user', 'rating':.*=item=<its"),
        ("1,2,3\n4,5,6\n", {}, r"no column for the user among '1', '2', '3': the file needs a header"),
        ("user,item,item\n1,2,3\n", {}, r"item and item can each be the item"),
        ("user,item\n1,2\n", {"columns": "rating=stars"}, r"no column 'stars' among 'user', 'item'"),
        (
            "user,item\n1,2\n3\n",
            {},
            r"^events.csv, line 3 is bad \(missing field: 1 where 2 are needed\); 1 of 2 lines",
        ),
        ("user,item\n1,2\n3,\n", {}, r"^events.csv, line 3 is bad \(item id '' is not an integer\)"),
        ("user,item,rating\n1,2,\n", {}, r"line 2 is bad \(rating '' is not a number\)"),
        ("user,item,time\n1,2,soon\n", {}, r"line 2 is bad \(timestamp 'soon' is neither seconds since 1970 nor"),
        ("user,item,time\n1,2,1700000000000\n", {}, r"beyond the year 9999: give seconds, not milliseconds"),
        ("user,item\n1,caf\xe9\n".encode("latin-1"), {}, r"line 2 is bad \(not UTF-8 text\)"),
        ("user,item\n1,2\n".encode("utf-16"), {}, r"^events.csv is not a UTF-8 text file"),
    ],
)
def test_bad_files(
    read: Callable[..., Path], tmp_path: Path, text: str | bytes, changes: dict[str, str], problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        read(text, **changes)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("titles", "problem"),
    [
        ("item,price\n1,2\n", r"^titles.csv, line 1: no column for the title among 'item', 'price'"),
        ("item,title\nx,Ex\n", r"^titles.csv, line 2 is bad \(item id 'x' is not an integer\)"),
        ("item,title\n5,a,b\n", r"^titles.csv, line 2 is bad \(extra field: 3 where 2 are needed\)"),
        ('item,title\n5,"open\n', r"^titles.csv, line 2 is bad \(a quoted field is not closed on this line\)"),
    ],
)
def test_bad_titles(read: Callable[..., Path], titles: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read("user,item\n1,5\n", titles=titles)


@pytest.mark.usefixtures("impatient")
def test_a_csv_from_a_server(server: Any, config: Callable[..., Any], tmp_path: Path) -> None:
    text = "user,item\n" + "".join(f"{user},{user % 50}\n" for user in range(20_000))
    server.put("/my events.csv", text.encode(), drops=[100_000])
    server.files["/my%20events.csv"] = server.files["/my events.csv"]
    download(config(f"csv:{server.url}/my%20events.csv"), tmp_path / "ratings")

    assert len(rows(tmp_path / "ratings")) == 20_000
    assert sorted(path.name for path in (tmp_path / "ratings").iterdir()) == [
        "interactions-00000.parquet",
        "items.parquet",
        "manifest.json",
        "rejected.csv",
    ]


def test_a_missing_file_says_what_to_do(config: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^/nowhere/e.csv does not exist: check the address"):
        download(config("csv:/nowhere/e.csv"), tmp_path / "ratings")


def test_a_file_has_the_digest_that_was_given(read: Callable[..., Path]) -> None:
    text = "user,item,rating,timestamp\n1,2,3.5,4\n"
    assert rows(read(text, data_digest=hashlib.md5(text.encode()).hexdigest())) == [(1, 2, 3.5, 4)]


def test_a_file_with_another_digest_is_refused(read: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=f"md5 [0-9a-f]{{32}}, expected {'0' * 32}"):
        read("user,item,rating,timestamp\n1,2,3.5,4\n", data_digest="0" * 32)


@pytest.mark.parametrize(
    ("dataset", "digest", "words"),
    [("ml-1m", "abc", "must be an md5"), ("synthetic", "0" * 32, "of no use to synthetic")],
)
def test_a_digest_of_no_use_is_refused(config: Callable[..., Any], dataset: str, digest: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        config(dataset, data_digest=digest)
