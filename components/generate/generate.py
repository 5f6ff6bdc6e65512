"""The generate step: ratings in, records for training and evaluation out."""

import hashlib
import logging
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.generate.config import PREBATCH_MULTIPLE, GenerateConfig
from components.generate.protocols import FIXED_NAME, SAMPLED_PROTOCOLS, VALIDATION, Protocol, fixed_protocol
from components.generate.ratings import Ratings, open_ratings
from components.ncf.errors import InputError
from components.ncf.manifest import Manifest, write_manifest, writing_artifact

if TYPE_CHECKING:
    from components.generate.beam_pipeline import Report

_LOG = logging.getLogger(__name__)

_SCRATCH_NAME = ".scratch"


def generate(config: GenerateConfig, ratings: Path, output: Path) -> None:
    """Holds items out, draws the evaluation candidates and writes the records.

    Args:
        config: The parameters.
        ratings: The folder that download wrote.
        output: The `examples` folder to write: positives/, validation/, and by protocol eval/, eval_loo-99/ and
            eval_fixed/ record files, held_out.parquet, users.parquet, items.parquet, manifest.json.

    Raises:
        InputError: The ratings are damaged or too few, or the output cannot be written.
    """
    started = time.perf_counter()
    source = open_ratings(ratings)
    protocols = _choose_protocols(config, source)
    with writing_artifact(output) as partial:
        scratch = partial / _SCRATCH_NAME
        scratch.mkdir()
        report = _run(config, source, protocols, partial, scratch)
        shutil.rmtree(scratch)
        write_manifest(partial, "examples", _describe(config, source, protocols, report))
    counters = ", ".join(f"{name} {count:,}" for name, count in sorted(report.counters.items()))
    _LOG.info("%.1f s; %s", time.perf_counter() - started, counters)


def _choose_protocols(config: GenerateConfig, source: Ratings) -> tuple[Protocol, ...]:
    chosen = [SAMPLED_PROTOCOLS[name] for name in config.protocols if name != FIXED_NAME]
    if source.fixed:
        chosen.append(fixed_protocol(source.num_fixed_candidates))
    elif FIXED_NAME in config.protocols:
        raise InputError(
            f"generate.protocols names {FIXED_NAME!r}, but {source.folder} has no fixed.parquet: only `ncf:` data sets "
            f"bring candidates; choose from {', '.join(SAMPLED_PROTOCOLS)}."
        )
    return (*chosen, VALIDATION)


def _run(
    config: GenerateConfig, source: Ratings, protocols: tuple[Protocol, ...], partial: Path, scratch: Path
) -> "Report":
    # Beam takes seconds to import; who only wants the configuration need not wait for it.
    from components.generate.beam_pipeline import ROWS_PER_PARTITION, Plan, run_pipeline
    from components.generate.block_store import BlockStore

    return run_pipeline(
        Plan(
            ratings=source,
            folder=partial,
            scratch=scratch,
            min_ratings=config.min_ratings,
            protocols=protocols,
            num_shards=config.num_shards,
            eval_prebatch_size=config.eval_prebatch_size,
            seed=config.seed,
            rows_per_partition=ROWS_PER_PARTITION,
            store=BlockStore(str(scratch)),
        )
    )


def _describe(config: GenerateConfig, source: Ratings, protocols: tuple[Protocol, ...], report: "Report") -> Manifest:
    """Returns the manifest: the TensorFlow official models' meta data keys, and ours."""
    described = {protocol.name: _describe_protocol(protocol, config, report) for protocol in protocols}
    official = described.get("loo-999-masked", {"num_rows": 0, "prebatch_size": config.eval_prebatch_size})
    files = [asdict(file) for file in report.files]
    manifest: Manifest = {
        "dataset": source.manifest.get("dataset"),
        "ratings_digest": source.manifest.get("digest"),
        "digest": hashlib.sha256("\n".join(f"{file['path']} {file['sha256']}" for file in files).encode()).hexdigest(),
        "seed": config.seed,
        "min_ratings": config.min_ratings,
        "num_users": report.num_users,
        "num_items": report.num_items,
        "num_train_positives": report.counts.rows_kept - 2 * report.num_users,
        # Offline epochs, with their negatives: there are none.
        "num_train_epochs": 0,
        "num_train_elements": 0,
        "train_prebatch_size": 0,
        "num_train_steps": 0,
        "num_eval_elements": report.num_users * PREBATCH_MULTIPLE if "loo-999-masked" in described else 0,
        "eval_prebatch_size": official["prebatch_size"],
        "num_eval_steps": official["num_rows"] // official["prebatch_size"],
        "counts": asdict(report.counts),
        "protocols": described,
        "files": files,
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
