"""The `download` step: from a data set's name to the `ratings` artifact.

The artifact is a folder with

    interactions-00000.parquet …  raw_user_id, raw_item_id (each int64, or string where a CSV's ids are not all whole
                                  numbers), rating float32, timestamp int64 (seconds since 1970; 0 where unknown);
                                  in the source's order
    items.parquet                 raw_item_id, title, genres (separated by `|`); a row for every item that the source
                                  names or that occurs in an interaction; empty strings where nothing is known
    rejected.csv                  file, line (1-based), reason: the lines that were left out
    fixed.parquet                 of `ncf:` data sets only: raw_user_id, raw_item_id (the held-out item of the paper's
                                  split), candidates (list of int64, as many for every user)
    manifest.json                 dataset, url, archive (md5, size_bytes), digest, licence, citation, counts,
                                  rating_range, timestamp_range, parameters, rejected; of `synthetic` only: best_hr@10
"""

import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from components.download import ncf_split
from components.download.archive import open_archive, open_member
from components.download.catalog import (
    CATALOG,
    OFFICIAL_HOST,
    Archive,
    Dataset,
    Layout,
    SourceKind,
    parse_dataset,
    parse_synthetic_options,
)
from components.download.config import DownloadConfig
from components.download.csv_events import read_csv_events
from components.download.fetch import COPY_ADVICE, MIRROR_ADVICE, FileMissingError, check_md5, fetch, published_md5
from components.download.header import find_columns, parse_column_mapping
from components.download.parse import RatingsFormat, movielens_format, parse_ratings
from components.download.ratings_folder import InteractionsWriter, items_table, require_interactions, write_items
from components.download.synthetic import SyntheticWorld
from components.download.text_lines import BlockReader, RejectedLines
from components.download.titles import read_csv_titles, read_movielens_titles
from components.ncf.errors import InputError
from components.ncf.manifest import Manifest, write_manifest, writing_artifact

__all__ = ["DownloadConfig", "download"]

_log = logging.getLogger(__name__)

_CSV_MAPPING = {"user": "userId", "item": "movieId", "rating": "rating", "timestamp": "timestamp"}


def download(config: DownloadConfig, output: Path) -> None:
    """Brings a data set into the `ratings` artifact.

    Args:
        config: What to bring.
        output: The artifact's folder; it may exist only as an empty folder.

    Raises:
        InputError: The data set cannot be fetched or does not hold what it should, or the output cannot be written.
    """
    source = parse_dataset(config.dataset)
    read = _READERS[source.kind]
    with writing_artifact(output) as folder:
        with (
            RejectedLines(folder / "rejected.csv", config.max_rejected_fraction) as rejected,
            _scratch(folder) as scratch,
        ):
            writer, description = read(config, source.argument, _Place(folder, scratch, rejected))
            require_interactions(writer, config.dataset)
        content = _manifest(config, writer, rejected, description)
        write_manifest(folder, "ratings", content)
    counts = content["counts"]
    _log.info(
        "%s: %d interactions of %d users with %d items, %d lines rejected",
        config.dataset,
        *(counts[name] for name in ("interactions", "users", "items", "rejected")),
    )


@dataclass(frozen=True)
class _Place:
    """Where a reader puts things.

    Attributes:
        folder: The artifact's (partial) folder.
        scratch: For files on their way; removed before the artifact is published.
        rejected: Takes bad lines.
    """

    folder: Path
    scratch: Path
    rejected: RejectedLines

    def writer(self, user_type: pa.DataType, item_type: pa.DataType) -> InteractionsWriter:
        return InteractionsWriter(self.folder, user_type, item_type)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    path = folder / ".fetched"
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _manifest(
    config: DownloadConfig, writer: InteractionsWriter, rejected: RejectedLines, description: Manifest
) -> Manifest:
    content = {"dataset": config.dataset, **description, **writer.description()}
    content["counts"]["rejected"] = rejected.total
    content["parameters"] = dataclasses.asdict(config)
    return content


def _read_synthetic(config: DownloadConfig, argument: str, place: _Place) -> tuple[InteractionsWriter, Manifest]:
    world = SyntheticWorld(parse_synthetic_options(argument), config.seed)
    with place.writer(pa.int64(), pa.int64()) as writer:
        for table in world.tables():
            writer.write(table)
    write_items(place.folder, writer.items(), world.items())
    description = _provenance("", licence=CATALOG["synthetic"].licence)
    # A bound in expectation over candidates: no ranking has a higher one under the protocol loo-99.
    return writer, {**description, "best_hr@10": world.best_hit_rate(), "best_hr_protocol": "loo-99"}


def _read_movielens(config: DownloadConfig, name: str, place: _Place) -> tuple[InteractionsWriter, Manifest]:
    dataset = CATALOG[name]
    assert dataset.archive is not None
    uri = f"{config.mirror.rstrip('/') or OFFICIAL_HOST}/{name}.zip"
    # The md5 comes first: to miss it after a long download would be a pity.
    md5 = config.data_digest or _expected_md5(dataset.archive, uri, bool(config.mirror), place.scratch)
    path = fetch(uri, place.scratch, MIRROR_ADVICE)
    if md5:
        check_md5(path, uri, md5, "remove it and fetch it again, or name another mirror with --mirror")
    size_bytes = path.stat().st_size
    writer = _read_archive(path, uri, dataset.archive, place)
    _compare_counts(dataset, writer)
    description = _provenance(uri, licence=dataset.licence, citation=dataset.citation)
    return writer, {**description, "archive": {"md5": md5, "size_bytes": size_bytes}}


