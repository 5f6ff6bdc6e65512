import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.download import catalog, ratings_folder
from components.download import download as download_module
from components.download.download import download
from components.download.parse import interactions_schema
from components.download.ratings_folder import InteractionsWriter
from components.download.titles import ML_100K_GENRES
from components.ncf.errors import InputError
from components.ncf.manifest import read_manifest

Members = dict[str, bytes]


def rows(folder: Path, name: str = "interactions-00000.parquet") -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in pq.read_table(folder / name).to_pylist()]


SMALL_ROWS = [
    (1, 10, 5.0, 978300760),
    (1, 20, 3.0, 978302109),
    (2, 10, 4.0, 978301968),
    (2, 30, 1.0, 978300275),
    (3, 20, 2.0, 978824291),
]


def test_an_archive_becomes_a_ratings_folder(
    tmp_path: Path, config: Callable[..., Any], make_mirror: Callable[..., str], small_ml_1m: Members
) -> None:
    mirror = make_mirror("ml-1m", small_ml_1m)
    download(config("ml-1m", mirror=mirror), tmp_path / "ratings")

    assert sorted(path.name for path in (tmp_path / "ratings").iterdir()) == [
        "interactions-00000.parquet",
        "items.parquet",
        "manifest.json",
        "rejected.csv",
    ]
    assert rows(tmp_path / "ratings") == SMALL_ROWS
    assert rows(tmp_path / "ratings", "items.parquet") == [
        (10, "Amélie (2001)", "Comedy|Romance"),
        (20, "Heat (1995)", "Action"),
        (40, "Never Rated (1999)", "War"),
        (30, "", ""),  # rated, but the titles file does not know it
    ]
    assert (tmp_path / "ratings" / "rejected.csv").read_text() == "file,line,reason\n"
    archive = (tmp_path / "mirror" / "ml-1m.zip").read_bytes()
    manifest = read_manifest(tmp_path / "ratings", "ratings")
    assert manifest.pop("citation").startswith("F. Maxwell Harper")
    assert "research use" in manifest.pop("licence")
    assert manifest == {
        "kind": "ratings",
        "format_version": 1,
        "dataset": "ml-1m",
        "url": f"{mirror}/ml-1m.zip",
        "archive": {"md5": hashlib.md5(archive).hexdigest(), "size_bytes": len(archive)},
        "digest": shell_digest(tmp_path / "ratings"),
        "counts": {"interactions": 5, "users": 3, "items": 3, "rejected": 0},
        "rating_range": [1.0, 5.0],
        "timestamp_range": [978300275, 978824291],
        "parameters": {
            "dataset": "ml-1m",
            "mirror": mirror,
            "titles": "",
            "columns": "",
            "max_rejected_fraction": 0.0,
            "data_digest": "",
            "seed": 7,
        },
    }


def shell_digest(folder: Path) -> str:
    command = "sha256sum interactions-*.parquet | sha256sum"
    return subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True, text=True).stdout[:64]


def test_u_data_and_u_item(tmp_path: Path, config: Callable[..., Any], make_mirror: Callable[..., str]) -> None:
    flags = ["0"] * len(ML_100K_GENRES)
    flags[5] = flags[14] = "1"
    item = "|".join(["242", "Kolya é (1996)", "24-Jan-1997", "", "http://us.imdb.com/", *flags])
    archive = {"ml-100k/u.data": b"196\t242\t3\t881250949\n", "ml-100k/u.item": f"{item}\n".encode("latin-1")}
    download(config("ml-100k", mirror=make_mirror("ml-100k", archive)), tmp_path / "ratings")

    assert rows(tmp_path / "ratings") == [(196, 242, 3.0, 881250949)]
    assert rows(tmp_path / "ratings", "items.parquet") == [(242, "Kolya é (1996)", "Comedy|Romance")]


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte_order_mark"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_csv_archives(
    tmp_path: Path, config: Callable[..., Any], make_mirror: Callable[..., str], mark: str, line_end: str
) -> None:
    ratings = f"{mark}userId,movieId,rating,timestamp\n1,5,0.5,964982703\n1,7,5.0,964981247\n"
    movies = (
        f'{mark}movieId,title,genres\n5,"Usual ""é"" Suspects, The (1995)",Crime|Thriller\n7,Odd,(no genres listed)\n'
    )
    archive = {
        "ml-20m/ratings.csv": ratings.replace("\n", line_end).encode(),
        "ml-20m/movies.csv": movies.replace("\n", line_end).encode(),
    }
    download(config("ml-20m", mirror=make_mirror("ml-20m", archive)), tmp_path / "ratings")

    assert rows(tmp_path / "ratings") == [(1, 5, 0.5, 964982703), (1, 7, 5.0, 964981247)]
    assert rows(tmp_path / "ratings", "items.parquet") == [
        (5, 'Usual "é" Suspects, The (1995)', "Crime|Thriller"),
        (7, "Odd", ""),
    ]


