"""The generate step as a Beam pipeline: reading at one end, writing at the other, `transforms` between them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsIter, AsSingleton

from components.generate.block_store import BlockStore
from components.generate.blocks import Catalog, Counts, FileReport, HeldOut, Positives, Totals, UsersToRank
from components.generate.config import GenerateConfig
from components.generate.failures import carried_failure, carrying_failures, quiet_beam
from components.generate.file_counts import epoch_layout, num_evaluation_files, num_positive_files, num_table_files
from components.generate.progress import COUNTERS, count, counted_here, logging_progress
from components.generate.protocols import Protocol
from components.generate.ratings import FixedBlock, Ratings, RowGroups, read_fixed, read_interactions
from components.generate.record_files import write_evaluation, write_offline_epoch, write_positives
from components.generate.runner_options import IN_MEMORY
from components.generate.runners import check_job_server, engine_failure, make_pipeline, read_counters
from components.generate.storage import open_reading, writing_file
from components.generate.tables import write_items, write_users
from components.generate.transforms import (
    TABLES,
    AssignUsersToFiles,
    BuildCatalog,
    CountPositives,
    CutOfflineEpochs,
    GatherHistories,
    HoldOutItems,
    ShufflePositives,
)
from components.ncf.interactions import Interactions

# Bounds what a worker holds of the raw data at a time; which rows are worked on together changes no output.
ROWS_PER_PARTITION = 1 << 19

_PROGRESS_INTERVAL_SECONDS = 5.0


@dataclass(frozen=True)
class Plan:
    """All that the pipeline needs to know.

    Attributes:
        config: The step's parameters.
        ratings: The input.
        protocols: What candidates are written for.
        folder: The artifact's (partial) folder.
        report: The place of the file that the pipeline leaves its `Report` in.
        rows_per_partition: Aimed-at rows in a partition of the users.
        store: Where blocks wait between stages.
    """

    config: GenerateConfig
    ratings: Ratings
    protocols: tuple[Protocol, ...]
    folder: str
    report: str
    rows_per_partition: int
    store: BlockStore


@dataclass(frozen=True)
class Report:
    """What the pipeline did.

    Attributes:
        num_users, num_items: Sizes of the vocabularies.
        counts: What each filter left.
        files: The record files, by path.
        counters: Beam's counters by name.
    """

    num_users: int
    num_items: int
    counts: Counts
    files: tuple[FileReport, ...]
    counters: dict[str, int]


def run_pipeline(plan: Plan) -> Report:
    """Builds the pipeline, runs it and waits for its end.

    Raises:
        InputError: The data do not allow what is asked for, or a runner's option is wrong.
        OSError: A file could not be written.
    """
    pipeline = make_pipeline(plan.config.beam_runner, plan.config.beam_options)
    build_pipeline(pipeline, plan)
    if plan.config.beam_runner != IN_MEMORY:
        check_job_server(plan.config.beam_options)
    results: list[Any] = []

    def counters_so_far() -> dict[str, int]:
        # The in-memory runner returns when all is done; until then its workers' own counts are known.
        return read_counters(results[0], COUNTERS) if results else counted_here()

    totals = {"rows_read": plan.ratings.num_rows}
    with quiet_beam(), logging_progress(totals, counters_so_far, _PROGRESS_INTERVAL_SECONDS):
        try:
            result = pipeline.run()
            results.append(result)
            result.wait_until_finish()
        except Exception as error:
            failure = carried_failure(error)
            if failure is None and plan.config.beam_runner == IN_MEMORY:
                raise
            raise failure or engine_failure(plan.config.beam_runner, error) from error
    with open_reading(plan.report) as stream:
        document = json.loads(stream.read())
    return Report(
        num_users=document["num_users"],
        num_items=document["num_items"],
        counts=Counts(**document["counts"]),
        files=tuple(FileReport(**file) for file in sorted(document["files"], key=lambda file: file["path"])),
        counters=read_counters(result, COUNTERS),
    )


def build_pipeline(pipeline: beam.Pipeline, plan: Plan) -> None:
    """Adds the whole step to a pipeline, whatever its runner."""
    config, store = plan.config, plan.store
    interactions = (
        pipeline
        | "List the pieces of the files" >> beam.Create(plan.ratings.interactions)
        | "Spread the pieces" >> beam.Reshuffle()
        | "Read interactions" >> beam.ParDo(_ReadInteractions())
    )
    fixed = _read_fixed_candidates(pipeline, plan.ratings)
    num_partitions = -(-plan.ratings.num_rows // plan.rows_per_partition) or 1
    histories = (
        (interactions, *fixed)
        | "Join interactions and fixed test items" >> beam.Flatten()
        | "Gather histories" >> GatherHistories(num_partitions, config.min_ratings, bool(fixed), store)
    )
    catalog = (
        (histories, *fixed)
        | "Join histories and fixed candidates" >> beam.Flatten()
        | "Build the catalog" >> BuildCatalog(config.min_ratings, store)
    )
    splits = histories | "Hold out items" >> HoldOutItems(catalog, config.seed, store)
    totals = splits | "Count positives" >> CountPositives(catalog)
    positives = (
        splits
        | "Shuffle positives" >> ShufflePositives(catalog, config.num_shards, config.seed, store)
        | "Write positives" >> beam.ParDo(_WritePositives(plan), AsSingleton(catalog))
    )
    evaluations = (
        (splits, *fixed)
        | "Join sampled and fixed users" >> beam.Flatten()
        | "Assign users to files"
        >> AssignUsersToFiles(catalog, plan.protocols, config.num_shards, config.eval_prebatch_size, store)
        | "Write candidates and tables of users" >> beam.ParDo(_WriteUsers(plan), AsSingleton(catalog))
    )
    files = (
        (positives, evaluations, *_write_offline_epochs(splits, catalog, totals, plan))
        | "Join file reports" >> beam.Flatten()
    )  # fmt: skip
    (
        catalog
        | "Write the table of items" >> beam.ParDo(_WriteItems(plan), AsSingleton(totals))
        | "Write the report" >> beam.ParDo(_WriteReport(plan), AsIter(files))
    )


def _write_offline_epochs(
    splits: beam.PCollection, catalog: beam.PCollection, totals: beam.PCollection, plan: Plan
) -> tuple[beam.PCollection, ...]:
    """Returns the one collection of file reports, or nothing when no epoch is asked for."""
    config = plan.config
    if not config.offline_epochs:
        return ()
    reports = (
        splits
        | "Offline epochs"
        >> CutOfflineEpochs(
            catalog,
            totals,
            config.offline_epochs,
            config.num_offline_negatives,
            config.train_prebatch_size,
            config.num_shards,
            config.seed,
            plan.store,
        )
        | "Write offline epochs" >> beam.ParDo(_WriteOfflineEpoch(plan), AsSingleton(catalog))
    )
    return (reports,)


def _read_fixed_candidates(pipeline: beam.Pipeline, ratings: Ratings) -> tuple[beam.PCollection, ...]:
    """Returns the one collection of `FixedBlock`s, or nothing when the data set gives no candidates."""
    if not ratings.fixed:
        return ()
    blocks = (
        pipeline
        | "List the pieces of fixed candidates" >> beam.Create(ratings.fixed)
        | "Read fixed candidates" >> beam.ParDo(_ReadFixed(ratings.num_fixed_candidates))
    )
    return (blocks,)


class _ReadInteractions(beam.DoFn):
    @carrying_failures
    def process(self, piece: RowGroups) -> Iterator[Interactions]:
        for block in read_interactions(piece):
            count("rows_read", block.num_rows)
            yield block


class _ReadFixed(beam.DoFn):
    def __init__(self, num_candidates: int) -> None:
        super().__init__()
        self._num_candidates = num_candidates

    @carrying_failures
    def process(self, piece: RowGroups) -> Iterator[FixedBlock]:
        yield from read_fixed(piece, self._num_candidates)


class _Writer(beam.DoFn):
    """Writes one file of the artifact for each element."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan
        self._config = plan.config