def _expected_md5(archive: Archive, uri: str, mirrored: bool, scratch: Path) -> str:
    if not mirrored and archive.published_md5:
        return archive.published_md5
    try:
        return published_md5(uri, scratch, MIRROR_ADVICE)
    except FileMissingError:
        if mirrored:
            raise InputError(
                f"{uri}.md5 does not exist: a mirror holds each archive and, beside it, the output of md5sum."
            ) from None
        _log.warning("%s has no published md5: only the checksums inside the archive are verified", uri)
        return ""


def _read_archive(path: Path, uri: str, archive: Archive, place: _Place) -> InteractionsWriter:
    advice = "remove it and fetch it again, or name another mirror with --mirror"
    with open_archive(path, uri, advice) as zip_file:
        with (
            open_member(zip_file, archive.ratings_member, uri, advice) as stream,
            place.writer(pa.int64(), pa.int64()) as writer,
        ):
            _read_ratings_member(stream, archive, place.rejected, writer)
        with open_member(zip_file, archive.titles_member, uri, advice) as stream:
            titled = read_movielens_titles(
                stream, archive.titles_member, archive.layout, archive.encoding, place.rejected
            )
    write_items(place.folder, writer.items(), titled)
    return writer


def _read_ratings_member(
    stream: IO[bytes], archive: Archive, rejected: RejectedLines, writer: InteractionsWriter
) -> None:
    reader = BlockReader(stream, archive.ratings_member)
    layout = _ratings_format(reader, archive)
    num_header_lines = reader.num_lines
    for table in parse_ratings(reader, layout, rejected):
        writer.write(table)
    rejected.judge(reader.name, reader.num_lines - num_header_lines)


def _ratings_format(reader: BlockReader, archive: Archive) -> RatingsFormat:
    if archive.layout is Layout.U_DATA:
        return movielens_format("\t", quoted=False, rating_range=archive.rating_range)
    if archive.layout is Layout.DOUBLE_COLON:
        return movielens_format("::", quoted=False, rating_range=archive.rating_range)
    separator, num_fields, columns = find_columns(
        reader.read_header(), tuple(_CSV_MAPPING), (), _CSV_MAPPING, reader.name
    )
    return dataclasses.replace(
        movielens_format(separator, quoted=True, rating_range=archive.rating_range),
        num_fields=num_fields,
        user=columns["user"],
        item=columns["item"],
        rating=columns["rating"],
        timestamp=columns["timestamp"],
    )


def _compare_counts(dataset: Dataset, writer: InteractionsWriter) -> None:
    found = (writer.num_interactions, len(writer.users()), len(writer.items()))
    known = (dataset.num_interactions, dataset.num_users, dataset.num_items)
    if found != known:
        _log.warning(
            "%s has %d interactions, %d users and %d items, not the known %d, %d, %d", dataset.name, *found, *known
        )


def _read_csv(config: DownloadConfig, uri: str, place: _Place) -> tuple[InteractionsWriter, Manifest]:
    mapping = parse_column_mapping(config.columns)
    path = fetch(uri, place.scratch / "events", COPY_ADVICE)
    if config.data_digest:
        check_md5(path, uri, config.data_digest, "give the digest of the file as it is, or bring the old file back")
    size_bytes = path.stat().st_size
    writer = read_csv_events(path, _short_name(uri), mapping, place.rejected, place.writer)
    item_type = writer.schema.field("raw_item_id").type
    titled = items_table([], [], [], item_type)
    if config.titles:
        titles_path = fetch(config.titles, place.scratch / "titles", COPY_ADVICE)
        with titles_path.open("rb") as stream:
            titled = read_csv_titles(stream, _short_name(config.titles), item_type, mapping, place.rejected)
    write_items(place.folder, writer.items(), titled)
    return writer, {**_provenance(uri), "source_size_bytes": size_bytes}


def _read_ncf(config: DownloadConfig, prefix: str, place: _Place) -> tuple[InteractionsWriter, Manifest]:  # noqa: ARG001
    paths = {suffix: fetch(prefix + suffix, place.scratch, COPY_ADVICE) for suffix in ncf_split.SUFFIXES}
    writer = ncf_split.read_ncf_split(paths, place.folder, place.rejected)
    write_items(place.folder, writer.items(), items_table([], [], [], pa.int64()))
    return writer, _provenance(prefix)


def _provenance(url: str, licence: str = "", citation: str = "") -> Manifest:
    return {"url": url, "archive": None, "licence": licence, "citation": citation}


def _short_name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


_Reader = Callable[[DownloadConfig, str, _Place], tuple[InteractionsWriter, dict[str, Any]]]

_READERS: dict[SourceKind, _Reader] = {
    SourceKind.SYNTHETIC: _read_synthetic,
    SourceKind.MOVIELENS: _read_movielens,
    SourceKind.CSV: _read_csv,
    SourceKind.NCF: _read_ncf,
}
