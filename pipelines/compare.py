"""Compares runs: their models' paired difference where they ranked the same items, a reason where they did not."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from components.ncf.errors import InputError
from components.ncf.manifest import MANIFEST_NAME, Manifest, read_manifest
from components.ncf.metrics import bootstrap_interval
from components.ncf.paired import PairedDifference, paired_bootstrap
from components.ncf.rank_metrics import check_metric, per_user_values

METRICS = ("hr@10", "ndcg@10")
# The low and high ends of an interval from 10,000 resamples differ from seed to seed by a hundredth of its width.
NUM_BOOTSTRAP_SAMPLES = 10_000
SEED = 1
_CONFIDENCE = 0.95
_SUMMARY = "summary.json"
_ARTIFACTS = "artifacts"
_EVALUATIONS = f"{_ARTIFACTS}/*/evaluate/evaluation"


@dataclass(frozen=True)
class Run:
    """A run that is compared.

    Attributes:
        number: Its place on the command line, from 1.
        name: What it was called there.
        evaluation: Its `evaluation` folder.
        dataset: What it was trained on.
        examples_digest: Of the examples, with their held-out items and candidates.
        model_selection: What chose the epoch: "validation", "test" or "last".
        protocols: What it was evaluated by.
    """

    number: int
    name: str
    evaluation: Path
    dataset: str
    examples_digest: str
    model_selection: str
    protocols: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """One metric of one run under one protocol.

    Attributes:
        run: The run's number.
        protocol: The protocol.
        metric: For example "hr@10".
        value: Its mean over the users.
        low, high: Its 95 % interval.
        num_users: Users whose item was ranked.
        compared_with: Number of the first earlier run that it can be compared with, if there is one.
        difference: The run minus that one, over the same users.
        obstacle: Why it can be compared with no earlier run; None for the first run, too.
    """

    run: int
    protocol: str
    metric: str
    value: float
    low: float
    high: float
    num_users: int
    compared_with: int | None
    difference: PairedDifference | None
    obstacle: str | None


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found.

    Attributes:
        runs: In the order of the command line.
        figures: By protocol, metric and run.
        num_bootstrap_samples: Resamplings behind each interval.
        seed: Of those.
    """

    runs: tuple[Run, ...]
    figures: tuple[Figure, ...]
    num_bootstrap_samples: int
    seed: int

    def as_json(self) -> str:
        """Returns it as a JSON document."""
        document = {**asdict(self), "confidence": _CONFIDENCE}
        return json.dumps(document, indent=2, ensure_ascii=False, default=str)


