"""The data card: what it shows is what the manifests and the counts say."""

import csv
import dataclasses
import io
import json
import runpy
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.download.parse import RatingsFormat, TimestampForm, parse_ratings
from components.download.text_lines import BlockReader, RejectedLines
from components.generate.card import render_card
from components.generate.card_content import OTHER_REASONS, UNKNOWN_REASON, card_content, count_reasons
from components.generate.tables import count_users
from components.ncf.errors import InputError
from components.ncf.examples import read_positives

Page = runpy.run_path(str(Path(__file__).parents[1] / "report" / "html_page.py"))["Page"]
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


def make(item_counts, user_counts, reasons=None, num_duplicates=0, num_inactive=0, **changes):
    """The content for given counts; three rows of each inactive user were dropped."""
    item_counts, user_counts = np.array(item_counts, np.int64), np.array(user_counts, np.int64)
    num_users = len(user_counts)
    kept = int(user_counts.sum()) + 2 * num_users
    manifest = {
        "dataset": "ml-1m", "ratings_digest": "abc123", "digest": "def456", "seed": 11, "min_ratings": 4,
        "num_users": num_users, "num_items": len(item_counts), "num_train_positives": int(user_counts.sum()),
        "num_train_epochs": 0, "num_train_elements": 0, "train_prebatch_size": 0, "eval_prebatch_size": 50_000,
        "counts": {
            "rows_read": kept + 3 * num_inactive + num_duplicates, "rows_distinct": kept + 3 * num_inactive,
            "rows_kept": kept, "users_read": num_users + num_inactive, "users_kept": num_users,
        },
        "protocols": {
            "loo-99": {
                "folder": "eval_loo-99", "num_candidates": 99, "prebatch_size": 500 * 100,
                "num_rows": 100 * num_users + 1_700, "num_users": num_users,
            },
            "validation": {
                "folder": "validation", "num_candidates": 99, "prebatch_size": 500 * 100, "num_rows": 100 * num_users,
                "num_users": num_users,
            },
        },
        **changes.pop("manifest", {}),
    }  # fmt: skip
    ratings = {
        "dataset": "ml-1m", "url": "https://example.org/ml-1m.zip", "licence": "research use",
        "citation": "Harper 2015",
        "archive": {"md5": "0a1b", "size_bytes": 6_298_590}, "timestamp_range": [5, 9],
        "counts": {"rejected": sum((reasons or {}).values())},
        "parameters": {"dataset": "ml-1m", "titles": "", "max_rejected_fraction": 0.5},
        **changes.pop("ratings", {}),
    }  # fmt: skip
    return card_content(manifest, ratings, item_counts, Counter(user_counts.tolist()), reasons or {})


