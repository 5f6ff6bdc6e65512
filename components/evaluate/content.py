"""Gathers what the report shows from the artifacts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.evaluate.config import HEADLINE_CUTOFF, EvaluateConfig
from components.evaluate.measure import BASELINE, RanksByProtocol
from components.evaluate.report import (
    Breakdown,
    BreakdownGroup,
    EpochRecord,
    Estimate,
    ExampleUser,
    Item,
    ProtocolResult,
    Reference,
    ReportContent,
    Reproduction,
    RunFacts,
    Selection,
    SystemResult,
)
from components.ncf.examples import Candidates, read_positives
from components.ncf.manifest import Manifest
from components.ncf.metrics import ActivityBand, hit_rate_by_activity
from components.ncf.ranking import ScoreCandidates

_SYSTEM_NAMES = {"model": "NeuMF", BASELINE: "Popularity"}
_TOP = 10
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class ReportInputs:
    """What the report is made from.

    Attributes:
        config: Evaluation's parameters.
        examples: The `examples` folder.
        manifest: Its manifest.
        training: training.json of the model.
        tables: users, items and held_out of the examples.
        candidates: By protocol.
        ranks: By protocol and scorer, in the order of the candidates' users.
        metrics: By protocol, as in metrics.json.
    """

    config: EvaluateConfig
    examples: Path
    manifest: Manifest
    training: Mapping[str, Any]
    tables: Mapping[str, pa.Table]
    candidates: Mapping[str, Candidates]
    ranks: RanksByProtocol
    metrics: Mapping[str, Mapping[str, Any]]


def build_report_content(inputs: ReportInputs, score: ScoreCandidates) -> ReportContent:
    """Returns the content of the report.

    Args:
        inputs: What it is made from.
        score: The model, which ranks the whole catalogue for the example users.
    """
    return ReportContent(
        title=inputs.manifest["dataset"],
        facts=_facts(inputs),
        headline_cutoff=HEADLINE_CUTOFF,
        cutoffs=tuple(sorted(inputs.config.cutoffs)),
        confidence=_CONFIDENCE,
        num_bootstrap_samples=inputs.config.num_bootstrap_samples,
        protocols=tuple(_protocol_result(inputs, protocol) for protocol in inputs.metrics),
        history=tuple(
            EpochRecord(entry["epoch"], entry["loss"], entry.get("hr@10"), entry.get("ndcg@10"))
            for entry in inputs.training["history"]
        ),
        breakdowns=tuple(_activity(inputs, protocol) for protocol in list(inputs.metrics)[:1]),
        examples=_example_users(inputs, score),
        reproduction=_reproduction(inputs),
    )


def _facts(inputs: ReportInputs) -> RunFacts:
    parameters, history = inputs.training["parameters"], inputs.training["history"]
    return RunFacts(
        num_users=inputs.manifest["num_users"],
        num_items=inputs.manifest["num_items"],
        # Two items of each user are held out of the training positives.
        num_interactions=inputs.manifest["num_train_positives"] + 2 * inputs.manifest["num_users"],
        num_factors=parameters["num_factors"],
        layers=tuple(parameters["mlp_layers"]),
        num_epochs=len(history),
        best_epoch=None if inputs.training["model_selection"] == "last" else inputs.training["best_epoch"],
        selection=Selection.TEST_ITEM if inputs.training["model_selection"] == "test" else Selection.VALIDATION_ITEM,
    )


def _protocol_result(inputs: ReportInputs, protocol: str) -> ProtocolResult:
    metrics = inputs.metrics[protocol]
    systems = tuple(
        SystemResult(
            name,
            {k: _estimate(values, f"hr@{k}") for k in inputs.config.cutoffs},
            {k: _estimate(values, f"ndcg@{k}") for k in inputs.config.cutoffs},
        )
        for name, values in ((_SYSTEM_NAMES["model"], metrics), (_SYSTEM_NAMES[BASELINE], metrics[BASELINE]))
    )
    best = inputs.manifest.get("best_hr@10")
    references = (Reference("Best reachable", best, None),) if best is not None and protocol == "loo-99" else ()
    return ProtocolResult(protocol, systems, references)


def _estimate(values: Mapping[str, Any], name: str) -> Estimate:
    return Estimate(values[name], *values[f"{name}_interval"])


def _activity(inputs: ReportInputs, protocol: str) -> Breakdown:
    config, by_scorer = inputs.config, inputs.ranks[protocol]
    counts = _num_trained_on(inputs)[inputs.candidates[protocol].users]
    bands: list[tuple[ActivityBand, ...]] = [
        hit_rate_by_activity(by_scorer[name], counts, HEADLINE_CUTOFF, config.num_bootstrap_samples, config.seed)
        for name in _SYSTEM_NAMES
    ]
    groups = tuple(
        BreakdownGroup(
            same_users[0].label,
            same_users[0].num_users,
            tuple(Estimate(band.hit_rate, *band.interval) for band in same_users),
        )
        for same_users in zip(*bands, strict=True)
    )
    return Breakdown("user activity", "training interactions per user", protocol, tuple(_SYSTEM_NAMES.values()), groups)


def _num_trained_on(inputs: ReportInputs) -> NDArray[np.int64]:
    """Returns int64 [num_users]: unless the validation item selects the epoch, it is trained on too."""
    counts: NDArray[np.int64] = inputs.tables["users"]["num_train_interactions"].to_numpy()
    return counts + np.int64(inputs.training["model_selection"] != "validation")


def _example_users(inputs: ReportInputs, score: ScoreCandidates) -> tuple[ExampleUser, ...]:
    num_users = inputs.tables["users"].num_rows
    chosen = np.random.default_rng(inputs.config.seed).choice(
        num_users, min(inputs.config.num_example_users, num_users), replace=False
    )
    names = ("user_id", "item_id", "recency")
    users, items, recencies = read_positives(inputs.examples, inputs.manifest, names).values()

    def latest_first(user: int) -> NDArray[np.int32]:
        rows = np.flatnonzero(users == user)
        return items[rows[np.argsort(recencies[rows])]]

    return tuple(_example_user(inputs, score, int(user), latest_first(user)) for user in np.sort(chosen))


def _example_user(
    inputs: ReportInputs, score: ScoreCandidates, user: int, train_items: NDArray[np.int32]
) -> ExampleUser:
    tables = inputs.tables
    validation_item = tables["held_out"]["validation_item_id"][user].as_py()
    test_item = tables["held_out"]["test_item_id"][user].as_py()
    catalogue = np.arange(tables["items"].num_rows, dtype=np.int32)
    scores = score(np.array([user], np.int32), catalogue[None])[0]
    unseen = np.ones(len(catalogue), np.bool_)
    unseen[train_items] = False
    unseen[validation_item] = False
    ranked = catalogue[unseen][np.argsort(-scores[unseen], kind="stable")]
    history = [validation_item, *train_items]
    return ExampleUser(
        raw_user_id=str(tables["users"]["raw_user_id"][user].as_py()),
        num_training_interactions=int(_num_trained_on(inputs)[user]),
        history=tuple(_item(tables["items"], item) for item in [int(i) for i in history[:_TOP]]),
        recommendations=tuple(_item(tables["items"], int(item)) for item in ranked[:_TOP]),
        held_out=_item(tables["items"], test_item),
        held_out_rank=int(np.sum(scores[unseen] >= scores[test_item])) - 1,
    )


def _item(items: pa.Table, item: int) -> Item:
    row = items.slice(item, 1).to_pylist()[0]
    genres = tuple(genre for genre in (row["genres"] or "").split("|") if genre)
    return Item(str(row["raw_item_id"]), row["title"] or None, genres)


def _reproduction(inputs: ReportInputs) -> Reproduction:
    return Reproduction(
        command=None,
        digests=(
            ("ratings", inputs.manifest["ratings_digest"]),
            ("examples", inputs.training["examples_digest"]),
        ),
        versions=tuple(inputs.training["versions"].items()),
        durations_s=(("train", inputs.training["duration_s"]),),
    )