class _WritePositives(_Writer):
    @carrying_failures
    def process(self, group: tuple[int, Iterable[Any]], catalog: Catalog) -> Iterator[FileReport]:
        shard, references = group
        positives = Positives.concatenate(list(self._plan.store.get_all(references)))
        num_shards = num_positive_files(catalog, self._config.num_shards)
        report = write_positives(self._plan.folder, shard, num_shards, positives, self._config.seed)
        count("positive_rows_written", report.num_rows)
        yield report


class _WriteUsers(_Writer):
    @carrying_failures
    def process(self, group: tuple[tuple[str, int], Iterable[Any]], catalog: Catalog) -> Iterator[FileReport]:
        (name, file), references = group
        blocks = list(self._plan.store.get_all(references))
        if name == TABLES:
            write_users(self._plan.folder, file, num_table_files(catalog), HeldOut.concatenate(blocks), catalog)
            return
        (protocol,) = (protocol for protocol in self._plan.protocols if protocol.name == name)
        users_per_prebatch = protocol.users_per_prebatch(self._config.eval_prebatch_size)
        report = write_evaluation(
            self._plan.folder,
            protocol,
            file,
            num_evaluation_files(catalog, self._config.num_shards, users_per_prebatch),
            UsersToRank.concatenate(blocks),
            catalog.num_items,
            self._config.eval_prebatch_size,
            self._config.seed,
        )
        count("candidate_rows_written", report.num_rows)
        yield report


class _WriteOfflineEpoch(_Writer):
    @carrying_failures
    def process(self, group: tuple[tuple[int, int], Iterable[Any]], catalog: Catalog) -> Iterator[FileReport]:
        (epoch, file), references = group
        layout = epoch_layout(
            catalog, self._config.num_offline_negatives, self._config.train_prebatch_size, self._config.num_shards
        )
        report = write_offline_epoch(
            self._plan.folder,
            epoch,
            file,
            self._plan.store.get_all(references),
            layout,
            catalog.num_users,
            catalog.num_items,
        )
        count("training_rows_written", report.num_rows)
        yield report


class _WriteItems(_Writer):
    @carrying_failures
    def process(self, catalog: Catalog, totals: Totals) -> Iterator[Catalog]:
        write_items(self._plan.folder, catalog, totals.item_counts, self._plan.ratings.titles)
        yield catalog


class _WriteReport(_Writer):
    @carrying_failures
    def process(self, catalog: Catalog, files: Iterable[FileReport]) -> Iterator[Any]:
        document = {
            "num_users": catalog.num_users,
            "num_items": catalog.num_items,
            "counts": asdict(catalog.counts),
            "files": [asdict(file) for file in files],
        }
        with writing_file(self._plan.report) as stream:
            stream.write(json.dumps(document).encode())
        yield from ()