def test_a_header_is_not_counted_as_a_line(
    tmp_path: Path, config: Callable[..., Any], make_mirror: Callable[..., str]
) -> None:
    archive = {
        "ml-20m/ratings.csv": b"userId,movieId,rating,timestamp\n1,5,0.25,6\n1,6,1,6\n",
        "ml-20m/movies.csv": b"movieId,title,genres\n",
    }
    with pytest.raises(InputError, match=r"line 2 is bad \(rating 0.25 is outside 0.5 to 5\); 1 of 2 lines are bad"):
        download(config("ml-20m", mirror=make_mirror("ml-20m", archive)), tmp_path / "ratings")


def test_a_csv_archive_without_a_column(
    tmp_path: Path, config: Callable[..., Any], make_mirror: Callable[..., str]
) -> None:
    archive = {"ml-20m/ratings.csv": b"userId,movieId,timestamp\n1,5,6\n", "ml-20m/movies.csv": b""}
    with pytest.raises(InputError, match=r"^ml-20m/ratings.csv, line 1: no column 'rating' among 'userId', 'movieId'"):
        download(config("ml-20m", mirror=make_mirror("ml-20m", archive)), tmp_path / "ratings")


class TestRejectedLines:
    @pytest.fixture
    def archive(self, small_ml_1m: Members) -> Members:
        ratings = small_ml_1m["ml-1m/ratings.dat"].splitlines(keepends=True)
        ratings[1:1] = [b"4::10::9::978300760\n"]
        return {**small_ml_1m, "ml-1m/ratings.dat": b"".join(ratings)}

    def test_one_bad_line_is_too_many_by_default(
        self, tmp_path: Path, config: Callable[..., Any], make_mirror: Callable[..., str], archive: Members
    ) -> None:
        with pytest.raises(InputError) as caught:
            download(config("ml-1m", mirror=make_mirror("ml-1m", archive)), tmp_path / "out" / "ratings")
        assert str(caught.value) == (
            "ml-1m/ratings.dat, line 2 is bad (rating 9 is outside 1 to 5); 1 of 6 lines are bad, above "
            "max_rejected_fraction 0: mend the file, or leave such lines out with "
            "--set download.max_rejected_fraction=0.166667."
        )
        assert list((tmp_path / "out").iterdir()) == []

    def test_the_fraction_that_the_sentence_names_is_enough(
        self, tmp_path: Path, config: Callable[..., Any], make_mirror: Callable[..., str], archive: Members
    ) -> None:
        mirror = make_mirror("ml-1m", archive)
        download(config("ml-1m", mirror=mirror, max_rejected_fraction=0.166667), tmp_path / "ratings")

        assert rows(tmp_path / "ratings") == SMALL_ROWS
        assert (tmp_path / "ratings" / "rejected.csv").read_text() == (
            "file,line,reason\nml-1m/ratings.dat,2,rating 9 is outside 1 to 5\n"
        )
        assert read_manifest(tmp_path / "ratings", "ratings")["counts"]["rejected"] == 1

    def test_titles_count_too(
        self, tmp_path: Path, config: Callable[..., Any], make_mirror: Callable[..., str], small_ml_1m: Members
    ) -> None:
        small_ml_1m["ml-1m/movies.dat"] += b"50::No genres\n"
        with pytest.raises(InputError, match=r"^ml-1m/movies.dat, line 4 is bad \(missing field: 2 where 3"):
            download(config("ml-1m", mirror=make_mirror("ml-1m", small_ml_1m)), tmp_path / "ratings")

    def test_nothing_but_bad_lines_is_no_data_set(
        self, tmp_path: Path, config: Callable[..., Any], make_mirror: Callable[..., str], small_ml_1m: Members
    ) -> None:
        small_ml_1m["ml-1m/ratings.dat"] = b"nothing\n"
        mirror = make_mirror("ml-1m", small_ml_1m)
        with pytest.raises(InputError, match=r"^ml-1m holds no interactions"):
            download(config("ml-1m", mirror=mirror, max_rejected_fraction=1.0), tmp_path / "ratings")


