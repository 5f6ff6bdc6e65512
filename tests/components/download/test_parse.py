import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.download.parse import (
    MAX_RATING,
    RatingsFormat,
    TimestampForm,
    interactions_schema,
    movielens_format,
    parse_ratings,
)
from components.download.text_lines import BlockReader, RejectedLines
from components.ncf.errors import InputError

TABS = movielens_format("\t", quoted=False, rating_range=(1, 5))
COLONS = movielens_format("::", quoted=False, rating_range=(1, 5))
COMMAS = movielens_format(",", quoted=True, rating_range=(0.5, 5))
NAMES = RatingsFormat(
    separator=",",
    quoted=True,
    num_fields=4,
    user=0,
    item=1,
    rating=2,
    timestamp=3,
    user_type=pa.string(),
    item_type=pa.string(),
    rating_range=(-MAX_RATING, MAX_RATING),
    timestamp_form=TimestampForm.NUMBER,
)

Row = tuple[int | str, int | str, float, int]


def parse(
    text: bytes, layout: RatingsFormat, folder: Path, block_bytes: int = 1 << 20
) -> tuple[list[Row], list[tuple[int, str]]]:
    """Returns the good rows and, for the bad ones, line number and reason."""
    with RejectedLines(folder / "rejected.csv", 1.0) as rejected:
        reader = BlockReader(io.BytesIO(text), "ratings", block_bytes)
        tables = list(parse_ratings(reader, layout, rejected))
    rows = pa.concat_tables([layout.schema.empty_table(), *tables])
    with (folder / "rejected.csv").open(encoding="utf-8", newline="") as stream:
        bad = [(int(line["line"]), line["reason"]) for line in csv.DictReader(stream)]
    return [tuple(row.values()) for row in rows.to_pylist()], bad


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (TABS, b"196\t242\t3\t881250949\n186\t302\t5\t891717742\n"),
        (COLONS, b"196::242::3::881250949\n186::302::5::891717742\n"),
        (COMMAS, b"196,242,3.0,881250949\n186,302,5.0,891717742\n"),
        (COMMAS, b'"196","242","3","881250949"\n186,302,5,891717742'),
        (TABS, b"196\t242\t3\t881250949\r\n186\t302\t5\t891717742\r\n"),
        (TABS, b"\xef\xbb\xbf196\t242\t3\t881250949\n186\t302\t5\t891717742"),
        (COLONS, b"196::242::3::881250949\n\n186::302::5::891717742\n\n\n"),
        (COMMAS, b" 196, 242, 3 ,881250949\r\n\r\n186,302,5.,891717742\r\n"),
    ],
    ids=["tabs", "colons", "commas", "quotes", "crlf", "byte_order_mark", "blank_lines", "spaces"],
)
def test_good_lines_of_every_layout(layout: RatingsFormat, text: bytes, tmp_path: Path) -> None:
    rows, bad = parse(text, layout, tmp_path)

    assert rows == [(196, 242, 3.0, 881250949), (186, 302, 5.0, 891717742)]
    assert bad == []


def test_the_types_are_those_of_the_contract(tmp_path: Path) -> None:
    reader = BlockReader(io.BytesIO(b"1\t2\t3\t4\n"), "ratings")
    with RejectedLines(tmp_path / "rejected.csv", 0.0) as rejected:
        (table,) = parse_ratings(reader, TABS, rejected)
    assert table.schema.types == [pa.int64(), pa.int64(), pa.float32(), pa.int64()]
    assert table.schema.names == ["raw_user_id", "raw_item_id", "rating", "timestamp"]


