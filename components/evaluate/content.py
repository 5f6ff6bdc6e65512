"""Gathers what the report shows from the artifacts."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.evaluate.command import repeating_command
from components.evaluate.config import (
    ALS,
    CATALOGUE,
    CHAMPION,
    HEADLINE_CUTOFF,
    MODEL,
    POPULARITY,
    EvaluateConfig,
)
from components.evaluate.data_card import data_card
from components.evaluate.measure import HeldOut, Ranking
from components.evaluate.report import (
    Breakdown,
    BreakdownGroup,
    EpochRecord,
    Estimate,
    ExampleUser,
    Item,
    Lead,
    ProtocolResult,
    Reference,
    ReportContent,
    Reproduction,
    RunFacts,
    Selection,
    SystemResult,
)
from components.ncf.examples import read_positives
from components.ncf.manifest import Manifest
from components.ncf.metrics import (
    Band,
    activity_bands,
    discounted_gains_at_k,
    hit_rate_by_band,
    hits_at_k,
    popularity_bands,
)
from components.ncf.paired import paired_bootstrap
from components.ncf.ranking import Scorer, best_items, for_each_block
from components.report.protocols import shortage_of

_SYSTEM_NAMES = {POPULARITY: "Popularity", ALS: "ALS", CHAMPION: "Champion"}
_POPULARITY_LABELS = ("head", "middle", "tail")
_TOP = 10
# The parameters of the baseline that name several values to try.
_TRIED = ("num_factors", "regularization", "alpha")
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class ReportInputs:
    """What the report is made from.

    Attributes:
        config: Evaluation's parameters.
        examples: The `examples` folder.
        manifest: Its manifest.
        training: training.json of the model.
        baseline: The manifest of the fitted baseline, or None without one.
        tables: users, items and held_out of the examples.
        held_out: What was ranked.
        ranking: What ranking gave.
        metrics: By protocol, as in metrics.json.
    """

    config: EvaluateConfig
    examples: Path
    manifest: Manifest
    training: Mapping[str, Any]
    baseline: Manifest | None
    tables: Mapping[str, pa.Table]
    held_out: HeldOut
    ranking: Ranking
    metrics: Mapping[str, Mapping[str, Any]]

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems' names, the model's first."""
        return tuple(next(iter(self.ranking.ranks.values())))

    def title_of(self, system: str) -> str:
        """Returns what people call a system."""
        has_layers = bool(self.training["parameters"]["mlp_layers"])
        return {MODEL: "NeuMF" if has_layers else "Matrix factorization", **_SYSTEM_NAMES}[system]


def build_report_content(inputs: ReportInputs, scorer: Scorer) -> ReportContent:
    """Returns the content of the report.

    Args:
        inputs: What it is made from.
        scorer: The model, which ranks the whole catalogue for the example users.
    """
    first = next(iter(inputs.metrics))
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
        breakdowns=(_by_activity(inputs, first), _by_popularity(inputs, first)),
        data=data_card(
            inputs.manifest,
            inputs.tables["items"]["num_train_interactions"].to_numpy(),
            inputs.tables["users"]["num_train_interactions"].to_numpy(),
        ),
        examples=_example_users(inputs, scorer),
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
    metrics, cutoffs = inputs.metrics[protocol], inputs.config.cutoffs

    def result(system: str) -> SystemResult:
        values = metrics if system == MODEL else metrics[system]
        return SystemResult(
            name=inputs.title_of(system),
            hit_rate={k: _estimate(values, f"hr@{k}") for k in cutoffs},
            ndcg={k: _estimate(values, f"ndcg@{k}") for k in cutoffs},
            mrr=_estimate(values, "mrr"),
            coverage={k: values[f"coverage@{k}"] for k in cutoffs} if protocol == CATALOGUE else None,
            lead=None if system == MODEL else _lead(inputs, protocol, system),
        )

    best = inputs.manifest.get("best_hr@10")
    references = (Reference("Best reachable", best, None),) if best is not None and protocol == "loo-99" else ()
    num_candidates = inputs.held_out.num_candidates_of(protocol)
    shortage = shortage_of(protocol, num_candidates, np.ones_like(num_candidates))
    return ProtocolResult(protocol, tuple(result(system) for system in inputs.systems), references, shortage)


def _lead(inputs: ReportInputs, protocol: str, system: str) -> Lead:
    """Returns by how much the model is better, the same users resampled for both."""
    ranks, config = inputs.ranking.ranks[protocol], inputs.config

    def difference(per_user: Callable[[NDArray[np.int64], int], NDArray[np.float64]]) -> Estimate:
        values, others = (per_user(ranks[name], HEADLINE_CUTOFF) for name in (MODEL, system))
        paired = paired_bootstrap(values, others, config.num_bootstrap_samples, config.seed)
        return Estimate(paired.difference, paired.low, paired.high)

    return Lead(difference(hits_at_k), difference(discounted_gains_at_k))


def _estimate(values: Mapping[str, Any], name: str) -> Estimate:
    return Estimate(values[name], *values[f"{name}_interval"])


def _by_activity(inputs: ReportInputs, protocol: str) -> Breakdown:
    bands, labels = activity_bands(_num_trained_on(inputs)[inputs.held_out.users_of(protocol)])
    details = dict.fromkeys(labels, "")
    return _breakdown(inputs, protocol, "user activity", "training interactions per user", bands, details)