def whole():
    # 200 items: item k has 400 // (k + 1) positives; the last three have none. 100 users.
    item_counts = [400 // (k + 1) for k in range(197)] + [0, 0, 0]
    total = sum(item_counts)
    user_counts = [2] * 50 + [5] * 49
    user_counts.append(total - sum(user_counts))
    reasons = {"r.csv: rating … is outside 0.5 to 5": 30, "r.csv: not UTF-8 text": 10, "a: b": 40}
    return make(item_counts, user_counts, reasons, num_duplicates=7, num_inactive=2), item_counts, user_counts


@pytest.fixture(scope="module")
def page():
    return Page(render_card(whole()[0]))


EXTREMES = {
    "one item only is trained on": make([6, 0, 0], [3, 3]),
    "one item in all": make([2], [1, 1]),
    "all users alike": make([10] * 50, [5] * 100),
    "two users": make([1, 1], [1, 1]),
    "no rows rejected": make([3, 3], [4, 2], {}),
    "huge": make([4 * 10**9, 5 * 10**9], [9 * 10**9 - 1, 1], {"x": 10**10}, num_duplicates=10**11),
    "a long tail": make([100_000, *[1] * 50_000], [150_000 - 999, *[1] * 999]),
}


@pytest.mark.parametrize("content", [whole()[0], *EXTREMES.values()], ids=["whole", *EXTREMES])
def test_page_is_well_formed_and_refers_to_nothing_outside(content):
    html = render_card(content)
    page = Page(html)
    assert [len(page.all(tag)) for tag in ("html", "head", "style", "body", "main", "h1")] == [1] * 6
    page.assert_refers_to_nothing_outside()
    assert "nan" not in page.text.lower().split()
    assert "inf" not in page.text.lower().split()
    ids = [element["attrs"]["id"] for element in page.elements if "id" in element["attrs"]]
    assert len(ids) == len(set(ids))
    assert all(element["attrs"].get("aria-labelledby", ids[0]) in ids for element in page.elements)


@pytest.mark.parametrize("content", [whole()[0], *EXTREMES.values()], ids=["whole", *EXTREMES])
def test_every_chart_is_an_image_with_a_label_whose_marks_lie_inside_it_and_tell_their_numbers(content):
    page = Page(render_card(content))
    charts = page.all("svg", "chart")
    assert [chart["attrs"]["role"] for chart in charts] == ["img"] * 3
    assert [chart["attrs"]["aria-label"].split(". ")[0].split(", both")[0] for chart in charts] == [
        "Share of the training positives that the most popular items make up",
        "Training positives by rank of the item",
        "Users by number of interactions",
    ]
    width, height = map(float, charts[0]["attrs"]["viewbox"].split()[2:])
    for mark in page.marks():
        assert mark["text"]
        assert 0 <= float(mark["attrs"].get("cx", mark["attrs"].get("x"))) <= width
        assert 0 <= float(mark["attrs"].get("cy", mark["attrs"].get("y"))) <= height
    assert all(element["attrs"].get("aria-hidden") for element in page.all("svg", "range"))


def test_labels_of_charts_tell_what_they_show():
    charts = Page(render_card(make([2, 5, 1], [4, 4]))).all("svg", "chart")
    assert [chart["attrs"]["aria-label"].replace("\N{NO-BREAK SPACE}", " ") for chart in charts] == [
        "Share of the training positives that the most popular items make up. 1 item: 62.5 %",
        "Training positives by rank of the item, both logarithmic: from 5 at rank 1 to 1 at rank 3",
        "Users by number of interactions. 6: 2",
    ]


def test_facts_are_those_of_the_manifest(page):
    content, item_counts, user_counts = whole()
    kept = sum(user_counts) + 200
    facts = dict(zip(page.texts("dt"), page.texts("dd"), strict=False))
    assert facts["Interactions"] == f"{kept:,} of {kept + 13:,} rows read"
    assert facts["Users"] == "100 of 102 read"
    assert facts["Items"] == "200 3 never in training"
    assert facts["Density"].split()[0] == f"{100 * kept / (100 * 200):.3g}"
    assert facts["Training positives"].split()[0] == f"{sum(item_counts):,}"
    assert facts["Lines rejected"].split()[0] == "80"
    assert content.density == kept / 20_000


def test_rows_flow_from_what_was_read_into_three_splits_without_loss(page):
    content, _, user_counts = whole()
    numbers = [row.num_rows for row in content.flow]
    read, repeated, inactive, kept, train, validation, test = numbers
    assert (repeated, inactive, validation, test) == (-7, -6, 100, 100)
    assert read + repeated + inactive == kept == train + validation + test == sum(user_counts) + 200
    ends = [(round(row.start * read), round(row.end * read)) for row in content.flow]
    assert ends == [
        (0, read), (read - 7, read), (kept, kept + 6), (0, kept), (0, train), (train, train + 100), (train + 100, kept),
    ]  # fmt: skip
    rows = page.texts("tr")
    assert f"Repetitions, dropped of a user and an item; the latest row stays {MINUS}7 {700 / read:.3g} %" in rows
    assert (
        f"Rows of inactive users, dropped 2 users with fewer than 4 distinct items {MINUS}6 {600 / read:.3g} %" in rows
    )


def test_lede_names_the_long_tail(page):
    _, item_counts, user_counts = whole()
    one, ten = (100 * sum(item_counts[:size]) / sum(item_counts) for size in (2, 20))
    assert page.texts("p", "lede") == [
        f"The most popular 1 % of items make up {one:.1f} % of the training positives, "
        f"the most popular 10 % {ten:.1f} %. "
        f"The median user has {sorted(user_counts)[49] + 2} interactions."
    ]


def test_a_catalogue_too_small_for_per_cents_begins_with_its_most_popular_item():
    page = Page(render_card(make([2, 5, 1], [4, 4])))
    assert page.texts("p", "lede")[0].startswith("The most popular item makes up 62.5 % of the training positives.")


def test_table_of_the_most_popular_items_adds_them_up(page):
    _, item_counts, _ = whole()
    total = sum(item_counts)
    rows = page.texts("tr")
    for name, size in (("1 item", 1), ("1 %", 2), ("5 %", 10), ("10 %", 20), ("20 %", 40), ("50 %", 100)):
        share = f"{100 * sum(item_counts[:size]) / total:.3g}"
        assert f"{name} {size} {share} % {item_counts[size - 1]}" in rows


def test_coverage_does_not_depend_on_the_order_of_the_items_and_rises_to_one():
    content, item_counts, user_counts = whole()
    shuffled = make(np.random.default_rng(1).permutation(item_counts), user_counts).popularity
    assert shuffled == content.popularity
    shares, covered = zip(*shuffled.coverage, strict=True)
    assert shuffled.coverage[0] == (0, 0)
    assert shuffled.coverage[-1] == (1, 1)
    assert np.all(np.diff(shares) > 0)
    assert np.all(np.diff(covered) >= 0)
    assert np.all(np.diff(covered, 2)[np.isclose(np.diff(shares, 2), 0)] <= 1e-12), "most popular first: ever flatter"


def test_ranks_hold_the_counts_of_their_items_down_to_the_last_that_has_any():
    content, item_counts, _ = whole()
    ranks = [rank for rank, _ in content.popularity.counts_by_rank]
    assert ranks[0] == 1
    assert ranks[-1] == 197
    assert ranks == sorted(set(ranks))
    assert all(count == item_counts[rank - 1] for rank, count in content.popularity.counts_by_rank)


def test_quantiles_are_counts_that_occur(page):
    content, item_counts, user_counts = whole()
    ordered = sorted(item_counts)
    found = dataclasses.astuple(content.popularity.quantiles)
    assert found == (0, ordered[99], ordered[179], 400)
    assert dataclasses.astuple(content.activity_quantiles) == (4, 4, 7, user_counts[-1] + 2)
    pairs = list(zip(page.texts("dt"), page.texts("dd"), strict=True))
    for name, item_value, user_value in zip(
        ("Least", "Median", "At 90 %", "Most"), found, dataclasses.astuple(content.activity_quantiles), strict=True
    ):
        assert [value for key, value in pairs if key == name] == [f"{item_value:,}", f"{user_value:,}"]


def test_histogram_counts_every_user_with_the_held_out_interactions(page):
    content, _, user_counts = whole()
    assert sum(one.num_counts for one in content.activity) == 100
    assert content.activity[0].low == 4
    numbers = Counter(next(one.label for one in content.activity if one.low <= n + 2 <= one.high) for n in user_counts)
    rows = page.texts("tr")
    for one in content.activity:
        assert f"{one.label} {numbers[one.label]}" in rows
    assert "training positives and the two held-out items" in page.text


def test_protocols_show_their_rows_and_their_padding(page):
    rows = [row for row in page.texts("tr") if row.startswith(("loo-99", "validation"))]
    assert rows[0].endswith("eval_loo-99/ 100 99 11,700 1,700")
    assert "99 distinct items" in rows[0]
    assert rows[1] == "validation validation/ 100 99 10,000 0"


def test_offline_epochs_are_told_when_there_are_any(page):
    assert "no epochs are written ahead" in page.text
    assert "generate.train_prebatch_size" not in page.texts("dt")
    epochs = {"num_train_epochs": 3, "num_train_elements": 99_000, "train_prebatch_size": 700}
    told = Page(render_card(make([3, 3], [4, 2], manifest=epochs)))
    assert "written ahead for 3 epochs, 99,000 rows each" in told.text
    pairs = zip(told.texts("dt"), told.texts("dd"), strict=True)
    assert ("generate.train_prebatch_size", "700") in pairs


def test_reasons_come_most_frequent_first_with_their_shares(page):
    rows = page.texts("tr")
    at = rows.index("a: b 40 50 %")
    assert rows[at + 1 : at + 3] == ["r.csv: rating … is outside 0.5 to 5 30 37.5 %", "r.csv: not UTF-8 text 10 12.5 %"]
    assert "No line of the source was rejected." in Page(render_card(EXTREMES["no rows rejected"])).text


def test_rejected_lines_that_the_list_does_not_explain_are_not_hidden():
    content = make([3, 3], [4, 2], {"a": 2}, ratings={"counts": {"rejected": 5}})
    assert content.num_rejected == 5
    assert content.rejected == (("a", 2), (UNKNOWN_REASON, 3))


def test_provenance_is_complete_and_leaves_out_what_is_not_known(page):
    pairs = list(zip(page.texts("dt"), page.texts("dd"), strict=True))
    expected = [
        ("Data set", "ml-1m"), ("Fetched from", "https://example.org/ml-1m.zip"), ("Archive", "6,298,590 bytes"),
        ("Archive md5", "0a1b"), ("Licence", "research use"), ("ratings", "abc123"), ("examples", "def456"),
        ("download.max_rejected_fraction", "0.5"), ("generate.min_ratings", "4"), ("generate.seed", "11"),
    ]  # fmt: skip
    assert [pair for pair in expected if pair not in pairs] == []
    assert "download.titles" not in page.texts("dt")
    assert page.texts("p", "citation") == ["Harper 2015"]
    bare = Page(render_card(make([3, 3], [4, 2], ratings={"url": "", "archive": None, "licence": "", "citation": ""})))
    assert not {"Fetched from", "Archive", "Archive md5", "Licence"} & set(bare.texts("dt"))
    assert bare.all("p", "citation") == []


def test_equal_timestamps_are_warned_of_unless_the_test_items_were_given():
    same = {"timestamp_range": [0, 0]}
    assert "picked at random" in Page(render_card(make([3, 3], [4, 2], ratings=same))).texts("p", "caveat")[0]
    assert not Page(render_card(whole()[0])).all("p", "caveat")
    fixed = {"protocols": {"fixed": {"folder": "eval_fixed", "num_candidates": 9, "num_rows": 20, "num_users": 2}}}
    given = Page(render_card(make([3, 3], [4, 2], ratings=same, manifest=fixed)))
    assert not given.all("p", "caveat")
    assert "which the data set's own files name" in given.text


def test_everything_from_data_is_escaped():
    hostile = "<b onload='x'>\"&amp;</b>"
    described = {"url": hostile, "licence": hostile, "citation": hostile, "parameters": {hostile: hostile}}
    manifest = {"dataset": hostile, "digest": hostile, "ratings_digest": hostile}
    html = render_card(make([3, 3], [4, 2], {hostile: 3}, ratings=described, manifest=manifest))
    page = Page(html)
    assert "<b " not in html
    assert page.texts("h1") == page.texts("bdi") == page.texts("p", "citation") == [hostile]
    assert page.texts("title")[0] == f"{hostile}: data card"


@pytest.mark.parametrize(
    ("items", "users"), [([3, 4], [4, 2]), ([3, 3], [4, 3]), ([3, 3, 0], [4, 2]), ([6], [4, 1, 1])]
)
def test_counts_of_another_manifest_are_refused(items, users):
    described = {"num_items": 2, "num_users": 2, "num_train_positives": 6}
    with pytest.raises(ValueError, match=r"in the manifest \(2, 2, 6, 6\)"):
        make(items, users, manifest=described)


def test_users_with_fewer_unseen_items_than_are_drawn_are_counted():
    """Of 103 items, users with 2, 3 and 4 interactions to train on, and 2 held out, never had 99, 98 and 97."""
    item_counts = [3, *[1] * 5, *[0] * 97]
    (shown, _) = make(item_counts, [2, 2, 4]).protocols
    assert "(1 of 3; the fewest are 97)" in shown.description
    (shown, _) = make(item_counts, [2, 3, 3]).protocols
    assert "(2 of 3; the fewest are 98)" in shown.description
    (shown, _) = make([*item_counts, 0], [2, 3, 3]).protocols
    assert "fewer" not in shown.description


def test_same_numbers_give_the_same_page():
    assert render_card(whole()[0]) == render_card(whole()[0])


def test_card_of_a_real_run_agrees_with_its_records(examples):
    ratings = examples.parent / "ratings"
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (examples, ratings)]
    item_counts, user_counts = (
        pq.read_table(examples / f"{name}.parquet")["num_train_interactions"].to_numpy() for name in ("items", "users")
    )
    assert count_users(str(examples)) == Counter(user_counts.tolist())
    with (ratings / "rejected.csv").open("rb") as stream:
        reasons = count_reasons(stream, 10)
    assert reasons == {}
    content = card_content(*manifests, item_counts, Counter(user_counts.tolist()), reasons)
    users, items = read_positives(examples, manifests[0]).values()
    by_item = sorted(Counter(items.tolist()).values(), reverse=True)
    assert content.popularity.quantiles.maximum == by_item[0]
    assert content.popularity.counts_by_rank[-1] == (len(by_item), by_item[-1])
    by_user = Counter(users.tolist()).values()
    assert content.activity_quantiles.minimum == min(by_user) + 2
    assert content.num_kept == len(users) + 2 * len(by_user)
    Page(render_card(content)).assert_refers_to_nothing_outside()