@pytest.mark.usefixtures("impatient")
class TestMirrors:
    def test_a_mirror_on_a_server_that_drops_twice(
        self,
        server: Any,
        tmp_path: Path,
        config: Callable[..., Any],
        make_mirror: Callable[..., str],
        small_ml_1m: Members,
    ) -> None:
        make_mirror("ml-1m", {**small_ml_1m, "ml-1m/noise": np.random.default_rng(0).bytes(2_000_000)})
        for name in ("ml-1m.zip", "ml-1m.zip.md5"):
            server.put(f"/data/{name}", (tmp_path / "mirror" / name).read_bytes())
        server.files["/data/ml-1m.zip"].drops = [700_000, 700_000]
        download(config("ml-1m", mirror=f"{server.url}/data/"), tmp_path / "ratings")

        assert rows(tmp_path / "ratings") == SMALL_ROWS
        assert len(server.ranges_asked("/data/ml-1m.zip")) == 3

    def test_a_server_that_always_drops_leaves_nothing(
        self,
        server: Any,
        tmp_path: Path,
        config: Callable[..., Any],
    ) -> None:
        server.put("/ml-1m.zip", bytes(1_000_000), always_drop_at=500_000)
        server.put("/ml-1m.zip.md5", b"0" * 32)
        with pytest.raises(InputError, match=rf"^{server.url}/ml-1m.zip could not be fetched"):
            download(config("ml-1m", mirror=server.url), tmp_path / "out" / "ratings")
        assert list((tmp_path / "out").iterdir()) == []

    def test_a_mirror_needs_an_md5(
        self, tmp_path: Path, config: Callable[..., Any], make_mirror: Callable[..., str], small_ml_1m: Members
    ) -> None:
        mirror = make_mirror("ml-1m", small_ml_1m)
        (tmp_path / "mirror" / "ml-1m.zip.md5").unlink()
        with pytest.raises(InputError, match=r"ml-1m.zip.md5 does not exist: a mirror holds each archive and,"):
            download(config("ml-1m", mirror=mirror), tmp_path / "ratings")

    def test_the_official_host_is_held_to_the_catalogues_md5(
        self,
        tmp_path: Path,
        config: Callable[..., Any],
        make_mirror: Callable[..., str],
        small_ml_1m: Members,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # The mirror's own md5 fits its archive, but without --mirror only the published one counts.
        monkeypatch.setattr(download_module, "OFFICIAL_HOST", make_mirror("ml-1m", small_ml_1m))
        with pytest.raises(InputError, match=f"expected {catalog.CATALOG['ml-1m'].archive.published_md5}"):
            download(config("ml-1m"), tmp_path / "ratings")

    def test_where_no_md5_is_published_it_does_without_and_says_so(
        self,
        tmp_path: Path,
        config: Callable[..., Any],
        make_mirror: Callable[..., str],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        archive = {
            "ml-latest-small/ratings.csv": b"userId,movieId,rating,timestamp\n1,5,0.5,964982703\n",
            "ml-latest-small/movies.csv": b"movieId,title,genres\n5,Five,\n",
        }
        monkeypatch.setattr(download_module, "OFFICIAL_HOST", make_mirror("ml-latest-small", archive))
        (tmp_path / "mirror" / "ml-latest-small.zip.md5").unlink()
        download(config("ml-latest-small"), tmp_path / "ratings")

        assert "has no published md5" in caplog.text
        assert read_manifest(tmp_path / "ratings", "ratings")["archive"]["md5"] == ""


def test_synthetic_states_its_best_hit_rate(tmp_path: Path, config: Callable[..., Any]) -> None:
    for name in ("one", "two"):
        download(config("synthetic:num_users=50,num_items=200"), tmp_path / name)
    manifest = read_manifest(tmp_path / "one", "ratings")

    assert manifest["counts"]["users"] == 50
    assert 0.3 < manifest["best_hr@10"] < 1
    assert manifest["best_hr_protocol"] == "loo-99"
    assert manifest == read_manifest(tmp_path / "two", "ratings")
    assert len(rows(tmp_path / "one", "items.parquet")) == 200


class TestPlaces:
    def test_a_folder_that_is_taken(self, tmp_path: Path, config: Callable[..., Any]) -> None:
        (tmp_path / "mine").write_text("precious")
        with pytest.raises(InputError, match="already exists and is not empty"):
            download(config("synthetic:num_users=20,num_items=140"), tmp_path)
        assert (tmp_path / "mine").read_text() == "precious"

    def test_a_place_below_a_file(self, tmp_path: Path, config: Callable[..., Any]) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"file.* cannot be written \(Not a directory\): choose a folder"):
            download(config("synthetic:num_users=20,num_items=140"), tmp_path / "file" / "ratings")

    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        place = tmp_path / "disk"
        place.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=False, capture_output=True, text=True
        )
        if mounted.returncode:
            pytest.skip(f"no small disk can be mounted here, user {os.geteuid()}: {mounted.stderr.strip()}")
        yield place
        subprocess.run(["umount", str(place)], check=True)

    @pytest.mark.parametrize("dataset", ["synthetic", "csv"])
    def test_a_full_disk(
        self, small_disk: Path, tmp_path: Path, config: Callable[..., Any], server: Any, dataset: str
    ) -> None:
        if dataset == "csv":  # fills the disk while it downloads, not while it writes Parquet
            server.put("/events.csv", b"user,item\n" + b"1,2\n" * 100_000)
            dataset = f"csv:{server.url}/events.csv"
        with pytest.raises(InputError) as caught:
            download(config(dataset), small_disk / "ratings")
        assert str(caught.value) == (
            f"No space is left on the disk that holds {small_disk / 'ratings'}: "
            "free some space or choose another place."
        )
        assert list(small_disk.iterdir()) == []
        assert list(tmp_path.iterdir()) == [small_disk]

    def test_a_read_only_disk(self, small_disk: Path, config: Callable[..., Any]) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        with pytest.raises(InputError, match=r"cannot be written \(Read-only file system\): choose a folder"):
            download(config("synthetic:num_users=20,num_items=140"), small_disk / "ratings")


