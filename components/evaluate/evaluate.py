"""Evaluates a `model` folder on an `examples` folder and writes an `evaluation` folder."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from numpy.typing import NDArray

from components.evaluate.config import HEADLINE_CUTOFF, VALIDATION, EvaluateConfig
from components.evaluate.content import ReportInputs, build_report_content
from components.evaluate.measure import (
    BASELINE,
    RanksByProtocol,
    flatten_metrics,
    metrics_by_protocol,
    popularity_scorer,
    rank_by_protocol,
)
from components.evaluate.report import render_report
from components.ncf.errors import InputError
from components.ncf.examples import Candidates, read_candidates
from components.ncf.manifest import Manifest, read_manifest, write_manifest, writing_artifact
from components.ncf.ranking import ScoreCandidates

_LOG = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig, examples: Path, model: Path, output: Path) -> dict[str, float]:
    """Ranks each user's held-out item with the model and with the popularity baseline.

    Args:
        config: The parameters.
        examples: An `examples` folder.
        model: The `model` folder that was trained on it.
        output: The `evaluation` folder to write: metrics.json, per_user.parquet, report.html, manifest.json.

    Returns:
        Every metric by its name, `<protocol>/<metric>`.

    Raises:
        InputError: A folder is incomplete, or the model was trained on other examples.
    """
    examples_manifest, model_manifest = read_manifest(examples, "examples"), read_manifest(model, "model")
    if model_manifest["examples_digest"] != examples_manifest["digest"]:
        raise InputError(f"{model} was not trained on {examples}: evaluate it on the examples that it was trained on.")
    with writing_artifact(output) as partial:
        tables = {name: pq.read_table(examples / f"{name}.parquet") for name in ("users", "items", "held_out")}
        candidates = _read_protocols(config, examples, examples_manifest)
        scorers = {"model": load_scorer(model), BASELINE: popularity_scorer(_train_counts(tables, model_manifest))}
        ranks = rank_by_protocol(candidates, scorers)
        metrics = metrics_by_protocol(ranks, config)
        for protocol, values in metrics.items():
            _LOG.info(
                "%s: HR@10 %.4f, NDCG@10 %.4f; popularity %.4f, %.4f",
                protocol, values["hr@10"], values["ndcg@10"], values[BASELINE]["hr@10"], values[BASELINE]["ndcg@10"],
            )  # fmt: skip
        pq.write_table(_per_user_table(tables, candidates, ranks), partial / "per_user.parquet")
        (partial / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        training: Mapping[str, Any] = json.loads((model / "training.json").read_text(encoding="utf-8"))
        inputs = ReportInputs(config, examples, examples_manifest, training, tables, candidates, ranks, metrics)
        content = build_report_content(inputs, scorers["model"])
        (partial / "report.html").write_text(render_report(content), encoding="utf-8")
        write_manifest(partial, "evaluation", _describe(model_manifest, examples_manifest, metrics))
    return flatten_metrics(metrics)


def load_scorer(model: Path) -> ScoreCandidates:
    """Returns the compiled scorer of the SavedModel in a `model` folder.

    Raises:
        InputError: The SavedModel cannot be loaded.
    """
    try:
        loaded = tf.saved_model.load(str(model / "saved_model"))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{model / 'saved_model'} cannot be loaded ({reason}): train the model again.") from error

    @tf.function(jit_compile=True)
    def score(users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return loaded.score_candidates(tf.cast(users, tf.int64), tf.cast(items, tf.int64))

    def score_arrays(users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = score(tf.constant(users), tf.constant(items)).numpy()
        return scores

    return score_arrays


def _read_protocols(config: EvaluateConfig, examples: Path, manifest: Manifest) -> dict[str, Candidates]:
    protocols = config.protocols or tuple(name for name in manifest["protocols"] if name != VALIDATION)
    if not protocols:
        raise InputError(f"{examples} holds no candidates of any protocol: set generate.protocols.")
    return {protocol: read_candidates(examples, manifest, protocol) for protocol in protocols}


def _train_counts(tables: Mapping[str, pa.Table], model_manifest: Manifest) -> NDArray[np.int64]:
    """The baseline knows what the model was trained on: unless they select the epoch, the validation items too."""
    counts: NDArray[np.int64] = tables["items"]["num_train_interactions"].to_numpy()
    if model_manifest["model_selection"] != "validation":
        validation_items = tables["held_out"]["validation_item_id"].to_numpy()
        counts = counts + np.bincount(validation_items, minlength=len(counts))
    return counts


def _per_user_table(
    tables: Mapping[str, pa.Table], candidates: Mapping[str, Candidates], ranks: RanksByProtocol
) -> pa.Table:
    users, held_out = tables["users"], tables["held_out"]
    columns = {
        "user_id": users["user_id"],
        "raw_user_id": users["raw_user_id"],
        "num_train_interactions": users["num_train_interactions"],
        "test_item_id": held_out["test_item_id"],
    }
    for protocol, by_scorer in ranks.items():
        for scorer, user_ranks in by_scorer.items():
            # A protocol from a file may leave users out: their rank is null.
            column = np.full(users.num_rows, -1, np.int64)
            column[candidates[protocol].users] = user_ranks
            name = f"rank_{protocol}" + ("" if scorer == "model" else f"_{scorer}")
            columns[name] = pa.array(column, mask=column < 0)
    return pa.table(columns)


def _describe(model_manifest: Manifest, examples_manifest: Manifest, metrics: Mapping[str, Any]) -> Manifest:
    return {
        "dataset": examples_manifest["dataset"],
        "examples_digest": model_manifest["examples_digest"],
        "model_selection": model_manifest["model_selection"],
        "selection_protocol": model_manifest["selection_protocol"],
        "headline_cutoff": HEADLINE_CUTOFF,
        "protocols": list(metrics),
    }
