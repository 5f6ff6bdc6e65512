from collections.abc import Callable
from typing import Any

import pytest

from components.download.catalog import CATALOG, SourceKind, dataset_names, parse_dataset, parse_synthetic_options
from components.ncf.errors import InputError


def test_every_name_is_described() -> None:
    assert [*CATALOG] == ["synthetic", "ml-100k", "ml-latest-small", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m"]
    assert dataset_names() == (*CATALOG, "csv:<uri>", "ncf:<uri prefix>")
    for name, dataset in CATALOG.items():
        assert dataset.name == name
        assert dataset.description
        assert dataset.licence
        assert dataset.num_interactions >= 100_000


@pytest.mark.parametrize("name", [name for name in CATALOG if name not in ("synthetic", "ml-latest-small")])
def test_a_published_md5_has_32_hexadecimal_digits(name: str) -> None:
    archive = CATALOG[name].archive
    assert archive is not None
    assert len(archive.published_md5) == 32
    int(archive.published_md5, 16)


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("ml1m", "ml-1m"),
        ("movielens-1m", "ml-1m"),
        ("ML_20M", "ml-20m"),
        ("syntetic", "synthetic"),
        ("ml-lates", "ml-latest-small"),
    ],
)
def test_an_unknown_name_gives_the_nearest_ones_and_the_whole_list(typed: str, nearest: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_dataset(typed)
    sentence = str(caught.value)
    assert sentence.startswith(f"Unknown dataset {typed!r}: did you mean {nearest}")
    assert sentence.endswith(f"the known data sets are {', '.join(dataset_names())}.")


def test_a_name_that_is_near_to_nothing_gives_the_list() -> None:
    with pytest.raises(InputError, match=r"^Unknown dataset 'netflix': the known data sets are synthetic, ml-100k"):
        parse_dataset("netflix")


def test_a_uri_keeps_its_own_colons() -> None:
    source = parse_dataset("csv:https://host:8080/events.csv")
    assert (source.kind, source.argument) == (SourceKind.CSV, "https://host:8080/events.csv")


@pytest.mark.parametrize(
    ("dataset", "problem"),
    [
        ("csv:", "names no file"),
        ("csv:gs://", "names no file"),
        ("ncf:gs://bucket/", "names no file"),
        ("csv", "Unknown dataset 'csv'"),
        ("", "Unknown dataset ''"),
        ("synthetic:num_users=x", "has no option 'num_users=x'"),
        ("synthetic:users=5", "has no option 'users=5'"),
        ("synthetic:num_users=1", "num_users is 1"),
        ("synthetic:num_items=139", "num_items is 139: choose 140"),
    ],
)
def test_other_names_that_cannot_be_read(config: Callable[..., Any], dataset: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        config(dataset)


def test_synthetic_options_change_what_they_name() -> None:
    assert vars(parse_synthetic_options("")) == {"num_users": 1500, "num_items": 800}
    assert vars(parse_synthetic_options("num_items=300")) == {"num_users": 1500, "num_items": 300}
    assert vars(parse_synthetic_options("num_users=20, num_items=300")) == {"num_users": 20, "num_items": 300}


@pytest.mark.parametrize(
    ("dataset", "changes", "problem"),
    [
        ("ml-1m", {"max_rejected_fraction": 1.5}, r"max_rejected_fraction is 1.5: choose 0 to 1"),
        ("ml-1m", {"max_rejected_fraction": float("nan")}, r"max_rejected_fraction is nan"),
        ("ml-1m", {"seed": -1}, r"seed is -1"),
        ("ml-1m", {"titles": "t.csv"}, r"download.titles 't.csv' is of no use to ml-1m"),
        ("ncf:x", {"columns": "user=a"}, r"download.columns 'user=a' is of no use to ncf:x"),
        ("synthetic", {"mirror": "file:///x"}, r"--mirror file:///x is of no use to synthetic"),
        ("csv:e.csv", {"columns": "title=a"}, r"set download.titles too"),
        ("csv:e.csv", {"columns": "usr=a"}, r"a part 'usr=a' that cannot be used.*the roles are user, item"),
        ("csv:e.csv", {"columns": "user"}, r"a part 'user' that cannot be used"),
        ("csv:e.csv", {"columns": "user=a,user=b"}, r"a part 'user=b' that cannot be used"),
    ],
)
def test_parameters_that_do_not_fit(
    config: Callable[..., Any], dataset: str, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        config(dataset, **changes)