def compare_runs(
    paths: Sequence[Path],
    metrics: Sequence[str] = METRICS,
    num_samples: int = NUM_BOOTSTRAP_SAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Compares the models of runs.

    Two are compared under a protocol if they ranked the same held-out items among the same candidates (the digests of
    their examples agree), and either both or neither had its epoch chosen by the test item.

    Args:
        paths: Run folders, or `evaluation` folders; at least two.
        metrics: "hr@K", "recall@K", "ndcg@K" or "mrr"; a second mention changes nothing.
        num_samples: Resamplings of the users behind each interval.
        seed: Of those.

    Raises:
        InputError: A folder is not what it should be, a metric is none, or no two runs can be compared.
    """
    for metric in metrics:
        check_metric("--metric", metric)
    if num_samples < 1:
        raise InputError(f"The number of bootstrap samples is {num_samples}: it must be at least 1.")
    runs = tuple(_read_run(number, path) for number, path in enumerate(paths, start=1))
    _check_runs(runs)
    protocols = tuple(dict.fromkeys(protocol for run in runs for protocol in run.protocols))
    figures = tuple(
        figure
        for protocol in protocols
        for figure in _figures(runs, protocol, tuple(dict.fromkeys(metrics)), num_samples, seed)
    )
    return Comparison(runs, figures, num_samples, seed)


def find_evaluation(path: Path) -> Path:
    """Returns the `evaluation` folder of a run folder, wherever that has moved, or the path itself if it is one.

    Raises:
        InputError: It is neither.
    """
    if (path / MANIFEST_NAME).is_file():
        return path
    # The folder of the steps' artifacts first: what the summary names is where the run was when it ended.
    found = [*sorted(path.glob(_EVALUATIONS)), *_in_summary(path)]
    complete = [folder for folder in found if (folder / MANIFEST_NAME).is_file()]
    if not complete:
        raise InputError(
            f"{path} is neither the folder of a finished run nor an `evaluation` folder: name one of the two."
        )
    return complete[0]


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Prints a table of the runs and one of their figures."""
    # The end of a path tells runs apart: it is wrapped, not cut off.
    runs = Table("run", Column("folder", overflow="fold"), "data set", "examples", "epoch chosen by", box=None)
    for run in comparison.runs:
        chosen_by = "none, the last" if run.model_selection == "last" else f"{run.model_selection} item"
        runs.add_row(str(run.number), escape(run.name), escape(run.dataset), run.examples_digest[:12], chosen_by)
    console.print(runs)
    figures = Table("protocol", "metric", "run", "value", "95 % interval", "difference, 95 % interval")
    before = None
    for figure in comparison.figures:
        group = (figure.protocol, figure.metric)
        if before not in (None, group):
            figures.add_section()
        shown = ("", "") if group == before else (figure.protocol, figure.metric.upper())
        interval = f"{figure.low:.4f} to {figure.high:.4f}"
        figures.add_row(*shown, str(figure.run), f"{figure.value:.4f}", interval, escape(_describe_difference(figure)))
        before = group
    console.print(figures)


def _describe_difference(figure: Figure) -> str:
    if figure.difference is None:
        return f"not comparable: {figure.obstacle}" if figure.obstacle else ""
    paired = figure.difference
    return f"{paired.difference:+.4f}, {paired.low:+.4f} to {paired.high:+.4f}, to run {figure.compared_with}"


def _read_run(number: int, path: Path) -> Run:
    evaluation = find_evaluation(path)
    manifest: Manifest = read_manifest(evaluation, "evaluation")
    return Run(
        number=number,
        name=str(path),
        evaluation=evaluation,
        dataset=manifest["dataset"],
        examples_digest=manifest["examples_digest"],
        model_selection=manifest["model_selection"],
        protocols=tuple(manifest["protocols"]),
    )


def _in_summary(path: Path) -> list[Path]:
    try:
        summary = json.loads((path / _SUMMARY).read_text(encoding="utf-8"))
        return [Path(summary["artifacts"]["evaluation"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _check_runs(runs: tuple[Run, ...]) -> None:
    """Refuses runs of which no two can be compared."""
    if len(runs) < 2:
        raise InputError("One run alone cannot be compared: name at least two.")
    first_of: dict[Path, Run] = {}
    for run in runs:
        other = first_of.setdefault(run.evaluation.resolve(), run)
        if other is not run:
            raise InputError(f"{run.name} and {other.name} are the same run: name each once.")
    pairs = [(run, other) for run in runs for other in runs if other.number < run.number]
    if any(_obstacle(run, other, protocol) is None for run, other in pairs for protocol in run.protocols):
        return
    first = runs[0]
    reasons = (f"{run.name}: {_obstacle(run, first, run.protocols[0])}" for run in runs[1:])
    raise InputError(
        f"No two of these runs can be compared, not even with {first.name}: {'; '.join(reasons)}: evaluate them on the "
        "same examples by the same protocol."
    )


def _obstacle(run: Run, other: Run, protocol: str) -> str | None:
    """Says why two runs cannot be compared under a protocol that `run` has, or returns None."""
    if run.examples_digest != other.examples_digest:
        if run.dataset != other.dataset:
            return f"{run.dataset} is another data set than {other.dataset} of run {other.number}"
        return f"its examples are not those of run {other.number} ({other.examples_digest[:12]})"
    flattered = [one for one in (run, other) if one.model_selection == "test"]
    if len(flattered) == 1:
        return f"the test item chose the epoch of run {flattered[0].number} alone, which flatters it"
    if protocol not in other.protocols:
        return f"run {other.number} was not evaluated by {protocol}"
    return None


def _figures(
    runs: tuple[Run, ...], protocol: str, metrics: tuple[str, ...], num_samples: int, seed: int
) -> list[Figure]:
    """Returns the figures of one protocol, by metric and run."""
    evaluated = [run for run in runs if protocol in run.protocols]
    columns = {run.number: _read_ranks(run, protocol) for run in evaluated}
    figures = []
    for metric in metrics:
        values = {number: per_user_values(metric, column.drop_null().to_numpy()) for number, column in columns.items()}
        for run in evaluated:
            earlier = [other for other in runs if other.number < run.number]
            same = next((other for other in earlier if _obstacle(run, other, protocol) is None), None)
            difference = None
            if same is not None:
                _check_same_users(run, same, columns)
                difference = paired_bootstrap(values[run.number], values[same.number], num_samples, seed, _CONFIDENCE)
            low, high = bootstrap_interval(values[run.number], num_samples, seed, _CONFIDENCE)
            figures.append(
                Figure(
                    run=run.number,
                    protocol=protocol,
                    metric=metric,
                    value=float(values[run.number].mean()),
                    low=low,
                    high=high,
                    num_users=len(values[run.number]),
                    compared_with=None if same is None else same.number,
                    difference=difference,
                    obstacle=_obstacle(run, earlier[0], protocol) if earlier and same is None else None,
                )
            )
    return figures


def _read_ranks(run: Run, protocol: str) -> pa.ChunkedArray:
    """Returns the rank of each user's held-out item, null where the protocol leaves a user out."""
    path, column = run.evaluation / "per_user.parquet", f"rank_{protocol}"
    try:
        ranks = pq.read_table(path, columns=[column])[column]
    except (OSError, KeyError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read ({reason}): run evaluate again.") from error
    if ranks.null_count == len(ranks):
        raise InputError(f"{path} ranks nobody by {protocol}: run evaluate again.")
    return ranks


def _check_same_users(run: Run, other: Run, columns: dict[int, pa.ChunkedArray]) -> None:
    ranked, also_ranked = (_is_ranked(columns[one.number]) for one in (run, other))
    if not np.array_equal(ranked, also_ranked):
        raise InputError(
            f"{run.evaluation} and {other.evaluation} have the same examples and rank different users: one of the two "
            "is damaged, run evaluate again."
        )


def _is_ranked(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    ranked: NDArray[np.bool_] = column.is_valid().to_numpy()
    return ranked