LINES = b"\n".join(
    [
        b"a,b,3,100",
        b"x,,3,100",
        b"x,b,9,100",
        b"x,b,8.5,100",
        b"x,b,it's,100",
        b'x,b,"say ""hi""",100',
        b"x,b,3,-5",
        b"x,b,3,-1e3",
        b"x,b,3,soon",
        b"x,b,3,later",
        b"x,b",
        b"x,b,3,100,9",
        b"x,b,3,100,9,9",
        b'x,"b,3,100',
        b"\xff\xfe,b,3,100",
    ]
)


def test_reasons_that_download_really_writes_are_grouped_by_fault(tmp_path):
    layout = RatingsFormat(
        separator=",", quoted=True, num_fields=4, user=0, item=1, rating=2, timestamp=3, user_type=pa.string(),
        item_type=pa.string(), rating_range=(0.5, 5), timestamp_form=TimestampForm.NUMBER,
    )  # fmt: skip
    integers = dataclasses.replace(layout, user_type=pa.int64(), item_type=pa.int64())
    path = tmp_path / "rejected.csv"
    with RejectedLines(path, 1.0) as rejected:
        list(parse_ratings(BlockReader(io.BytesIO(LINES), "a.csv"), layout, rejected))
        ids = b"-3,1,1,1\n-44,1,1,1\n1,x1,1,1\n1,99999999999999999999,1,1\n"
        list(parse_ratings(BlockReader(io.BytesIO(ids), "b.csv"), integers, rejected))
    with path.open("rb") as stream:
        counts = count_reasons(stream, 100)
    assert counts == {
        "a.csv: missing field: the item id is empty": 1,
        "a.csv: rating … is outside 0.5 to 5": 2,
        "a.csv: rating … is not a number": 2,
        "a.csv: timestamp … is before 1970": 2,
        "a.csv: timestamp … is neither seconds since 1970 nor an ISO 8601 date": 2,
        "a.csv: missing field: … where 4 are needed": 1,
        "a.csv: extra field: … where 4 are needed": 2,
        "a.csv: a quoted field is not closed on this line": 1,
        "a.csv: not UTF-8 text": 1,
        "b.csv: user id … is negative": 2,
        "b.csv: item id … is not an integer": 1,
        "b.csv: item id … is above 9223372036854775807": 1,
    }


