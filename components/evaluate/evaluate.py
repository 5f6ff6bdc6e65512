"""Evaluates a `model` folder on an `examples` folder and writes an `evaluation` folder."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.evaluate.config import (
    ALS,
    CATALOGUE,
    CHAMPION,
    HEADLINE_CUTOFF,
    MODEL,
    POPULARITY,
    VALIDATION,
    EvaluateConfig,
)
from components.evaluate.content import ReportInputs, build_report_content
from components.evaluate.measure import HeldOut, RanksByProtocol, flatten_metrics, metrics_by_protocol, rank
from components.evaluate.report import ReportContent, render_report
from components.evaluate.scorers import (
    PopularityScorer,
    check_same_data,
    load_factors,
    local_copy,
    read_training,
)
from components.evaluate.summary import render_summary
from components.ncf.errors import InputError
from components.ncf.examples import read_candidates, read_seen_items, read_table
from components.ncf.manifest import Manifest, read_manifest, write_manifest, writing_artifact
from components.ncf.ranking import Scorer
from components.scoring.saved_model import ModelScorer

_LOG = logging.getLogger(__name__)
_TABLES = ("users", "items", "held_out")


def evaluate(
    config: EvaluateConfig, examples: Path, model: Path, baseline: Path | None, output: Path
) -> dict[str, float]:
    """Ranks each user's held-out item with the model, the baselines and the champion.

    Args:
        config: The parameters.
        examples: An `examples` folder.
        model: The `model` folder that was trained on it.
        baseline: The `baseline` folder that was fitted on it, or None for popularity alone.
        output: The `evaluation` folder to write: metrics.json, breakdowns.json, per_user.parquet, report.html,
            summary.md, manifest.json.

    Returns:
        Every metric by its name, `<protocol>/<metric>`.

    Raises:
        InputError: A folder is incomplete, or the model, a baseline or the champion was trained on other examples.
    """
    examples_manifest, model_manifest = read_manifest(examples, "examples"), read_manifest(model, "model")
    if model_manifest["examples_digest"] != examples_manifest["digest"]:
        raise InputError(f"{model} was not trained on {examples}: evaluate it on the examples that it was trained on.")
    training = read_training(model)
    fitted = None if baseline is None else read_manifest(baseline, "baseline")
    protocols = _protocols(config, examples_manifest)
    with writing_artifact(output) as partial, _champion(config, model, model_manifest) as champion:
        tables = {name: read_table(examples, name, pq.read_table) for name in _TABLES}
        systems: dict[str, Scorer] = {
            MODEL: ModelScorer(model),
            POPULARITY: PopularityScorer(_train_counts(tables, model_manifest)),
        }
        if baseline is not None and fitted is not None:
            check_same_data(f"The baseline {baseline}", fitted, model, model_manifest)
            systems[ALS] = load_factors(baseline)
        if champion is not None:
            systems[CHAMPION] = ModelScorer(champion[0])
        held_out = _read_held_out(protocols, examples, examples_manifest, tables)
        ranking = rank(protocols, held_out, systems, max(config.cutoffs))
        metrics = metrics_by_protocol(ranking, held_out.num_items, config)
        _log(metrics, systems)
        pq.write_table(_per_user_table(tables, held_out, ranking.ranks), partial / "per_user.parquet")
        (partial / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        inputs = ReportInputs(config, examples, examples_manifest, training, fitted, tables, held_out, ranking, metrics)
        content = build_report_content(inputs, systems[MODEL])
        (partial / "breakdowns.json").write_text(json.dumps(_breakdowns(content), indent=2) + "\n", encoding="utf-8")
        (partial / "report.html").write_text(render_report(content), encoding="utf-8")
        (partial / "summary.md").write_text(render_summary(content), encoding="utf-8")
        write_manifest(
            partial,
            "evaluation",
            _describe(config, model_manifest, examples_manifest, held_out, metrics, systems, champion and champion[1]),
        )
    return flatten_metrics(metrics)


def _protocols(config: EvaluateConfig, manifest: Manifest) -> tuple[str, ...]:
    available = (*(name for name in manifest["protocols"] if name != VALIDATION), CATALOGUE)
    return config.protocols or available


@contextmanager
def _champion(config: EvaluateConfig, model: Path, model_manifest: Manifest) -> Iterator[tuple[Path, Manifest] | None]:
    """Yields the champion's folder and manifest, if there is one."""
    if not config.champion:
        yield None
        return
    with local_copy(config.champion) as champion:
        manifest = read_manifest(champion, "model")
        check_same_data(f"The champion {config.champion}", manifest, model, model_manifest)
        yield champion, manifest


