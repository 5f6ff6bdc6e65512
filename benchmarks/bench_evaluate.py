"""Measures the ranking of whole catalogues in `neumf evaluate`, and `neumf recommend`.

Prints a Markdown table. Everything is written below a temporary folder and deleted in the end.
"""

import os
import re
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import psutil

from benchmarks.bench_train import Bench, default_mirror
from benchmarks.make_ratings import ML_20M_ROWS
from benchmarks.measure import CommandFailedError, Measurement, measure
from benchmarks.shapes import SHAPES, Shape

NEUMF = Path(sys.executable).with_name("neumf")


@dataclass(frozen=True)
class Figures:
    """What was measured of one shape, by round.

    Attributes:
        shape: Which tables; the model has 8 factors and layers 64-32-16-8 in any case.
        ranking_s: Seconds in which `neumf evaluate` ranks everybody's test item in the whole catalogue.
        evaluate_bytes: Peak memory of that command.
        users_per_s: Of `neumf recommend`, which finds each user's best ten items and writes them.
        recommend_bytes: Peak memory of that command.
    """

    shape: Shape
    ranking_s: list[float]
    evaluate_bytes: list[int]
    users_per_s: list[float]
    recommend_bytes: list[int]


def measure_shape(bench: Bench, shape: Shape, rounds: int) -> Figures:
    """Trains one epoch, then evaluates and recommends several times."""
    figures = Figures(shape, [], [], [], [])
    folder = bench.work / f"{shape.name}-runs"
    folder.mkdir()
    examples, model = bench.examples(shape, 0), folder / "model"
    inputs = ["--examples", str(examples)]
    _run(folder, ["train", *inputs, "--set", "train.num_epochs=1", "--output", str(model)])
    for number in range(rounds):
        settings = ("protocols=loo-full", "num_bootstrap_samples=100", "num_example_users=0")
        options = [text for setting in settings for text in ("--set", f"evaluate.{setting}")]
        output = folder / f"evaluation-{number}"
        arguments = [*inputs, "--model", str(model), "--output", str(output)]
        took, log = _run(folder, ["evaluate", *arguments, *options])
        figures.ranking_s.append(float(_find(r"model under loo-full: \d+ users in ([\d.]+) s", log)))
        figures.evaluate_bytes.append(took.peak_bytes)
        output = folder / f"recommendations-{number}"
        took, log = _run(folder, ["recommend", *inputs, "--model", str(model), "--output", str(output)])
        figures.users_per_s.append(float(_find(r"\((\d+) users/s\)", log)))
        figures.recommend_bytes.append(took.peak_bytes)
    return figures


def format_table(all_figures: list[Figures]) -> str:
    """Returns the Markdown table: medians."""
    lines = [
        "| users x items | whole catalogue ranked in | pairs/s | memory | recommend, users/s | memory |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for figures in all_figures:
        shape, seconds = figures.shape, statistics.median(figures.ranking_s)
        cells = (
            f"{shape.num_users:,} x {shape.num_items:,}",
            f"{seconds:.2f} s",
            f"{shape.num_users * shape.num_items / seconds / 1e6:.0f} M",
            f"{statistics.median(figures.evaluate_bytes) / 1e6:,.0f} MB",
            f"{statistics.median(figures.users_per_s):,.0f}",
            f"{statistics.median(figures.recommend_bytes) / 1e6:,.0f} MB",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _run(folder: Path, arguments: list[str]) -> tuple[Measurement, str]:
    log = folder / "log"
    output = Path(arguments[arguments.index("--output") + 1])
    took = measure([str(NEUMF), *arguments], output, log, os.environ)
    return took, log.read_text(errors="replace")


def _find(pattern: str, log: str) -> str:
    found = re.search(pattern, log)
    if found is None:
        raise CommandFailedError(f"nothing like {pattern!r} in:\n{log}")
    return found[1]


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Runs of each command.")
@click.option("--rows", type=int, default=ML_20M_ROWS, show_default=True, help="Made-up ratings of the larger shape.")
@click.option("--skip-large", is_flag=True, help="Measure MovieLens 1M alone.")
@click.option("--mirror", help="Where ml-1m comes from, as neumf download takes it.  [default: NEUMF_MOVIELENS_MIRROR, "
              "or a folder shared/movielens beside the checkout]")  # fmt: skip
def main(rounds: int, rows: int, skip_large: bool, mirror: str | None) -> None:
    """Measure the ranking of whole catalogues and the writing of recommendations."""
    with tempfile.TemporaryDirectory(prefix="bench-evaluate-") as folder:
        bench = Bench(Path(folder), default_mirror() if mirror is None else mirror, rows, (), False)
        shapes = [SHAPES["ml-1m"]] if skip_large else list(SHAPES.values())
        try:
            figures = [measure_shape(bench, shape, rounds) for shape in shapes]
        except CommandFailedError as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"{psutil.cpu_count()} processors, rounds: {rounds}\n\n{format_table(figures)}")


if __name__ == "__main__":
    main()