class EndlessRows(io.RawIOBase):
    """Rows of rejected.csv, each with a reason of its own, made as they are read."""

    def __init__(self, num_rows):
        self._rows = (f"f.csv,{n},fault number x{n}\n".encode() for n in range(num_rows))
        self._pending = b"file,line,reason\n"

    def readable(self):
        return True

    def readinto(self, buffer):
        self._pending = self._pending or next(self._rows, b"")
        part, self._pending = self._pending[: len(buffer)], self._pending[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def test_a_list_of_any_length_is_counted_in_bounded_memory():
    tracemalloc.start()
    counts = count_reasons(EndlessRows(20_000), max_reasons=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts == {**{f"f.csv: fault number x{n}": 1 for n in range(4)}, OTHER_REASONS: 19_996}
    assert peak < 300_000


@pytest.mark.parametrize(
    "content",
    [b"", b"line,reason\n1,x\n", b"file,line,reason\na,1\n", b"file,line,reason\na,1,x,y\n",
     b"file,line,reason\n" + b"x" * 3_000_000, b'file,line,reason\na,1,"' + b"x\n" * 1_000_000],
    ids=["empty", "another header", "too few", "too many", "one long line", "an open quote"],
)  # fmt: skip
def test_what_is_no_list_of_rejected_lines_is_refused(content):
    stream = io.BytesIO(content)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"rejected.csv, line \d+: .*run download again"):
        count_reasons(stream, 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
    assert not stream.closed


def test_a_reason_may_hold_commas_quotes_and_line_breaks():
    stream = io.StringIO(newline="")
    rows = [("file", "line", "reason"), *[('a "b", c', line, "odd,\nvery") for line in (1, 2)]]
    csv.writer(stream).writerows(rows)
    assert count_reasons(io.BytesIO(stream.getvalue().encode()), 10) == {'a "b", c: odd,\nvery': 2}