class TestInteractionsWriter:
    def write(self, folder: Path, cuts: list[int]) -> dict[str, bytes]:
        folder.mkdir()
        numbers = np.arange(1_000)
        columns = [
            pa.array(numbers // 7),
            pa.array(numbers % 50),
            pa.array(numbers % 5, pa.float32()),
            pa.array(numbers),
        ]
        table = pa.table(columns, schema=interactions_schema(pa.int64(), pa.int64()))
        with InteractionsWriter(folder, pa.int64(), pa.int64()) as writer:
            for start, end in zip([0, *cuts], [*cuts, 1_000], strict=True):
                writer.write(table.slice(start, end - start))
        description = writer.description()
        assert description["counts"] == {"interactions": 1_000, "users": 143, "items": 50}
        assert description["rating_range"] == [0.0, 4.0]
        assert description["timestamp_range"] == [0, 999]
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    def test_files_and_row_groups_are_bounded_whatever_the_tables(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ratings_folder, "ROWS_PER_GROUP", 100)
        monkeypatch.setattr(ratings_folder, "ROWS_PER_FILE", 300)
        monkeypatch.setattr(ratings_folder, "_DISTINCT_EVERY_ROWS", 60)
        at_once = self.write(tmp_path / "at_once", [])
        in_bits = self.write(tmp_path / "in_bits", [1, 1, 99, 350, 351, 990])

        assert [*at_once] == [f"interactions-0000{number}.parquet" for number in range(4)]
        assert at_once == in_bits
        files = [pq.ParquetFile(tmp_path / "at_once" / name) for name in at_once]
        assert [file.metadata.num_rows for file in files] == [300, 300, 300, 100]
        assert {file.metadata.row_group(0).num_rows for file in files} == {100}
        read = pa.concat_tables([file.read() for file in files])
        assert read["timestamp"].to_pylist() == list(range(1_000))

    def test_no_rows_make_one_empty_file(self, tmp_path: Path) -> None:
        with InteractionsWriter(tmp_path, pa.string(), pa.int64()) as writer:
            pass
        assert pq.read_table(tmp_path / "interactions-00000.parquet").schema == writer.schema
        assert writer.description()["counts"] == {"interactions": 0, "users": 0, "items": 0}


class TestRealMovielens:
    @pytest.mark.parametrize(
        ("name", "counts", "first_row", "title"),
        [
            (
                "ml-latest-small",
                {"interactions": 100_836, "users": 610, "items": 9_724, "rejected": 0},
                (1, 1, 4.0, 964982703),
                (1, "Toy Story (1995)", "Adventure|Animation|Children|Comedy|Fantasy"),
            ),
            (
                "ml-1m",
                {"interactions": 1_000_209, "users": 6_040, "items": 3_706, "rejected": 0},
                (1, 1193, 5.0, 978300760),
                (1, "Toy Story (1995)", "Animation|Children's|Comedy"),
            ),
        ],
    )
    def test_the_real_files(
        self,
        movielens_mirror: str,
        tmp_path: Path,
        config: Callable[..., Any],
        caplog: pytest.LogCaptureFixture,
        name: str,
        counts: dict[str, int],
        first_row: tuple[Any, ...],
        title: tuple[Any, ...],
    ) -> None:
        download(config(name, mirror=movielens_mirror), tmp_path / "ratings")

        manifest = json.loads((tmp_path / "ratings" / "manifest.json").read_text())
        table = pq.read_table(tmp_path / "ratings" / "interactions-00000.parquet")
        items = pq.read_table(tmp_path / "ratings" / "items.parquet")
        assert manifest["counts"] == counts
        assert table.num_rows == counts["interactions"]
        assert tuple(table.slice(0, 1).to_pylist()[0].values()) == first_row
        assert tuple(items.slice(0, 1).to_pylist()[0].values()) == title
        assert pc.all(pc.is_in(table["raw_item_id"], value_set=items["raw_item_id"].combine_chunks())).as_py()
        assert "not the known" not in caplog.text
