"""The generate step: ratings in, records for training and evaluation out."""

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.generate.allocator import return_free_memory
from components.generate.config import PREBATCH_MULTIPLE, GenerateConfig
from components.generate.protocols import FIXED_NAME, SAMPLED_PROTOCOLS, VALIDATION, Protocol, fixed_protocol
from components.generate.runner_options import IN_MEMORY, check_places
from components.ncf.errors import InputError
from components.ncf.manifest import MANIFEST_NAME, Manifest, encode_manifest

if TYPE_CHECKING:
    from components.generate.beam_pipeline import Report
    from components.generate.block_store import BlockStore
    from components.generate.ratings import Ratings

_LOG = logging.getLogger(__name__)

_SCRATCH_NAME = ".scratch"
_CARD_NAME = "card.html"
_REJECTED_NAME = "rejected.csv"
_MAX_REASONS = 20

# Parameters that leave no trace in any file.
_OF_THE_RUNNER = ("beam_runner", "beam_options")
# What the ratings' manifest says of where they come from.
_OF_THE_SOURCE = ("url", "archive", "licence", "citation", "counts", "timestamp_range", "parameters")


def generate(config: GenerateConfig, ratings: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Holds items out, draws the evaluation candidates and writes the records.

    Args:
        config: The parameters.
        ratings: The folder that download wrote: a local path or gs://bucket/name.
        output: The `examples` folder to write, likewise: positives/, validation/, by protocol eval/, eval_loo-99/ and
            eval_fixed/, by epoch training_cycle_<epoch>/ record files, held_out.parquet/, users.parquet/,
            items.parquet, card.html, manifest.json.

    Raises:
        InputError: The ratings are damaged or too few, or the output cannot be written.
    """
    started = time.perf_counter()
    return_free_memory()
    ratings, output = os.fspath(ratings), os.fspath(output)
    check_places(config.beam_runner, ratings, output)
    # Beam and the client of Cloud Storage take seconds to import; who only wants the configuration need not wait.
    from components.generate.beam_pipeline import ROWS_PER_PARTITION, Plan, run_pipeline
    from components.generate.progress import describe
    from components.generate.ratings import open_ratings
    from components.generate.storage import join, remove_folder, remove_unfinished, writing_file, writing_output

    source = open_ratings(ratings)
    rejected_reasons = _count_rejected_reasons(source)
    protocols = _choose_protocols(config, source)
    with writing_output(output) as partial:
        scratch = join(partial, _SCRATCH_NAME)
        with _block_store(config, scratch) as store:
            report = run_pipeline(
                Plan(config, source, protocols, partial, join(scratch, "report.json"), ROWS_PER_PARTITION, store)
            )
        remove_folder(scratch)
        remove_unfinished(partial)
        manifest = _describe(config, source, protocols, report)
        with writing_file(join(partial, _CARD_NAME)) as stream:
            stream.write(_render_card(manifest, source, partial, rejected_reasons).encode())
        with writing_file(join(partial, MANIFEST_NAME)) as stream:
            stream.write(encode_manifest("examples", manifest))
    _LOG.info("%.1f s: %s", time.perf_counter() - started, describe(report.counters, {}))


@contextmanager
def _block_store(config: GenerateConfig, scratch: str) -> "Iterator[BlockStore]":
    """Yields where blocks wait: beside a local output, on the local disk for one that is elsewhere, or with Beam."""
    from components.generate.block_store import BlockStore
    from components.generate.storage import is_remote

    if config.beam_runner != IN_MEMORY:
        yield BlockStore(None)
    elif is_remote(scratch):
        with tempfile.TemporaryDirectory(prefix="neumf-generate-") as folder:
            yield BlockStore(folder)
    else:
        Path(scratch).mkdir()
        try:
            yield BlockStore(scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _count_rejected_reasons(source: "Ratings") -> dict[str, int]:
    from components.generate.card_content import count_reasons
    from components.generate.storage import join, open_reading

    try:
        with open_reading(join(source.folder, _REJECTED_NAME)) as stream:
            return count_reasons(stream, _MAX_REASONS)
    except FileNotFoundError:
        return {}


def _render_card(manifest: Manifest, source: "Ratings", folder: str, rejected_reasons: dict[str, int]) -> str:
    from components.generate.card import render_card
    from components.generate.card_content import card_content
    from components.generate.tables import count_users, read_item_counts

    item_counts, users_by_count = read_item_counts(folder), count_users(folder)
    return render_card(card_content(manifest, source.manifest, item_counts, users_by_count, rejected_reasons))


def _choose_protocols(config: GenerateConfig, source: "Ratings") -> tuple[Protocol, ...]:
    chosen = [SAMPLED_PROTOCOLS[name] for name in config.protocols if name != FIXED_NAME]
    if source.fixed:
        chosen.append(fixed_protocol(source.num_fixed_candidates))
    elif FIXED_NAME in config.protocols:
        raise InputError(
            f"generate.protocols names {FIXED_NAME!r}, but {source.folder} has no fixed.parquet: only `ncf:` data sets "
            f"bring candidates; choose from {', '.join(SAMPLED_PROTOCOLS)}."
        )
    return (*chosen, VALIDATION)


def _describe(config: GenerateConfig, source: "Ratings", protocols: tuple[Protocol, ...], report: "Report") -> Manifest:
    """Returns the manifest: the TensorFlow official models' meta data keys, and ours."""
    described = {protocol.name: _describe_protocol(protocol, config, report) for protocol in protocols}
    official = described.get("loo-999-masked", {"num_rows": 0, "prebatch_size": config.eval_prebatch_size})
    num_train_positives = report.counts.rows_kept - 2 * report.num_users
    num_train_elements = num_train_positives * (1 + config.num_offline_negatives) if config.offline_epochs else 0
    files = [asdict(file) for file in report.files]
    manifest: Manifest = {
        "dataset": source.manifest.get("dataset"),
        "ratings_digest": source.manifest.get("digest"),
        "digest": hashlib.sha256("\n".join(f"{file['path']} {file['sha256']}" for file in files).encode()).hexdigest(),
        "seed": config.seed,
        "min_ratings": config.min_ratings,
        "num_users": report.num_users,
        "num_items": report.num_items,
        "num_train_positives": num_train_positives,
        "num_train_epochs": config.offline_epochs,
        "num_train_elements": num_train_elements,
        "train_prebatch_size": config.train_prebatch_size,
        "num_train_steps": -(-num_train_elements // config.train_prebatch_size),
        "num_eval_elements": report.num_users * PREBATCH_MULTIPLE if "loo-999-masked" in described else 0,
        "eval_prebatch_size": official["prebatch_size"],
        "num_eval_steps": official["num_rows"] // official["prebatch_size"],
        "counts": asdict(report.counts),
        "protocols": described,
        "files": files,
        "parameters": {name: value for name, value in asdict(config).items() if name not in _OF_THE_RUNNER},
        "source": {name: source.manifest.get(name) for name in _OF_THE_SOURCE},
    }
    if "best_hr@10" in source.manifest:
        manifest["best_hr@10"] = source.manifest["best_hr@10"]
    return manifest


def _describe_protocol(protocol: Protocol, config: GenerateConfig, report: "Report") -> dict[str, Any]:
    folder = f"{protocol.folder}/"
    return {
        "folder": protocol.folder,
        "num_candidates": protocol.num_candidates,
        "prebatch_size": protocol.users_per_prebatch(config.eval_prebatch_size) * protocol.rows_per_user,
        "num_rows": sum(file.num_rows for file in report.files if file.path.startswith(folder)),
        "num_users": report.num_users,
    }
