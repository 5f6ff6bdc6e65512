"""The generate step as a Beam pipeline: reading at one end, writing at the other, `transforms` between them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsIter, AsSingleton
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from components.generate.block_store import BlockStore
from components.generate.blocks import Catalog, Counts, FileReport, HeldOut, Positives, UsersToRank
from components.generate.failures import carried_failure, carrying_failures, quiet_beam
from components.generate.protocols import Protocol
from components.generate.ratings import FixedBlock, Ratings, RowGroup, read_fixed, read_interactions
from components.generate.record_files import write_evaluation, write_positives
from components.generate.tables import write_tables
from components.generate.transforms import (
    COUNTERS,
    AssignUsersToFiles,
    BuildCatalog,
    CountTrainInteractions,
    GatherHistories,
    HoldOutItems,
    ShufflePositives,
    num_evaluation_files,
    num_positive_files,
)
from components.ncf.interactions import Interactions

# Bounds what a worker holds of the raw data at a time; which rows are worked on together changes no output.
ROWS_PER_PARTITION = 1 << 20

_REPORT_NAME = "report.json"


@dataclass(frozen=True)
class Plan:
    """All that the pipeline needs to know.

    Attributes:
        ratings: The input.
        folder: The artifact's (partial) folder.
        scratch: An existing folder for what is thrown away at the end; every worker can reach it.
        min_ratings: Users with fewer distinct items are dropped.
        protocols: What candidates are written for.
        num_shards: Files per kind of record.
        eval_prebatch_size: Rows of an evaluation Example, rounded down to whole users.
        seed: Seed of every draw.
        rows_per_partition: Aimed-at rows in a partition of the users.
        store: Where blocks wait between stages.
    """

    ratings: Ratings
    folder: Path
    scratch: Path
    min_ratings: int
    protocols: tuple[Protocol, ...]
    num_shards: int
    eval_prebatch_size: int
    seed: int
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
    """Builds and runs the pipeline in this process.

    Raises:
        InputError: The data do not allow what is asked for.
        OSError: A file could not be written.
    """
    # Named, because Beam's default runner may try to download one. No flags: those of the caller are not Beam's.
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(flags=[]))
    build_pipeline(pipeline, plan)
    with quiet_beam():
        try:
            result = pipeline.run()
            result.wait_until_finish()
        except Exception as error:
            failure = carried_failure(error)
            if failure is None:
                raise
            raise failure from error
    document = json.loads((plan.scratch / _REPORT_NAME).read_text(encoding="utf-8"))
    return Report(
        num_users=document["num_users"],
        num_items=document["num_items"],
        counts=Counts(**document["counts"]),
        files=tuple(FileReport(**file) for file in sorted(document["files"], key=lambda file: file["path"])),
        counters={counter.key.metric.name: counter.committed for counter in result.metrics().query()["counters"]},
    )


def build_pipeline(pipeline: beam.Pipeline, plan: Plan) -> None:
    """Adds the whole step to a pipeline, whatever its runner."""
    store = plan.store
    interactions = (
        pipeline
        | "List the row groups" >> beam.Create(plan.ratings.interactions)
        | "Spread the row groups" >> beam.Reshuffle()
        | "Read interactions" >> beam.ParDo(_ReadInteractions())
    )
    fixed = _read_fixed_candidates(pipeline, plan.ratings)
    num_partitions = -(-plan.ratings.num_rows // plan.rows_per_partition) or 1
    histories = (
        (interactions, *fixed)
        | "Join interactions and fixed test items" >> beam.Flatten()
        | "Gather histories" >> GatherHistories(num_partitions, plan.min_ratings, bool(fixed), store)
    )
    catalog = (
        (histories, *fixed)
        | "Join histories and fixed candidates" >> beam.Flatten()
        | "Build the catalog" >> BuildCatalog(plan.min_ratings)
    )
    splits = histories | "Hold out items" >> HoldOutItems(catalog, plan.seed, store)
    held_out = splits | "Count train interactions" >> CountTrainInteractions(catalog)
    positives = (
        splits
        | "Shuffle positives" >> ShufflePositives(catalog, plan.num_shards, plan.seed, store)
        | "Write positives" >> beam.ParDo(_WritePositives(plan), AsSingleton(catalog))
    )
    evaluations = (
        (splits, *fixed)
        | "Join sampled and fixed users" >> beam.Flatten()
        | "Assign users to files"
        >> AssignUsersToFiles(catalog, plan.protocols, plan.num_shards, plan.eval_prebatch_size, store)
        | "Write candidates" >> beam.ParDo(_WriteEvaluation(plan), AsSingleton(catalog))
    )
    files = (positives, evaluations) | "Join file reports" >> beam.Flatten()
    (
        catalog
        | "Write tables" >> beam.ParDo(_WriteTables(plan), AsSingleton(held_out))
        | "Write the report" >> beam.ParDo(_WriteReport(plan.scratch), AsIter(files))
    )


def _read_fixed_candidates(pipeline: beam.Pipeline, ratings: Ratings) -> tuple[beam.PCollection, ...]:
    """Returns the one collection of `FixedBlock`s, or nothing when the data set gives no candidates."""
    if not ratings.fixed:
        return ()
    blocks = (
        pipeline
        | "List the row groups of fixed candidates" >> beam.Create(ratings.fixed)
        | "Read fixed candidates" >> beam.ParDo(_ReadFixed(ratings.num_fixed_candidates))
    )
    return (blocks,)


class _ReadInteractions(beam.DoFn):
    @carrying_failures
    def process(self, row_group: RowGroup) -> Iterator[Interactions]:
        for block in read_interactions(row_group):
            Metrics.counter(COUNTERS, "rows_read").inc(block.num_rows)
            yield block


class _ReadFixed(beam.DoFn):
    def __init__(self, num_candidates: int) -> None:
        super().__init__()
        self._num_candidates = num_candidates

    @carrying_failures
    def process(self, row_group: RowGroup) -> Iterator[FixedBlock]:
        yield from read_fixed(row_group, self._num_candidates)


class _WritePositives(beam.DoFn):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan

    @carrying_failures
    def process(self, group: tuple[int, list[Positives]], catalog: Catalog) -> Iterator[FileReport]:
        shard, blocks = group
        num_shards = num_positive_files(catalog, self._plan.num_shards)
        report = write_positives(self._plan.folder, shard, num_shards, Positives.concatenate(blocks), self._plan.seed)
        Metrics.counter(COUNTERS, "positive_rows_written").inc(report.num_rows)
        yield report


class _WriteEvaluation(beam.DoFn):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan

    @carrying_failures
    def process(self, group: tuple[tuple[str, int], list[UsersToRank]], catalog: Catalog) -> Iterator[FileReport]:
        (name, file), blocks = group
        plan = self._plan
        (protocol,) = (protocol for protocol in plan.protocols if protocol.name == name)
        num_files = num_evaluation_files(catalog, plan.num_shards, protocol.users_per_prebatch(plan.eval_prebatch_size))
        users = UsersToRank.concatenate(blocks)
        report = write_evaluation(
            plan.folder, protocol, file, num_files, users, catalog.num_items, plan.eval_prebatch_size, plan.seed
        )
        Metrics.counter(COUNTERS, "candidate_rows_written").inc(report.num_rows)
        yield report


class _WriteTables(beam.DoFn):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan

    @carrying_failures
    def process(self, catalog: Catalog, held_out: HeldOut) -> Iterator[Catalog]:
        write_tables(self._plan.folder, catalog, held_out, self._plan.ratings.folder)
        yield catalog


class _WriteReport(beam.DoFn):
    def __init__(self, scratch: Path) -> None:
        super().__init__()
        self._path = scratch / _REPORT_NAME

    @carrying_failures
    def process(self, catalog: Catalog, files: Iterable[FileReport]) -> Iterator[Any]:
        document = {
            "num_users": catalog.num_users,
            "num_items": catalog.num_items,
            "counts": asdict(catalog.counts),
            "files": [asdict(file) for file in files],
        }
        self._path.write_text(json.dumps(document), encoding="utf-8")
        yield from ()