def _by_popularity(inputs: ReportInputs, protocol: str) -> Breakdown:
    counts = inputs.tables["items"]["num_train_interactions"].to_numpy()
    bands = popularity_bands(counts)
    details = {label: f"{np.count_nonzero(bands == band):,} items" for band, label in enumerate(_POPULARITY_LABELS)}
    of_users = bands[inputs.held_out.positives_of(protocol)]
    return _breakdown(inputs, protocol, "item popularity", "a third of all interactions each", of_users, details)


def _breakdown(
    inputs: ReportInputs,
    protocol: str,
    subject: str,
    axis_title: str,
    bands: NDArray[np.int64],
    details: Mapping[str, str],
) -> Breakdown:
    """Returns the hit rates of groups of users; `details` are by the groups' labels, in the order of the bands."""
    config, labels = inputs.config, list(details)
    by_system: list[tuple[Band, ...]] = [
        hit_rate_by_band(ranks, bands, labels, HEADLINE_CUTOFF, config.num_bootstrap_samples, config.seed)
        for ranks in inputs.ranking.ranks[protocol].values()
    ]
    groups = tuple(
        BreakdownGroup(
            same_users[0].label,
            details[same_users[0].label],
            same_users[0].num_users,
            tuple(Estimate(band.hit_rate, *band.interval) for band in same_users),
        )
        for same_users in zip(*by_system, strict=True)
    )
    return Breakdown(subject, axis_title, protocol, tuple(map(inputs.title_of, inputs.systems)), groups)


def _num_trained_on(inputs: ReportInputs) -> NDArray[np.int64]:
    """Returns int64 [num_users]: unless the validation item selects the epoch, it is trained on too."""
    counts: NDArray[np.int64] = inputs.tables["users"]["num_train_interactions"].to_numpy()
    return counts + np.int64(inputs.training["model_selection"] != "validation")


def _example_users(inputs: ReportInputs, scorer: Scorer) -> tuple[ExampleUser, ...]:
    num_users = inputs.tables["users"].num_rows
    num_examples = min(inputs.config.num_example_users, num_users)
    generator = np.random.default_rng(inputs.config.seed)
    chosen = np.sort(generator.choice(num_users, num_examples, replace=False)).astype(np.int32)
    names = ("user_id", "item_id", "recency")
    users, items, recencies = read_positives(inputs.examples, inputs.manifest, names).values()

    def latest_first(user: int) -> NDArray[np.int32]:
        rows = np.flatnonzero(users == user)
        return items[rows[np.argsort(recencies[rows])]]

    held_out, scores = inputs.held_out, np.empty((len(chosen), inputs.held_out.num_items), np.float32)

    def keep(block: slice, block_scores: NDArray[np.float32]) -> None:
        scores[block] = block_scores

    for_each_block(scorer.score_catalogue, chosen, held_out.seen, held_out.num_items, keep)
    return tuple(
        _example_user(inputs, user, latest_first(user), user_scores)
        for user, user_scores in zip(chosen.tolist(), scores, strict=True)
    )


def _example_user(
    inputs: ReportInputs, user: int, train_items: NDArray[np.int32], scores: NDArray[np.float32]
) -> ExampleUser:
    """Describes a user; `scores` are -inf where the user had an item before the test item."""
    tables = inputs.tables
    validation_item = tables["held_out"]["validation_item_id"][user].as_py()
    test_item = tables["held_out"]["test_item_id"][user].as_py()
    ranked = best_items(scores[None], _TOP)[0]
    history = [validation_item, *train_items]
    return ExampleUser(
        raw_user_id=str(tables["users"]["raw_user_id"][user].as_py()),
        num_training_interactions=int(_num_trained_on(inputs)[user]),
        history=tuple(_item(tables["items"], int(item)) for item in history[:_TOP]),
        recommendations=tuple(_item(tables["items"], int(item)) for item in ranked[ranked >= 0]),
        held_out=_item(tables["items"], test_item),
        held_out_rank=int(np.sum(scores >= scores[test_item])) - 1,
    )


def _item(items: pa.Table, item: int) -> Item:
    row = items.slice(item, 1).to_pylist()[0]
    genres = tuple(genre for genre in (row["genres"] or "").split("|") if genre)
    return Item(str(row["raw_item_id"]), row["title"] or None, genres)


def _reproduction(inputs: ReportInputs) -> Reproduction:
    return Reproduction(
        command=_command(inputs),
        digests=(
            ("ratings", inputs.manifest["ratings_digest"]),
            ("examples", inputs.training["examples_digest"]),
            ("ranks", _ranks_digest(inputs)),
        ),
        versions=tuple(inputs.training["versions"].items()),
        durations_s=(("train", inputs.training["duration_s"]),),
    )


def _command(inputs: ReportInputs) -> str | None:
    """Returns the command that repeats the run; None where a step has left its parameters unrecorded."""
    download = inputs.manifest.get("source", {}).get("parameters")
    generate = inputs.manifest.get("parameters")
    fitted = (inputs.baseline or {}).get("parameters")
    if not (download and generate and fitted):
        return None
    return repeating_command(
        {
            "download": download,
            "generate": generate,
            "train": inputs.training["parameters"],
            # The setting that was chosen of those that were tried: alone, it is chosen again.
            "baseline": {name: [value] if name in _TRIED else value for name, value in fitted.items()},
            "evaluate": dataclasses.asdict(inputs.config),
        }
    )


def _ranks_digest(inputs: ReportInputs) -> str:
    """Returns the sha256 of every rank behind the figures: equal where all of them are."""
    digest = hashlib.sha256()
    for protocol, by_system in inputs.ranking.ranks.items():
        for system, ranks in by_system.items():
            digest.update(f"{protocol} {system} {len(ranks)}\n".encode())
            digest.update(ranks.astype("<i8").tobytes())
    return digest.hexdigest()