BAD_LINES = {
    "missing_field": ("7::8::3", "missing field: 3 where 4 are needed"),
    "missing_fields": ("7", "missing field: 1 where 4 are needed"),
    "extra_field": ("7::8::3::9::1", "extra field: 5 where 4 are needed"),
    "user_not_an_integer": ("seven::8::3::9", "user id 'seven' is not an integer"),
    "item_not_an_integer": ("7::8.5::3::9", "item id '8.5' is not an integer"),
    "hexadecimal_user": ("0x1F::8::3::9", "user id '0x1F' is not an integer"),
    "empty_user": ("::8::3::9", "user id '' is not an integer"),
    "negative_user": ("-7::8::3::9", "user id -7 is negative"),
    "negative_item": ("7::-8::3::9", "item id -8 is negative"),
    "huge_user": ("9223372036854775808::8::3::9", "user id 9223372036854775808 is above 9223372036854775807"),
    "rating_not_a_number": ("7::8::good::9", "rating 'good' is not a number"),
    "rating_nan": ("7::8::nan::9", "rating 'nan' is not a number"),
    "rating_infinite": ("7::8::inf::9", "rating 'inf' is not a number"),
    "rating_too_high": ("7::8::5.5::9", "rating 5.5 is outside 1 to 5"),
    "rating_too_low": ("7::8::0::9", "rating 0 is outside 1 to 5"),
    "timestamp_not_a_number": ("7::8::3::today", "timestamp 'today' is not a whole number of seconds"),
    "timestamp_not_whole": ("7::8::3::9.5", "timestamp '9.5' is not a whole number of seconds"),
    "timestamp_negative": ("7::8::3::-9", "timestamp '-9' is before 1970"),
    "timestamp_in_milliseconds": (
        "7::8::3::978300760000",
        "timestamp '978300760000' is beyond the year 9999: give seconds, not milliseconds",
    ),
    "not_text": ("7::8::3::\xff", "not UTF-8 text"),
    "separator_of_another_layout": ("7\t8\t3\t9", "missing field: 1 where 4 are needed"),
    "unit_separator": ("7\x1f8::3::9", "missing field: 3 where 4 are needed"),
    "two_lines_in_one": ("7::8::3::9\r7::9::3::9", "extra field: 7 where 4 are needed"),
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_left_out_with_its_number_and_reason(line: str, reason: str, tmp_path: Path) -> None:
    text = b"1::2::3::4\n" + line.encode("latin-1") + b"\n5::6::4::8\n"
    rows, bad = parse(text, COLONS, tmp_path)

    assert rows == [(1, 2, 3.0, 4), (5, 6, 4.0, 8)]
    assert bad == [(2, reason)]


def test_line_numbers_hold_across_blocks_and_pieces(tmp_path: Path) -> None:
    # 50,000 lines in blocks of 300 kB, each cut into pieces of 128 kB when a line in it is bad.
    lines = [f"{number}\t{number % 97}\t3\t{number}" for number in range(1, 50_001)]
    bad_numbers = [1, 9_999, 20_000, 20_001, 49_999, 50_000]
    for number in bad_numbers:
        lines[number - 1] = f"{number}\tx\t3\t4"
    rows, bad = parse("\n".join(lines).encode(), TABS, tmp_path, block_bytes=300_000)

    assert [number for number, _ in bad] == bad_numbers
    assert [row[0] for row in rows] == [number for number in range(1, 50_001) if number not in bad_numbers]


@pytest.mark.parametrize("block_bytes", [1, 7, 20, 1000])
def test_where_the_blocks_end_does_not_matter(block_bytes: int, tmp_path: Path) -> None:
    text = b"1,2,3,4\r\n\r\n55,66,4.5,88\r\nbad\r\n7,8,1,9"
    assert parse(text, COMMAS, tmp_path, block_bytes) == (
        [(1, 2, 3.0, 4), (55, 66, 4.5, 88), (7, 8, 1.0, 9)],
        [(4, "missing field: 1 where 4 are needed")],
    )


def test_a_quote_that_stays_open_is_its_own_lines_fault(tmp_path: Path) -> None:
    rows, bad = parse(b'1,2,3,4\n"5,6,4,8\n7,8,1,9\n', COMMAS, tmp_path)

    assert [row[0] for row in rows] == [1, 7]
    assert bad == [(2, "a quoted field is not closed on this line")]


def test_a_line_break_within_quotes_ends_the_line_all_the_same(tmp_path: Path) -> None:
    rows, bad = parse(b'u,"a\nb",1,2\nc,d,1,2\n', NAMES, tmp_path)

    assert [row[0] for row in rows] == ["c"]
    assert bad == [(1, "a quoted field is not closed on this line"), (2, "missing field: 3 where 4 are needed")]


def test_a_lone_carriage_return_ends_no_line(tmp_path: Path) -> None:
    # The blank line makes up for the line that Arrow would see too many.
    rows, bad = parse(b"1,2,3,4\r5,6,4,8\n\n7,8,1,9\n", COMMAS, tmp_path)

    assert rows == [(7, 8, 1.0, 9)]
    assert bad == [(1, "extra field: 7 where 4 are needed")]


def test_quoted_names_may_hold_separators_and_quotes(tmp_path: Path) -> None:
    rows, bad = parse('"Doe, Jane","the ""A"" item",1,2\nZoë,x,-1e3,2.9\n'.encode(), NAMES, tmp_path)

    assert rows == [("Doe, Jane", 'the "A" item', 1.0, 2), ("Zoë", "x", -1000.0, 2)]
    assert bad == []


def test_empty_names_are_bad(tmp_path: Path) -> None:
    _, bad = parse(b"a,,1,2\n , b,1,2\n", NAMES, tmp_path)
    assert bad == [(1, "missing field: the item id is empty"), (2, "missing field: the user id is empty")]


ODD_TEXTS = (
    *("", " 1", "1 ", "+1", "1.", ".5", "1e0", "1e999", "0x1", "nan", "inf", "-0", "007", "1_0", "٣", "9" * 19, "-0.5"),
    *('"2"', '"', '2"', '"2"3', ' "2"', '""', "a", "é", "\t4", "1\r", "\x1f", "1\v", "\u2028"),
    *("2020-01-02", "2020-01-02 03:04:05", "2020-01-02T03:04:05.5Z", "20200102"),
    *("253402300799", "253402300799.5", "253402300800"),
)
ODD_FIELDS = st.one_of(st.integers(-3, 12).map(str), st.sampled_from(ODD_TEXTS))
FORMATS = {
    "tabs": TABS,
    "colons": COLONS,
    "commas": COMMAS,
    "names": NAMES,
    "dates": RatingsFormat(**{**vars(NAMES), "timestamp_form": TimestampForm.DATE}),
    "dates_with_offset": RatingsFormat(**{**vars(NAMES), "timestamp_form": TimestampForm.DATE_WITH_OFFSET}),
}


@pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)
@settings(max_examples=150, deadline=None)
@given(fields=st.lists(ODD_FIELDS, min_size=3, max_size=5), base=st.integers(0, 4))
def test_a_line_has_one_verdict_whatever_its_neighbours(
    layout: RatingsFormat, fields: list[str], base: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Alone, a line is tried by Arrow first. A bad neighbour sends both to the line-by-line path.
    folder = tmp_path_factory.getbasetemp()
    good = ["1", "2", "3", "4"]
    fields = [*good[:base], *fields[base:]] if base < len(fields) else good
    line = layout.separator.join(fields).encode()
    alone = parse(line + b"\n", layout, folder)
    rows, bad = parse(line + b"\nbad neighbour\n", layout, folder)

    assert (rows, bad[:-1]) == alone


def test_dates_are_utc_unless_they_say_otherwise(tmp_path: Path) -> None:
    text = b"a,b,1,2020-01-02\nc,d,1,2020-01-02T00:00:01.9\ne,f,1,2020-01-02 02:00:00+02:00\ng,h,1,1577923200\n"
    rows, bad = parse(text, FORMATS["dates"], tmp_path)

    midnight = 18_263 * 86_400  # days from 1970-01-01 to 2020-01-02: 50 years, 12 leap days and one day
    assert [row[3] for row in rows] == [midnight, midnight + 1, midnight, midnight]
    assert bad == []


class TestJudgement:
    @pytest.fixture
    def rejected(self, tmp_path: Path) -> RejectedLines:
        rejected = RejectedLines(tmp_path / "rejected.csv", 0.01)
        rejected.add("ratings.dat", 17, "rating 9 is outside 1 to 5")
        rejected.add("ratings.dat", 40, "missing field")
        return rejected

    def test_two_bad_lines_of_two_hundred_pass_one_percent(self, rejected: RejectedLines) -> None:
        rejected.judge("ratings.dat", 200)
        rejected.judge("movies.dat", 1)  # another file is judged by its own lines

    def test_two_of_199_do_not(self, rejected: RejectedLines) -> None:
        with pytest.raises(InputError) as caught:
            rejected.judge("ratings.dat", 199)
        # 2 / 199 = 0.01005025…, rounded up
        assert str(caught.value) == (
            "ratings.dat, line 17 is bad (rating 9 is outside 1 to 5); 2 of 199 lines are bad, above "
            "max_rejected_fraction 0.01: mend the file, or leave such lines out with "
            "--set download.max_rejected_fraction=0.010051."
        )


class TestFilesThatAreNoText:
    def test_zero_bytes(self) -> None:
        with pytest.raises(InputError, match=r"events.csv is not a UTF-8 text file \(it holds zero bytes\): unpack it"):
            BlockReader(io.BytesIO("user,item\n".encode("utf-16")), "events.csv")

    def test_one_endless_line(self) -> None:
        reader = BlockReader(io.BytesIO(b"x" * 3_000_000), "events.csv", block_bytes=100_000)
        with pytest.raises(InputError, match=r"events.csv, line 1 is longer than 1,048,576 bytes"):
            list(reader)

    def test_an_empty_file_has_no_header(self) -> None:
        with pytest.raises(InputError, match=r"events.csv is empty: give a file with a header line"):
            BlockReader(io.BytesIO(b"\n"), "events.csv").read_header()


def test_string_ids_are_part_of_the_schema() -> None:
    assert interactions_schema(pa.string(), pa.int64()).types[:2] == [pa.string(), pa.int64()]