def _read_held_out(
    protocols: tuple[str, ...], examples: Path, manifest: Manifest, tables: Mapping[str, pa.Table]
) -> HeldOut:
    candidates = {name: read_candidates(examples, manifest, name) for name in protocols if name != CATALOGUE}
    users, validation_items, test_items = (
        tables["held_out"][name].to_numpy().astype(np.int32)
        for name in ("user_id", "validation_item_id", "test_item_id")
    )
    seen = read_seen_items(examples, manifest, [validation_items])
    return HeldOut(candidates, users, test_items, seen, manifest["num_items"])


def _log(metrics: Mapping[str, Mapping[str, Any]], systems: Mapping[str, Scorer]) -> None:
    for protocol, values in metrics.items():
        figures = (
            f"{name} {group['hr@10']:.4f}, {group['ndcg@10']:.4f}"
            for name, group in ((name, values if name == MODEL else values[name]) for name in systems)
        )
        _LOG.info("%s, HR@10 and NDCG@10: %s", protocol, "; ".join(figures))


def _train_counts(tables: Mapping[str, pa.Table], model_manifest: Manifest) -> NDArray[np.int64]:
    """The baseline knows what the model was trained on: unless they select the epoch, the validation items too."""
    counts: NDArray[np.int64] = tables["items"]["num_train_interactions"].to_numpy()
    if model_manifest["model_selection"] != "validation":
        validation_items = tables["held_out"]["validation_item_id"].to_numpy()
        counts = counts + np.bincount(validation_items, minlength=len(counts))
    return counts


def _per_user_table(tables: Mapping[str, pa.Table], held_out: HeldOut, ranks: RanksByProtocol) -> pa.Table:
    users = tables["users"]
    columns = {
        "user_id": users["user_id"],
        "raw_user_id": users["raw_user_id"],
        "num_train_interactions": users["num_train_interactions"],
        "test_item_id": tables["held_out"]["test_item_id"],
    }
    for protocol, by_system in ranks.items():
        for system, user_ranks in by_system.items():
            # A protocol from a file may leave users out: their rank is null.
            column = np.full(users.num_rows, -1, np.int64)
            column[held_out.users_of(protocol)] = user_ranks
            name = f"rank_{protocol}" + ("" if system == MODEL else f"_{system}")
            columns[name] = pa.array(column, mask=column < 0)
    return pa.table(columns)


def _breakdowns(content: ReportContent) -> list[dict[str, Any]]:
    return [
        {
            "by": breakdown.subject,
            "protocol": breakdown.protocol,
            "metric": f"hr@{content.headline_cutoff}",
            "groups": [
                {
                    "label": f"{group.label} ({group.detail})" if group.detail else group.label,
                    "num_users": group.num_users,
                    **{
                        name: {"value": rate.value, "interval": [rate.low, rate.high]}
                        for name, rate in zip(breakdown.system_names, group.hit_rates, strict=True)
                    },
                }
                for group in breakdown.groups
            ],
        }
        for breakdown in content.breakdowns
    ]


def _describe(
    config: EvaluateConfig,
    model_manifest: Manifest,
    examples_manifest: Manifest,
    held_out: HeldOut,
    metrics: Mapping[str, Any],
    systems: Mapping[str, Scorer],
    champion_manifest: Manifest | None,
) -> Manifest:
    names = ("examples_digest", "model_selection", "selection_protocol")
    return {
        "dataset": examples_manifest["dataset"],
        **{name: model_manifest[name] for name in names},
        "headline_cutoff": HEADLINE_CUTOFF,
        "protocols": list(metrics),
        # The most that any user has: a hit rate within more is 1 whatever the model.
        "num_candidates": {protocol: int(held_out.num_candidates_of(protocol).max()) for protocol in metrics},
        "systems": list(systems),
        "champion": None
        if champion_manifest is None
        else {"path": config.champion, **{name: champion_manifest[name] for name in names}},
    }
